"""As many descriptors as connections need, or as many connections as there are descriptors for."""

import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from server.process.descriptors import OWN_DESCRIPTORS
from tests.e2e.deployment import start_scripted

PROGRAM = """
import resource, sys
from server.config import ServerConfig
from server.process.descriptors import fit_connections
soft, hard, connections = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
settings, warning = fit_connections(ServerConfig(max_connections=connections))
print(settings.max_connections, resource.getrlimit(resource.RLIMIT_NOFILE)[0], warning)
"""


def fit(soft: int, hard: int, connections: int) -> str:
    command = [sys.executable, "-c", PROGRAM, str(soft), str(hard), str(connections)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


def test_the_limit_is_raised_as_far_as_needed() -> None:
    assert fit(128, 2048, 1000) == f"1000 {1000 + OWN_DESCRIPTORS}"
    assert fit(2000, 2048, 1000) == "1000 2000", "it is never lowered"


def test_what_does_not_fit_is_said_and_lowered() -> None:
    told = fit(128, 1000, 5000)
    assert told.startswith(f"{1000 - OWN_DESCRIPTORS} 1000 max_connections = 5000 needs")
    assert "a process may have 1000 here" in told and "--max-connections" in told


def test_too_few_for_any_connection() -> None:
    assert "TooFewDescriptors: a process may have 200 file descriptors here" in fit(128, 200, 10)


@contextmanager
def soft_limit(count: int) -> Iterator[None]:
    """Of this process and what it starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_server_processes_begin_with_the_raised_limit(tmp_path: Path) -> None:
    with soft_limit(256):
        deployment = start_scripted(tmp_path, max_connections=1000)
    try:
        assert deployment.url
        child = deployment.child("loom-server-0")
        assert child.rlimit(resource.RLIMIT_NOFILE)[0] >= 1000 + OWN_DESCRIPTORS
    finally:
        deployment.close()
