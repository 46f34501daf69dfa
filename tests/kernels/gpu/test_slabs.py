"""Products by slabs: right, and the same bits for a token wherever it lies among however many."""

import pytest
import torch

from engine.kernels.gpu.module import KernelLibrary
from engine.kernels.gpu.ops import GpuOps
from engine.kernels.gpu.slabs import SLAB_TOKENS, SlabLinear
from engine.kernels.ops import Linear

NUM_TOKENS = (1, 2, 17, SLAB_TOKENS - 1, SLAB_TOKENS, SLAB_TOKENS + 1, 2 * SLAB_TOKENS, 3 * SLAB_TOKENS + 5)


@pytest.fixture(scope="module")
def ops(kernel_library: KernelLibrary) -> GpuOps:
    return GpuOps(kernel_library, 16, deterministic=True, max_rows=8)


def widths(device: torch.device) -> list[tuple[int, int]]:
    """(in, out): on a GPU, those of 135M, 1B and 8B models."""
    if device.type == "cpu":
        return [(64, 96), (192, 40)]
    return [(576, 960), (1536, 576), (2048, 16384), (8192, 2048), (4096, 6144), (14336, 4096), (4096, 28672)]


def draw(device: torch.device, *sizes: int) -> torch.Tensor:
    return torch.randn(*sizes, device=device).bfloat16()


def check_places(product: Linear, tokens: torch.Tensor) -> None:
    """Each token's results, among all tokens and among few, first and last."""
    everything = product(tokens)
    for num_tokens in NUM_TOKENS:
        for start in {0, 1, tokens.shape[0] - num_tokens}:
            some = product(tokens[start : start + num_tokens].clone())
            assert some.is_contiguous()
            assert torch.equal(some, everything[start : start + num_tokens]), (num_tokens, start)
    turned = product(tokens.roll(37, 0)).roll(-37, 0)
    assert torch.equal(turned, everything)


@pytest.mark.parametrize("has_bias", [False, True])
def test_products(ops: GpuOps, device: torch.device, has_bias: bool) -> None:
    for width_in, width_out in widths(device):
        weight = draw(device, width_out, width_in) / width_in**0.5
        bias = draw(device, width_out) if has_bias else None
        product, tokens = ops.linear(weight, bias), draw(device, NUM_TOKENS[-1] + 1, width_in)
        out = product(tokens)
        truth = tokens.double() @ weight.double().t() + (0 if bias is None else bias.double())
        assert out.dtype == torch.bfloat16
        assert torch.allclose(out.double(), truth, rtol=0.01, atol=0.02)
        check_places(product, tokens)


def test_logits(ops: GpuOps, device: torch.device) -> None:
    width, vocab = (96, 1001) if device.type == "cpu" else (4096, 128256)
    weight, tokens = draw(device, vocab, width) / width**0.5, draw(device, NUM_TOKENS[-1] + 1, width)
    head = ops.head(weight)
    out = head(tokens)
    assert out.dtype == torch.float32
    truth = (tokens[-3:].double() @ weight.double().t()).float()
    assert torch.allclose(out[-3:], truth, rtol=1e-3, atol=1e-3)
    check_places(head, tokens)


def test_what_fills_a_slab_up_is_made_once_a_width(ops: GpuOps, device: torch.device) -> None:
    first, second = (ops.linear(draw(device, width, 64), None) for width in (8, 16))
    assert isinstance(first, SlabLinear) and isinstance(second, SlabLinear)
    assert first.zeros.data_ptr() == second.zeros.data_ptr()
    first(torch.full((3, 64), torch.inf, dtype=torch.bfloat16, device=device))
    assert not first.zeros.any()
