"""Kernels by name, compiled for one model and launched on torch's current stream."""

import ctypes
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from engine.kernels.gpu.compiler import Compiler, default_cache_dir, source_dir

# A tensor is passed as its address, an int as 32 bits, a float as float32; numpy's scalars as what they are.
Argument = torch.Tensor | int | float | np.generic | None
Grid = int | tuple[int, int, int]

NUM_COMPILERS = 8  # threads; NVRTC compiles one program on one core
WAIT = "wait_for_previous_kernel();"  # a call, not ptx.cuh's definition
_INCLUDE = re.compile(r'#include "(\w+\.cuh)"')
PLAIN_SHARED_BYTES = 48 << 10  # a launch that wants more has to ask for it


class Kernel(Protocol):
    """One entry point."""

    def __call__(self, grid: Grid, block: int, *args: Argument) -> None:
        """Launch `grid` blocks of `block` threads. Returns at once."""
        ...


class KernelLibrary(Protocol):
    """Where kernels come from."""

    @property
    def num_multiprocessors(self) -> int: ...

    @property
    def architecture(self) -> str:
        """What is compiled for, such as sm_90a."""
        ...

    @property
    def device(self) -> torch.device: ...

    def get(self, source: str, function: str, defines: Mapping[str, int], shared_bytes: int = 0) -> Kernel:
        """`function` of cuda/<source>, compiled with these defines; shared_bytes is dynamic shared memory of every launch.

        Errors: CompileFailed.
        """
        ...


class CupyLibrary:
    """KernelLibrary on a GPU: cubins from the compiler's cache, loaded through CuPy.

    Kernels are compiled by a few threads from the moment they are asked for, and waited for at their first launch.
    From Hopper on a kernel that waits for the one before it (ptx.cuh) may begin while that one ends.
    """

    def __init__(self, device: torch.device, cache_dir: Path | None = None) -> None:
        properties = torch.cuda.get_device_properties(device)
        self.device = device
        self.num_multiprocessors: int = properties.multi_processor_count
        self.architecture = architecture_of(properties.major, properties.minor)
        self._overlaps = properties.major >= 9
        self._compiler = Compiler(self.architecture, cache_dir or default_cache_dir())
        self._threads = ThreadPoolExecutor(NUM_COMPILERS, "nvrtc")
        self._cubins: dict[tuple[str, tuple[tuple[str, int], ...]], Future[Path]] = {}
        self._modules: dict[Path, Any] = {}

    def get(
        self, source: str, function: str, defines: Mapping[str, int], shared_bytes: int = 0
    ) -> "CupyKernel":
        key = source, tuple(sorted(defines.items()))
        if key not in self._cubins:
            self._cubins[key] = self._threads.submit(self._compiler.compile, source, dict(defines))
        overlapped = self._overlaps and waits_for_previous(source)
        return CupyKernel(self, self._cubins[key], function, shared_bytes, overlapped)

    def finish(self) -> None:
        """Wait until everything asked for so far is compiled. Errors: CompileFailed."""
        for cubin in self._cubins.values():
            cubin.result()

    def load(self, cubin: Path, function: str, shared_bytes: int) -> Any:
        """CuPy's own kernel."""
        import cupy  # pyright: ignore[reportMissingImports]

        if cubin not in self._modules:
            self._modules[cubin] = cupy.RawModule(path=str(cubin))
        kernel = self._modules[cubin].get_function(function)
        # A multiprocessor that changes its share of shared memory between two kernels runs dry first.
        kernel.preferred_shared_memory_carveout = 100
        if shared_bytes > PLAIN_SHARED_BYTES:
            kernel.max_dynamic_shared_size_bytes = shared_bytes
        return kernel


class CupyKernel:
    """A kernel that may still be compiling."""

    def __init__(
        self,
        library: CupyLibrary,
        cubin: "Future[Path]",
        function: str,
        shared_bytes: int,
        overlapped: bool,
    ) -> None:
        self._library = library
        self._cubin = cubin
        self._function = function
        self._shared_bytes = shared_bytes
        self._overlapped = overlapped
        self._kernel: Any = None

    def __call__(self, grid: Grid, block: int, *args: Argument) -> None:
        if self._kernel is None:
            self._kernel = self._library.load(self._cubin.result(), self._function, self._shared_bytes)
        stream = torch.cuda.current_stream(self._library.device).cuda_stream
        shape = (grid, 1, 1) if isinstance(grid, int) else grid
        launch(self._kernel.kernel.ptr, shape, block, self._shared_bytes, stream, args, self._overlapped)


def launch(
    function: int,
    grid: tuple[int, int, int],
    block: int,
    shared_bytes: int,
    stream: int,
    args: Sequence[Argument],
    overlapped: bool,
) -> None:
    """Queue a kernel. CuPy's own launch knows nothing of overlap (CUDA C++ Programming Guide, "Programmatic Dependent Launch")."""
    from cuda.bindings import driver  # pyright: ignore[reportMissingImports]

    config = driver.CUlaunchConfig()
    config.gridDimX, config.gridDimY, config.gridDimZ = grid
    config.blockDimX, config.blockDimY, config.blockDimZ = block, 1, 1
    config.sharedMemBytes, config.hStream = shared_bytes, driver.CUstream(stream)
    if overlapped:
        attribute = driver.CUlaunchAttribute()
        attribute.id = driver.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
        attribute.value.programmaticStreamSerializationAllowed = 1
        config.attrs, config.numAttrs = [attribute], 1
    words = [as_word(arg) for arg in args]
    packed = tuple(word.item() for word in words), tuple(_C_TYPES[type(word)] for word in words)
    (status,) = driver.cuLaunchKernelEx(config, driver.CUfunction(function), packed, 0)
    if status != driver.CUresult.CUDA_SUCCESS:
        raise RuntimeError(
            f"a kernel was not launched ({status}): grid {grid}, block {block}, {shared_bytes} B shared"
        )


_C_TYPES: dict[type[np.generic], type[Any]] = {  # not by dtype.name, which numpy spells out anew each time
    np.uint64: ctypes.c_void_p,
    np.int64: ctypes.c_int64,
    np.int32: ctypes.c_int32,
    np.uint32: ctypes.c_uint32,
    np.float32: ctypes.c_float,
    np.float64: ctypes.c_double,
}


@cache
def waits_for_previous(source: str) -> bool:
    """Whether the kernels of cuda/<source> wait for the one before them, before they touch what it may write.

    The call may lie in a header that the source includes.
    """
    text = (source_dir() / source).read_text()
    return WAIT in text or any(waits_for_previous(f"include/{header}") for header in _INCLUDE.findall(text))


def as_word(argument: Argument) -> np.generic:
    """An argument as the bits that the kernel takes."""
    match argument:
        case torch.Tensor():
            return np.uint64(argument.data_ptr())
        case None:
            return np.uint64(0)
        case np.generic():
            return argument
        case int():
            return np.int32(argument)
        case float():
            return np.float32(argument)


def architecture_of(major: int, minor: int) -> str:
    """The target for a device of this compute capability: code runs within its major version, and Hopper's own needs sm_90a."""
    if major < 8:
        raise ValueError(f"compute capability {major}.{minor} is too old; accepted: 8.0 (Ampere) and newer")
    if major == 9:
        return "sm_90a"
    return f"sm_{major}0"
