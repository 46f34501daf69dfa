"""A disk that is full, and an output that nobody reads: the server goes on serving, and starts again what dies."""

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import psutil
import pytest

from engine.kernels.gpu.compiler import keep
from engine.process import metric_files
from tests.e2e.answer import Answer, post
from tests.e2e.deployment import Deployment, wait_until
from tests.e2e.faulty_server import scripted_command
from tests.e2e.small_disk import ROOM, WITHIN, fill, may_mount
from tests.engine.scripted_runner import answer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Deployment]:
    """On a disk of its own, whose files show under /proc."""
    if not may_mount():
        pytest.skip("no mount namespaces here")
    deployment = Deployment(tmp_path, scripted_command(0.01, api_workers=2), WITHIN)
    try:
        yield deployment
    finally:
        deployment.close()


def test_no_room_left(server: Deployment, tmp_path: Path) -> None:
    url = server.url
    running = Answer(url, 200).begin()
    assert fill(server.process.pid, tmp_path) > ROOM / 4
    for path in ("/v1/models", "/version", "/nowhere", "/health", "/openapi.json"):
        assert httpx.get(f"{url}{path}").status_code < 500
        assert httpx.post(f"{url}{path}", json={}).status_code < 500  # each a new count
    assert httpx.post(f"{url}/v1/completions", json={"prompt": 3}).status_code == 400
    assert running.end().token_ids == answer((1, 2, 3), 200)
    streaming = Answer(url, 1500).begin()
    server.child("loom-engine").kill()
    assert "SIGKILL" in str(streaming.end().error)
    wait_until(server.is_ready)
    first = server.child("loom-server-0")
    first.kill()
    wait_until(lambda: server.child("loom-server-0") != first)
    for _ in range(8):
        assert post(url).json()["choices"][0]["token_ids"] == answer((1, 2, 3), 4)
    assert httpx.get(f"{url}/metrics").status_code == 200
    assert "has no room for this process's metrics" in server.output
    server.process.terminate()
    assert server.wait() == 0
    assert "Traceback" not in server.output and "SIGBUS" not in server.output


class Mute(Deployment):
    """Prints to a full disk; where it listens is seen from outside."""

    def __init__(self, directory: Path) -> None:
        muted = ("sh", "-c", 'exec "$@" > /dev/full 2>&1', "sh")
        super().__init__(directory, scripted_command(0.01), muted)

    @property
    def url(self) -> str:
        wait_until(lambda: self._port() != 0)
        return f"http://127.0.0.1:{self._port()}"

    def _port(self) -> int:
        opened = psutil.Process(self.process.pid).net_connections("tcp")
        return next((one.laddr.port for one in opened if one.status == psutil.CONN_LISTEN), 0)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_log_that_cannot_be_written(tmp_path: Path) -> None:
    with closing(Mute(tmp_path)) as server:
        url = server.url
        wait_until(server.is_ready, 60.0)
        assert post(url).json()["choices"][0]["token_ids"] == answer((1, 2, 3), 4)
        server.child("loom-engine").kill()
        wait_until(lambda: server.metric("engine_restarts_total") == 1)
        wait_until(server.is_ready)
        assert post(url).json()["choices"][0]["token_ids"] == answer((1, 2, 3), 4)
        server.process.terminate()
        assert server.wait() == 0


def test_a_kernel_that_cannot_be_kept_is_loaded_from_memory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert keep(tmp_path / "cubins" / "a.cubin", b"code") == tmp_path / "cubins" / "a.cubin"
    for taken in (tmp_path / "file" / "a.cubin", Path("/proc/none/a.cubin")):
        place = keep(taken, b"code")
        assert place != taken and place.read_bytes() == b"code"


def test_a_dead_process_gives_room_back(tmp_path: Path) -> None:
    metric_files.reserve(tmp_path)
    files = sorted(tmp_path.iterdir())
    assert len(files) == len(metric_files.KINDS)
    assert all(file.stat().st_blocks * 512 >= metric_files.RESERVED_BYTES for file in files)
    head = metric_files.USED.pack(100)
    with files[0].open("r+b") as file:
        file.write(head + b"x" * 200)
    metric_files.reserve(tmp_path)  # another with the same id
    assert files[0].read_bytes()[:100] == head + b"x" * 96
    metric_files.trim(tmp_path, os.getpid())
    assert [file.stat().st_size for file in files] == [100, 4, 4]
