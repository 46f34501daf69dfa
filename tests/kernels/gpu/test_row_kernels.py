"""Rows kept on the device against rows kept on the CPU, under plans by lot: equal after every step."""

from dataclasses import replace
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.kernels.gpu.module import KernelLibrary
from engine.kernels.gpu.row_shape import StepShape
from engine.request import SamplingParams
from engine.runner.gpu.delta import build_delta
from engine.step import Admit, Plan
from tests.kernels.gpu.random_plans import Planner
from tests.kernels.gpu.row_twin import RowTwin

VOCAB = 13
SHAPES = [StepShape(16, 0, 32), StepShape(32, 24, 5)]


def drive(twin: RowTwin, random: Random, max_admits: int, num_steps: int) -> None:
    planner = Planner(random, twin.rows, VOCAB, twin.shape.block_size, max_admits)
    for _ in range(num_steps):
        planner.just_ended = twin.step(planner.plan(), random)


@pytest.mark.parametrize("shape", SHAPES, ids=["plain", "window"])
@given(seed=st.integers(0, 1 << 30))
@settings(max_examples=6, deadline=None)
def test_rows_follow_their_twin_through_whatever_happens(
    kernel_library: KernelLibrary, shape: StepShape, seed: int
) -> None:
    random = Random(seed)
    max_requests = random.choice((1, 3, 9)) if kernel_library.device.type == "cpu" else 40
    twin = RowTwin(kernel_library, shape, max_requests, 70, VOCAB)
    drive(twin, random, max_admits=max(2, max_requests // 3), num_steps=15)


@pytest.mark.parametrize("max_requests", [1100, pytest.param(4096, marks=pytest.mark.gpu)])
def test_more_rows_than_a_block_has_threads(kernel_library: KernelLibrary, max_requests: int) -> None:
    """So that its sums are carried over."""
    if max_requests > 1100 and kernel_library.device.type == "cpu":
        pytest.skip("slow where it is emulated")
    random = Random()
    twin = RowTwin(kernel_library, SHAPES[0], max_requests, 20, VOCAB)
    planner = Planner(random, twin.rows, VOCAB, 16, max_requests)
    admits = tuple(planner.admit(slot) for slot in random.sample(range(max_requests), max_requests))
    planner.just_ended = twin.step(Plan(1, admit=admits), random)
    planner.num_steps = 1
    for _ in range(2):
        planner.just_ended = twin.step(planner.plan(), random)


def test_a_long_prompt_is_copied_by_several_blocks(kernel_library: KernelLibrary) -> None:
    twin = RowTwin(kernel_library, SHAPES[0], 2, 10_000, VOCAB)
    token_ids = np.random.default_rng().integers(VOCAB, size=9_500).astype(np.int32)
    blocks = tuple(range(-(-len(token_ids) // 16)))
    params = SamplingParams(presence_penalty=1.0, max_tokens=9)
    long, short = Admit(1, token_ids, 9_000, 0, blocks, params), Admit(0, token_ids[:5], 5, 4, (7,), params)
    twin.step(Plan(1, admit=(long, short), chunks=((1, 9_500),)), Random())


def test_an_empty_plan_launches_nothing(
    kernel_library: KernelLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    twin = RowTwin(kernel_library, SHAPES[0], 2, 20, VOCAB)
    for name in ("_evict", "_reorder", "_apply"):
        monkeypatch.setattr(twin.kernels, name, None)
    twin.kernels.apply(build_delta(Plan(1), twin.device_rows))
    with pytest.raises(TypeError):
        twin.kernels.apply(build_delta(Plan(2, evict=(0,)), twin.device_rows))


def test_a_step_without_rows_is_a_step(kernel_library: KernelLibrary) -> None:
    twin = RowTwin(kernel_library, SHAPES[0], 3, 20, VOCAB)
    for step in (1, 2):
        assert twin.step(Plan(step), Random()) == set()


@pytest.mark.gpu
def test_captured_steps_go_on_by_themselves(kernel_library: KernelLibrary) -> None:
    """The host launches a graph again and again, and each launch finds the rows as the last one left them."""
    if kernel_library.device.type == "cpu":
        pytest.skip("graphs are the GPU's")
    random, max_len = Random(), 40
    twin = RowTwin(kernel_library, SHAPES[0], 4, max_len, VOCAB)
    planner = Planner(random, twin.rows, VOCAB, 16, 4)
    drawn = [planner.admit(slot) for slot in (3, 1)]
    admits = tuple(replace(admit, num_cached=len(admit.token_ids) - 1) for admit in drawn)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.stream(stream):
        twin.kernels.apply(build_delta(Plan(1, admit=admits), twin.device_rows))
        twin.buffers.codes.fill_(5)
        graph.capture_begin()
        twin.kernels.plan_step(4, 4)
        twin.kernels.finish()
        twin.kernels.reorder()
        graph.capture_end()
        for _ in range(3):
            graph.replay()
    stream.synchronize()
    entries = [twin.ring.read(step) for step in (1, 2, 3)]
    assert entries[0].slots.tolist() == [3, 1]
    for before, after in zip(entries, entries[1:], strict=False):
        assert after.num_rows == len(before.slots) - int((before.finishes != 0).sum())
