"""The products for a handful of tokens, with what is fused around them, against float32."""

import pytest
import torch
import torch.nn.functional as F

from engine.kernels.gpu.module import KernelLibrary
from engine.kernels.gpu.skinny_product import SkinnyProduct, make_product
from tests.kernels.gpu.skinny_case import ELEMENT, EPS, GEOMETRY, Case, QkvCase, close


def product_of(
    library: KernelLibrary, kind: str, weight: torch.Tensor, normed: bool, **defines: int
) -> SkinnyProduct:
    shape = weight.shape[0], weight.shape[1]
    return make_product(library, kind, shape, {"NORMED": int(normed), **defines})


def sizes(library: KernelLibrary) -> tuple[int, int]:
    return (96, 64) if library.device.type == "cpu" else (1536, 576)


@pytest.mark.parametrize("num_tokens", [1, 3, 8, 13, 16])
@pytest.mark.parametrize("normed", [False, True])
def test_stored(kernel_library: KernelLibrary, num_tokens: int, normed: bool) -> None:
    num_in, num_out = sizes(kernel_library)
    case = Case(num_in, num_out, num_tokens, kernel_library.device)
    out = torch.full((num_tokens, num_out), torch.nan, dtype=ELEMENT, device=kernel_library.device)
    product = product_of(kernel_library, "STORED", case.weight, normed)
    x = case.stream if normed else case.x
    product(num_tokens, case.weight, case.bias, x, case.norm, EPS, out)
    assert close(out, case.normed_product if normed else case.product)


@pytest.mark.parametrize("num_tokens", [1, 5, 16])
def test_added(kernel_library: KernelLibrary, num_tokens: int) -> None:
    num_in, num_out = sizes(kernel_library)
    case = Case(num_in, num_out, num_tokens, kernel_library.device)
    residual = torch.randn(num_tokens, num_out).to(kernel_library.device)
    wanted = residual + case.product
    product = product_of(kernel_library, "ADDED", case.weight, False)
    product(num_tokens, case.weight, case.bias, case.x, residual)
    assert close(residual, wanted)


@pytest.mark.parametrize("num_tokens", [1, 5, 16])
def test_gated(kernel_library: KernelLibrary, num_tokens: int) -> None:
    num_in, num_out = sizes(kernel_library)
    case = Case(num_in, num_out, num_tokens, kernel_library.device)
    out = torch.full((num_tokens, num_out // 2), torch.nan, dtype=ELEMENT, device=kernel_library.device)
    product = product_of(kernel_library, "GATED", case.weight, True)
    product(num_tokens, case.weight, None, case.stream, case.norm, EPS, out)
    gate, up = (case.normed_product - case.bias.float()).chunk(2, dim=-1)
    assert close(out, F.silu(gate) * up)


@pytest.mark.parametrize("num_tokens", [1, 7, 15])
def test_queries_keys_and_values(kernel_library: KernelLibrary, num_tokens: int) -> None:
    case = QkvCase(sizes(kernel_library)[0], num_tokens, kernel_library.device)
    product = product_of(kernel_library, "QKV", case.weight, True, **GEOMETRY)
    product(num_tokens, case.weight, case.bias, case.stream, case.norm, EPS, *case.results)
    case.check()
