"""Routes that answer with a bare list, in the shapes of text-embeddings-inference; numbers are worked out by hand."""

import math
from collections.abc import Iterator
from typing import Any

import pytest

from engine.checkpoint import Sentence
from tests.server.bad_request import check_error
from tests.server.scripted_encoder_client import MAX_MODEL_LEN, EncoderApi, serve_encoder

CLS, SEP = 101, 102
LONG = "red " * 90


@pytest.fixture(scope="module")
def shared_embedder() -> Iterator[EncoderApi]:
    with serve_encoder(sentence=Sentence(("mean",)), matryoshka=True) as api:
        yield api


def test_vectors_are_normed_unless_the_caller_says_otherwise(embedder: EncoderApi) -> None:
    answer = embedder.client.post("/embed", json={"inputs": ["red", "tea"]})
    assert answer.json() == [pytest.approx([0.2, 0.4, 0.4, 0.8])] * 2  # the length is 5
    answer = embedder.client.post("/embed", json={"inputs": "red", "normalize": False})
    assert answer.json() == [[1.0, 2.0, 2.0, 4.0]]
    body = {"inputs": LONG, "truncate": True, "truncation_direction": "Left", "dimensions": 3}
    assert embedder.client.post("/embed", json=body).json() == [pytest.approx([1 / 3, 2 / 3, 2 / 3])]
    assert embedder.engine.messages[-1].token_ids == (CLS, *[2417] * 30, SEP)


def test_a_model_that_norms_by_itself() -> None:
    with serve_encoder() as api:
        assert api.client.post("/embed", json={"inputs": "red"}).json() == [[1.0, 2.0, 2.0, 4.0]]
        refused = api.client.post("/embed", json={"inputs": "red", "normalize": False})
        assert check_error(refused, 400)["param"] == "normalize"


def test_predict() -> None:
    """The likeliest first; a list of lists for a list of lists."""
    first = [("yes", 0.5), ("no", 0.25), ("maybe", 0.25)]
    pair = [("maybe", 1.0), ("no", 0.0), ("yes", 0.0)]
    with serve_encoder(task="classify", labels=("no", "yes", "maybe"), activation="softmax") as api:
        api.answers({"red": [0.0, math.log(2), 0.0], "red tea": [0.0, -1000.0, 1000.0]})

        def predict(inputs: object, **fields: object) -> object:
            answer = api.client.post("/predict", json={"inputs": inputs} | fields)
            assert answer.status_code == 200
            return _plain(answer.json())

        assert predict("red") == predict(["red"]) == first
        assert predict([["red"], ["red", "tea"]]) == [first, pair]
        assert predict(["red", "tea"]) == pair
        assert api.engine.messages[-1].type_ids == (0, 0, 0, 1, 1)
        assert predict(["red", "tea"], raw_scores=True) == [("maybe", 1e3), ("no", 0.0), ("yes", -1e3)]


def _plain(entry: Any) -> object:
    """A prediction, or a list of them."""
    if isinstance(entry, list):
        return [_plain(one) for one in entry]
    return entry["label"], round(entry["score"], 6)


def test_rerank_texts(cross_encoder: EncoderApi) -> None:
    cross_encoder.answers({"tea red": [math.log(3)], "tea green": [-math.log(4)]})
    body: dict[str, object] = {"query": "tea", "texts": ["green", "red"]}
    assert cross_encoder.client.post("/rerank", json=body).json() == [
        {"index": 1, "score": pytest.approx(0.75)},
        {"index": 0, "score": pytest.approx(0.2)},
    ]
    more = {"return_text": True, "raw_scores": True, "top_n": 1}
    assert cross_encoder.client.post("/rerank", json=body | more).json() == [
        {"index": 1, "score": pytest.approx(math.log(3)), "text": "red"}
    ]
    cross_encoder.script(lambda message: [0.0])
    long = {"query": "tea", "texts": [LONG], "truncate": True}
    assert cross_encoder.client.post("/rerank", json=long).status_code == 200
    assert len(cross_encoder.engine.messages[-1].token_ids) == MAX_MODEL_LEN


RERANKS: list[tuple[dict[str, object], str]] = [
    ({"query": "a", "texts": []}, "texts"),
    ({"query": "a", "texts": ["b", LONG]}, "texts"),
    ({"query": "a", "texts": ["b"], "return_documents": True}, "return_documents"),
    ({"query": "a", "documents": ["b"], "return_text": True}, "return_text"),
    ({"query": "a", "texts": ["b"], "raw_scores": True, "use_activation": True}, "raw_scores"),
    ({"query": "a", "texts": ["b"], "truncate": True, "truncate_prompt_tokens": 5}, "truncate"),
    ({"query": "a", "texts": ["b"], "truncation_direction": "up"}, "truncation_direction"),
]
PREDICTIONS: list[tuple[dict[str, object], str]] = [
    ({}, "inputs"),
    ({"input": "a"}, "inputs"),
    ({"inputs": ""}, "inputs"),
    ({"inputs": [[]]}, "inputs"),
    ({"inputs": [["a"], ["a", "b", "c"]]}, "inputs"),
    ({"inputs": [["a"], [LONG]]}, "inputs"),
    ({"inputs": [["a"]] * 2049}, "inputs"),
    ({"inputs": "a", "raw_scores": 1}, "raw_scores"),
    ({"inputs": "a", "truncate": "yes"}, "truncate"),
]
EMBEDDINGS: list[tuple[dict[str, object], str]] = [
    ({"input": "a"}, "inputs"),
    ({"inputs": ["a", LONG]}, "inputs"),
    ({"inputs": [99999]}, "inputs"),
    ({"inputs": "a", "normalize": "no"}, "normalize"),
    ({"inputs": "a", "prompt_name": "query"}, "prompt_name"),
    ({"inputs": "a", "dimensions": 5}, "dimensions"),
]


def check(api: EncoderApi, path: str, body: dict[str, object], param: str) -> None:
    error = check_error(api.client.post(path, json=body), 400)
    assert error["param"] == param
    assert error["message"].startswith(f"{param}: ")
    assert not api.engine.messages


def test_bad_requests(embedder: EncoderApi, cross_encoder: EncoderApi) -> None:
    for body, param in RERANKS:
        check(cross_encoder, "/rerank", body, param)
    for body, param in PREDICTIONS:
        check(cross_encoder, "/predict", body, param)
    for body, param in EMBEDDINGS:
        check(embedder, "/embed", body, param)
