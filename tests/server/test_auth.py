"""The gate: who comes in where, what the others are told, and what a key may use."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.routing import iter_route_contexts

from server.admin.desk import AdminDesk
from server.app import create_app
from server.auth.access import OPEN, Access
from server.auth.key import Key, digest_of
from server.auth.ledger import Ledger
from server.errors import ApiError
from tests.server.scripted import SETTINGS, Api, serve_api

SECRET = "tl-alice"
ALICE = Key("alice", digest_of(SECRET.encode()))
BEARER = {"Authorization": f"Bearer {SECRET}"}
ROOT = Key("root", digest_of(b"tl-root"), admin=True)
BODY = {"prompt": "Hi", "max_tokens": 8, "ignore_eos": True}
CLOSED = [
    ("GET", "/v1/models"),
    ("GET", "/metrics"),
    ("GET", "/version"),
    ("GET", "/docs"),
    ("GET", "/openapi.json"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/embeddings"),
    ("POST", "/tokenize"),
    ("GET", "/admin/status"),
    ("GET", "/health/"),
    ("GET", "/health/live/../../v1/models"),
    ("GET", "//health"),
    ("OPTIONS", "/v1/models"),
    ("GET", "/no/such/path"),
]


@contextmanager
def serve_keys(directory: Path, *keys: Key, **options: Any) -> Iterator[Api]:
    with serve_api(access=Access(keys, Ledger(directory, 0)), **options) as api:
        yield api


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with serve_keys(tmp_path_factory.mktemp("keys"), ALICE, ROOT) as api:
        yield api


@pytest.mark.parametrize(("method", "path"), CLOSED)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": SECRET},
        {"Authorization": f"Basic {SECRET}"},
        {"Authorization": "Bearer"},
        {"x-api-key": "wrong"},
        {"x-api-key": ALICE.digest.hex()},
        {"Authorization": "Bearer \xff\xfe"},
    ],
    ids=str,
)
def test_every_route_is_closed(closed: Api, method: str, path: str, headers: dict[str, str]) -> None:
    url = httpx.URL(f"http://127.0.0.1:{closed.port}").copy_with(raw_path=path.encode())
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    request = httpx.Request(method, url, headers=raw)
    response = closed.client.send(request)
    assert response.status_code == 401
    assert response.headers["www-authenticate"].startswith("Bearer")
    error = response.json()["error"]
    assert (error["type"], error["code"]) == ("authentication_error", "invalid_api_key")
    assert "Authorization: Bearer" in error["message"]


def test_no_route_was_forgotten(tmp_path: Path) -> None:
    """All that the application has, the documentation and the administrator's among them."""
    with serve_keys(tmp_path, ALICE, ROOT, desk=AdminDesk(lambda number, command: None)) as api:
        routes = list(iter_route_contexts(create_app(api.context).routes))
        paths = {route.path for route in routes}
        assert paths > {*OPEN, "/metrics", "/docs", "/openapi.json", "/admin/unload"}
        for method, path in (
            (method, route.path or "") for route in routes for method in route.methods or ()
        ):
            if path not in OPEN:
                assert api.client.request(method, path).status_code == 401, f"{method} {path}"


