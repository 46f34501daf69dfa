"""Kernels that begin while the one before them ends."""

from pathlib import Path

import pytest

from engine.kernels.gpu.compiler import source_dir
from engine.kernels.gpu.module import WAIT, waits_for_previous

SOURCES = sorted(path.name for path in source_dir().glob("*.cu"))


@pytest.mark.parametrize("source", SOURCES)
def test_every_kernel_waits_for_what_it_reads(source: str) -> None:
    """In its own body, or in the one header that all of a source's kernels compute with."""
    text = Path(source_dir() / source).read_text()
    assert waits_for_previous(source)
    assert text.count(WAIT) in (0, text.count('extern "C" __global__'))
