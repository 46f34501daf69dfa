"""The official Python client against a whole server: processes, ZeroMQ, the bundled model in float32."""

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from tests.e2e.deployment import Deployment, wait_until

CASES: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "data" / "smollm2_refs.json").read_text("utf-8")
)["items"]
FRANCE: list[ChatCompletionMessageParam] = [{"role": "user", "content": "What is the capital of France?"}]
PARIS = "The capital of France is Paris."


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    flags = ["--port", "0", "--dtype", "float32", "--kv-tokens", "4096"]
    deployment = Deployment(tmp_path_factory.mktemp("serve"), ["server", "serve", *flags])
    try:
        wait_until(deployment.is_ready, 90)
        yield deployment
    finally:
        deployment.close()


@pytest.fixture(scope="module")
def url(deployment: Deployment) -> str:
    return f"{deployment.url}/v1"


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture
async def aclient(url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def model(url: str) -> str:
    with openai.OpenAI(base_url=url, api_key="none") as client:
        [model] = client.models.list().data
        assert client.models.retrieve(model.id) == model
        return model.id


def test_a_chat(client: openai.OpenAI, model: str) -> None:
    answer = client.chat.completions.create(model=model, messages=FRANCE, temperature=0)
    assert answer.choices[0].message.content == PARIS
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_chat_streams(client: openai.OpenAI, model: str) -> None:
    stream = client.chat.completions.create(
        model=model, messages=FRANCE, temperature=0, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(texts) == PARIS
    assert len(texts) > 5
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 8


def test_the_clients_stream_helper(client: openai.OpenAI, model: str) -> None:
    with client.chat.completions.stream(model=model, messages=FRANCE, temperature=0) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.content == PARIS


async def test_all_references_at_once(aclient: openai.AsyncOpenAI, model: str) -> None:
    """Token for token what the model's own implementation gives, however the requests share their steps."""

    async def token_ids(case: dict[str, Any]) -> list[int]:
        stream = await aclient.completions.create(
            model=model,
            prompt=case["prompt_ids"],
            temperature=0,
            max_tokens=64,
            stream=True,
            extra_body={"return_token_ids": True},
        )
        chunks = [chunk async for chunk in stream]
        return [i for chunk in chunks for i in (chunk.choices[0].model_extra or {})["token_ids"]]

    answers = await asyncio.gather(*(token_ids(case) for case in CASES))
    assert answers == [case["output_ids"] for case in CASES]


def test_logprobs(client: openai.OpenAI, model: str) -> None:
    answer = client.chat.completions.create(
        model=model, messages=FRANCE, temperature=0, logprobs=True, top_logprobs=3, max_tokens=5
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert "".join(entry.token for entry in logprobs.content) == "The capital of France is"
    for entry in logprobs.content:
        assert entry.logprob == max(top.logprob for top in entry.top_logprobs) <= 0
        assert len(entry.top_logprobs) == 3
        assert bytes(entry.bytes or []).decode() == entry.token


def test_echo_scores_a_prompt_as_evaluations_do(client: openai.OpenAI, model: str) -> None:
    """What comes after a context is scored in one request, and the likelier one gets more."""

    def score(text: str) -> float:
        answer = client.completions.create(
            model=model, prompt=text, echo=True, max_tokens=1, logprobs=1, temperature=0, seed=1234
        )
        logprobs = answer.choices[0].logprobs
        assert logprobs is not None
        assert logprobs.tokens is not None
        assert logprobs.token_logprobs is not None
        assert logprobs.token_logprobs[0] is None
        assert "".join(logprobs.tokens[:-1]) == text
        return math.fsum(logprobs.token_logprobs[-2:-1])

    assert score("The capital of France is Paris") > score("The capital of France is Berlin") + 1


def test_echoed_logprobs_do_not_depend_on_the_prefix_cache(client: openai.OpenAI, model: str) -> None:
    prompt = CASES[0]["prompt_ids"] * 2

    def logprobs() -> list[float | None]:
        answer = client.completions.create(
            model=model, prompt=prompt, echo=True, max_tokens=1, logprobs=0, temperature=0
        )
        assert answer.choices[0].logprobs is not None
        return list(answer.choices[0].logprobs.token_logprobs or [])

    first, second = logprobs(), logprobs()
    assert len(first) == len(second) == len(prompt) + 1
    assert first[1:] == pytest.approx(second[1:], abs=1e-4)


def test_stop_and_n(client: openai.OpenAI, model: str) -> None:
    answer = client.chat.completions.create(
        model=model, messages=FRANCE, temperature=0, stop=[" Paris", "\n"]
    )
    assert answer.choices[0].message.content == "The capital of France is"
    assert answer.choices[0].finish_reason == "stop"
    several = client.completions.create(model=model, prompt="Once", n=3, seed=7, max_tokens=8, temperature=1)
    again = client.completions.create(model=model, prompt="Once", n=3, seed=7, max_tokens=8, temperature=1)
    assert [choice.text for choice in several.choices] == [choice.text for choice in again.choices]
    assert len({choice.text for choice in several.choices}) == 3
    assert [choice.index for choice in several.choices] == [0, 1, 2]


def test_several_prompts(client: openai.OpenAI, model: str) -> None:
    texts = [case["prompt_text"] for case in CASES[:3]]
    answer = client.completions.create(model=model, prompt=texts, temperature=0, max_tokens=4)
    alone = [
        client.completions.create(model=model, prompt=text, temperature=0, max_tokens=4).choices[0].text
        for text in texts
    ]
    assert [choice.text for choice in answer.choices] == alone


def test_errors_are_the_clients_own(client: openai.OpenAI, model: str) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="gpt-4", messages=FRANCE)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="temperature") as bad:
        client.chat.completions.create(model=model, messages=FRANCE, temperature=3)
    assert bad.value.param == "temperature"
    with pytest.raises(openai.BadRequestError) as long:
        client.completions.create(model=model, prompt="word " * 9000)
    assert long.value.code == "context_length_exceeded"
    assert isinstance(long.value.body, dict)
    assert long.value.body["n_prompt_tokens"] > long.value.body["max_model_len"]
    with pytest.raises(openai.APIStatusError) as late:
        slow = {"timeout": 0.05, "ignore_eos": True}
        client.completions.create(model=model, prompt="Once", max_tokens=2000, extra_body=slow)
    assert late.value.status_code == 408


def test_an_error_in_a_stream(client: openai.OpenAI, model: str) -> None:
    stream = client.completions.create(
        model=model,
        prompt="Once",
        max_tokens=2000,
        stream=True,
        extra_body={"timeout": 1.0, "ignore_eos": True},
    )
    with pytest.raises(openai.APIError, match="timeout"):
        list(stream)


def test_a_stream_that_is_left_frees_its_row(
    client: openai.OpenAI, deployment: Deployment, model: str
) -> None:
    stream = client.completions.create(
        model=model, prompt="Once", max_tokens=3000, stream=True, extra_body={"ignore_eos": True}
    )
    next(iter(stream))
    left = time.monotonic()
    stream.close()
    wait_until(lambda: deployment.metric("num_requests_running") == 0, 10)
    assert time.monotonic() - left < 5
    assert deployment.metric("request_cancellations_total") >= 1


def test_the_text_side(deployment: Deployment) -> None:
    case = CASES[0]
    with httpx.Client(base_url=deployment.url) as http:
        answer = http.post("/tokenize", json={"prompt": case["prompt_text"], "add_special_tokens": False})
        assert answer.json()["tokens"] == case["prompt_ids"]
        back = http.post("/detokenize", json={"tokens": case["prompt_ids"]})
        assert back.json() == {"prompt": case["prompt_text"]}
