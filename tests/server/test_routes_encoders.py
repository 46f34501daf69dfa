"""What an encoder's routes answer, shape by shape; numbers are worked out by hand."""

import base64
import math
from collections.abc import Iterator

import numpy as np
import openai
import pytest

from tests.server.scripted import Api
from tests.server.scripted_encoder_client import MODEL, EncoderApi, serve_encoder

CLS, SEP, MASK = 101, 102, 103


@pytest.fixture(scope="module")
def shared_embedder() -> Iterator[EncoderApi]:
    with serve_encoder(matryoshka=True) as api:
        yield api


@pytest.fixture(scope="module")
def classifier() -> Iterator[EncoderApi]:
    with serve_encoder(task="classify", labels=("no", "yes", "maybe"), activation="softmax") as api:
        yield api


@pytest.fixture(scope="module")
def tagger() -> Iterator[EncoderApi]:
    with serve_encoder(task="token_classify", labels=("O", "NAME"), activation="softmax") as api:
        yield api


@pytest.fixture(scope="module")
def filler() -> Iterator[EncoderApi]:
    with serve_encoder(task="fill_mask", mask_id=MASK, activation="softmax") as api:
        yield api


@pytest.fixture
def client(embedder: EncoderApi) -> Iterator[openai.OpenAI]:
    url = f"http://127.0.0.1:{embedder.port}/v1"
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        yield client


def test_embeddings_by_openais_client(embedder: EncoderApi, client: openai.OpenAI) -> None:
    """It asks for base64 of its own accord, and decodes it."""
    embedder.answers({"red": [1, 2, 2, 4], "green tea": [0.1, -0.5, 1e-8, 3e8]})
    answer = client.embeddings.create(model=MODEL, input=["red", "green tea"])
    assert [entry.embedding for entry in answer.data] == [
        [1, 2, 2, 4],
        np.array([0.1, -0.5, 1e-8, 3e8], np.float32).tolist(),
    ]
    assert [entry.index for entry in answer.data] == [0, 1]
    assert [entry.object for entry in answer.data] == ["embedding", "embedding"]
    assert answer.object == "list"
    assert answer.model == MODEL
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (3 + 4, 3 + 4)
    as_floats = client.embeddings.create(model=MODEL, input=["red", "green tea"], encoding_format="float")
    assert [entry.embedding for entry in as_floats.data] == [entry.embedding for entry in answer.data]


def test_one_text_and_its_tokens_are_the_same_input(embedder: EncoderApi, client: openai.OpenAI) -> None:
    client.embeddings.create(model=MODEL, input="red")
    [first] = embedder.engine.messages
    assert first.token_ids == (CLS, 2417, SEP)
    assert first.type_ids == ()
    client.embeddings.create(model=MODEL, input=list(first.token_ids))
    client.embeddings.create(model=MODEL, input=[[CLS, 5, SEP], [7]])
    assert [message.token_ids for message in embedder.engine.messages[1:]] == [
        first.token_ids,
        (CLS, 5, SEP),
        (7,),
    ]
    assert len({message.id for message in embedder.engine.messages}) == 4


def test_the_shape_of_embeddings(embedder: EncoderApi) -> None:
    answer = embedder.client.post("/embeddings", json={"input": "red", "user": "me", "request_id": "a1"})
    assert answer.status_code == 200
    created = answer.json()["created"]
    assert answer.json() == {
        "id": "embd-a1",
        "object": "list",
        "created": created,
        "model": MODEL,
        "data": [{"object": "embedding", "index": 0, "embedding": [1.0, 2.0, 2.0, 4.0]}],
        "usage": {"prompt_tokens": 3, "total_tokens": 3},
    }
    assert answer.headers["x-request-id"] == "a1"


def test_base64_is_little_endian_float32(embedder: EncoderApi) -> None:
    answer = embedder.client.post("/v1/embeddings", json={"input": "red", "encoding_format": "base64"})
    data = base64.b64decode(answer.json()["data"][0]["embedding"], validate=True)
    assert np.frombuffer(data, "<f4").tolist() == [1, 2, 2, 4]


def test_fewer_dimensions_are_normed_again(client: openai.OpenAI) -> None:
    answer = client.embeddings.create(model=MODEL, input="red", dimensions=3)
    assert answer.data[0].embedding == pytest.approx([1 / 3, 2 / 3, 2 / 3])
    whole = client.embeddings.create(model=MODEL, input="red", dimensions=4)
    assert whole.data[0].embedding == [1, 2, 2, 4]


