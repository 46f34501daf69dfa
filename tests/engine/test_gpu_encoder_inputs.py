"""Which bucket an encoder's step takes, how its inputs lie in it, and whether it fits; no kernel runs."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import EngineConfig, settle
from engine.models import find_encoder
from engine.models.encoders.answers import AnswerPlan
from engine.models.encoders.packed import encoder_layout
from engine.runner.gpu.buckets import EncoderBucket, EncoderBuckets
from engine.runner.gpu.encoder_inputs import EncoderInputs
from engine.runner.gpu.encoder_memory import check_memory
from engine.runner.gpu.encoder_set import encoder_samples
from engine.runner.gpu.memory import GpuMemory, GpuMemoryTooSmall
from tests.kernels.encoder_inputs import pack

CPU = torch.device("cpu")
GIB = 1 << 30


@given(st.data(), st.integers(1, 700), st.integers(1, 20_000))
def test_a_bucket_holds_what_is_in_it(data: st.DataObject, max_inputs: int, max_tokens: int) -> None:
    buckets = EncoderBuckets(max_inputs, max_tokens)
    num_tokens = data.draw(st.integers(1, max_tokens))
    num_inputs = data.draw(st.integers(1, min(max_inputs, num_tokens)))
    num_picked = data.draw(st.none() | st.integers(0, num_tokens))
    bucket = buckets.find(num_inputs, num_tokens, num_picked)
    assert num_tokens <= bucket.num_tokens <= max_tokens
    assert num_inputs <= bucket.num_inputs <= max_inputs
    if num_picked is None:
        assert bucket.num_picked == 0
    else:
        assert max(num_picked, 1) <= bucket.num_picked <= max(1, 2 * num_picked)
    assert bucket.num_tokens <= max(num_tokens * 5 // 4, num_tokens + 31)
    assert buckets.find(bucket.num_inputs, bucket.num_tokens, num_picked) == bucket


def test_large_steps_have_little_padding() -> None:
    buckets = EncoderBuckets(512, 16384)
    for num_tokens in range(2048, 16385):
        assert buckets.find(16, num_tokens).num_tokens <= 1.0625 * num_tokens


@settings(max_examples=50, deadline=None)
@given(
    steps=st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=6), min_size=1, max_size=4),
    picks=st.booleans(),
)
def test_inputs_lie_in_their_bucket(steps: list[list[int]], picks: bool) -> None:
    """Whatever the step before left there."""
    buckets = EncoderBuckets(6, 180)
    inputs = EncoderInputs(buckets.largest, CPU)
    for lens in steps:
        batch = pack(lens)
        num_tokens, num_inputs = batch.num_tokens, batch.num_inputs
        batch = replace(batch, token_ids=batch.positions + 5, type_ids=batch.positions % 2)
        picked = torch.arange(0, num_tokens, 3, dtype=torch.int32) if picks else None
        plan = AnswerPlan(num_inputs, None, picked)
        bucket = buckets.find(num_inputs, num_tokens, None if picked is None else len(picked))
        inputs.write(batch, plan, bucket)
        found = inputs.batch(bucket)
        assert (found.num_tokens, found.num_inputs) == (bucket.num_tokens, bucket.num_inputs)
        for name in ("token_ids", "type_ids", "positions"):
            assert torch.equal(getattr(found, name)[:num_tokens], getattr(batch, name))
            assert not getattr(found, name)[num_tokens:].any()
        assert torch.equal(found.starts[: num_inputs + 1], batch.starts)
        assert (found.starts[num_inputs:] == num_tokens).all()
        check_picked(inputs.picked(bucket), picked)


def check_picked(found: torch.Tensor | None, picked: torch.Tensor | None) -> None:
    """found: as the device has it."""
    if picked is None:
        assert found is None
        return
    assert found is not None
    assert torch.equal(found[: len(picked)], picked)
    assert not found[len(picked) :].any()


@pytest.mark.parametrize("place", range(len(list(encoder_samples()))))
def test_what_does_not_fit_is_refused(place: int) -> None:
    encoder = list(encoder_samples())[place].config
    layout = encoder_layout(encoder, find_encoder(encoder.family))
    config = settle(EngineConfig(), "cuda", encodes=True)
    largest = EncoderBucket(config.max_batch_tokens, config.max_requests)

    def check(config: EngineConfig, free: int) -> None:
        check_memory(config, encoder, layout, torch.float16, largest, GpuMemory(80 * GIB, free))

    check(config, 40 * GIB)
    weights = sum(torch.Size(shape).numel() * 2 for shape in layout.shapes.values())
    with pytest.raises(
        GpuMemoryTooSmall, match=r"weights .* \+ steps .* lower max_batch_tokens or max_model"
    ):
        check(config, weights + GIB // 2)
    with pytest.raises(GpuMemoryTooSmall, match="gpu_memory = 40.50 GiB"):
        check(replace(config, gpu_memory=40 * GIB + GIB // 2), 40 * GIB)
