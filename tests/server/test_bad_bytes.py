"""Requests that are wrong before their fields are: bytes, types, sizes, paths, and those half sent."""

import gzip
import json

import pytest

from tests.server.bad_request import CHAT, COMPLETIONS, HI, check_error
from tests.server.scripted import MAX_BODY, Api

RAW_BODIES: dict[str, bytes] = {
    "empty": b"",
    "blank": b"   ",
    "not JSON": b"prompt=a",
    "cut off": b'{"prompt": "a"',
    "cut off in a string": b'{"prompt": "a',
    "trailing": b'{"prompt": "a"} {}',
    "trailing comma": b'{"prompt": "a",}',
    "comment": b'{"prompt": "a" /* hi */}',
    "single quotes": b"{'prompt': 'a'}",
    "a list": b"[1]",
    "a string": b'"prompt"',
    "a number": b"5",
    "null": b"null",
    "byte order mark": b'\xef\xbb\xbf{"prompt": "a"}',
    "UTF-16": '{"prompt": "a"}'.encode("utf-16"),
    "UTF-32": '{"prompt": "a"}'.encode("utf-32-le"),
    "Latin-1": '{"prompt": "\u00e4"}'.encode("latin-1"),
    "half a character": b'{"prompt": "\xe2\x82"}',
    "overlong UTF-8": b'{"prompt": "\xc0\xaf"}',
    "surrogate in UTF-8": b'{"prompt": "\xed\xa0\x80"}',
    "lone high surrogate": b'{"prompt": "\\ud800"}',
    "lone low surrogate": b'{"prompt": "\\udc00"}',
    "surrogates swapped": b'{"prompt": "\\udc00\\ud800"}',
    "lone surrogate in a key": b'{"\\ud800": 1, "prompt": "a"}',
    "bad escape": b'{"prompt": "\\x41"}',
    "control character": b'{"prompt": "a\x01"}',
    "NUL": b'{"prompt": "a"}\x00',
    "NaN": b'{"prompt": "a", "temperature": NaN}',
    "Infinity": b'{"prompt": "a", "temperature": Infinity}',
    "minus Infinity": b'{"prompt": "a", "temperature": -Infinity}',
    "NaN in a free field": b'{"prompt": "a", "metadata": {"x": NaN}}',
    "float too large": b'{"prompt": "a", "temperature": 1e999}',
    "bias too large": b'{"prompt": "a", "logit_bias": {"1": 1e999}}',
    "hexadecimal": b'{"prompt": "a", "seed": 0x10}',
    "leading zero": b'{"prompt": "a", "seed": 007}',
    "plus sign": b'{"prompt": "a", "seed": +7}',
    "endless number": b'{"prompt": "a", "seed": ' + b"9" * 5000 + b"}",
    "deep list": b'{"prompt": ' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    "deep object": b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
    "deep and not closed": b"[" * 50_000,
    "deep metadata": b'{"prompt": "a", "metadata": ' + b'{"a":' * 300 + b"1" + b"}" * 301,
}