def test_answers_come_in_the_order_of_the_inputs(embedder: EncoderApi) -> None:
    """However the engine finishes them."""
    embedder.script(lambda message: [float(message.token_ids[0])] * 4).delay = 0.001
    embedder.engine.next_scripts += [
        type(embedder.engine.script)(embedder.engine.script.values, delay=delay) for delay in (0.06, 0.03)
    ]
    answer = embedder.client.post("/v1/embeddings", json={"input": [[5], [6], [7], [8]]}).json()
    assert [entry["embedding"][0] for entry in answer["data"]] == [5, 6, 7, 8]


@pytest.mark.parametrize(
    ("fields", "token_ids"),
    [
        ({"input": "red red green", "truncate_prompt_tokens": 4}, (CLS, 2417, 2417, SEP)),
        (
            {"input": "red red green", "truncate_prompt_tokens": 4, "truncation_side": "left"},
            (CLS, 2417, 2665, SEP),
        ),
        ({"input": "red " * 90, "truncate_prompt_tokens": -1}, (CLS, *[2417] * 30, SEP)),
        ({"input": [1, 2, 3], "truncate_prompt_tokens": 2}, (1, 2)),
        ({"input": [1, 2, 3], "truncate_prompt_tokens": 2, "truncation_side": "left"}, (2, 3)),
        ({"input": "red green", "add_special_tokens": False}, (2417, 2665)),
        (
            {"input": "red green", "add_special_tokens": False, "truncate_prompt_tokens": 1},
            (2417,),
        ),
    ],
)
def test_what_is_read_of_an_input(
    embedder: EncoderApi, fields: dict[str, object], token_ids: tuple[int, ...]
) -> None:
    assert embedder.client.post("/v1/embeddings", json=fields).status_code == 200
    assert embedder.engine.messages[-1].token_ids == token_ids


def test_prompts_of_the_model() -> None:
    with serve_encoder(prompts={"query": "red ", "passage": "green "}, default_prompt_name="query") as api:
        for fields in ({}, {"prompt_name": "passage"}, {"prompt_name": "other"}):
            response = api.client.post("/v1/embeddings", json={"input": "tea"} | fields)
        assert [api.text(message) for message in api.engine.messages] == ["red tea", "green tea"]
        assert response.status_code == 400
        assert response.json()["error"]["param"] == "prompt_name"
        api.client.post("/rerank", json={"query": "tea", "documents": ["tea"]})
        assert [api.text(message) for message in api.engine.messages[2:]] == ["red tea", "green tea"]


def test_classify(classifier: EncoderApi) -> None:
    classifier.reset()
    classifier.answers({"red": [0.0, math.log(2), 0.0], "green": [1000.0, 0.0, -1000.0]})
    answer = classifier.client.post("/classify", json={"input": ["red", "green"], "request_id": "c"}).json()
    created = answer["created"]
    half, quarter = pytest.approx(0.5), pytest.approx(0.25)
    assert answer == {
        "id": "classify-c",
        "object": "list",
        "created": created,
        "model": MODEL,
        "data": [
            {"index": 0, "label": "yes", "probs": [quarter, half, quarter], "num_classes": 3},
            {"index": 1, "label": "no", "probs": [1.0, 0.0, 0.0], "num_classes": 3},
        ],
        "usage": {"prompt_tokens": 6, "total_tokens": 6},
    }
    raw = classifier.client.post("/classify", json={"input": "green", "use_activation": False}).json()
    assert raw["data"][0]["probs"] == [1000.0, 0.0, -1000.0]


def test_a_classifier_of_several_labels_at_once() -> None:
    with serve_encoder(task="classify", labels=("a", "b"), activation="sigmoid") as api:
        api.script(lambda message: [math.log(3), -1000.0])
        [entry] = api.client.post("/classify", json={"input": "red"}).json()["data"]
        assert entry["probs"] == pytest.approx([0.75, 0.0])
        assert entry["label"] == "a"


