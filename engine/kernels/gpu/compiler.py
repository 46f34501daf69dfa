"""CUDA sources to cubins, by NVRTC, once: the cache's key covers source, headers, defines, flags, architecture and compiler.

No GPU is needed to compile.
"""

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

FLAGS = ("--std=c++17", "-default-device", "--ptxas-options=-v", "--extra-device-vectorization")


class CompileFailed(Exception):
    """The compiler refused a source; the message holds what it printed."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """One cubin, and what ptxas said of it."""

    cubin: bytes
    log: str


def default_cache_dir() -> Path:
    return Path.home() / ".cache" / "tokenloom" / "cubins"


def source_dir() -> Path:
    """Beside this file in an installed package, at the root in a checkout."""
    packaged = Path(__file__).with_name("source")
    return packaged if packaged.is_dir() else Path(__file__).parents[3] / "cuda"


class Compiler:
    """Compiles for one architecture, into a folder of cubins."""

    def __init__(self, architecture: str, cache_dir: Path) -> None:
        self._architecture = architecture
        self._cache_dir = cache_dir
        self._headers = _read_headers()

    def compile(self, source: str, defines: Mapping[str, int]) -> Path:
        """The cubin of cuda/<source>, in the cache, or where that cannot be written in memory. Errors: CompileFailed."""
        path = self._cache_dir / f"{Path(source).stem}-{self._key(source, defines)}.cubin"
        return (
            path if path.exists() else keep(path, compile_source(source, defines, self._architecture).cubin)
        )

    def _key(self, source: str, defines: Mapping[str, int]) -> str:
        digest = hashlib.sha256((source_dir() / source).read_bytes() + self._headers)
        said = [self._architecture, _compiler_version(), *FLAGS, *_define_flags(defines)]
        digest.update("\n".join(said).encode())
        return digest.hexdigest()[:24]


def compile_source(source: str, defines: Mapping[str, int], architecture: str) -> Compiled:
    """Errors: CompileFailed with the compiler's log."""
    from cuda.bindings import nvrtc  # pyright: ignore[reportMissingImports]

    text = (source_dir() / source).read_bytes()
    status, program = nvrtc.nvrtcCreateProgram(text, source.encode(), 0, [], [])
    _check(status, "nvrtcCreateProgram")
    flags = [f"--gpu-architecture={architecture}", *FLAGS, *_define_flags(defines), *_include_flags()]
    (status,) = nvrtc.nvrtcCompileProgram(program, len(flags), [flag.encode() for flag in flags])
    log = _read(program, nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog).decode().rstrip("\0")
    if status != 0:
        raise CompileFailed(f"{source} for {architecture} with {dict(defines)}:\n{log}")
    return Compiled(_read(program, nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN), log)


def _read(program: object, get_size: Callable[..., Any], get: Callable[..., Any]) -> bytes:
    status, size = get_size(program)
    _check(status, "size")
    out = bytes(size)  # written to by the library
    (status,) = get(program, out)
    _check(status, "get")
    return out


def _check(status: int, what: str) -> None:
    if status != 0:
        raise CompileFailed(f"NVRTC's {what} ended with {status}")


def _define_flags(defines: Mapping[str, int]) -> list[str]:
    return [f"-D{name}={value}" for name, value in sorted(defines.items())]


def _include_flags() -> list[str]:
    return [f"-I{folder}" for folder in (source_dir() / "include", *_toolkit_headers())]


def _toolkit_headers() -> list[Path]:
    """Where cuda_bf16.h and what it includes lie: NVIDIA's packages, or an installed toolkit."""
    import nvidia  # pyright: ignore[reportMissingImports]

    roots = [Path(folder) for folder in nvidia.__path__]
    found = [p.parent for root in roots for p in sorted(root.glob("*/include/cuda_bf16.h"))]
    found += [p.parent.parent for root in roots for p in sorted(root.glob("*/include/**/nv/target"))]
    if not found and (home := Path("/usr/local/cuda/include")).is_dir():
        found = [home]
    return found


def _read_headers() -> bytes:
    folder = source_dir() / "include"
    return b"".join(path.name.encode() + path.read_bytes() for path in sorted(folder.glob("*.cuh")))


def _compiler_version() -> str:
    from cuda.bindings import nvrtc  # pyright: ignore[reportMissingImports]

    _, major, minor = nvrtc.nvrtcVersion()
    return f"nvrtc {major}.{minor}"


def keep(path: Path, data: bytes) -> Path:
    """Where the data lies now: at `path`, or, if the disk is full or nobody may write there, in memory until this process ends."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_whole(path, data)
    except OSError as error:
        logger.warning("%s cannot be written, and is compiled again at the next start: %s", path, error)
        file = os.memfd_create(path.name)
        os.write(file, data)
        return Path(f"/proc/self/fd/{file}")
    return path


def _write_whole(path: Path, data: bytes) -> None:
    """Under a temporary name first, so that a half-written file is never seen by another process."""
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        try:
            file.write(data)
            file.flush()
        except OSError:
            os.unlink(file.name)
            raise
    os.replace(file.name, path)
