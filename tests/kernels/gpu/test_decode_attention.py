"""Decode attention against float32 attention in torch: any mix of rows, whatever is stale in the cache, however the work is cut."""

from dataclasses import replace

import pytest
import torch

from engine.batch import DeviceBatch
from engine.kernels.gpu.decode_attention import DecodeAttention, plan_decode
from engine.kernels.gpu.decode_tiles import DecodeTiles
from engine.kernels.gpu.module import KernelLibrary
from engine.kernels.gpu.shape import AttentionShape
from engine.kernels.ops import LayerCache
from tests.emulation.library import EmulatedLibrary
from tests.kernels.gpu.paged import (
    Span,
    decode_tokens,
    find_tiles,
    make_cache,
    make_paged_batch,
    make_qkv,
    move_batch,
    random_spans,
    reference_attention,
)

BF16, FP16 = torch.bfloat16, torch.float16
SHAPES = {
    "llama": AttentionShape(8, 2, 128, 16, BF16, 0, 128**-0.5),
    "smollm": AttentionShape(9, 3, 64, 16, BF16, 0, 64**-0.5),
    "multi-head": AttentionShape(3, 3, 96, 32, FP16, 0, 0.1),
    "multi-query": AttentionShape(16, 1, 128, 48, FP16, 0, 0.09),
    "eleven-of-one": AttentionShape(11, 1, 64, 32, BF16, 0, 0.125),
    "gemma": AttentionShape(4, 2, 256, 32, BF16, 70, 0.06, 20.0),
    "wide-group": AttentionShape(12, 1, 256, 16, FP16, 33, 0.06, 5.0),
    "one-token-window": AttentionShape(4, 4, 64, 16, BF16, 1, 0.125),
}
Problem = tuple[torch.Tensor, DeviceBatch, LayerCache]


@pytest.fixture(params=list(SHAPES.values()), ids=list(SHAPES))
def shape(request: pytest.FixtureRequest) -> AttentionShape:
    shape: AttentionShape = request.param
    return shape


def make_problem(
    spans: list[Span],
    shape: AttentionShape,
    device: torch.device,
    generator: torch.Generator,
    pad_rows: int = 3,
) -> Problem:
    made = make_paged_batch(spans, shape, generator, pad_rows=pad_rows, pad_tokens=5)
    batch = move_batch(made, device)
    return make_qkv(batch, shape, generator), batch, make_cache(batch, shape, generator)


class Decode:
    """The kernel, and the one that finds its tiles."""

    def __init__(
        self, library: KernelLibrary, shape: AttentionShape, deterministic: bool = False, max_rows: int = 0
    ) -> None:
        self._tiles = DecodeTiles(library, shape, deterministic)
        self._kernel = DecodeAttention(library, shape, deterministic, max_rows)

    def __call__(self, qkv: torch.Tensor, batch: DeviceBatch, cache: LayerCache, out: torch.Tensor) -> None:
        self._kernel(qkv, find_tiles(batch, self._tiles), cache, out)


def attend(kernel: Decode, problem: Problem, shape: AttentionShape) -> torch.Tensor:
    """Element [tokens, heads * head_dim]; NaN where the kernel wrote nothing."""
    qkv, batch, cache = problem
    out = torch.full((qkv.shape[0], shape.num_heads * shape.head_dim), torch.nan, dtype=qkv.dtype)
    out = out.to(qkv.device)
    kernel(qkv, batch, cache, out)
    return out.cpu()


def check(out: torch.Tensor, problem: Problem, shape: AttentionShape) -> None:
    tokens = decode_tokens(problem[1]).cpu()
    expected = reference_attention(*problem, shape).cpu()[tokens]
    tolerance = 2e-2 if shape.element == BF16 else 4e-3
    torch.testing.assert_close(out[tokens].float(), expected, rtol=tolerance, atol=tolerance)
    others = torch.ones(len(out), dtype=torch.bool)
    others[tokens] = False
    assert out[others].isnan().all()


