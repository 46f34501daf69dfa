"""Kernels that were asked for once stay at hand."""

from collections.abc import Mapping

from engine.kernels.gpu.module import Kernel, KernelLibrary

WARP = 32


class LoadedKernels:
    """Looks each kernel up in the library once: that reads and hashes its source."""

    def __init__(self, library: KernelLibrary) -> None:
        self._library = library
        self._kernels: dict[tuple[str, str, frozenset[tuple[str, int]]], Kernel] = {}

    def get(self, source: str, function: str, defines: Mapping[str, int]) -> Kernel:
        """`function` of cuda/<source>. Errors: engine.kernels.gpu.compiler.CompileFailed."""
        key = source, function, frozenset(defines.items())
        if key not in self._kernels:
            self._kernels[key] = self._library.get(source, function, defines)
        return self._kernels[key]


def whole_warps(num_threads: int) -> int:
    return -(-num_threads // WARP) * WARP
