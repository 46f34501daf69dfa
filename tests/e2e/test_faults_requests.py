"""Requests that fail by themselves, in a whole server: the others' answers are what they are without them."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.deployment import Deployment, wait_until
from tests.e2e.poisoned_model import POISON, UNREADABLE, write_poisoned

SHARED = "The others have read this much of the prompt already, and it is in the prefix cache. "
PROMPTS = [SHARED + text for text in ("", "a", "Water", "b" * 40)] + ["c", "dd" * 30, "A fox", "x y z"]
COMPLETIONS = "/v1/completions"
FAILED = {"message": "the engine failed on this request", "type": "server_error", "param": None, "code": None}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder: Path = tmp_path_factory.mktemp("poisoned")
    write_poisoned(folder)
    flags = ["--port", "0", "--dtype", "float32", "--threads", "1", "--max-requests", "16"]
    flags += ["--max-batch-tokens", "128", "--kv-tokens", "4096"]
    deployment = Deployment(tmp_path_factory.mktemp("place"), ["server", "serve", str(folder), *flags])
    try:
        wait_until(deployment.is_ready, 60)
        yield deployment
    finally:
        deployment.close()


@pytest.fixture(scope="module")
def alone(server: Deployment) -> list[list[int]]:
    """What each prompt is answered when there is nobody else."""
    return [token_ids(httpx.post(f"{server.url}{COMPLETIONS}", json=body(prompt))) for prompt in PROMPTS]


def body(prompt: str, **more: object) -> dict[str, object]:
    asked = {"prompt": prompt, "max_tokens": 24, "temperature": 0, "ignore_eos": True}
    return asked | {"return_token_ids": True} | more


def token_ids(response: httpx.Response) -> list[int]:
    assert response.status_code == 200, response.text
    ids: list[int] = response.json()["choices"][0]["token_ids"]
    assert len(ids) == 24
    return ids


async def ask_all(url: str, bodies: list[dict[str, object]]) -> list[httpx.Response]:
    """All at once."""
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        return await asyncio.gather(*(client.post(COMPLETIONS, json=one) for one in bodies))


def events_of(response: httpx.Response) -> list[Any]:
    lines = [line[6:] for line in response.text.splitlines() if line.startswith("data: ")]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


async def test_logits_that_are_no_numbers(server: Deployment, alone: list[list[int]]) -> None:
    """Prompts whole and in chunks, answers whole and streamed, several choices, and a prefix that others share."""
    poisons = [
        body(POISON),
        body(SHARED + POISON),
        body(SHARED + POISON + "y" * 150, logprobs=2),
        body("y" * 100 + POISON, n=2, temperature=1),
        body(SHARED[:40] + POISON, stream=True),
    ]
    healthy = [body(prompt) for prompt in PROMPTS]
    mixed = [one for pair in zip(healthy, poisons * 2, strict=False) for one in pair]
    responses = await ask_all(server.url, mixed)
    assert [token_ids(response) for response in responses[::2]] == alone
    for asked, response in zip(mixed[1::2], responses[1::2], strict=True):
        if "stream" in asked:
            assert events_of(response) == [{"error": FAILED}]
        else:
            assert (response.status_code, response.json()) == (500, {"error": FAILED})
    again = await ask_all(server.url, healthy)
    assert [token_ids(response) for response in again] == alone, "no block of theirs was left to others"
    check_rest(server)


async def test_mates_that_read_a_spoilt_prefix_are_computed_again(server: Deployment) -> None:
    """They found it in the cache before its owner failed; and who fails on it too is told so once."""
    prefix = ("Nobody has read this before. " * 3)[:66]  # beside the end of a full block
    poisons = [body(prefix + POISON, max_tokens=4) for _ in range(2)]
    mates = [body(prefix + text) for text in "abcdef"]
    crowd = body("") | {"prompt": [chr(65 + place) * 480 for place in range(15)], "max_tokens": 1}
    first, *responses = await ask_all(server.url, [crowd, *poisons, *mates])  # it makes them wait together
    assert [response.status_code for response in (first, *responses)] == [200, 500, 500] + [200] * 6
    alone = [httpx.post(f"{server.url}{COMPLETIONS}", json=mate | {"cache_salt": "alone"}) for mate in mates]
    assert [token_ids(one) for one in responses[2:]] == [token_ids(one) for one in alone]
    check_rest(server)


async def test_a_text_that_the_tokenizer_panics_on(server: Deployment, alone: list[list[int]]) -> None:
    """Short texts are read on the event loop, long ones in a thread."""
    unreadable = [UNREADABLE, UNREADABLE * 60]
    bodies = [body(prompt) for prompt in PROMPTS] + [body(text) for text in unreadable]
    bodies += [body(unreadable[0], stream=True)]
    worker = server.child("loom-server-0")
    responses = await ask_all(server.url, bodies)
    assert [token_ids(response) for response in responses[: len(PROMPTS)]] == alone
    for response in responses[len(PROMPTS) :]:
        assert response.status_code == 500
        assert response.json()["error"]["message"] == "internal server error"
    refused = httpx.post(f"{server.url}/tokenize", json={"prompt": UNREADABLE})
    assert refused.status_code == 500 and refused.json()["error"]["type"] == "server_error"
    assert worker == server.child("loom-server-0")
    check_rest(server)


def check_rest(server: Deployment) -> None:
    wait_until(lambda: server.metric("num_requests_running") == server.metric("kv_cache_usage_perc") == 0)
    assert server.metric("engine_restarts_total") == 0
    assert httpx.get(f"{server.url}/health").status_code == 200
