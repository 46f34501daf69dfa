"""Keys, their limits and the administrator's commands, over two server processes that share them."""

import json
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.auth.key import digest_of
from tests.e2e.answer import Answer
from tests.e2e.deployment import Deployment, wait_until

LONG = 1500  # tokens; longer than any test


def entry(name: str, **fields: object) -> str:
    lines = [f'name = "{name}"', f'sha256 = "{digest_of(f"tl-{name}".encode()).hex()}"']
    lines += [f"{field} = {json.dumps(value)}" for field, value in fields.items()]
    return "\n".join(["[[key]]", *lines, ""])


def headers_of(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer tl-{name}"}


KEYS = (
    entry("root", admin=True)
    + entry("alice", requests_per_minute=600, tokens_per_minute=100_000)
    + entry("bob", max_concurrent=4)
    + entry("busy", requests_per_minute=30)
)


class Closed(Deployment):
    """A deployment that asks for keys, as its administrator sees it."""

    @property
    def root(self) -> dict[str, str]:
        return headers_of("root")

    def order(self, method: str, path: str, body: dict[str, object] | None = None) -> httpx.Response:
        return httpx.request(method, f"{self.url}/admin/{path}", json=body, headers=self.root, timeout=30)

    def kill(self, index: int) -> None:
        """A server process; returns once its successor is there."""
        name = f"loom-server-{index}"
        process = self.child(name)
        process.kill()
        wait_until(lambda: self.find(name) not in (None, process))

    def status(self) -> Any:
        response = self.order("GET", "status")
        assert response.status_code == 200, response.text
        return response.json()

    def post(self, key: str, **fields: object) -> httpx.Response:
        """On a connection of its own: either process may get it."""
        body = {"prompt": [1, 2, 3], "max_tokens": 4, "ignore_eos": True} | fields
        return httpx.post(f"{self.url}/v1/completions", json=body, headers=headers_of(key), timeout=60)


def start(place: Path, key_file: Path) -> Closed:
    place.mkdir()
    settings = {
        "port": 0,
        "served_model_name": "scripted",
        "api_workers": 2,
        "key_file": str(key_file),
        "drain_seconds": 2.0,
    }
    return Closed(place, ["tests.e2e.scripted_server", json.dumps(settings), "0.01"])


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "keys.toml"
    path.write_text(KEYS)
    return path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, key_file: Path) -> Iterator[Closed]:
    """Each test leaves it as it found it. It ends without an engine."""
    place = tmp_path_factory.mktemp("shared") / "place"
    server = start(place, key_file)
    try:
        assert server.url
        yield server
        assert server.order("POST", "unload").status_code == 202
        wait_until(lambda: server.find("loom-engine") is None)
        server.process.terminate()
        assert server.wait() == 0
        assert list(place.iterdir()) == []
    finally:
        server.close()


def stream(server: Closed, name: str) -> Answer:
    """A long one, which has begun."""
    return Answer(server.url, LONG, key=f"tl-{name}").begin()


def error_of(answer: Answer) -> dict[str, Any]:
    """What ended it."""
    error = answer.end().error
    assert error is not None
    return error


def test_limits_hold_over_both_processes(server: Closed) -> None:
    first, second = server.child("loom-server-0"), server.child("loom-server-1")
    assert httpx.get(f"{server.url}/v1/models").status_code == 401
    assert httpx.get(f"{server.url}/health").status_code == 200
    began = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: server.post("busy"), range(60)))
    filled = (time.monotonic() - began) / 2
    counts = Counter(answer.status_code for answer in answers)
    assert counts.keys() == {200, 429} and 30 <= counts[200] <= 30 + filled + 1
    while (refused := server.post("busy")).status_code == 200:  # it fills all the time
        continue
    assert refused.json()["error"]["code"] == "requests_per_minute"
    time.sleep(int(refused.headers["retry-after"]))
    assert server.post("busy").status_code == 200, "whoever waits as told is served"
    assert first.is_running() and second.is_running()


def test_a_killed_process_gives_back_what_it_had_running(server: Closed) -> None:
    calls = [stream(server, "bob") for _ in range(4)]
    assert server.post("bob").json()["error"]["code"] == "max_concurrent"
    for index in (0, 1):
        server.kill(index)
    wait_until(lambda: server.is_ready())
    wait_until(lambda: server.status()["processes"] == 2)
    assert all(call.end().broken for call in calls)
    with ThreadPoolExecutor(4) as pool:
        assert {answer.status_code for answer in pool.map(lambda _: server.post("bob"), range(4))} == {200}


def test_a_process_that_died_is_not_waited_for(server: Closed) -> None:
    process = server.child("loom-server-1")
    process.kill()
    wait_until(lambda: server.find("loom-server-1") != process)
    with ThreadPoolExecutor(8) as pool:  # some connections wait for its successor
        assert {status["processes"] for status in pool.map(lambda _: server.status(), range(8))} <= {1, 2}
    wait_until(lambda: server.status()["processes"] == 2)