def test_the_time_tells_nothing_of_the_keys_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is compared in full, whichever it is that came."""
    compared: list[bytes] = []

    def compare(known: bytes, presented: bytes) -> bool:
        compared.append(known)
        return known == presented

    monkeypatch.setattr("server.auth.access.hmac.compare_digest", compare)
    keys = [Key(name, digest_of(name.encode())) for name in ("first", "second", "last")]
    access = Access(keys)
    for presented in (b"first", b"last", b"none"):
        compared.clear()
        scope = {
            "type": "http",
            "path": "/x",
            "method": "GET",
            "headers": [(b"authorization", b"Bearer " + presented)],
        }
        if presented == b"none":
            with pytest.raises(ApiError):
                access.enter(scope, {})
        else:
            assert access.enter(scope, {}).key_name == presented.decode()
        assert compared == [key.digest for key in keys]


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready"])
def test_health_is_open(closed: Api, path: str) -> None:
    assert closed.client.get(path).status_code == 200


@pytest.mark.parametrize(
    "headers", [BEARER, {"authorization": f"bearer  {SECRET}"}, {"X-Api-Key": SECRET}], ids=str
)
def test_a_key_opens_all_but_what_is_the_administrators(closed: Api, headers: dict[str, str]) -> None:
    for path in ("/v1/models", "/metrics", "/docs", "/openapi.json"):
        assert closed.client.get(path, headers=headers).status_code == 200
    assert closed.client.post("/v1/completions", json=BODY, headers=headers).status_code == 200
    response = closed.client.get("/admin/status", headers=headers)
    assert response.status_code == 403 and response.json()["error"]["code"] == "not_admin"


def test_nothing_is_read_of_what_may_not_come_in(closed: Api) -> None:
    closed.reset()
    with closed.connect() as sock:
        sock.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
        assert sock.recv(4096).startswith(b"HTTP/1.1 401 ")
    assert not closed.engine.submits


def test_without_keys_the_server_is_open_and_has_no_administrator(api: Api) -> None:
    assert api.client.get("/v1/models").status_code == 200
    for path in ("/admin/status", "/admin/", "/admin/x"):
        assert api.client.get(path).status_code == 404
    assert api.client.post("/admin/drain", headers=BEARER).status_code == 404


def test_without_an_administrators_key_there_is_no_administrator(tmp_path: Path) -> None:
    with serve_keys(tmp_path, ALICE) as api:
        assert api.client.get("/admin/status", headers=BEARER).status_code == 404


def test_requests_a_minute_are_told_and_held(tmp_path: Path) -> None:
    with serve_keys(tmp_path, replace(ALICE, requests_per_minute=3, tokens_per_minute=10_000)) as api:
        lefts = []
        for _ in range(3):
            response = api.client.post("/v1/completions", json=BODY, headers=BEARER)
            assert response.status_code == 200
            assert response.headers["x-ratelimit-limit-requests"] == "3"
            assert response.headers["x-ratelimit-limit-tokens"] == "10000"
            lefts.append(int(response.headers["x-ratelimit-remaining-requests"]))
        assert lefts == [2, 1, 0]
        assert api.client.get("/v1/models", headers=BEARER).status_code == 200, "only POST counts"
        refused = api.client.post("/v1/completions", json=BODY, headers=BEARER)
        assert refused.status_code == 429
        assert 18 <= int(refused.headers["retry-after"]) <= 20
        assert refused.headers["x-ratelimit-remaining-requests"] == "0"
        assert refused.headers["x-ratelimit-reset-requests"].endswith("s")
        error = refused.json()["error"]
        assert (error["type"], error["code"]) == ("rate_limit_error", "requests_per_minute")
        assert len(api.engine.submits) == 3


def test_tokens_a_minute_count_prompts_and_answers(tmp_path: Path) -> None:
    with serve_keys(tmp_path, replace(ALICE, tokens_per_minute=600)) as api:
        body = {"prompt": [1] * 100, "max_tokens": 100, "ignore_eos": True, "n": 2, "temperature": 1.0}
        response = api.client.post("/v1/completions", json=body, headers=BEARER)
        assert response.json()["usage"]["total_tokens"] == 300
        left = remaining(api)
        assert 250 <= left <= 320
        refused = api.client.post(
            "/v1/completions", json={"prompt": [1] * 200, "n": 2, "max_tokens": 50}, headers=BEARER
        )
        assert refused.status_code == 200, "a prompt counts once, however often it is answered"
        refused = api.client.post("/v1/completions", json={"prompt": [1] * 200}, headers=BEARER)
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "tokens_per_minute"
        assert int(refused.headers["retry-after"]) >= 5


def remaining(api: Api) -> int:
    """Of the tokens; asking for a token's text takes none."""
    response = api.client.post("/detokenize", json={"tokens": [1]}, headers=BEARER)
    return int(response.headers["x-ratelimit-remaining-tokens"])


def test_what_the_engine_does_not_take_costs_no_tokens(tmp_path: Path) -> None:
    with serve_keys(tmp_path, replace(ALICE, tokens_per_minute=600)) as api:
        api.script("Hello", reject="queue_requests")
        for _ in range(5):
            response = api.client.post("/v1/completions", json={"prompt": [1] * 200}, headers=BEARER)
            assert response.status_code == 429 and response.json()["error"]["code"] == "queue_requests"
        assert remaining(api) == 600


