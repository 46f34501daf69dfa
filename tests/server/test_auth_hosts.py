"""A page in somebody's browser whose name was made to lead here is not answered, though no key is asked for."""

from pathlib import Path

import pytest

from server.auth.access import Access
from server.auth.hosts import Hosts
from server.auth.key import Key, digest_of
from server.auth.ledger import Ledger
from server.errors import ApiError
from tests.server.scripted import serve_api

OWN = [
    "",
    "localhost",
    "localhost:8000",
    "LOCALHOST.",
    "127.0.0.1:8000",
    "10.1.2.3",
    "[::1]:8000",
    "server:8000",
]
OWN += [
    "loom.local",
    "a.localhost:1",
    "tokenloom.models.svc.cluster.local",
    "llm.example",
    "llm.example.:8000",
]
FOREIGN = [
    "evil.example",
    "evil.example:8000",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "xllm.example",
]
FOREIGN += ["a.llm.example", "local.evil", "127.1.1.1.1", "evil.example,localhost"]


@pytest.mark.parametrize("host", OWN)
def test_a_name_that_nobody_else_owns(host: str) -> None:
    Hosts(["LLM.example", " "]).check(host)


@pytest.mark.parametrize("host", FOREIGN)
def test_a_name_that_somebody_may_own(host: str) -> None:
    with pytest.raises(ApiError) as caught:
        Hosts(["llm.example"]).check(host)
    assert (caught.value.status, caught.value.code) == (403, "host_not_allowed")
    assert "allowed_hosts" in caught.value.message
    Hosts(["*"]).check(host)


def test_without_keys_the_name_counts_and_with_them_it_does_not(tmp_path: Path) -> None:
    access = Access(hosts=Hosts(), ledger=Ledger(tmp_path, 0))
    rebound = {"Host": "evil.example"}
    with serve_api(access=access) as api:

        def status(method: str, path: str, **headers: str) -> int:
            return api.client.request(method, path, headers=rebound | headers).status_code

        assert {status("GET", path) for path in ("/v1/models", "/metrics", "/docs")} == {403}
        assert status("POST", "/v1/completions") == 403
        assert status("GET", "/health") == 200, "probes may call it what they like"
        assert api.client.get("/v1/models").status_code == 200
        access.use([Key("alice", digest_of(b"tl-alice"))])
        assert status("GET", "/v1/models") == 401
        assert status("GET", "/v1/models", **{"x-api-key": "tl-alice"}) == 200
