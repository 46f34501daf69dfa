"""The emulator's products by fragments, against torch."""

from pathlib import Path

import pytest
import torch

from tests.emulation.library import EmulatedLibrary, EmulationFailed

HERE = Path(__file__).parent
ELEMENTS = {"bfloat16": (torch.bfloat16, {}), "float16": (torch.float16, {"ELEMENT_FP16": 1})}


@pytest.fixture(scope="module")
def library() -> EmulatedLibrary:
    return EmulatedLibrary(sources=HERE)


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("name", ELEMENTS)
def test_a_warps_product(library: EmulatedLibrary, name: str, transposed: int) -> None:
    dtype, defines = ELEMENTS[name]
    a, b = torch.randn(16, 16).to(dtype), torch.randn(16, 16).to(dtype)
    out = torch.full((16, 16), torch.nan)
    kernel = library.get("matrices.cu", "mma_warp", {**defines, "TRANSPOSED": transposed, "COLUMNS": 64})
    kernel(1, 32, out, a, b)
    right = b.float() if transposed else b.float().T
    torch.testing.assert_close(out, a.float() @ right, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("columns", [64, 128])
@pytest.mark.parametrize("name", ELEMENTS)
def test_a_warpgroups_products(library: EmulatedLibrary, name: str, columns: int) -> None:
    dtype, defines = ELEMENTS[name]
    a, b, c = (torch.randn(*size).to(dtype) for size in ((64, 64), (columns, 64), (columns, columns)))
    scores, out = torch.full((64, columns), torch.nan), torch.full((64, columns), torch.nan)
    defines = {**defines, "TRANSPOSED": 0, "COLUMNS": columns}
    num_bytes = 2 * (64 * 64 + columns * 64 + columns * columns)
    library.get("matrices.cu", "wgmma_chain", defines, num_bytes)(1, 128, scores, out, a, b, c)
    torch.testing.assert_close(scores, a.float() @ b.float().T, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(out, scores.to(dtype).float() @ c.float(), rtol=1e-5, atol=1e-3)


def test_sums_read_before_the_wait_are_wrong(library: EmulatedLibrary) -> None:
    a, b, c = (torch.ones(64, 64, dtype=torch.bfloat16) for _ in range(3))
    scores, out = torch.full((64, 64), torch.nan), torch.full((64, 64), torch.nan)
    defines = {"TRANSPOSED": 0, "COLUMNS": 64, "READ_EARLY": 1}
    library.get("matrices.cu", "wgmma_chain", defines, 3 * 8192)(1, 128, scores, out, a, b, c)
    assert not out.equal(torch.full((64, 64), 4096.0))


def test_tiles_written_without_a_fence_are_told(library: EmulatedLibrary) -> None:
    a, b, c = (torch.ones(64, 64, dtype=torch.bfloat16) for _ in range(3))
    defines = {"TRANSPOSED": 0, "COLUMNS": 64, "NO_PROXY_FENCE": 1}
    kernel = library.get("matrices.cu", "wgmma_chain", defines, 3 * 8192)
    with pytest.raises(EmulationFailed, match=r"a product at .*matrices.cu:\d+ touch what thread \d+ wrote"):
        kernel(1, 128, torch.empty(64, 64), torch.empty(64, 64), a, b, c)
