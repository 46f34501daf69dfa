"""The GPU's kernels on a CPU: the same sources, compiled as C++ against headers that stand in for CUDA's."""

import ctypes
import gc
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine.kernels.gpu.compiler import source_dir
from engine.kernels.gpu.module import Argument, Grid, as_word
from tests.emulation.build import Builder, line_of

KINDS = {"uint64": "p", "int64": "l", "int32": "i", "uint32": "i", "float32": "f", "float64": "d"}


class EmulationFailed(Exception):
    """A kernel did what no kernel may; the message names the thread and the block."""


class _Dim3(ctypes.Structure):
    _fields_ = (("x", ctypes.c_uint32), ("y", ctypes.c_uint32), ("z", ctypes.c_uint32))


class _Range(ctypes.Structure):
    _fields_ = (("start", ctypes.c_uint64), ("size", ctypes.c_uint64), ("argument", ctypes.c_int))


_Word = ctypes.POINTER(ctypes.c_uint64)
_FindTensor = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_uint64, _Word, _Word)


class _Launch(ctypes.Structure):
    """emulator::Launch, launch.h."""

    _fields_ = (
        ("grid", _Dim3),
        ("num_threads", ctypes.c_uint32),
        ("num_dynamic", ctypes.c_uint32),
        ("max_seconds", ctypes.c_uint32),
        ("arguments", ctypes.POINTER(ctypes.c_void_p)),
        ("seed", ctypes.c_uint64),
        ("tensors", ctypes.POINTER(_Range)),
        ("num_tensors", ctypes.c_uint32),
        ("find_tensor", _FindTensor),
        ("failed_at", ctypes.c_uint64),
    )


class EmulatedLibrary:
    """KernelLibrary on CPU tensors. Every launch draws another order of threads and blocks, the same in every run.

    max_seconds: of the processor's time; a launch that takes more fails.
    """

    def __init__(
        self,
        cache_dir: Path | None = None,
        sources: Path | None = None,
        architecture: str = "sm_90a",
        num_multiprocessors: int = 3,
        max_seconds: int = 200,
    ) -> None:
        self.device = torch.device("cpu")
        self.architecture = architecture
        self.num_multiprocessors = num_multiprocessors
        self._max_seconds = max_seconds
        self._builder = Builder(cache_dir or Path.home() / ".cache" / "tokenloom" / "emulated")
        self._sources = (sources or source_dir()).absolute()

    def get(
        self, source: str, function: str, defines: Mapping[str, int], shared_bytes: int = 0
    ) -> "EmulatedKernel":
        path = self._builder.build(self._sources / source, function, self._all_defines(defines))
        return EmulatedKernel(path, function, shared_bytes, self._max_seconds)

    def _all_defines(self, defines: Mapping[str, int]) -> dict[str, int]:
        digits = re.findall(r"\d+", self.architecture)
        return {"__CUDA_ARCH__": int(digits[0]) * 10, **defines}


class EmulatedKernel:
    def __init__(self, path: Path, function: str, shared_bytes: int, max_seconds: int) -> None:
        library = ctypes.CDLL(str(path))
        self._path = path
        self._find_tensor = _FindTensor(_find_tensor)
        self._launch = library.kernel_launch
        self._launch.restype = ctypes.c_char_p
        library.kernel_parameters.restype = ctypes.c_char_p
        self._parameters = library.kernel_parameters().decode()
        self._function = function
        self._shared_bytes = shared_bytes
        self._max_seconds = max_seconds
        self._num_launches = 0

    def __call__(self, grid: Grid, block: int, *args: Argument) -> None:
        """Errors: EmulationFailed."""
        shape = (grid, 1, 1) if isinstance(grid, int) else grid
        self._check_shape(shape, block)
        words = [np.array(as_word(arg)) for arg in args]
        self._check_arguments(args, words)
        places = (ctypes.c_void_p * len(words))(*(word.ctypes.data for word in words))
        self._num_launches += 1
        tensors = _ranges(args)
        launch = _Launch(
            _Dim3(*shape),
            block,
            self._shared_bytes,
            self._max_seconds,
            places,
            self._num_launches,
            tensors,
            len(tensors),
            self._find_tensor,
            0,
        )
        message = self._launch(ctypes.byref(launch))
        if message is not None:
            place = line_of(self._path, launch.failed_at)
            raise EmulationFailed(f"{self._function}: {message.decode()}{place}")

    def _check_shape(self, grid: tuple[int, int, int], block: int) -> None:
        """The limits of cuLaunchKernel."""
        x, y, z = grid
        if not (0 < x < 2**31 and 0 < y < 2**16 and 0 < z < 2**16 and 0 < block <= 1024):
            raise EmulationFailed(f"{self._function}: {grid} blocks of {block} threads cannot be launched")

    def _check_arguments(self, args: tuple[Argument, ...], words: list[np.ndarray]) -> None:
        kinds = "".join(KINDS[word.dtype.name] for word in words)
        if kinds != self._parameters:
            raise EmulationFailed(f"{self._function} takes {self._parameters}, got {kinds}")
        for arg in args:
            if isinstance(arg, torch.Tensor) and arg.device.type != "cpu":
                raise EmulationFailed(f"{self._function}: a tensor on {arg.device}")


def _ranges(args: tuple[Argument, ...]) -> "ctypes.Array[_Range]":
    """Where the storages of the arguments lie."""
    storages = [(i, arg.untyped_storage()) for i, arg in enumerate(args) if isinstance(arg, torch.Tensor)]
    found = [_Range(storage.data_ptr(), storage.nbytes(), i) for i, storage in storages]
    return (_Range * len(found))(*found)


def _find_tensor(address: int, start: Any, size: Any) -> bool:
    """Looks among all tensors that are alive: kernels reach some through addresses that lie in others."""
    for thing in gc.get_objects():
        if not issubclass(type(thing), torch.Tensor) or thing.device.type != "cpu":
            continue
        storage = thing.untyped_storage()
        if 0 <= address - storage.data_ptr() < storage.nbytes():
            start[0], size[0] = storage.data_ptr(), storage.nbytes()
            return True
    return False