def test_the_administrator_sees_and_ends_what_runs(server: Closed) -> None:
    calls = [stream(server, key) for key in ("alice", "bob", "bob", "bob")]
    status = server.status()
    assert status["processes"] == 2 and status["uptime"] >= 0 and status["model"] == "scripted"
    assert status["engine"]["state"] == "ready" and status["engine"]["info"]["max_model_len"] == 2048
    assert {key: len(found) for key, found in status["running"].items() if key != "root"} == {
        "alice": 1,
        "bob": 3,
    }
    alice = status["running"]["alice"][0]
    assert alice["request_id"] == calls[0].request_id and alice["age"] > 0
    assert alice["num_prompt_tokens"] == 3 and alice["num_output_tokens"] > 0
    assert "prompt" not in alice
    assert calls[1].id == f"cmpl-{calls[1].request_id}"
    for call, request_id in ((calls[0], calls[0].request_id), (calls[1], calls[1].id)):
        response = server.order("POST", "abort", {"request_id": request_id})
        assert (response.status_code, response.json()) == (200, {"aborted": 1})
        error = error_of(call)
        assert error["code"] == "ended_by_admin"
    again = server.order("POST", "abort", {"request_id": calls[0].request_id})
    assert again.status_code == 404 and calls[0].request_id in again.json()["error"]["message"]
    wait_until(lambda: len(server.status()["running"].get("bob", [])) == 2)
    assert httpx.get(f"{server.url}/admin/status", headers=headers_of("bob")).status_code == 403
    for call in calls[2:]:
        server.order("POST", "abort", {"request_id": call.request_id})
        call.end()


def test_keys_are_read_again(server: Closed, key_file: Path) -> None:
    running = stream(server, "bob")
    key_file.write_text(entry("root", admin=True) + entry("carol"))
    response = server.order("POST", "reload-keys")
    assert (response.status_code, response.json()) == (200, {"keys": 2})
    for _ in range(6):  # connections to both processes
        assert server.post("carol").status_code == 200
        assert server.post("alice").status_code == 401
    server.order("POST", "abort", {"request_id": running.request_id})
    assert error_of(running)["code"] == "ended_by_admin", "what ran went on until then"
    key_file.write_text("[[key]]\nname = 5\n")
    refused = server.order("POST", "reload-keys")
    assert refused.status_code == 400 and "the keys stay as they were" in refused.text
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "ERROR tokenloom.supervisor: the keys stay as they were" in server.output)
    assert server.post("carol").status_code == 200
    key_file.write_text(KEYS)
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: server.post("alice").status_code == 200)
    for index in (0, 1):
        server.kill(index)
    wait_until(lambda: server.is_ready())
    assert server.post("carol").status_code == 401, "successors have the same keys"


def test_the_model_is_unloaded_and_loaded(server: Closed) -> None:
    running = stream(server, "bob")
    engine = server.child("loom-engine")
    assert server.order("POST", "unload").status_code == 202
    wait_until(lambda: server.post("bob").status_code == 503)
    refused = server.post("bob").json()["error"]
    assert refused["code"] == "engine_unloaded" and "unloaded" in refused["message"]
    assert error_of(running)["code"] == "engine_down", "it ran into the drain's deadline"
    wait_until(lambda: not engine.is_running())
    assert server.find("loom-engine") is None
    assert server.status()["engine"]["state"] == "unloaded"
    health = httpx.get(f"{server.url}/health")
    assert health.status_code == 503 and "unloaded" in health.json()["error"]["message"]
    server.kill(0)
    wait_until(lambda: server.status()["processes"] == 2)
    assert {server.post("bob").status_code for _ in range(6)} == {503}, "its successor knows, too"
    assert server.order("POST", "unload").json() == {"status": "unloaded"}
    assert server.order("POST", "load").status_code == 202
    wait_until(lambda: server.is_ready())
    wait_until(lambda: server.post("bob").status_code == 200)
    assert server.order("POST", "load").json() == {"status": "loaded"}
    metrics = httpx.get(f"{server.url}/metrics", headers=server.root).text
    restarts = re.findall(r"^tokenloom:engine_restarts_total\{.*\} (\S+)", metrics, flags=re.MULTILINE)
    assert sum(map(float, restarts)) == 0, "that was no fault"


def test_a_load_waits_for_what_is_unloaded_no_longer_than_the_deadline(server: Closed) -> None:
    """Even if that hangs."""
    running = stream(server, "bob")
    engine = server.child("loom-engine")
    engine.suspend()
    assert server.order("POST", "unload").status_code == 202
    assert server.order("POST", "load").status_code == 202
    wait_until(lambda: not engine.is_running())
    assert error_of(running)["code"] == "engine_down"
    wait_until(lambda: server.post("bob").status_code == 200)
    assert "the engine was killed" not in server.output, "it was told to end"


def test_log_level_and_drain(tmp_path: Path) -> None:
    (tmp_path / "keys.toml").write_text(KEYS)
    server = start(tmp_path / "place", tmp_path / "keys.toml")
    try:
        assert server.url
        check_log_level(server)
        check_drain(server)
        assert list(server.directory.iterdir()) == []
    finally:
        server.close()


def check_log_level(server: Closed) -> None:
    refused = server.order("PUT", "log-level", {"level": "loud"})
    assert refused.status_code == 400 and "level" in refused.json()["error"]["message"]
    assert server.order("PUT", "log-level", {"level": "error"}).json() == {"level": "error"}
    num_lines = len(server.lines)
    assert server.post("bob").status_code == 200
    assert len(server.lines) == num_lines


def check_drain(server: Closed) -> None:
    running = stream(server, "bob")
    assert server.order("POST", "drain").status_code == 202
    wait_until(lambda: server.post("bob").status_code == 503)
    assert server.wait() == 0
    assert "shutting down" in error_of(running)["message"]
