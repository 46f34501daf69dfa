"""Whole encoders on the GPU's kernels: every family and task against the plain operations in float32, by way of the runner."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.encode_step import EncodeInput, EncodePlan
from engine.kernels.gpu.module import KernelLibrary
from engine.runner.encoder import pack_inputs
from engine.runner.gpu.encoder import GpuEncoderRunner
from tests.engine.encoder_models import MASK_ID, VOCAB
from tests.kernels.gpu.encoder_models import CONFIGS, HEADS, Bench, save_random

TOLERANCE = {
    torch.bfloat16: 4e-2,
    torch.float16: 5e-3,
}  # of the norm of the difference of all answers, relative


@pytest.fixture
def rnd() -> random.Random:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")  # shown where a test fails
    torch.manual_seed(seed)  # of the weights
    return random.Random(seed)


def make_input(rnd: random.Random, length: int, num_types: int) -> EncodeInput:
    """One token in five is the mask."""
    ids = [MASK_ID if rnd.random() < 0.2 else rnd.randrange(MASK_ID + 1, VOCAB) for _ in range(length)]
    types = [rnd.randrange(num_types) for _ in ids] if num_types > 1 else None
    return EncodeInput(np.array(ids, np.int32), None if types is None else np.array(types, np.int32))


@torch.inference_mode()
def check_step(
    bench: Bench, runner: GpuEncoderRunner, inputs: tuple[EncodeInput, ...], step: int = 1
) -> None:
    result = runner.launch(EncodePlan(step, inputs)).result()
    assert (result.step, result.failed) == (step, {})
    assert result.num_tokens == sum(len(entry.token_ids) for entry in inputs)
    wanted = bench.twin()(pack_inputs(inputs))
    for got, want in zip(result.outputs, wanted, strict=True):
        assert got.dtype == np.float32 and got.shape == tuple(want.shape)
    got_all = torch.cat([torch.from_numpy(got).flatten() for got in result.outputs])
    want_all = torch.cat([want.flatten() for want in wanted])
    error = float((got_all - want_all).norm() / want_all.norm())
    assert error < TOLERANCE[bench.dtype], f"relative error {error:.2e}"


@pytest.mark.parametrize("task", HEADS)
@pytest.mark.parametrize("name", CONFIGS)
def test_families_and_tasks(
    kernel_library: KernelLibrary, rnd: random.Random, name: str, task: str, tmp_path: Path
) -> None:
    bench = Bench(kernel_library, save_random(name, task, tmp_path), torch.float16)
    runner = bench.runner()
    inputs = tuple(make_input(rnd, n, 2 if name.startswith(("bert", "albert")) else 1) for n in (9, 1, 40, 2))
    check_step(bench, runner, inputs)
    runner.close()


@pytest.mark.parametrize("name", ["bert", "deberta-v3", "modernbert"])
def test_bfloat16_and_long_inputs(
    kernel_library: KernelLibrary, rnd: random.Random, name: str, tmp_path: Path
) -> None:
    bench = Bench(kernel_library, save_random(name, "embed", tmp_path), torch.bfloat16)
    runner = bench.runner()
    check_step(bench, runner, tuple(make_input(rnd, n, 1) for n in (150, 1, 70)))
    runner.close()
