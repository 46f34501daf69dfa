"""Compile the CPU kernels once for this very processor and keep the result in a cache.

The cache's key covers the sources, the headers, the flags, the target, the compiler's version and the processor, so that nothing stale
is ever loaded.
"""

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

logger = logging.getLogger(__name__)

SOURCES = Path(__file__).with_name("cpu")
FLAGS = (
    "-std=c++17",
    "-O3",
    "-fopenmp",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fPIC",
)
COMPILERS = ("g++", "clang++", "c++")


class CompilerMissing(Exception):
    """No C++ compiler on this machine."""


class CompileFailed(Exception):
    """The compiler refused the sources; the message holds what it printed."""


def load(cache_dir: Path | None = None, target: str = "native") -> ctypes.CDLL:
    """All of the CPU kernels as one library. Raises CompilerMissing or CompileFailed.

    target: a processor by the compiler's name of it (-march); this very one, or an older one whose code this one runs.
    """
    compiler = _find_compiler()
    library = _writable(cache_dir or default_cache_dir()) / f"cpu-{_key(compiler, target)}.so"
    if not library.exists():
        _build(compiler, target, library)
    return ctypes.CDLL(str(library))


def _writable(folder: Path) -> Path:
    """The folder, or where it cannot be written a new private one, which is compiled into at every start."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return Path(tempfile.mkdtemp(prefix="tokenloom-kernels-"))
    return folder if os.access(folder, os.W_OK) else Path(tempfile.mkdtemp(prefix="tokenloom-kernels-"))


def default_cache_dir() -> Path:
    return Path.home() / ".cache" / "tokenloom" / "kernels"


def _find_compiler() -> str:
    for name in COMPILERS:
        if found := shutil.which(name):
            return found
    raise CompilerMissing(f"none of {', '.join(COMPILERS)} is installed")


def _key(compiler: str, target: str) -> str:
    digest = hashlib.sha256()
    for path in sorted((*SOURCES.glob("*.cpp"), *SOURCES.glob("*.h"))):
        digest.update(path.name.encode() + path.read_bytes())
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True).stdout
    digest.update(version + " ".join(_flags(target)).encode() + _processor().encode())
    return digest.hexdigest()[:24]


def _flags(target: str) -> tuple[str, ...]:
    return (*FLAGS, f"-march={target}")


def _processor() -> str:
    """What -march=native depends on: model and instruction set."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return f"{platform.machine()} {platform.processor()}"
    lines = info.read_text().split("\n\n")[0].splitlines()
    return "\n".join(
        line for line in lines if line.split("\t")[0] in ("model", "model name", "flags", "Features")
    )


def _build(compiler: str, target: str, library: Path) -> None:
    """Under a temporary name first, so that a half-written library is never seen by another process."""
    sources, flags = sorted(SOURCES.glob("*.cpp")), _flags(target)
    logger.info("compiling the kernels for this processor, once")
    with tempfile.TemporaryDirectory(dir=library.parent) as scratch, ThreadPoolExecutor() as pool:
        objects = [Path(scratch) / f"{source.stem}.o" for source in sources]
        list(
            pool.map(
                lambda pair: _run(compiler, *flags, "-c", str(pair[0]), "-o", str(pair[1])),
                zip(sources, objects, strict=True),
            )
        )
        linked = Path(scratch) / library.name
        _run(compiler, *flags, "-shared", *map(str, objects), "-o", str(linked))
        os.replace(linked, library)


def _run(compiler: str, *arguments: str) -> None:
    done = subprocess.run([compiler, *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        raise CompileFailed(f"{compiler} ended with {done.returncode}:\n{done.stderr}")
