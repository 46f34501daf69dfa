"""Asks the database of known weaknesses about every locked dependency.

Usage: python configs/audit.py configs/requirements.lock. Fails for a known weakness. Where the database cannot be reached, or
does not know the packages, it says so and fails nothing: a machine without a network can check everything else.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

COMMAND = ("-m", "pip_audit", "--no-deps", "--disable-pip", "--progress-spinner", "off", "--format", "json")
SECONDS = 120
OFFLINE = (
    "ConnectionError",
    "ConnectTimeout",
    "ReadTimeout",
    "Max retries exceeded",
    "Failed to resolve",
    "ServiceError",
)


def audit(lock: str, command: Sequence[str] = COMMAND) -> int:
    """The exit status: 1 for a known weakness, and for an audit that failed by itself."""
    try:
        done = subprocess.run(
            [sys.executable, *command, "--requirement", lock], capture_output=True, text=True, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        return not_audited(f"the database did not answer within {SECONDS} s")
    if done.stdout.startswith("{"):
        return judge(json.loads(done.stdout)["dependencies"])
    said = done.stderr.strip().splitlines() or ["no word"]
    if any(sign in done.stderr for sign in OFFLINE):
        return not_audited(said[-1])
    print("\n".join(said))
    return 1


def judge(dependencies: list[dict[str, Any]]) -> int:
    """pip-audit's report; one that it could not look up has a reason and no list."""
    weak = [found for found in dependencies if found.get("vulns")]
    unknown = [found for found in dependencies if "vulns" not in found]
    for found in weak:
        for weakness in found["vulns"]:
            mended = ", ".join(weakness["fix_versions"]) or "no version"
            print(f"{found['name']} {found['version']} has {weakness['id']}, mended in {mended}")
    if weak:
        return 1
    if len(unknown) == len(dependencies):
        return not_audited("the database knows none of the packages")
    missing = "; not looked up: " + ", ".join(found["name"] for found in unknown) if unknown else ""
    print(f"{len(dependencies) - len(unknown)} dependencies have no known weakness{missing}")
    return 0


def not_audited(why: str) -> int:
    print(f"the dependencies were not audited: {why}")
    return 0


if __name__ == "__main__":
    sys.exit(audit(sys.argv[1]))
