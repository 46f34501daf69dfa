"""The products for 17 to 32 tokens, with what is fused around them, against float32; fewer tokens too."""

import pytest
import torch
import torch.nn.functional as F

from engine.kernels.gpu.module import KernelLibrary
from engine.kernels.gpu.skinny_wide import (
    MAX_TOKENS,
    TILE,
    Tiling,
    WideInput,
    WideInputs,
    WideProduct,
    make_wide_product,
    pick_tiling,
)
from tests.kernels.gpu.skinny_case import ELEMENT, EPS, GEOMETRY, Case, QkvCase, close

# Of 32 and of more channels; groups that are all whole and last ones that are not; blocks with one group and with several.
TILINGS = (None, Tiling(1, 32, 3), Tiling(2, 64, 3), Tiling(3, 64, 4), Tiling(7, 32, 3))
SLICED_TILINGS = (*TILINGS, Tiling(2, 64, 3, 2), Tiling(4, 32, 3, 4))

by_tokens = pytest.mark.parametrize("num_tokens", [1, 7, 16, 17, 24, 31, 32])
by_tiling = pytest.mark.parametrize("tiling", TILINGS, ids=str)
by_any_tiling = pytest.mark.parametrize("tiling", SLICED_TILINGS, ids=str)


def sizes(library: KernelLibrary, tiling: Tiling | None) -> tuple[int, int]:
    """In and out."""
    if library.device.type == "cuda":
        return 1536, 1120
    return (96 if tiling is None else 3 * tiling.stage * tiling.slices), 160


def make_product(
    library: KernelLibrary, kind: str, weight: torch.Tensor, tiling: Tiling | None, **defines: int
) -> WideProduct:
    return make_wide_product(library, kind, (weight.shape[0], weight.shape[1]), defines, tiling)


def make_input(library: KernelLibrary, case: Case) -> WideInput:
    made = WideInputs(library, case.norm.shape[0], {})(case.stream, case.norm, ELEMENT)
    check_input(made, case.stream, case.norm)
    return made


def check_input(made: WideInput, stream: torch.Tensor, norm: torch.Tensor) -> None:
    assert torch.equal(made.weighted, (stream * norm).to(ELEMENT))
    wanted = stream.square().view(len(stream), -1, TILE).sum(-1)
    torch.testing.assert_close(made.squares[:, : len(stream)].t(), wanted, rtol=1e-5, atol=1e-5)


@by_tokens
@by_any_tiling
def test_stored(kernel_library: KernelLibrary, tiling: Tiling | None, num_tokens: int) -> None:
    num_in, num_out = sizes(kernel_library, tiling)
    case = Case(num_in, num_out, num_tokens, kernel_library.device)
    out = torch.full((num_tokens, num_out), torch.nan, dtype=ELEMENT, device=kernel_library.device)
    product = make_product(kernel_library, "STORED", case.weight, tiling)
    for _ in range(2):  # what the first leaves behind is no worse than what it found
        product(num_tokens, case.weight, case.bias, case.x, out.fill_(torch.nan))
        assert close(out, case.product)


@by_tokens
@by_any_tiling
def test_added(kernel_library: KernelLibrary, tiling: Tiling | None, num_tokens: int) -> None:
    num_in, num_out = sizes(kernel_library, tiling)
    device = kernel_library.device
    case = Case(num_in, num_out, num_tokens, device)
    residual, norm = torch.randn(num_tokens, num_out).to(device), torch.randn(num_out).to(device)
    wanted = residual + case.product
    made = WideInput(
        torch.full((num_tokens, num_out), torch.nan, dtype=ELEMENT, device=device),
        torch.full((num_out // TILE, MAX_TOKENS), torch.nan, device=device),
    )
    product = make_product(kernel_library, "ADDED", case.weight, tiling)
    product(num_tokens, case.weight, case.bias, case.x, residual, norm, made.weighted, made.squares)
    assert close(residual, wanted)
    check_input(made, residual, norm)


@by_tokens
@by_tiling
def test_gated(kernel_library: KernelLibrary, tiling: Tiling | None, num_tokens: int) -> None:
    num_in, num_out = sizes(kernel_library, tiling)
    case = Case(num_in, num_out, num_tokens, kernel_library.device)
    out = torch.full((num_tokens, num_out // 2), torch.nan, dtype=ELEMENT, device=kernel_library.device)
    source = make_input(kernel_library, case)
    product = make_product(kernel_library, "GATED", case.weight, tiling)
    product(num_tokens, case.weight, None, source.weighted, source.squares, EPS, out)
    gate, up = (case.normed_product - case.bias.float()).chunk(2, dim=-1)
    assert close(out, F.silu(gate) * up)


@by_tokens
@by_tiling
def test_queries_keys_and_values(
    kernel_library: KernelLibrary, tiling: Tiling | None, num_tokens: int
) -> None:
    case = QkvCase(sizes(kernel_library, tiling)[0], num_tokens, kernel_library.device)
    source = make_input(kernel_library, case)
    product = make_product(kernel_library, "QKV", case.weight, tiling, **GEOMETRY)
    product(num_tokens, case.weight, case.bias, source.weighted, source.squares, EPS, *case.results)
    case.check()


def test_a_token_does_not_depend_on_how_many_there_are(kernel_library: KernelLibrary) -> None:
    num_in, num_out = sizes(kernel_library, None)
    case = Case(num_in, num_out, MAX_TOKENS, kernel_library.device)
    product = make_product(kernel_library, "STORED", case.weight, None)
    outs = [torch.empty(n, num_out, dtype=ELEMENT, device=kernel_library.device) for n in (17, MAX_TOKENS)]
    for out in outs:
        product(len(out), case.weight, None, case.x, out)
    assert torch.equal(outs[0], outs[1][:17])


@pytest.mark.parametrize("limit", [99 << 10, 227 << 10])
@pytest.mark.parametrize("shape", [(576, 576), (576, 1536), (3072, 2048), (28672, 4096), (4096, 14368)])
def test_every_shape_finds_room(shape: tuple[int, int], limit: int) -> None:
    num_out, num_in = shape
    tiling = pick_tiling(num_out, num_in, 132, limit)
    assert num_in % tiling.stage == 0 and tiling.shared_bytes() <= limit and tiling.num_stages >= 3


def test_large_products_keep_every_multiprocessor_as_busy() -> None:
    """Of an H100, for an 8B Llama: 128 blocks of whole groups, or twice as many."""
    shapes = (6144, 4096), (4096, 4096), (28672, 4096), (4096, 14336)
    picked = [pick_tiling(*shape, 132, 227 << 10) for shape in shapes]
    items = [tiling.num_groups(out) * tiling.slices for tiling, (out, _) in zip(picked, shapes, strict=True)]
    assert items == [128, 128, 256, 128]
    assert [tiling.slices for tiling in picked] == [1, 1, 1, 2], "only the longest rows are cut"
