"""The administrator's routes before one process: what they pass on, what they say, and what they never tell."""

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from server.admin import desk as desk_module
from server.admin.carry_out import MAX_REPORTED, carry_out
from server.admin.commands import (
    Command,
    EndCalls,
    ListCalls,
    LoadModel,
    Outcome,
    ReloadKeys,
    SetLogLevel,
    StartDrain,
    UnloadModel,
    UseKeys,
)
from server.admin.desk import AdminDesk
from server.auth.access import Access
from server.auth.call import Call
from server.auth.key import Key, digest_of
from server.auth.ledger import Ledger
from server.errors import ApiError
from tests.server.scripted import Api, serve_api

ROOT = {"x-api-key": "tl-root"}
KEYS = (Key("root", digest_of(b"tl-root"), admin=True), Key("alice", digest_of(b"tl-alice")))
SECRET = "a very private question"


@dataclass
class Supervisor:
    """Carries out at once, in the one process there is, what the real one would send around."""

    access: Access
    asked: list[Command] = field(default_factory=list)
    is_silent: bool = False
    refusal: str = ""
    count: int = 2
    desk: AdminDesk = field(init=False)

    def __post_init__(self) -> None:
        self.desk = AdminDesk(self.ask)

    def ask(self, number: int, command: Command) -> None:
        self.asked.append(command)
        if self.is_silent:
            return
        match command:
            case EndCalls() | UseKeys() | SetLogLevel() | ListCalls():
                outcome = carry_out(command, self.access)
            case StartDrain() | ReloadKeys() | LoadModel() | UnloadModel():
                outcome = Outcome(count=self.count, refusal=self.refusal)
        asyncio.get_running_loop().call_soon(self.desk.answer, number, (outcome,))


@dataclass(frozen=True)
class Admin:
    """The server and what stands behind it."""

    api: Api
    supervisor: Supervisor

    def order(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        response = self.api.client.request(method, f"/admin/{path}", json=body, headers=ROOT)
        return response.status_code, response.json()


@pytest.fixture
def admin(tmp_path: Path) -> Iterator[Admin]:
    access = Access(KEYS, Ledger(tmp_path, 0))
    supervisor = Supervisor(access)
    with serve_api(access=access, desk=supervisor.desk) as api:
        yield Admin(api, supervisor)


def test_commands_are_passed_on(admin: Admin) -> None:
    assert admin.order("POST", "drain") == (202, {"status": "draining"})
    assert admin.order("POST", "unload") == (202, {"status": "unloading"})
    assert admin.order("POST", "load") == (202, {"status": "loading"})
    assert admin.order("POST", "reload-keys") == (200, {"keys": 2})
    assert admin.order("PUT", "log-level", {"level": "warning"}) == (200, {"level": "warning"})
    admin.supervisor.count = 0
    assert admin.order("POST", "unload") == (200, {"status": "unloaded"})
    assert admin.order("POST", "load") == (200, {"status": "loaded"})
    assert admin.supervisor.asked == [
        StartDrain(),
        UnloadModel(),
        LoadModel(),
        ReloadKeys(),
        SetLogLevel("warning"),
        UnloadModel(),
        LoadModel(),
    ]


def test_keys_that_cannot_be_read(admin: Admin) -> None:
    admin.supervisor.refusal = "keys.toml: not TOML"
    status, answer = admin.order("POST", "reload-keys")
    assert status == 400
    assert answer["error"]["message"] == "the keys stay as they were: keys.toml: not TOML"


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "abort", {}, 400),
        ("POST", "abort", {"request_id": "a b"}, 400),
        ("POST", "abort", {"request_id": "x", "model": "/etc/passwd"}, 400),
        ("POST", "abort", {"request_id": "unknown"}, 404),
        ("PUT", "log-level", {"level": "loud"}, 400),
        ("POST", "log-level", {"level": "info"}, 405),
        ("POST", "load/other", None, 404),
        ("GET", "", None, 404),
    ],
)
def test_bad_orders(admin: Admin, method: str, path: str, body: object, status: int) -> None:
    assert admin.order(method, path, body)[0] == status


def test_loading_takes_no_path(admin: Admin) -> None:
    """Whatever the body says, it is the model that was there."""
    status, _ = admin.order("POST", "load", {"model": "/etc/passwd"})
    assert status == 202 and admin.supervisor.asked == [LoadModel()]


def test_silence_is_no_success(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk_module, "ANSWER_SECONDS", 0.05)
    admin.supervisor.is_silent = True
    status, answer = admin.order("GET", "status")
    assert status == 503 and answer["error"]["code"] == "no_answer"


@pytest.mark.parametrize("stream", [False, True])
def test_what_runs_is_shown_and_ended(admin: Admin, stream: bool) -> None:
    admin.api.script("Hello, wide world.", step_seconds=0.02)
    body = {"prompt": SECRET, "max_tokens": 200, "ignore_eos": True, "stream": stream, "n": 2}
    payload = json.dumps(body | {"request_id": "mine-1", "temperature": 1.0}).encode()
    head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nX-Api-Key: tl-alice\r\nConnection: close\r\n"
    head += b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(payload)
    with admin.api.connect() as sock:
        sock.sendall(head + payload)
        while not admin.api.engine.submits:
            time.sleep(0.002)
        status, answer = admin.order("GET", "status")
        assert status == 200 and SECRET not in json.dumps(answer)
        (shown,) = answer["running"]["alice"]
        assert shown["request_id"] == "mine-1" and shown["num_prompt_tokens"] > 0
        assert answer["engine"]["state"] == "ready" and answer["version"] == "0.0.test"
        assert admin.order("POST", "abort", {"request_id": "cmpl-mine-1"}) == (200, {"aborted": 1})
        told = b""
        while piece := sock.recv(65536):
            told += piece
    assert b"ended_by_admin" in told
    assert told.startswith(b"HTTP/1.1 200" if stream else b"HTTP/1.1 503")
    assert stream or b"x-should-retry: false" in told
    assert [cause for _, cause, _ in admin.api.engine.aborts] == ["admin", "admin"]
    limit = time.monotonic() + 3
    while "alice" in admin.order("GET", "status")[1]["running"]:
        assert time.monotonic() < limit


def test_what_is_reported_is_bounded() -> None:
    access = Access()
    for i in range(MAX_REPORTED + 10):
        access.calls.add(Call(None, None, {"request_id": str(i)}))
    outcome = carry_out(ListCalls(), access)
    assert outcome.count == MAX_REPORTED + 10 and len(outcome.calls) == MAX_REPORTED


def test_what_has_not_reached_the_engine_cannot_be_ended() -> None:
    access = Access()
    access.calls.add(Call(None, None, {"request_id": "x"}))
    assert access.end("x", ApiError(503, "")) == 0