def test_requests_at_once(tmp_path: Path) -> None:
    with serve_keys(tmp_path, replace(ALICE, max_concurrent=2)) as api:
        api.script("Hello", start=False)
        payload = json.dumps(BODY | {"stream": True}).encode()
        head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {SECRET}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n\r\n"
        with api.connect() as first, api.connect() as second:
            for sock in (first, second):
                sock.sendall(head.encode() + payload)
                assert sock.recv(15).startswith(b"HTTP/1.1 200")
            refused = api.client.post("/v1/completions", json=BODY, headers=BEARER)
            assert refused.status_code == 429 and refused.headers["retry-after"] == "1"
            assert refused.json()["error"]["code"] == "max_concurrent"
        api.script("Hello")
        limit = time.monotonic() + 3
        while api.client.post("/v1/completions", json=BODY, headers=BEARER).status_code == 429:
            assert time.monotonic() < limit, "both went away, so there is room"


def test_the_most_urgent_priority_of_a_key(tmp_path: Path) -> None:
    with serve_keys(tmp_path, replace(ALICE, max_priority=-1), policy="priority") as api:
        for priority, status in ((-2, 400), (-1, 200), (5, 200), (None, 200)):
            response = api.client.post("/v1/completions", json=BODY | {"priority": priority}, headers=BEARER)
            assert response.status_code == status
            if status == 400:
                error = response.json()["error"]
                assert error["param"] == "priority" and "-2" in error["message"] and "-1" in error["message"]


def test_who_asks_for_no_priority_gets_what_the_key_may_have(tmp_path: Path) -> None:
    """Clients that know nothing of priorities are served with any key; under either policy."""
    with serve_keys(tmp_path, replace(ALICE, max_priority=5)) as api:
        assert api.client.post("/v1/completions", json=BODY, headers=BEARER).status_code == 200
        assert api.engine.submits[-1].priority == 5
    with serve_keys(tmp_path, replace(ALICE, max_priority=5), policy="priority") as api:
        for asked, given in ((None, 5), (7, 7)):
            body = BODY | {"priority": asked}
            assert api.client.post("/v1/completions", json=body, headers=BEARER).status_code == 200
            assert api.engine.submits[-1].priority == given
        refused = api.client.post("/v1/completions", json=BODY | {"priority": 4}, headers=BEARER)
        assert refused.status_code == 400 and refused.json()["error"]["param"] == "priority"


def test_prefixes_are_isolated_on_request(tmp_path: Path) -> None:
    bob = Key("bob", digest_of(b"tl-bob"))
    isolated = replace(ALICE, isolate_prefixes=True)
    with serve_keys(tmp_path, isolated, bob) as api:
        for headers in (BEARER, {"x-api-key": "tl-bob"}):
            for salt in ({}, {"cache_salt": "s"}):
                assert api.client.post("/v1/completions", json=BODY | salt, headers=headers).is_success
        salts = [submit.cache_salt for submit in api.engine.submits]
        assert salts[2:] == ["", "s"]
        assert len(set(salts)) == 4 and ALICE.digest.hex() in salts[0]


def test_keys_that_are_taken_back(tmp_path: Path) -> None:
    access = Access([ALICE], Ledger(tmp_path, 0))
    with serve_api(access=access) as api:
        assert api.client.get("/v1/models", headers=BEARER).status_code == 200
        access.use([ROOT])
        assert api.client.get("/v1/models", headers=BEARER).status_code == 401
        assert api.client.get("/v1/models", headers={"x-api-key": "tl-root"}).status_code == 200


def test_other_origins_are_let_in_only_where_that_is_set(tmp_path: Path, api: Api) -> None:
    asking = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    assert "access-control-allow-origin" not in api.client.options("/v1/completions", headers=asking).headers
    settings = replace(SETTINGS, cors_origin="https://a.example, https://b.example")
    with serve_keys(tmp_path, ALICE, settings=settings) as open_api:
        asking["Access-Control-Request-Headers"] = "authorization"
        preflight = open_api.client.options("/v1/completions", headers=asking)
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == "https://a.example"
        closed = open_api.client.get("/v1/models", headers={"Origin": "https://b.example"})
        assert closed.status_code == 401
        assert closed.headers["access-control-allow-origin"] == "https://b.example"
        other = open_api.client.get("/v1/models", headers=BEARER | {"Origin": "https://c.example"})
        assert "access-control-allow-origin" not in other.headers