def test_pooling(embedder: EncoderApi, classifier: EncoderApi, tagger: EncoderApi) -> None:
    answer = embedder.client.post("/pooling", json={"input": "red", "request_id": "p"}).json()
    assert answer["id"] == "pool-p"
    assert answer["data"] == [{"index": 0, "object": "pooling", "data": [1.0, 2.0, 2.0, 4.0]}]
    classifier.reset()
    classifier.script(lambda message: [0.0, math.log(2), 0.0])
    answer = classifier.client.post("/pooling", json={"input": "red"}).json()
    assert answer["data"][0]["data"] == pytest.approx([0.25, 0.5, 0.25])
    tagger.reset()
    tagger.script(lambda message: [0.0, math.log(3)] * len(message.token_ids))
    answer = tagger.client.post("/pooling", json={"input": "red tea", "task": "token_classify"}).json()
    assert answer["data"][0]["data"] == [pytest.approx([0.25, 0.75])] * 4
    body = {"input": "red tea", "use_activation": False, "encoding_format": "base64"}
    answer = tagger.client.post("/pooling", json=body).json()
    data = np.frombuffer(base64.b64decode(answer["data"][0]["data"]), "<f4")
    assert data.tolist() == pytest.approx([0.0, math.log(3)] * 4)


def test_fill_mask(filler: EncoderApi) -> None:
    filler.reset()
    logits = np.full(30522, -1000.0)
    logits[[5572, 2417, 2665]] = np.log([0.5, 0.3, 0.2])
    filler.script(lambda message: logits.tolist() * message.token_ids.count(MASK))
    answer = filler.client.post("/fill_mask", json={"input": "Red [MASK]!", "top_k": 2}).json()
    [entry] = answer["data"]
    assert entry == {
        "index": 0,
        "object": "fill_mask",
        "masks": [
            [
                {"score": pytest.approx(0.5), "token": 5572, "token_str": "tea", "sequence": "red tea!"},
                {"score": pytest.approx(0.3), "token": 2417, "token_str": "red", "sequence": "red red!"},
            ]
        ],
    }
    answer = filler.client.post("/fill_mask", json={"input": ["[MASK] or [MASK]"]}).json()
    first, second = answer["data"][0]["masks"]
    assert len(first) == len(second) == 5
    assert first[0]["sequence"] == "tea or [MASK]"
    assert second[1]["sequence"] == "[MASK] or red"


def test_what_an_encoder_does_not_serve(embedder: EncoderApi, filler: EncoderApi, tagger: EncoderApi) -> None:
    for path in ("/v1/chat/completions", "/v1/completions", "/classify", "/fill_mask"):
        response = embedder.client.post(path, json={})
        assert response.status_code == 404
        error = response.json()["error"]
        assert error["code"] == "not_served_by_model"
        assert error["message"] == (
            f"POST {path} is not served by this model: {MODEL} makes embeddings and serves POST"
            " /v1/embeddings, /embed, /v1/rerank, /v1/score, /pooling"
        )
    assert "fills in masked tokens and serves POST /fill_mask" in filler.client.post("/rerank").text
    assert "classifies tokens and serves POST /pooling" in tagger.client.post("/v1/embeddings").text
    assert embedder.client.get("/v1/embeddings").status_code == 405


def test_what_a_decoder_does_not_serve(api: Api) -> None:
    for path in ("/v1/embeddings", "/embed", "/rerank", "/score", "/classify", "/predict"):
        response = api.client.post(path, json={"input": "red"})
        assert response.status_code == 404
        assert "generates text and serves POST /v1/completions, /v1/chat/completions" in response.text


def test_what_every_model_serves(embedder: EncoderApi) -> None:
    tokens = embedder.client.post("/tokenize", json={"prompt": "Red, unaffable"}).json()
    assert tokens["tokens"] == [CLS, 2417, 1010, 14477, 20961, 3468, SEP]
    assert tokens["max_model_len"] == 32
    text = embedder.client.post("/detokenize", json={"tokens": tokens["tokens"][1:-1]}).json()
    assert text == {"prompt": "red, unaffable"}
    assert embedder.client.get("/v1/models").json()["data"][0]["id"] == MODEL
    assert embedder.client.get("/health/ready").status_code == 200
    assert embedder.client.get("/version").json() == {"version": "0.0.test"}
    paths = embedder.client.get("/openapi.json").json()["paths"]
    assert "/v1/embeddings" in paths
    assert "/v1/completions" not in paths
