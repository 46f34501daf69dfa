"""The warpgroup kernel for prompt chunks against plain float32 attention."""

from dataclasses import replace

import pytest
import torch

from engine.kernels.gpu.module import KernelLibrary
from engine.kernels.gpu.prompt_attention_sm90 import QUERY_ROWS, PromptAttentionSm90
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


@pytest.fixture(autouse=True)
def hopper(kernel_library: KernelLibrary) -> None:
    if kernel_library.architecture != "sm_90a":
        pytest.skip("needs warpgroup products")


def check(
    library: KernelLibrary, shape: AttentionShape, spans: list[Span], seed: int, num_calls: int = 1
) -> None:
    generator = torch.Generator().manual_seed(seed)
    tile = QUERY_ROWS * shape.num_kv_heads // shape.num_heads
    batch = make_paged_batch(spans, shape, generator, prompt_tile=tile, pad_rows=2, pad_tokens=5)
    batch = move_batch(batch, library.device)
    qkv, cache = make_qkv(batch, shape, generator), make_cache(batch, shape, generator)
    tokens = prompt_tokens(batch).to(library.device)
    expected = reference_attention(qkv, batch, cache, shape)[tokens]
    attention = PromptAttentionSm90(library, shape)
    for _ in range(num_calls):
        out = qkv.new_full((batch.num_tokens, shape.num_heads * shape.head_dim), torch.nan)
        attention(qkv, batch, cache, out)
        others = torch.ones(batch.num_tokens, dtype=torch.bool, device=library.device)
        others[tokens] = False
        torch.testing.assert_close(out[tokens].float(), expected, atol=TOLERANCE[shape.element], rtol=2e-2)
        assert out[others].isnan().all()  # nobody else's tokens are written


@pytest.mark.parametrize(
    ("head_dim", "num_heads", "num_kv_heads", "block_size"),
    [(64, 9, 3, 16), (64, 4, 4, 48), (128, 8, 2, 16), (128, 7, 1, 32), (256, 4, 2, 16), (256, 8, 1, 256)],
)
@pytest.mark.parametrize("element", [torch.bfloat16, torch.float16])
def test_ragged_rows(
    kernel_library: KernelLibrary,
    head_dim: int,
    num_heads: int,
    num_kv_heads: int,
    block_size: int,
    element: torch.dtype,
) -> None:
    shape = AttentionShape(num_heads, num_kv_heads, head_dim, block_size, element, 0, head_dim**-0.5)
    emulated = kernel_library.device.type == "cpu"
    generator = torch.Generator().manual_seed(head_dim + num_heads)
    spans = random_spans(3, 40, 160, generator) if emulated else random_spans(40, 700, 3000, generator)
    check(kernel_library, shape, [Span(35, 171), *spans], seed=head_dim + block_size)


@pytest.mark.parametrize(
    ("tokens", "context"), [(2, 2), (33, 33), (64, 128), (65, 129), (128, 384), (3, 400)]
)
def test_edges_of_tiles(kernel_library: KernelLibrary, tokens: int, context: int) -> None:
    check(kernel_library, SMALL, [Span(tokens, context)], seed=tokens)


@pytest.mark.parametrize("head_dim", [64, 128, 256])
def test_stages_are_used_again(kernel_library: KernelLibrary, head_dim: int) -> None:
    shape = replace(SMALL, num_heads=2, num_kv_heads=1, head_dim=head_dim, scale=head_dim**-0.5)
    check(kernel_library, shape, [Span(5, 1100), Span(66, 700), Span(2, 140)], seed=head_dim)


@pytest.mark.parametrize("window", [1, 7, 100, 128, 129])
def test_window(kernel_library: KernelLibrary, window: int) -> None:
    check(
        kernel_library, replace(SMALL, window=window), [Span(70, 70), Span(5, 300), Span(1, 200)], seed=window
    )


def test_softcap(kernel_library: KernelLibrary) -> None:
    check(kernel_library, replace(SMALL, softcap=0.7, scale=0.6), [Span(50, 130), Span(9, 9)], seed=1)


def test_steps_without_prompts(kernel_library: KernelLibrary) -> None:
    check(kernel_library, SMALL, [Span(1, 20), Span(0, 30), Span(1, 1)], seed=2)


def test_counters_are_ready_for_the_next_launch(kernel_library: KernelLibrary) -> None:
    check(kernel_library, SMALL, [Span(40, 90), Span(1, 5), Span(130, 130)], seed=3, num_calls=3)


def test_many_rows(kernel_library: KernelLibrary) -> None:
    spans = [Span(0, 40)] * 40 + [Span(3, 10 + i) for i in range(5)] + [Span(1, 9)] * 30 + [Span(2, 33)]
    check(kernel_library, replace(SMALL, num_heads=2, num_kv_heads=1), spans, seed=4)


def test_great_scores(kernel_library: KernelLibrary) -> None:
    check(kernel_library, replace(SMALL, scale=30.0), [Span(37, 260)], seed=5)


def test_other_heads_are_refused(kernel_library: KernelLibrary) -> None:
    with pytest.raises(ValueError, match="heads of 96"):
        PromptAttentionSm90(kernel_library, replace(SMALL, head_dim=96))
