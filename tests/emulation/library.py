"""The GPU's kernels on a CPU: the same sources, compiled as C++ against headers that stand in for CUDA's."""

import ctypes
import gc
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine.kernels.gpu.compiler import CompileFailed, source_dir
from engine.kernels.gpu.module import Argument, Grid, as_word

HEADERS = Path(__file__).with_name("include")
FLAGS = (
    "-std=c++17",
    "-O1",
    "-g1",
    "-ftree-vectorize",
    "-fPIC",
    "-fvisibility=hidden",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-w",
)
# Compiled in, not linked: the headers hold what the checks call.
CHECKS = (
    "-fsanitize=alignment,bounds,kernel-address",
    "-fno-sanitize-recover=all",
    "--param=asan-instrumentation-with-call-threshold=0",
    "--param=asan-stack=0",
    "--param=asan-globals=0",
)
KEPT_SECONDS = 7 * 24 * 3600
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
        ("arguments", ctypes.POINTER(ctypes.c_void_p)),
        ("seed", ctypes.c_uint64),
        ("tensors", ctypes.POINTER(_Range)),
        ("num_tensors", ctypes.c_uint32),
        ("find_tensor", _FindTensor),
        ("failed_at", ctypes.c_uint64),
    )


class EmulatedLibrary:
    """KernelLibrary on CPU tensors. Every launch draws another order of threads and blocks, the same in every run."""

    def __init__(
        self,
        cache_dir: Path | None = None,
        sources: Path | None = None,
        architecture: str = "sm_90a",
        num_multiprocessors: int = 3,
    ) -> None:
        self.device = torch.device("cpu")
        self.architecture = architecture
        self.num_multiprocessors = num_multiprocessors
        self._cache_dir = cache_dir or Path.home() / ".cache" / "tokenloom" / "emulated"
        self._sources = (sources or source_dir()).absolute()

    def get(
        self, source: str, function: str, defines: Mapping[str, int], shared_bytes: int = 0
    ) -> "EmulatedKernel":
        text = _program(self._sources / source, function, self._all_defines(defines))
        key = _key(text, self._sources / source)
        path = self._cache_dir / f"{Path(source).stem}-{function}-{key}.so"
        if not path.exists():
            self._cache_dir.mkdir(parents=True, exist_ok=True)
            _remove_unused(self._cache_dir)
            _compile(text, path)
        os.utime(path)
        return EmulatedKernel(path, function, shared_bytes)

    def _all_defines(self, defines: Mapping[str, int]) -> dict[str, int]:
        digits = re.findall(r"\d+", self.architecture)
        return {"__CUDA_ARCH__": int(digits[0]) * 10, **defines}


class EmulatedKernel:
    def __init__(self, path: Path, function: str, shared_bytes: int) -> None:
        library = ctypes.CDLL(str(path))
        self._path = path
        self._find_tensor = _FindTensor(_find_tensor)
        self._launch = library.kernel_launch
        self._launch.restype = ctypes.c_char_p
        library.kernel_parameters.restype = ctypes.c_char_p
        self._parameters = library.kernel_parameters().decode()
        self._function = function
        self._shared_bytes = shared_bytes
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
            places,
            self._num_launches,
            tensors,
            len(tensors),
            self._find_tensor,
            0,
        )
        message = self._launch(ctypes.byref(launch))
        if message is not None:
            place = _line_of(self._path, launch.failed_at)
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


def _line_of(library: Path, offset: int) -> str:
    """' at file:line' of an address in a library's code, inlined calls outward; nothing if that cannot be told."""
    tool = shutil.which("addr2line")
    if offset == 0 or tool is None:
        return ""
    command = [tool, "-e", str(library), "-i", hex(offset - 1)]
    lines = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
    return " at " + ", in ".join(Path(line.split()[0]).name for line in lines)


def _program(source: Path, function: str, defines: Mapping[str, int]) -> str:
    lines = [f"#define {name} {value}" for name, value in sorted(defines.items())]
    return "\n".join(
        [*lines, f'#include "{source}"', '#include "launch.h"', f"EMULATED_KERNEL({function})", ""]
    )


def _key(program: str, source: Path) -> str:
    """Of everything the library is made from."""
    digest = hashlib.sha256("\n".join((program, *FLAGS, *CHECKS, _compiler_version())).encode())
    for path in (source, *sorted((*HEADERS.iterdir(), *(source_dir() / "include").iterdir()))):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:24]


def _compile(program: str, library: Path) -> None:
    """Under a temporary name first, so that a half-written library is never loaded."""
    with tempfile.TemporaryDirectory(dir=library.parent) as name:
        folder = Path(name)
        (folder / "kernel.cpp").write_text(program)
        include = _overlay(folder / "include")
        _run([_compiler(), *FLAGS, *CHECKS, f"-I{include}", "-c", "kernel.cpp"], folder)
        _run([_compiler(), "-shared", "kernel.o", "-o", "kernel.so"], folder)
        os.replace(folder / "kernel.so", library)


def _remove_unused(folder: Path) -> None:
    """Libraries of sources that have long changed."""
    for path in folder.glob("*.so"):
        with suppress(FileNotFoundError):
            if path.stat().st_mtime < time.time() - KEPT_SECONDS:
                path.unlink()


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode != 0:
        raise CompileFailed(f"{' '.join(command)}\n{(folder / 'kernel.cpp').read_text()}\n{done.stderr}")


def _overlay(folder: Path) -> Path:
    """The product's headers, with ours in the place of those by the same names."""
    folder.mkdir()
    for path in (*(source_dir() / "include").iterdir(), *HEADERS.iterdir()):
        place = folder / path.name
        place.unlink(missing_ok=True)
        place.symlink_to(path.absolute())
    return folder


def _compiler() -> str:
    found = shutil.which("g++")
    if found is None:
        raise CompileFailed("g++ is not installed")
    return found


@cache
def _compiler_version() -> str:
    return subprocess.run([_compiler(), "--version"], capture_output=True, text=True, check=True).stdout
