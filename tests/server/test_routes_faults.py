"""Clients that go away, and engines that cannot answer."""

import asyncio
import json
import time

import httpx
import pytest

from engine.client.client import State
from tests.server.scripted import Api

HI = [{"role": "user", "content": "Hi"}]
BODY = {"prompt": "Hi", "max_tokens": 200, "ignore_eos": True}


def send(api: Api, body: dict[str, object], path: str = "/v1/completions") -> None:
    """Sends a request, waits for it to be under way, and goes away without reading the answer."""
    payload = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(payload)}\r\n\r\n"
    with api.connect() as sock:
        sock.sendall(head.encode() + payload)
        limit = time.monotonic() + 3
        while not api.engine.submits and time.monotonic() < limit:
            time.sleep(0.002)
        assert api.engine.submits
        time.sleep(0.03)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("stage", ["sent", "queued", "decoding"])
def test_a_client_that_goes_away_is_noticed_at_once(api: Api, stage: str, stream: bool, n: int) -> None:
    api.script("Hello, wide world.", accept=stage != "sent", start=stage == "decoding", step_seconds=0.01)
    send(api, BODY | {"stream": stream, "n": n})
    left = time.monotonic()
    assert api.wait_abort("disconnect") - left < 0.5
    limit = time.monotonic() + 2
    while len(api.engine.aborts) < n and time.monotonic() < limit:
        time.sleep(0.002)
    assert sorted(id for id, _, _ in api.engine.aborts) == sorted(submit.id for submit in api.engine.submits)
    assert all(stream.ended for stream in api.engine.streams)


def test_a_chat_client_that_goes_away(api: Api) -> None:
    api.script("Hello", start=False)
    send(api, {"messages": HI}, "/v1/chat/completions")
    api.wait_abort("disconnect")


def count(api: Api, name: str) -> float:
    lines = [line for line in api.client.get("/metrics").text.splitlines() if name in line and line[0] != "#"]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def test_cancellations_are_counted(api: Api) -> None:
    name = 'request_cancellations_total{cause="disconnect"'
    before = count(api, name)
    api.script("Hello", start=False)
    send(api, BODY)
    api.wait_abort("disconnect")
    assert count(api, name) == before + 1


def test_a_rejection_is_no_cancellation(api: Api) -> None:
    names = ("request_cancellations_total", "request_success_total", "request_rejections_total")
    before = [count(api, name) for name in names]
    api.script("Hello", reject="queue_requests")
    api.client.post("/v1/completions", json={"prompt": "Hi"})
    api.engine.state = "draining"
    api.client.post("/v1/completions", json={"prompt": "Hi"})
    after = [count(api, name) for name in names]
    assert [b - a for a, b in zip(before, after, strict=True)] == [0, 0, 2]


def test_a_request_half_sent(api: Api) -> None:
    with api.connect() as sock:
        sock.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
        sock.sendall(b'Content-Length: 100\r\n\r\n{"prompt": "a')
        time.sleep(0.05)
    assert api.client.get("/health").status_code == 200
    assert not api.engine.submits


def test_the_answer_was_read_and_nothing_is_aborted(api: Api) -> None:
    assert api.client.post("/v1/completions", json={"prompt": "Hi"}).status_code == 200
    with api.client.stream("POST", "/v1/completions", json={"prompt": "Hi", "stream": True}) as response:
        response.read()
    assert api.engine.aborts == []


@pytest.mark.parametrize(
    ("reason", "status", "kind"),
    [
        ("queue_requests", 429, "rate_limit_error"),
        ("queue_tokens", 429, "rate_limit_error"),
        ("queue_seconds", 429, "rate_limit_error"),
        ("draining", 503, "service_unavailable_error"),
        ("starting", 503, "service_unavailable_error"),
        ("down", 503, "service_unavailable_error"),
    ],
)
def test_a_rejection(api: Api, reason: str, status: int, kind: str) -> None:
    api.script("Hello", reject=reason)
    response = api.client.post("/v1/completions", json={"prompt": "Hi", "n": 2})
    assert response.status_code == status
    assert response.headers["retry-after"] == "3"
    assert response.json()["error"]["type"] == kind
    metrics = api.client.get("/metrics").text
    assert f'cause="{reason}"' in metrics


