"""Kernels by name, compiled for one model and launched on torch's current stream."""

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
        self._launch: _Launch | None = None

    def __call__(self, grid: Grid, block: int, *args: Argument) -> None:
        if self._launch is None:
            kernel = self._library.load(self._cubin.result(), self._function, self._shared_bytes)
            self._launch = _Launch(kernel, self._shared_bytes, self._overlapped)
        stream = torch.cuda.current_stream(self._library.device).cuda_stream
        self._launch((grid, 1, 1) if isinstance(grid, int) else grid, block, stream, args)


class _Launch:
    """Queues a kernel; what stays the same from one time to the next is made once. Used by one thread.

    CuPy's own launch knows nothing of overlap (CUDA C++ Programming Guide, "Programmatic Dependent Launch").
    """

    def __init__(self, kernel: Any, shared_bytes: int, overlapped: bool) -> None:
        """kernel: CuPy's."""
        from cuda.bindings import driver  # pyright: ignore[reportMissingImports]

        self._driver = driver
        self._kernel = kernel  # what the function lies in lives as long
        self._function = driver.CUfunction(kernel.kernel.ptr)
        self._config = driver.CUlaunchConfig()
        self._config.sharedMemBytes = shared_bytes
        if overlapped:
            attribute = driver.CUlaunchAttribute()
            attribute.id = driver.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
            attribute.value.programmaticStreamSerializationAllowed = 1
            self._config.attrs, self._config.numAttrs = [attribute], 1
        self._words = self._addresses = np.zeros(0, np.uint64)  # arguments, and where each of them lies

    def __call__(self, grid: tuple[int, int, int], block: int, stream: int, args: Sequence[Argument]) -> None:
        if len(args) != len(self._words):
            self._words = np.zeros(len(args), np.uint64)
            self._addresses = self._words.ctypes.data + 8 * np.arange(len(args), dtype=np.uint64)
        self._words[:] = [as_bits(arg) for arg in args]
        config, driver = self._config, self._driver
        config.gridDimX, config.gridDimY, config.gridDimZ = grid
        config.blockDimX, config.blockDimY, config.blockDimZ = block, 1, 1
        config.hStream = driver.CUstream(stream)
        (status,) = driver.cuLaunchKernelEx(config, self._function, self._addresses.ctypes.data, 0)
        if status != driver.CUresult.CUDA_SUCCESS:
            raise RuntimeError(
                f"a kernel was not launched ({status}): grid {grid}, block {block}, {config.sharedMemBytes} B shared"
            )


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


def as_bits(argument: Argument) -> int:
    """The same as a number of as many bits, of which a kernel takes the lower ones."""
    if isinstance(argument, torch.Tensor):
        return argument.data_ptr()
    return int.from_bytes(as_word(argument).tobytes(), "little")


def architecture_of(major: int, minor: int) -> str:
    """The target for a device of this compute capability: code runs within its major version, and Hopper's own needs sm_90a."""
    if major < 8:
        raise ValueError(f"compute capability {major}.{minor} is too old; accepted: 8.0 (Ampere) and newer")
    if major == 9:
        return "sm_90a"
    return f"sm_{major}0"
