"""Reranking and scoring, by embeddings and by a cross-encoder; numbers are worked out by hand."""

import math
from collections.abc import Iterator

import pytest

from tests.server.scripted_encoder_client import MODEL, EncoderApi, serve_encoder

CLS, SEP = 101, 102


@pytest.fixture(scope="module")
def shared_embedder() -> Iterator[EncoderApi]:
    with serve_encoder() as api:
        yield api


def test_rerank_by_embeddings(embedder: EncoderApi) -> None:
    embedder.answers(
        {"tea": [3, 4, 0, 0], "red": [0, 5, 0, 0], "green": [-3, -4, 0, 0], "blue": [6, 8, 0, 0]}
    )
    body = {"query": "tea", "documents": ["red", {"text": "green"}, "blue"], "request_id": "r"}
    assert embedder.client.post("/v1/rerank", json=body).json() == {
        "id": "rerank-r",
        "model": MODEL,
        "usage": {"prompt_tokens": 12, "total_tokens": 12},
        "results": [
            {"index": 2, "document": {"text": "blue"}, "relevance_score": pytest.approx(1.0)},
            {"index": 0, "document": {"text": "red"}, "relevance_score": pytest.approx(0.8)},
            {"index": 1, "document": {"text": "green"}, "relevance_score": pytest.approx(-1.0)},
        ],
    }
    for path in ("/rerank", "/v2/rerank"):
        answer = embedder.client.post(path, json=body | {"top_n": 2, "return_documents": False}).json()
        assert answer["results"] == [
            {"index": 2, "relevance_score": pytest.approx(1.0)},
            {"index": 0, "relevance_score": pytest.approx(0.8)},
        ]


def test_rerank_by_a_cross_encoder(cross_encoder: EncoderApi) -> None:
    cross_encoder.answers({"tea red": [math.log(3)], "tea green": [-math.log(4)], "tea": [math.log(3)]})
    body: dict[str, object] = {"query": "tea", "documents": ["green", "red", ""]}
    answer = cross_encoder.client.post("/v1/rerank", json=body).json()
    assert [(entry["index"], round(entry["relevance_score"], 6)) for entry in answer["results"]] == [
        (1, 0.75),
        (2, 0.75),
        (0, 0.2),
    ]
    first = cross_encoder.engine.messages[0]
    assert first.token_ids == (CLS, 5572, SEP, 2665, SEP)
    assert first.type_ids == (0, 0, 0, 1, 1)
    raw = cross_encoder.client.post("/v1/rerank", json=body | {"use_activation": False}).json()
    assert raw["results"][0]["relevance_score"] == pytest.approx(math.log(3))


def test_as_many_documents_as_are_accepted(embedder: EncoderApi) -> None:
    """And the query beside them."""
    body = {"query": "tea", "documents": ["red"] * 2048, "top_n": 1}
    assert len(embedder.client.post("/rerank", json=body).json()["results"]) == 1


def test_a_long_document_is_cut(cross_encoder: EncoderApi, embedder: EncoderApi) -> None:
    cross_encoder.script(lambda message: [0.0])
    body = {"query": "tea", "documents": ["red " * 90], "max_tokens_per_doc": 2}
    assert cross_encoder.client.post("/v1/rerank", json=body).status_code == 200
    assert cross_encoder.engine.messages[0].token_ids == (CLS, 5572, SEP, 2417, 2417, SEP)
    assert embedder.client.post("/v1/rerank", json=body).status_code == 200
    assert embedder.engine.messages[1].token_ids == (CLS, 2417, 2417, SEP)
    body = {"query": "tea tea", "documents": ["red " * 90], "truncate_prompt_tokens": 8}
    assert cross_encoder.client.post("/v1/rerank", json=body).status_code == 200
    assert cross_encoder.engine.messages[1].token_ids == (CLS, 5572, 5572, SEP, *[2417] * 3, SEP)
    assert cross_encoder.engine.messages[1].type_ids == (0, 0, 0, 0, 1, 1, 1, 1)


def test_score(cross_encoder: EncoderApi) -> None:
    logits = {"a b": 0.0, "a c": math.log(3), "d c": -math.log(4), "a a": 100.0}
    cross_encoder.answers({text: [logit] for text, logit in logits.items()})

    def score(**fields: object) -> list[float]:
        answer = cross_encoder.client.post("/v1/score", json=fields | {"request_id": "s"}).json()
        assert (answer["id"], answer["object"], answer["model"]) == ("score-s", "list", MODEL)
        assert [(entry["index"], entry["object"]) for entry in answer["data"]] == [
            (index, "score") for index in range(len(answer["data"]))
        ]
        return [round(entry["score"], 6) for entry in answer["data"]]

    assert score(text_1="a", text_2="b", queries=None, documents=None) == [0.5]
    assert score(text_1="a", text_2=["b", "c", "a"]) == [0.5, 0.75, 1.0]
    assert score(text_1=["a", "d"], text_2=["b", "c"]) == [0.5, 0.2]
    assert score(queries=["a"], documents=[{"text": "c"}]) == [0.75]


@pytest.mark.parametrize(
    ("kind", "score"), [("cosine", 0.6), ("dot", 6.0), ("euclidean", -math.sqrt(17)), ("manhattan", -5.0)]
)
def test_the_models_own_similarity(kind: str, score: float) -> None:
    with serve_encoder(similarity=kind) as api:
        api.answers({"a": [3, 0, 4, 0], "b": [2, 0, 0, 0]})
        answer = api.client.post("/score", json={"text_1": "a", "text_2": "b"}).json()
        assert answer["data"][0]["score"] == pytest.approx(score)


def test_score_by_embeddings_reads_every_text_once(embedder: EncoderApi) -> None:
    embedder.answers({"a": [1, 0, 0, 0], "b": [0, 2, 0, 0], "c": [3, 3, 0, 0], "d": [0, 0, 0, 0]})
    answer = embedder.client.post("/score", json={"text_1": "a", "text_2": ["b", "c", "d"]}).json()
    scores = [entry["score"] for entry in answer["data"]]
    assert scores == pytest.approx([0, math.sqrt(0.5), 0])
    assert [embedder.text(message) for message in embedder.engine.messages] == ["a", "b", "c", "d"]
    assert answer["usage"] == {"prompt_tokens": 12, "total_tokens": 12}