def test_one_choice_rejected_ends_the_others(api: Api) -> None:
    api.engine.next_scripts += [
        api.script("Hello", step_seconds=0.05),
        api.script("Hello", reject="queue_requests"),
    ]
    response = api.client.post("/v1/completions", json={"prompt": "Hi", "n": 2})
    assert response.status_code == 429
    assert [id for id, _, _ in api.engine.aborts] == [api.engine.submits[0].id]


@pytest.mark.parametrize("state", ["starting", "draining", "down"])
def test_without_an_engine_requests_are_refused(api: Api, state: State) -> None:
    api.engine.state = state
    for path, body in (
        ("/v1/completions", {"prompt": "Hi"}),
        ("/v1/completions", {"prompt": "Hi", "stream": True}),
        ("/v1/chat/completions", {"messages": HI}),
    ):
        response = api.client.post(path, json=body)
        assert response.status_code == 503
        assert int(response.headers["retry-after"]) >= 1
        assert response.json()["error"]["code"] == f"engine_{state}"
    assert api.client.get("/health/ready").status_code == 503
    assert api.client.get("/health/live").status_code == 200


def test_the_engine_dies_before_the_answer(api: Api) -> None:
    api.script("Hello, wide world.", die_after=2)
    response = api.client.post("/v1/completions", json={"prompt": "Hi"})
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "engine_down"
    assert "killed by signal 9" in response.json()["error"]["message"]


def test_a_failed_request_is_an_internal_fault_without_its_cause(api: Api) -> None:
    api.script("Hello, wide world.", fail_after=1)
    response = api.client.post("/v1/chat/completions", json={"messages": HI, "n": 2})
    assert response.status_code == 500
    assert response.json()["error"]["type"] == "server_error"
    assert "secret" not in response.text


def test_a_choice_that_fails_ends_its_fellows(api: Api) -> None:
    api.script("Hello, wide world.", fail_after=1, fails_alone=True, step_seconds=0.02)
    response = api.client.post("/v1/completions", json=BODY | {"n": 3})
    assert response.status_code == 500
    assert sorted(id for id, _, _ in api.engine.aborts) == [submit.id for submit in api.engine.submits[1:]]
    assert {cause for _, cause, _ in api.engine.aborts} == {"error"}


def test_a_bug_is_an_internal_fault_and_never_the_callers(api: Api) -> None:
    def broken(_: object) -> list[int]:
        return [10**9]  # no such token: the text side raises

    api.script("Hello").answer = broken
    response = api.client.post("/v1/completions", json={"prompt": "Hi", "request_id": "bug"})
    assert response.status_code == 500
    assert response.json() == {
        "error": {"message": "internal server error", "type": "server_error", "param": None, "code": None}
    }
    assert response.headers["x-request-id"] == "bug"
    api.wait_abort("error")
    response = api.client.post("/v1/completions", json={"prompt": "Hi", "stream": True})
    assert response.status_code == 200
    assert '"type":"server_error"' in response.text
    assert "1000000000" not in response.text


def test_a_timeout(api: Api) -> None:
    api.script("Hello", step_seconds=0.1)
    began = time.monotonic()
    response = api.client.post("/v1/completions", json=BODY | {"timeout": 0.2})
    assert response.status_code == 408
    assert 0.15 < time.monotonic() - began < 1
    assert response.json()["error"]["code"] == "timeout"
    assert response.headers["x-should-retry"] == "false"
    api.wait_abort("timeout")


def test_many_at_once(api: Api) -> None:
    """Streams and whole answers side by side, half of them given up; all of the rest are right."""

    async def one(client: httpx.AsyncClient, place: int) -> str | None:
        body = {"prompt": f"Request {place}", "max_tokens": 20, "stream": place % 3 == 0}
        try:
            limit = 0.004 if place % 2 else 10
            return (await asyncio.wait_for(client.post("/v1/completions", json=body), limit)).text
        except TimeoutError:
            return None

    async def all_of_them() -> list[str | None]:
        async with httpx.AsyncClient(base_url=api.client.base_url, timeout=20) as client:
            return await asyncio.gather(*(one(client, place) for place in range(60)))

    answers = asyncio.run(all_of_them())
    assert all(answer is not None and "world" in answer for answer in answers[::2])
    limit = time.monotonic() + 3
    while not all(stream.ended for stream in api.engine.streams) and time.monotonic() < limit:
        time.sleep(0.01)
    assert all(stream.ended for stream in api.engine.streams)
