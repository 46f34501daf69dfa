"""What the host keeps and sends: deltas, biases, entries of the pools, staged words, the ring."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.kernels.gpu.module import KernelLibrary
from engine.request import SamplingParams
from engine.runner.gpu.delta import build_delta
from engine.runner.gpu.ring import NUM_ENTRIES, ResultRing
from engine.runner.gpu.rows import DeviceRows
from engine.runner.gpu.staging import NUM_BUFFERS, Staging
from engine.runner.gpu.vocab_entries import VocabEntries, make_biases
from engine.sampler.vocab import make_bias
from engine.step import Admit, Plan

VOCAB, CPU = 11, torch.device("cpu")
tokens = st.integers(0, VOCAB - 1)


def admit_of(
    slot: int, num_tokens: int = 1, num_blocks: int = 1, sampling: SamplingParams | None = None
) -> Admit:
    blocks = (0,) * num_blocks
    return Admit(slot, np.zeros(num_tokens, np.int32), 1, 0, blocks, sampling or SamplingParams())


@given(
    st.dictionaries(tokens, st.sampled_from([-1.0, 2.5, -math.inf])),
    st.lists(tokens).map(tuple),
    st.lists(tokens).map(tuple),
)
@settings(max_examples=100, deadline=None)
def test_sparse_biases_say_what_dense_ones_do(
    logit_bias: dict[int, float], allowed: tuple[int, ...], banned: tuple[int, ...]
) -> None:
    params = SamplingParams(logit_bias=logit_bias, allowed_token_ids=allowed, banned_token_ids=banned)
    biases = make_biases(params, VOCAB)
    if biases is None:
        assert not logit_bias and not allowed and not banned
        return
    dense = torch.full((VOCAB,), biases.background)
    dense[torch.from_numpy(biases.token_ids).long()] = torch.from_numpy(biases.values)
    assert torch.equal(dense, make_bias(params, VOCAB))


@pytest.mark.parametrize(
    ("params", "name"),
    [
        (SamplingParams(logit_bias={VOCAB: 1.0}), "logit_bias"),
        (SamplingParams(allowed_token_ids=(0, VOCAB)), "allowed_token_ids"),
        (SamplingParams(banned_token_ids=(VOCAB,)), "banned_token_ids"),
    ],
)
def test_a_token_outside_the_vocabulary_is_refused_by_name(params: SamplingParams, name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} has the token id 11; accepted: 0 to 10"):
        make_biases(params, VOCAB)


def test_entries_are_used_again_once_their_slot_ended() -> None:
    entries = VocabEntries(VOCAB, 2, CPU)
    params = SamplingParams(presence_penalty=1.0, logit_bias={3: 1.0})
    biases = make_biases(params, VOCAB)
    for step in range(1, 9, 2):
        for slot in (0, 1):
            given_entries = entries.give(admit_of(slot, sampling=params), biases, step)
            assert (given_entries.history >= 0, given_entries.bias >= 0) == (True, True)
        entries.end((0, 1), step - 1)  # those before them, in their slots
        assert entries.history.num_used == entries.bias.num_used == 2
        entries.end((0, 1), step)
        entries.end((0, 1, 5), step)
        assert entries.history.num_used == entries.bias.num_used == 0


def test_what_does_not_fit_is_refused_by_name_and_takes_nothing() -> None:
    rows = DeviceRows(2, 24, 6, VOCAB, CPU)
    params = SamplingParams(presence_penalty=1.0)
    many = SamplingParams(stop_token_ids=(1,) * 65)
    for admit, message in (
        (admit_of(0, num_tokens=25), "slot 0 needs 25 tokens; there are at most 24"),
        (admit_of(0, num_blocks=7), "slot 0 needs 7 blocks; there are at most 6"),
        (admit_of(2), "slot 2 needs 3 slots; there are at most 2"),
        (admit_of(0, sampling=many), "slot 0 needs 65 stop_token_ids; there are at most 64"),
        (admit_of(0, sampling=SamplingParams(banned_token_ids=(99,))), "has the token id 99"),
    ):
        with pytest.raises(ValueError, match=message):
            build_delta(Plan(1, admit=(admit_of(1, sampling=params), admit)), rows)
        assert rows.vocab.history.num_used == 0
    with pytest.raises(ValueError, match="max_requests = 4097 is not accepted"):
        DeviceRows(4097, 1, 1, 1, CPU)


def test_a_delta_is_as_long_as_what_changes() -> None:
    rows = DeviceRows(4, 24, 6, VOCAB, CPU)
    plan = Plan(1, evict=(2,), blocks=((1, 7), (0, 8), (1, 9)), chunks=((3, 5),))
    delta = build_delta(plan, rows)
    assert delta.words.tolist() == [2, 1, 0, 1, 7, 8, 9, 0, 0, 1, 3, 5]
    assert (delta.num_evicted, delta.num_given) == (1, 4)


def test_staged_words_arrive_however_many_there_are(kernel_library: KernelLibrary) -> None:
    staging, generator = Staging(kernel_library.device), np.random.default_rng()
    words = [
        generator.integers(1 << 30, size=size).astype(np.int32)
        for size in (1, 5000, 3, 70_000, *range(1, 20))
    ]
    staged = []
    for one in words:
        written_over = one.copy()
        staged.append(staging.copy(written_over))
        written_over.fill(-1)
    assert len(words) > NUM_BUFFERS
    assert [tensor.tolist() for tensor in staged] == [one.tolist() for one in words]


def test_a_step_that_is_not_in_the_ring_is_not_read() -> None:
    ring = ResultRing(3, CPU)
    ring.memory[2 % NUM_ENTRIES, :16] = torch.tensor([2, 0, 2, 0, 2, 0, 7, 0, 5, 0, 6, 0, 1, 0, 0, 0])
    ring.memory[2 % NUM_ENTRIES, 16:25] = torch.arange(9)
    assert ring.done(2) and not ring.done(6)
    with pytest.raises(LookupError, match="the ring has step 2 where step 6 was looked for"):
        ring.read(6)
    entry = ring.read(2)
    ring.memory.fill_(-1)
    assert (entry.slots.tolist(), entry.codes.tolist(), entry.finishes.tolist()) == ([0, 1], [3, 4], [6, 7])
    assert (entry.num_rows, entry.num_tokens, entry.num_live) == (2, 7, 1)
    assert (entry.begin_ns, entry.end_ns) == (5, 6)
