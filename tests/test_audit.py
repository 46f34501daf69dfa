"""The audit of the dependencies: a known weakness fails, a machine without a network does not."""

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
AUDIT: dict[str, Any] = runpy.run_path(str(ROOT / "configs/audit.py"))
LOCK = str(ROOT / "configs/requirements.lock")
CLEAN = {"name": "a", "version": "1", "vulns": []}
WEAK = {"name": "b", "version": "2", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.1"]}]}
UNKNOWN = {"name": "c", "skip_reason": "not found"}


def audit(code: str) -> int:
    """Of a program that stands where pip-audit does."""
    status: int = AUDIT["audit"](LOCK, ("-c", code))
    return status


@pytest.mark.parametrize(
    ("found", "status", "said"),
    [
        ([CLEAN, CLEAN], 0, "2 dependencies have no known weakness\n"),
        ([CLEAN, WEAK], 1, "b 2 has PYSEC-1, mended in 2.1\n"),
        ([UNKNOWN, WEAK], 1, "b 2 has PYSEC-1"),
        ([CLEAN, UNKNOWN], 0, "1 dependencies have no known weakness; not looked up: c\n"),
        ([UNKNOWN, UNKNOWN], 0, "not audited: the database knows none"),
    ],
)
def test_what_is_found(
    found: list[dict[str, Any]], status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    report = json.dumps({"dependencies": found, "fixes": []})
    assert audit(f"import sys; print({report!r}); sys.exit({int(WEAK in found)})") == status
    assert said in capsys.readouterr().out


def test_no_network_is_said_and_fails_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    code = "import sys; sys.exit('requests.exceptions.ConnectionError: Failed to resolve the host')"
    assert audit(code) == 0
    assert "not audited: requests.exceptions.ConnectionError" in capsys.readouterr().out


def test_an_audit_that_fails_by_itself_is_noticed(capsys: pytest.CaptureFixture[str]) -> None:
    assert audit("import sys; sys.exit('no such option')") == 1
    assert "no such option" in capsys.readouterr().out


def test_every_lock_is_a_pin_that_can_be_looked_up() -> None:
    lines = [line for line in Path(LOCK).read_text().splitlines() if not line.startswith("#")]
    assert len(lines) > 100 and all("==" in line for line in lines)
