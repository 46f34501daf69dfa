"""Models, tokens, health, metrics, and what every response has in common."""

import pytest

from tests.server.scripted import MAX_MODEL_LEN, MODEL, Api


def test_models(api: Api) -> None:
    model = {
        "id": MODEL,
        "object": "model",
        "created": 1_700_000_000,
        "owned_by": "tokenloom",
        "root": MODEL,
        "parent": None,
        "max_model_len": MAX_MODEL_LEN,
    }
    assert api.client.get("/v1/models").json() == {"object": "list", "data": [model]}
    assert api.client.get(f"/v1/models/{MODEL}").json() == model
    api.engine.info = None
    assert api.client.get(f"/v1/models/{MODEL}").json() == model | {"max_model_len": None}


@pytest.mark.parametrize("name", ["other", "org/other", "", "scripted/"])
def test_an_unknown_model(api: Api, name: str) -> None:
    response = api.client.get(f"/v1/models/{name}", follow_redirects=False)
    assert response.status_code == 404
    assert response.json()["error"]["code"] in ("model_not_found", "not_found")


def test_tokenize_and_back(api: Api) -> None:
    text = "Gr\u00fc\u00dfe, 12 \U0001f642 <|im_end|>"
    tokens = api.client.post("/tokenize", json={"prompt": text}).json()
    ids = api.tokenizer.encode(text)
    expected = {"count": len(ids), "max_model_len": MAX_MODEL_LEN, "tokens": ids, "token_strs": None}
    assert tokens == expected
    assert api.client.post("/detokenize", json={"tokens": ids}).json() == {"prompt": text}


def test_tokenize_shows_pieces(api: Api) -> None:
    answer = api.client.post("/tokenize", json={"prompt": "hello world", "return_token_strs": True}).json()
    assert answer["token_strs"] == ["hello", "\u0120world"]


def test_tokenize_a_conversation(api: Api) -> None:
    messages = [{"role": "user", "content": "Hi"}]
    answer = api.client.post("/tokenize", json={"messages": messages}).json()
    api.client.post("/v1/chat/completions", json={"messages": messages})
    assert answer["tokens"] == list(api.engine.submits[-1].prompt)
    without = api.client.post("/tokenize", json={"messages": messages, "add_generation_prompt": False}).json()
    assert without["tokens"] == answer["tokens"][: without["count"]]
    assert without["count"] < answer["count"]


def test_detokenize_nothing(api: Api) -> None:
    assert api.client.post("/detokenize", json={"tokens": []}).json() == {"prompt": ""}


def test_health(api: Api) -> None:
    for path in ("/health", "/health/live", "/health/ready"):
        assert api.client.get(path).status_code == 200
    api.engine.healthy_answer = (False, "work is pending and the engine has done no step for 31.0 s")
    response = api.client.get("/health")
    assert response.status_code == 503
    assert "no step for 31.0 s" in response.json()["error"]["message"]
    assert api.client.get("/health/live").status_code == 200


def test_a_probe_may_ask_for_the_head_alone(api: Api) -> None:
    for path in ("/health", "/health/live", "/health/ready"):
        response = api.client.head(path)
        assert (response.status_code, response.content) == (200, b"")
    api.engine.healthy_answer = (False, "no step")
    assert api.client.head("/health").status_code == 503


def test_version(api: Api) -> None:
    assert api.client.get("/version").json() == {"version": "0.0.test"}


def test_metrics_count_by_route_and_status(api: Api) -> None:
    api.client.post("/v1/completions", json={"prompt": "Hi"})
    api.client.get("/no/such/place")
    api.client.get("/v1/models/anything")
    response = api.client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=")
    lines = [
        line for line in response.text.splitlines() if line.startswith("tokenloom:http_responses_total{")
    ]
    assert any('route="/v1/completions",status="200"' in line for line in lines)
    assert any('route="unmatched",status="404"' in line for line in lines)
    assert not any("anything" in line or "such" in line for line in lines)
    assert 'finished_reason="stop"' in response.text


def test_every_response_has_a_request_id(api: Api) -> None:
    headers = {"X-Request-Id": "mine"}
    for path in ("/version", "/no/such/place"):
        assert api.client.get(path, headers=headers).headers["x-request-id"] == "mine"
        assert len(api.client.get(path).headers["x-request-id"]) == 32


def test_the_openapi_document_has_the_bodies(api: Api) -> None:
    document = api.client.get("/openapi.json").json()
    for path in ("/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize"):
        body = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert body["additionalProperties"] is False
        assert body["properties"]
