"""What the kernels are compiled for in tests: this processor, the lesser ones among those it surpasses, and one with emulated tiles."""

import ctypes
import shutil
import tempfile
from pathlib import Path

import pytest

from engine.kernels import build

LESSER = {"haswell": "avx512f", "x86-64": "avx2"}  # a target, and what a processor has that surpasses it
TILES, TILES_NEED = "native with emulated tiles", "avx512f"  # whose vectors are as wide as a tile's rows
EMULATED = Path(__file__).with_name("emulated")


def find_targets() -> list[str]:
    flags = _flags()
    return ["native", *(target for target, more in LESSER.items() if more in flags)]


def find_targets_with_tiles() -> list[str]:
    """And one for what is done on tiles."""
    return [*find_targets(), *([TILES] if TILES_NEED in _flags() else [])]


def has_tiles(target: str) -> bool:
    """Whether products in bfloat16 are done on them."""
    return target == TILES or (target == "native" and "amx_bf16" in _flags())


def _flags() -> set[str]:
    info = Path("/proc/cpuinfo")
    return set(info.read_text().split()) if info.exists() else set()


def load_kernels(target: str) -> ctypes.CDLL:
    """Compiled for one of those found."""
    if target != TILES:
        return build.load(target=target)
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        sources = Path(name) / "cpu"
        shutil.copytree(build.SOURCES, sources)
        shutil.copytree(EMULATED, sources, dirs_exist_ok=True)
        patch.setattr(build, "SOURCES", sources)
        return build.load()