def is_emulated(library: KernelLibrary) -> bool:
    return isinstance(library, EmulatedLibrary)


@pytest.mark.parametrize("deterministic", [False, True])
def test_ragged_rows(
    kernel_library: KernelLibrary,
    device: torch.device,
    generator: torch.Generator,
    shape: AttentionShape,
    deterministic: bool,
) -> None:
    num_rows, max_context = (7, 200) if is_emulated(kernel_library) else (150, 3000)
    kernel = Decode(kernel_library, shape, deterministic, num_rows + 3)
    for _ in range(2):
        spans = random_spans(num_rows, 5, max_context, generator)
        problem = make_problem(spans, shape, device, generator)
        for _ in range(2):  # the second launch finds the counters as the first left them
            check(attend(kernel, problem, shape), problem, shape)


@pytest.mark.parametrize("context", [1, 15, 16, 17, 600, 1500])
@pytest.mark.parametrize("deterministic", [False, True])
def test_one_row(
    kernel_library: KernelLibrary,
    device: torch.device,
    generator: torch.Generator,
    context: int,
    deterministic: bool,
) -> None:
    shape = SHAPES["smollm"]
    problem = make_problem([Span(1, context)], shape, device, generator)
    kernel = Decode(kernel_library, shape, deterministic, 4)
    check(attend(kernel, problem, shape), problem, shape)


def test_many_short_rows_among_waiting_ones(
    kernel_library: KernelLibrary, device: torch.device, generator: torch.Generator
) -> None:
    """More rows than lanes, so that a row is looked up in two steps; pairs shorter than a warp's range."""
    shape = SHAPES["smollm"]
    num_tokens = torch.randint(0, 3, (100,), generator=generator).tolist()
    contexts = torch.randint(2, 40, (100,), generator=generator).tolist()
    spans = [Span(n, context) for n, context in zip(num_tokens, contexts, strict=True)]
    problem = make_problem(spans, shape, device, generator)
    check(attend(Decode(kernel_library, shape), problem, shape), problem, shape)


@pytest.mark.parametrize("num_multiprocessors", [6, 24])
@pytest.mark.parametrize("context", [200, 512, 513])
def test_few_rows(num_multiprocessors: int, context: int, generator: torch.Generator) -> None:
    """A pair a block, where there are as many blocks and no pair is long; among them rows that do nothing or more."""
    library, shape = EmulatedLibrary(num_multiprocessors=num_multiprocessors), SHAPES["smollm"]
    spans = [Span(0, 20), Span(1, 1), Span(1, context), Span(3, 30), Span(1, 47), Span(0, 5)]
    problem = make_problem(spans, shape, library.device, generator)
    kernel = Decode(library, shape)
    for _ in range(2):
        check(attend(kernel, problem, shape), problem, shape)


@pytest.mark.parametrize(("num_rows", "pad_rows"), [(28, 3), (29, 3), (32, 0), (32, 1), (40, 3)])
def test_a_block_for_every_pair(num_rows: int, pad_rows: int, generator: torch.Generator) -> None:
    """Buckets of as many rows as lanes, of less and of more."""
    library, shape = EmulatedLibrary(num_multiprocessors=130), SHAPES["smollm"]
    contexts = torch.randint(1, 70, (num_rows,), generator=generator).tolist()
    spans = [Span(1, context) for context in contexts]
    problem = make_problem(spans, shape, library.device, generator, pad_rows)
    check(attend(Decode(library, shape), problem, shape), problem, shape)


def test_no_row_decodes(
    kernel_library: KernelLibrary, device: torch.device, generator: torch.Generator
) -> None:
    shape = SHAPES["llama"]
    problem = make_problem([Span(0, 9), Span(3, 20)], shape, device, generator)
    for deterministic in (False, True):
        kernel = Decode(kernel_library, shape, deterministic, 5)
        assert attend(kernel, problem, shape).isnan().all()


