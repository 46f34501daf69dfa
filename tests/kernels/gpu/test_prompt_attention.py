"""The attention of prompt chunks by mma.sync against plain float32 attention."""

from dataclasses import replace

import pytest
import torch

from engine.kernels.gpu.attention_mma import HEAD_DIMS, mma_tile
from engine.kernels.gpu.module import KernelLibrary
from engine.kernels.gpu.prompt_attention import PromptAttention, make_prompt_attention, prompt_tile
from engine.kernels.gpu.prompt_attention_sm90 import PromptAttentionSm90
from engine.kernels.gpu.shape import AttentionShape
from tests.kernels.gpu.paged import (
    Span,
    make_cache,
    make_paged_batch,
    make_qkv,
    move_batch,
    prompt_tokens,
    random_spans,
    reference_attention,
)

SMALL = AttentionShape(4, 2, 64, 16, torch.bfloat16, window=0, scale=0.125)
TOLERANCE = {torch.bfloat16: 2e-2, torch.float16: 3e-3}


def check(
    library: KernelLibrary,
    shape: AttentionShape,
    spans: list[Span],
    generator: torch.Generator,
    num_calls: int = 1,
) -> None:
    tile = prompt_tile(shape)
    batch = make_paged_batch(spans, shape, generator, prompt_tile=tile, pad_rows=2, pad_tokens=5)
    batch = move_batch(batch, library.device)
    qkv, cache = make_qkv(batch, shape, generator), make_cache(batch, shape, generator)
    tokens = prompt_tokens(batch).to(library.device)
    expected = reference_attention(qkv, batch, cache, shape)[tokens]
    others = torch.ones(batch.num_tokens, dtype=torch.bool, device=library.device)
    others[tokens] = False
    attention = PromptAttention(library, shape)
    for _ in range(num_calls):
        out = qkv.new_full((batch.num_tokens, shape.num_heads * shape.head_dim), torch.nan)
        attention(qkv, batch, cache, out)
        torch.testing.assert_close(out[tokens].float(), expected, atol=TOLERANCE[shape.element], rtol=2e-2)
        assert out[others].isnan().all()  # nobody else's tokens are written


@pytest.mark.parametrize(
    ("head_dim", "num_heads", "num_kv_heads", "block_size"),
    [(64, 9, 3, 16), (64, 4, 4, 48), (96, 4, 4, 16), (96, 6, 2, 80), (128, 8, 2, 16), (128, 7, 1, 32), (256, 6, 2, 16)],
)  # fmt: skip
@pytest.mark.parametrize("element", TOLERANCE, ids=["bf16", "fp16"])
def test_ragged_rows(
    kernel_library: KernelLibrary,
    generator: torch.Generator,
    head_dim: int,
    num_heads: int,
    num_kv_heads: int,
    block_size: int,
    element: torch.dtype,
) -> None:
    shape = AttentionShape(num_heads, num_kv_heads, head_dim, block_size, element, 0, head_dim**-0.5)
    emulated = kernel_library.device.type == "cpu"
    spans = random_spans(3, 40, 160, generator) if emulated else random_spans(40, 700, 3000, generator)
    check(kernel_library, shape, [Span(35, 171), *spans], generator)


@pytest.mark.parametrize(
    ("tokens", "context"), [(2, 2), (33, 33), (64, 128), (65, 129), (128, 384), (3, 400)]
)
def test_edges_of_tiles(
    kernel_library: KernelLibrary, generator: torch.Generator, tokens: int, context: int
) -> None:
    check(kernel_library, SMALL, [Span(tokens, context)], generator)


@pytest.mark.parametrize("head_dim", [64, 96, 128, 256])
def test_long_contexts(kernel_library: KernelLibrary, generator: torch.Generator, head_dim: int) -> None:
    shape = replace(SMALL, num_heads=2, num_kv_heads=1, head_dim=head_dim, scale=head_dim**-0.5)
    check(kernel_library, shape, [Span(5, 1100), Span(66, 700), Span(2, 140)], generator)


@pytest.mark.parametrize("window", [1, 7, 64, 65, 100])
def test_window(kernel_library: KernelLibrary, generator: torch.Generator, window: int) -> None:
    spans = [Span(70, 70), Span(5, 300), Span(1, 200), Span(40, 200)]
    check(kernel_library, replace(SMALL, window=window), spans, generator)


def test_window_of_large_heads(kernel_library: KernelLibrary, generator: torch.Generator) -> None:
    check(kernel_library, replace(SMALL, head_dim=256, scale=0.0625, window=40), [Span(70, 170)], generator)


def test_softcap(kernel_library: KernelLibrary, generator: torch.Generator) -> None:
    shape = replace(SMALL, softcap=0.7, scale=0.6)
    check(kernel_library, shape, [Span(50, 130), Span(9, 9)], generator)


def test_steps_without_prompts(kernel_library: KernelLibrary, generator: torch.Generator) -> None:
    check(kernel_library, SMALL, [Span(1, 20), Span(0, 30), Span(1, 1)], generator)


def test_counters_are_ready_for_the_next_launch(
    kernel_library: KernelLibrary, generator: torch.Generator
) -> None:
    check(kernel_library, SMALL, [Span(40, 90), Span(1, 5), Span(130, 130)], generator, num_calls=3)


def test_many_rows(kernel_library: KernelLibrary, generator: torch.Generator) -> None:
    spans = [Span(0, 40)] * 40 + [Span(3, 10 + i) for i in range(5)] + [Span(1, 9)] * 30 + [Span(2, 33)]
    check(kernel_library, replace(SMALL, num_heads=2, num_kv_heads=1), spans, generator)


def test_more_rows_than_one_search_tells_apart(
    kernel_library: KernelLibrary, generator: torch.Generator
) -> None:
    shape = replace(SMALL, num_heads=1, num_kv_heads=1)
    spans = [Span(2, 3 + i % 7) if i % 41 == 5 else Span(0, 1) for i in range(1100)]
    check(kernel_library, shape, spans, generator)


@pytest.mark.parametrize("scale", [3.0, 30.0])
def test_great_scores(kernel_library: KernelLibrary, generator: torch.Generator, scale: float) -> None:
    check(kernel_library, replace(SMALL, scale=scale), [Span(37, 260)], generator)


def test_groups_of_any_size(kernel_library: KernelLibrary, generator: torch.Generator) -> None:
    shape = replace(SMALL, num_heads=60, num_kv_heads=1)
    assert prompt_tile(shape) == 2
    check(kernel_library, shape, [Span(5, 70)], generator)


@pytest.mark.parametrize("head_dim", HEAD_DIMS)
def test_tiles_fit_every_gpu(head_dim: int) -> None:
    assert mma_tile(head_dim).shared_bytes <= 99 << 10


def test_the_architecture_decides(kernel_library: KernelLibrary) -> None:
    kernel = make_prompt_attention(kernel_library, SMALL)
    assert isinstance(kernel, PromptAttentionSm90) == (kernel_library.architecture == "sm_90a")
    assert isinstance(make_prompt_attention(kernel_library, replace(SMALL, head_dim=96)), PromptAttention)


def test_unfit_shapes_are_refused(kernel_library: KernelLibrary) -> None:
    with pytest.raises(ValueError, match="heads of 80"):
        PromptAttention(kernel_library, replace(SMALL, head_dim=80))
    with pytest.raises(ValueError, match="5 query heads over 2"):
        prompt_tile(replace(SMALL, num_heads=5))
