"""What the emulator says of kernels that are wrong."""

from pathlib import Path

import numpy as np
import pytest
import torch

from engine.kernels.gpu.compiler import CompileFailed
from engine.kernels.gpu.module import Argument
from tests.emulation.library import EmulatedLibrary, EmulationFailed

HERE = Path(__file__).parent
SAID = {
    "different_intrinsics": r"calls (__shfl_xor_sync|a vote) at .*mistakes.cu:\d+ while others of its warp call",
    "end_early": r"(ended while others of its warp wait for it in __shfl_xor_sync|lane 5 of the mask ffffffff has ended)",
    "missing_in_mask": r"thread (5|37) .* with the mask ffffffdf, which lacks it",
    "wait_for_nobody": r"waits forever for a barrier's phase at .*mistakes.cu:\d+",
    "half_at_barrier": r"thread 0 .* waits forever for __syncthreads at .*; thread 5 .* waits forever for a named barrier",
    "two_places": r"wait in __syncthreads at different places",
    "raw_barrier": r"thread 5 .* uses a barrier that was not made",
    "odd_copy": r"thread 5 .* gives a bulk copy an address that is no multiple of 16",
    "not_shared": r"thread 5 .* for a place in shared memory",
    "misaligned": r"thread 5 .* not aligned for at .*mistakes.cu:\d+",
    "beyond_an_array": r"thread 5 .* takes element 64 of an array that has less at .*mistakes.cu:\d+",
    "one_too_far": r"thread 63 .* writes 4 bytes 0 bytes behind argument 0 at mistakes.cu:\d+",
    "one_before": r"thread 0 .* reads 4 bytes 4 bytes before argument 0 at mistakes.cu:\d+",
    "copy_too_far": r"thread 63 .* copies 16 bytes 0 bytes behind argument 0",
    "behind_the_end": r"writes 1 bytes 0 bytes behind the 256 of shared memory at mistakes.cu:\d+",
    "no_memory": r"thread 5 of block \(\d, 0, 0\) writes 4 bytes in no tensor at mistakes.cu:\d+",
    "different_products": r"calls mma_16816 at .*mistakes.cu:\d+, others of its warp at",
}


@pytest.fixture(scope="module")
def library() -> EmulatedLibrary:
    return EmulatedLibrary(sources=HERE)


@pytest.mark.parametrize("kernel", SAID)
def test_a_mistake_is_told(library: EmulatedLibrary, kernel: str) -> None:
    out = torch.zeros(64, dtype=torch.int32)  # ends where a cache line does
    with pytest.raises(EmulationFailed, match=rf"^{kernel}: .*{SAID[kernel]}"):
        library.get("mistakes.cu", kernel, {}, shared_bytes=256)(2, 64, out)


def test_the_library_goes_on_after_a_mistake(library: EmulatedLibrary) -> None:
    kernel = library.get("threads.cu", "places", {})
    for _ in range(3):
        with pytest.raises(EmulationFailed):
            library.get("mistakes.cu", "no_memory", {})(1, 64, torch.zeros(64, dtype=torch.int32))
        out = torch.full((2, 64), -1, dtype=torch.int32)
        kernel(2, 64, out)
        assert out.equal((torch.arange(2)[:, None] * 1000 + torch.arange(64)).int())


@pytest.mark.parametrize(
    "args", [(), (torch.zeros(8), 1), (np.int64(8),), (torch.zeros(8, dtype=torch.int32), torch.zeros(8))]
)
def test_arguments_of_other_kinds_are_refused(library: EmulatedLibrary, args: tuple[Argument, ...]) -> None:
    with pytest.raises(EmulationFailed, match="places takes p, got"):
        library.get("threads.cu", "places", {})(1, 32, *args)


@pytest.mark.parametrize(("grid", "block"), [(0, 32), ((1, 2**16, 1), 32), (1, 1025), (1, 0)])
def test_launches_that_cannot_be_are_refused(
    library: EmulatedLibrary, grid: int | tuple[int, int, int], block: int
) -> None:
    with pytest.raises(EmulationFailed, match="cannot be launched"):
        library.get("threads.cu", "places", {})(grid, block, torch.zeros(2000, dtype=torch.int32))


def test_a_kernel_that_never_ends_is_stopped() -> None:
    library = EmulatedLibrary(sources=HERE, max_seconds=1)
    flag = torch.zeros(1, dtype=torch.int32)
    with pytest.raises(EmulationFailed, match=r"was running when the launch's time was over"):
        library.get("mistakes.cu", "wait_for_another_block", {})(2, 32, flag)


def test_too_much_shared_memory_is_refused(library: EmulatedLibrary) -> None:
    kernel = library.get("threads.cu", "leftovers", {}, shared_bytes=227 << 10)
    with pytest.raises(EmulationFailed, match="more shared memory than a block has"):
        kernel(1, 64, torch.zeros(128))


def test_sources_that_do_not_compile_are_refused(tmp_path: Path) -> None:
    (tmp_path / "wrong.cu").write_text(
        '#include "types.cuh"\nextern "C" __global__ void f(int* x) { x = y; }\n'
    )
    library = EmulatedLibrary(cache_dir=tmp_path / "cache", sources=tmp_path)
    with pytest.raises(CompileFailed, match="'y'|‘y’"):
        library.get("wrong.cu", "f", {})
    assert not list((tmp_path / "cache").iterdir())
