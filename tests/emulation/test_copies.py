"""The emulator's copies beside the threads, and the barriers they complete on."""

from pathlib import Path

import pytest
import torch

from tests.emulation.library import EmulatedLibrary

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def library() -> EmulatedLibrary:
    return EmulatedLibrary(sources=HERE)


@pytest.mark.parametrize("num_tiles", [0, 1, 2, 3, 4, 17])
def test_bulk_copies_complete_on_barriers(library: EmulatedLibrary, num_tiles: int) -> None:
    x = torch.randint(-100, 100, (num_tiles, 256)).float()
    out = torch.full((num_tiles,), torch.nan)
    library.get("copies.cu", "bulk_pipeline", {}, shared_bytes=3 * 1024)(1, 64, out, x, num_tiles)
    assert out.equal(x.sum(1))


@pytest.mark.parametrize(("num_tiles", "num_valid"), [(1, 1), (2, 1), (3, 3), (9, 7)])
def test_threads_own_copies(library: EmulatedLibrary, num_tiles: int, num_valid: int) -> None:
    x = torch.randn(num_tiles, 64, 4)
    out = torch.full((num_tiles, 64, 4), torch.nan)
    library.get("copies.cu", "threads_pipeline", {})(1, 64, out, x, num_tiles, num_valid)
    assert out[:num_valid].equal(x[:num_valid].roll(-1, 1))
    assert not out[num_valid:].any()


def test_a_bulk_copy_read_early_shows(library: EmulatedLibrary) -> None:
    out = torch.zeros(3)
    kernel = library.get("copies.cu", "bulk_pipeline", {"READ_EARLY": 1}, shared_bytes=3 * 1024)
    kernel(1, 64, out, torch.ones(3, 256), 3)
    assert out.isnan().any()


def test_a_threads_copy_read_early_shows(library: EmulatedLibrary) -> None:
    out = torch.zeros(9, 64, 4)
    library.get("copies.cu", "threads_pipeline", {"READ_EARLY": 1})(1, 64, out, torch.ones(9, 64, 4), 9, 9)
    assert out.isnan().any()


def test_named_barriers(library: EmulatedLibrary) -> None:
    x = torch.randint(-1000, 1000, (640,), dtype=torch.int32)
    out = torch.zeros_like(x)
    library.get("copies.cu", "hand_over", {})(1, 128, out, x, len(x))
    assert out.equal(x + 1)
