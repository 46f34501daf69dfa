"""CUDA sources to libraries of this machine, once: the cache's key covers source, headers, defines, flags and compiler."""

import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

from engine.kernels.gpu.compiler import CompileFailed, source_dir

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


class Builder:
    """Compiles into a folder of libraries, one a kernel."""

    def __init__(self, cache_dir: Path) -> None:
        self._cache_dir = cache_dir

    def build(self, source: Path, function: str, defines: Mapping[str, int]) -> Path:
        """The library of one kernel, see EMULATED_KERNEL in launch.h. Errors: CompileFailed."""
        program = _program(source, function, defines)
        path = self._cache_dir / f"{source.stem}-{function}-{_key(program, source)}.so"
        if not path.exists():
            self._cache_dir.mkdir(parents=True, exist_ok=True)
            _remove_unused(self._cache_dir)
            _compile(program, path)
        os.utime(path)
        return path


def line_of(library: Path, offset: int) -> str:
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
