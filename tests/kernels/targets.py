"""What the kernels are compiled for in tests: this processor, the lesser ones among those it surpasses, and one with emulated tiles."""

import ctypes
import shutil
import tempfile
from pathlib import Path

import pytest

from engine.kernels import build

LESSER = {"haswell": "avx512f", "x86-64": "avx2"}  # a target, and what a processor has that surpasses it
TILES = "native with emulated tiles"
TILES_NEED = "avx512f"  # a tile's rows are as wide as its vectors
EMULATED = Path(__file__).with_name("emulated")


def find_targets() -> list[str]:
    info = Path("/proc/cpuinfo")
    flags = set(info.read_text().split()) if info.exists() else set()
    tiles = [TILES] if TILES_NEED in flags else []
    return ["native", *(target for target, more in LESSER.items() if more in flags), *tiles]


def load_kernels(target: str) -> ctypes.CDLL:
    """Compiled for one of find_targets()."""
    if target != TILES:
        return build.load(target=target)
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        sources = Path(name) / "cpu"
        shutil.copytree(build.SOURCES, sources)
        shutil.copytree(EMULATED, sources, dirs_exist_ok=True)
        patch.setattr(build, "SOURCES", sources)
        return build.load()
