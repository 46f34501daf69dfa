"""A moment of what `make fuzz` does for hours: each target's inputs, led by coverage, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).parents[2]
NUM_RUNS = 400


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_for_a_moment(target: str, tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="it has no build for this Python")
    command = [sys.executable, "-m", "tests.fuzz.guided", target, f"-runs={NUM_RUNS}", "-seed=1"]
    environment = os.environ | {"TMPDIR": str(tmp_path), "RUST_BACKTRACE": "0", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, f"-artifact_prefix={tmp_path}/"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"Done {NUM_RUNS} runs" in done.stderr


def test_a_fault_ends_it(tmp_path: Path) -> None:
    """That the tests above can fail."""
    pytest.importorskip("atheris", reason="it has no build for this Python")
    code = (
        "from tests.fuzz import guided\n"
        "def broken(data, folder):\n    assert b'1' not in data\n"
        "guided.TARGETS['stop'] = broken\n"
        "guided.main('stop', ['-runs=100000', '-seed=1'])\n"
    )
    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode != 0 and "AssertionError" in done.stderr + done.stdout