def test_large_scores(
    kernel_library: KernelLibrary, device: torch.device, generator: torch.Generator
) -> None:
    """Weights that differ by more than a float holds."""
    shape = replace(SHAPES["llama"], scale=8.0)
    spans = [Span(1, 130), Span(1, 77)]
    problem = make_problem(spans, shape, device, generator)
    check(attend(Decode(kernel_library, shape), problem, shape), problem, shape)


def test_deterministic_results_do_not_depend_on_batch_mates(
    kernel_library: KernelLibrary, device: torch.device, generator: torch.Generator
) -> None:
    shape = SHAPES["llama"]
    context = 900 if is_emulated(kernel_library) else 5000  # several splits
    problem = make_problem([Span(1, 60), Span(1, context), Span(1, 33)], shape, device, generator)
    kernel = Decode(kernel_library, shape, deterministic=True, max_rows=8)
    together = attend(kernel, problem, shape)[1]
    qkv, batch, cache = problem
    counts = batch.counts.clone()
    counts[0] = 1
    counts[2] = batch.decode_starts[2] - batch.decode_starts[1]
    alone = replace(
        batch,
        query_starts=batch.query_starts[1:],
        context_lens=batch.context_lens[1:],
        row_slots=batch.row_slots[1:],
        decode_starts=batch.decode_starts[1:] - batch.decode_starts[1],
        counts=counts,
    )
    assert torch.equal(attend(kernel, (qkv, alone, cache), shape)[1], together)


def test_repeated_launches_agree(
    kernel_library: KernelLibrary, device: torch.device, generator: torch.Generator
) -> None:
    shape = SHAPES["llama"]
    context = 500 if is_emulated(kernel_library) else 40000
    problem = make_problem([Span(1, context), Span(1, 90)], shape, device, generator)
    kernel = Decode(kernel_library, shape)
    first = attend(kernel, problem, shape)
    for _ in range(3):
        torch.testing.assert_close(attend(kernel, problem, shape), first, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("name", ["llama", "gemma"])
def test_copies_without_the_bulk_engine(name: str, generator: torch.Generator) -> None:
    """The code for architectures before sm_90."""
    library = EmulatedLibrary(architecture="sm_80", num_multiprocessors=4)
    shape, device = SHAPES[name], library.device
    problem = make_problem(random_spans(6, 4, 150, generator), shape, device, generator)
    check(attend(Decode(library, shape), problem, shape), problem, shape)


@pytest.mark.parametrize("heads", [(34, 2), (7, 2)])
def test_groups_that_do_not_fit_are_refused(heads: tuple[int, int]) -> None:
    shape = replace(SHAPES["llama"], num_heads=heads[0], num_kv_heads=heads[1])
    with pytest.raises(ValueError, match="query heads over 2 KV heads"):
        plan_decode(shape, "sm_90a")


def test_deterministic_needs_room_for_the_rows(
    kernel_library: KernelLibrary, device: torch.device, generator: torch.Generator
) -> None:
    shape = SHAPES["llama"]
    with pytest.raises(ValueError, match="max_rows"):
        Decode(kernel_library, shape, deterministic=True)
    problem = make_problem([Span(1, 5)], shape, device, generator)
    with pytest.raises(ValueError, match="at most 2"):
        attend(Decode(kernel_library, shape, deterministic=True, max_rows=2), problem, shape)


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90a"])
@pytest.mark.parametrize("group", [1, 4, 7, 8, 16])
@pytest.mark.parametrize("head_dim", [64, 96, 128, 256])
def test_plans_fit_in_shared_memory(architecture: str, group: int, head_dim: int) -> None:
    shape = AttentionShape(2 * group, 2, head_dim, 16, BF16, 0, 1.0)
    plan = plan_decode(shape, architecture)
    assert plan.shared_bytes <= (101_376 if architecture == "sm_80" else 232_448)
    tile_bytes = 16 * head_dim * 2 * 2
    assert plan.num_warps * (plan.num_stages - 1) * tile_bytes >= 40_000 or architecture == "sm_80"