@pytest.mark.parametrize("path", [COMPLETIONS, CHAT, "/tokenize"])
@pytest.mark.parametrize("name", RAW_BODIES)
def test_bytes_that_are_no_request(api: Api, name: str, path: str) -> None:
    response = api.client.post(path, content=RAW_BODIES[name], headers={"Content-Type": "application/json"})
    check_error(response, 400)
    assert not api.engine.submits


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Content-Type": "application/json; charset=utf-16"},
        {"Content-Type": "application/json; x=y; charset=latin-1"},
        {"Content-Type": "application/jsonx"},
        {"Content-Type": ""},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
    ],
    ids=str,
)
def test_a_body_of_another_type(api: Api, headers: dict[str, str]) -> None:
    content = gzip.compress(b'{"prompt": "a"}') if "Content-Encoding" in headers else b'{"prompt": "a"}'
    error = check_error(api.client.post(COMPLETIONS, content=content, headers=headers), 415)
    assert error["code"] == "unsupported_media_type"


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "Application/JSON; Charset=UTF-8",
        'application/json;charset="utf-8"; x=y',
        "application/json; odata=verbose",
    ],
)
def test_a_body_of_the_right_type(api: Api, content_type: str) -> None:
    headers = {"Content-Type": content_type}
    response = api.client.post(COMPLETIONS, content=b'{"prompt": "a"}', headers=headers)
    assert response.status_code == 200


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_too_large(api: Api, is_chunked: bool) -> None:
    content = json.dumps({"prompt": "a" * MAX_BODY}).encode()
    parts = (content[place : place + 1000] for place in range(0, len(content), 1000))
    response = api.client.post(
        COMPLETIONS,
        content=parts if is_chunked else content,
        headers={"Content-Type": "application/json"},
    )
    error = check_error(response, 413)
    assert error["code"] == "body_too_large"
    assert str(MAX_BODY) in error["message"]


def test_a_huge_body_is_refused_before_it_is_sent(api: Api) -> None:
    head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    with api.connect() as sock:
        sock.sendall(head + b"Content-Length: 99999999999999999999\r\nExpect: 100-continue\r\n\r\n")
        assert b" 413 " in sock.recv(4096).split(b"\r\n")[0] or sock.recv(1) == b""


def test_a_body_at_the_limit_is_read(api: Api) -> None:
    body = json.dumps({"prompt": "a", "user": ""})
    body = json.dumps({"prompt": "a", "user": "x" * (MAX_BODY - len(body))})
    assert len(body) == MAX_BODY
    response = api.client.post(COMPLETIONS, content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 200


@pytest.mark.parametrize("path", [COMPLETIONS, CHAT, "/tokenize", "/detokenize"])
def test_another_model(api: Api, path: str) -> None:
    bodies: dict[str, dict[str, object]] = {CHAT: {"messages": HI}, "/detokenize": {"tokens": [1]}}
    body = bodies.get(path, {"prompt": "a"})
    error = check_error(api.client.post(path, json=body | {"model": "gpt-4"}), 404)
    assert (error["param"], error["code"]) == ("model", "model_not_found")
    assert '"gpt-4"' in error["message"]
    assert '"scripted"' in error["message"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", COMPLETIONS, 405),
        ("PUT", COMPLETIONS, 405),
        ("DELETE", CHAT, 405),
        ("POST", "/v1/models", 405),
        ("POST", "/health", 405),
        ("PATCH", "/tokenize", 405),
        ("POST", "/v1/embeddings", 404),
        ("POST", "/v1/completion", 404),
        ("POST", "/v1/completions/", 404),
        ("GET", "//v1/models", 404),
        ("GET", "/", 404),
        ("GET", "/../../etc/passwd", 404),
        ("GET", "/%00", 404),
        ("GET", "/v1/models/" + "x" * 5000, 404),
        ("GET", "/v1/models/%ff", 404),
    ],
)
def test_a_wrong_path_or_method(api: Api, method: str, path: str, status: int) -> None:
    response = api.client.request(method, path)
    check_error(response, status)
    assert ("allow" in response.headers) == (status == 405)


@pytest.mark.parametrize("cut", [1, 20, 60, 100, 125])
def test_a_request_that_stops_anywhere(api: Api, cut: int) -> None:
    body = b'{"prompt": "a", "max_tokens": 5}'
    head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    request = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    assert cut < len(request)
    with api.connect() as sock:
        sock.sendall(request[:cut])
    assert api.client.get("/health").status_code == 200
    assert not api.engine.submits


def test_the_server_still_answers(api: Api) -> None:
    """Runs last in this file."""
    assert api.client.get("/health").status_code == 200
    response = api.client.post(COMPLETIONS, json={"prompt": "Hi"})
    assert response.json()["choices"][0]["text"] == "Hello, wide world."
