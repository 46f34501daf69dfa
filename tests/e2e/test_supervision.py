"""A whole deployment with a runner that has no model: what happens when processes die, and how it ends."""

import configparser
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import psutil
import pytest

from server.config import ServerConfig
from server.process.supervisor import CLOSE_SECONDS
from tests.e2e.answer import Answer, post
from tests.e2e.deployment import Deployment, start_scripted, wait_until
from tests.engine.scripted_runner import answer

LONG = 1500  # tokens; longer than any test
UNIT = Path(__file__).parents[2] / "configs/systemd/tokenloom.service"
Start = Callable[..., Deployment]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """The deployment's temporary folder, which must be empty in the end."""
    yield tmp_path
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def start(place: Path) -> Iterator[Start]:
    """`start_scripted` in that folder; nothing outlives the test, however it ends."""
    with ExitStack() as stack:

        def begin(**settings: object) -> Deployment:
            deployment = start_scripted(place, 0.01, **settings)
            stack.callback(deployment.close)
            return deployment

        yield begin


@pytest.fixture
def server(start: Start) -> Iterator[Deployment]:
    deployment = start(drain_seconds=10.0)
    yield deployment
    deployment.process.terminate()
    deployment.wait()


def open_on_each(url: str, workers: list[psutil.Process]) -> list[Answer]:
    """Streams until every server process has one: the kernel picks who answers a connection."""
    answers: list[Answer] = []
    while not all(num_clients(worker) for worker in workers):
        assert len(answers) < 16, "one of the server processes answers no connection"
        answers.append(Answer(url, LONG, [len(answers), 2, 3]).begin())
    return answers


def num_clients(worker: psutil.Process) -> int:
    return sum(one.status == psutil.CONN_ESTABLISHED for one in worker.net_connections("tcp"))


def test_killed_server_process(start: Start) -> None:
    """Its clients' connections break, and their rows are free; the others' go on."""
    server = start(api_workers=2, drain_seconds=0.1)
    url = server.url
    first, second = server.child("loom-server-0"), server.child("loom-server-1")
    answers = open_on_each(url, [first, second])
    num_lost = num_clients(first)
    first.kill()
    wait_until(lambda: server.child("loom-server-0") != first)
    assert all(post(url).status_code == 200 for _ in range(8)), "its successor refuses nothing"
    wait_until(lambda: sum(one.broken for one in answers) == num_lost)
    wait_until(lambda: server.metric("num_requests_running") == len(answers) - num_lost)
    for one in answers:
        if not one.broken:
            one.go_on()
    assert server.metric("engine_aborts_total") == num_lost
    assert second.is_running() and server.metric("engine_restarts_total") == 0
    server.process.send_signal(signal.SIGINT)
    assert server.wait() == 0
    for place, one in enumerate(answers):
        assert one.end().token_ids == answer((place, 2, 3), len(one.token_ids))


def test_sigterm_finishes_what_runs(server: Deployment) -> None:
    url = server.url
    running = Answer(url, 150).begin()
    family = server.family()
    server.process.terminate()
    wait_until(lambda: post(url).status_code == 503)
    refused = post(url)
    assert refused.headers["retry-after"] and refused.json()["error"]["message"]
    assert httpx.get(f"{url}/health/ready").status_code == 503
    events = running.end().events
    assert running.error is None and events[-1] == "[DONE]"
    assert sum(1 for event in events if '"text"' in event) > 50
    assert server.wait() == 0
    psutil.wait_procs(family, 5.0)
    assert not any(process.is_running() for process in family)


def test_the_drain_has_a_deadline(start: Start) -> None:
    server = start(drain_seconds=0.5)
    running = Answer(server.url, LONG).begin()
    server.process.terminate()
    assert server.wait() == 0
    error = running.end().error
    assert error is not None and "shutting down" in str(error["message"])
    assert running.events[-1] == "[DONE]"


def test_a_second_signal_ends_it_at_once(start: Start) -> None:
    server = start(drain_seconds=60.0)
    running = Answer(server.url, LONG).begin()
    server.process.terminate()
    wait_until(lambda: post(server.url).status_code == 503)
    server.process.terminate()
    assert server.wait(5.0) == 128 + signal.SIGTERM
    assert running.end().broken


def test_the_units_patience_outlasts_a_drain() -> None:
    """Server processes have until the deadline and some, the engine some more; signals go to the supervisor alone."""
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.read(UNIT)
    assert unit["Service"]["KillMode"] == "mixed"
    assert float(unit["Service"]["TimeoutStopSec"]) > ServerConfig().drain_seconds + 2 * CLOSE_SECONDS


def test_children_do_not_outlive_a_killed_supervisor(start: Start) -> None:
    server = start(api_workers=2)
    assert server.url
    family = server.family()
    assert len(family) >= 3
    server.process.kill()
    server.wait()
    psutil.wait_procs(family, 10.0)
    assert not any(process.is_running() for process in family)


def test_a_taken_port_is_refused(start: Start) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        for workers in (1, 2):
            server = start(port=port, api_workers=workers)
            assert server.wait() == 1
            assert f"error: cannot listen on 127.0.0.1:{port}" in server.output


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["/no/such/model", "--api-workers", "3"], "model '/no/such/model': no such file or folder"),
        (
            ["--kv-tokens", "1024", "--max-model-len", "2048"],
            "the KV cache holds 1024 tokens (23040 bytes each),",
        ),
    ],
)
def test_what_is_refused_is_said_once(place: Path, flags: list[str], message: str) -> None:
    server = Deployment(place, ["server", "serve", *flags, "--port", "0", "--dtype", "bfloat16"])
    assert server.wait(60.0) == 1
    assert server.output.count("error") == 1 and f"\nerror: {message}" in f"\n{server.output}"
    assert "ended with" not in server.output and "Traceback" not in server.output
    server.close()
