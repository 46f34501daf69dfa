"""Clients that send too much, too slowly, or never read: they are answered or dropped, and nobody else notices."""

import json
import socket
import time
from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest

from server.process.listen import MAX_UNSENT, bind_sockets
from tests.server.scripted import SETTINGS, Api, serve_api

SECONDS = 0.4
LIMITS = replace(
    SETTINGS,
    max_header_bytes=2048,
    max_headers=20,
    header_seconds=SECONDS,
    body_seconds=SECONDS,
    stall_seconds=SECONDS,
    max_connections=20,
    ping_seconds=10.0,
)
POST = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
def limited() -> Iterator[Api]:
    with serve_api(LIMITS) as api:
        yield api


def read_all(sock: socket.socket) -> bytes:
    """Until the server closes."""
    sock.settimeout(SECONDS * 10)
    data = b""
    try:
        while piece := sock.recv(65536):
            data += piece
    except ConnectionResetError:
        return data
    return data


def parse(answer: bytes) -> tuple[int, dict[str, object]]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"connection: close" in head.lower()
    return int(head.split()[1]), json.loads(body)["error"]


def endless(api: Api, begin: bytes, more: bytes) -> bytes:
    """What comes back to a client that never stops."""
    with api.connect() as sock:
        try:
            sock.sendall(begin)
            for _ in range(10_000):
                sock.sendall(more)
        except (BrokenPipeError, ConnectionResetError):
            pass
        else:
            raise AssertionError("the server took it all")
        return read_all(sock)


@pytest.mark.parametrize(
    "head",
    [
        b"GET /health HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 3000,
        b"GET /health HTTP/1.1\r\nHost: x" + b"\r\nA: b" * 30,
        b"GET /health HTTP/1.1\r\nHost: x" + b"\r\nX-Part: " + b"\r\nX-Part: ".join([b"a" * 300] * 10),
        b"GET /" + b"a" * 3000 + b" HTTP/1.1\r\nHost: x",
    ],
    ids=["one long header", "many headers", "many bytes", "a long line"],
)
@pytest.mark.parametrize("num_bytes", [0, 500])
def test_a_head_too_large(limited: Api, head: bytes, num_bytes: int) -> None:
    """Whole, and in pieces."""
    with limited.connect() as sock:
        whole = head + b"\r\n\r\n"
        for place in range(0, len(whole), num_bytes or len(whole)):
            sock.sendall(whole[place : place + (num_bytes or len(whole))])
            time.sleep(0.01 if num_bytes else 0)
            if limited_has_answered(sock):
                break
        status, error = parse(read_all(sock))
    assert status == 431
    assert "20 headers, 2048 bytes" in str(error["message"])


def limited_has_answered(sock: socket.socket) -> bool:
    """So that no more is sent into a connection that is closed."""
    sock.setblocking(False)
    try:
        return sock.recv(1, socket.MSG_PEEK) != b""
    except BlockingIOError:
        return False
    finally:
        sock.setblocking(True)


@pytest.mark.parametrize(
    ("begin", "more"),
    [
        (b"GET /", b"a" * 65536),
        (b"GET / HTTP/1.1\r\nX-Long: ", b"a" * 65536),
        (b"GET / HTTP/1.1\r\n", b"A: b\r\n" * 10_000),
        (b"", b"\r\n" * 32768),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX-Trailer: ", b"a" * 65536),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n1;", b"a" * 65536),
    ],
    ids=["line", "header", "headers", "blank lines", "trailer", "chunk extension"],
)
def test_what_never_ends_is_cut_off(limited: Api, begin: bytes, more: bytes) -> None:
    endless(limited, begin, more)
    assert limited.client.get("/health").status_code == 200


def test_heads_at_the_limit_are_read(limited: Api) -> None:
    headers = {f"X-{i}": "a" * 90 for i in range(15)}
    assert limited.client.get("/health", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "head",
    [b"GET /health", b"GET /health HTTP/1.1\r\nHost: x\r\n", b"GET /health HTTP/1.1\r\nHost: x\r\nX: "],
)
def test_a_slow_head(limited: Api, head: bytes) -> None:
    began = time.monotonic()
    with limited.connect() as sock:
        sock.sendall(head)
        status, error = parse(read_all(sock))
    assert status == 408 and "head did not arrive within 0.4 s" in str(error["message"])
    assert SECONDS * 0.9 < time.monotonic() - began < SECONDS + 1


def test_a_head_that_drips(limited: Api) -> None:
    """Each byte comes in time, the whole does not."""
    began = time.monotonic()
    with limited.connect() as sock:
        for byte in POST * 20:
            sock.sendall(bytes([byte]))
            time.sleep(0.02)
            if limited_has_answered(sock):
                break
        assert parse(read_all(sock))[0] == 408
    assert time.monotonic() - began < SECONDS + 1


def test_a_connection_that_says_nothing_is_closed(limited: Api) -> None:
    with limited.connect() as sock:
        assert read_all(sock) == b""


def test_blank_lines_do_not_keep_a_connection(limited: Api) -> None:
    with limited.connect() as sock:
        sock.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert sock.recv(4096).startswith(b"HTTP/1.1 200")
        sock.sendall(b"\r\n")
        began = time.monotonic()
        read_all(sock)
        assert time.monotonic() - began < SECONDS + 1


def test_a_slow_body(limited: Api) -> None:
    with limited.connect() as sock:
        sock.sendall(POST + b'Content-Length: 1000\r\n\r\n{"prompt": ')
        began = time.monotonic()
        for _ in range(100):
            sock.sendall(b" ")
            time.sleep(0.02)
            if limited_has_answered(sock):
                break
        status, error = parse(read_all(sock))
    assert status == 408 and "body did not arrive within 0.4 s" in str(error["message"])
    assert time.monotonic() - began < SECONDS + 1
    assert not limited.engine.submits


def test_a_body_that_goes_on_after_it_was_refused(limited: Api) -> None:
    with limited.connect() as sock:
        sock.sendall(POST + b"Content-Length: 99999999\r\n\r\n{")
        assert sock.recv(15).startswith(b"HTTP/1.1 413")
        began = time.monotonic()
        read_all(sock)
        assert time.monotonic() - began < SECONDS + 1


def test_deadlines_leave_long_answers_and_patient_connections_alone(limited: Api) -> None:
    """Longer than each deadline, on one connection, with the next request waiting behind."""
    limited.script("Hello, wide world.", step_seconds=0.1)
    body = json.dumps({"prompt": "Hi", "max_tokens": 12, "ignore_eos": True}).encode()
    whole = POST + b"Content-Length: %d\r\n\r\n" % len(body) + body
    with limited.connect() as sock:
        sock.sendall(whole)
        time.sleep(0.05)
        sock.sendall(whole[:-20])
        time.sleep(SECONDS)
        sock.sendall(whole[-20:])
        sock.settimeout(10)
        data = b""
        while data.count(b"HTTP/1.1 200") < 2 or not data.endswith(b"}"):
            piece = sock.recv(65536)
            assert piece, data
            data += piece
    limited.reset()
    with limited.connect() as sock:
        for _ in range(3):
            sock.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
            assert sock.recv(4096).startswith(b"HTTP/1.1 200")
            time.sleep(SECONDS * 1.5)


def test_a_client_that_never_reads_is_dropped_and_its_request_ended(limited: Api) -> None:
    limited.reset()
    limited.script("Hello, wide world.", step_seconds=0.03)
    body = {"prompt": "Hi", "max_tokens": 200, "ignore_eos": True, "stream": True, "logprobs": 5}
    payload = json.dumps(body | {"n": 64, "temperature": 1.0}).encode()
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", limited.port))
        sock.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(payload) + payload)
        limited.wait_abort("disconnect", 10)
        assert limited.client.get("/health").status_code == 200
    limit = time.monotonic() + 5
    while not all(stream.ended for stream in limited.engine.streams):
        assert time.monotonic() < limit
        time.sleep(0.01)


def test_a_client_that_reads_slowly_gets_everything(limited: Api) -> None:
    limited.reset()
    limited.script("Hello, wide world.", step_seconds=0.002)
    body = {"prompt": "Hi", "max_tokens": 200, "ignore_eos": True, "stream": True}
    with limited.client.stream("POST", "/v1/completions", json=body) as response:
        lines = []
        for line in response.iter_lines():
            lines.append(line)
            time.sleep(0.005)
    assert "data: [DONE]" in lines and not limited.engine.aborts


def test_connections_are_counted(limited: Api) -> None:
    limited.client.close()
    deadline = time.monotonic() + 5
    held: list[socket.socket] = []
    try:
        while len(held) < 20 and time.monotonic() < deadline:
            held.append(limited.connect())
        with limited.connect() as sock:
            status, error = parse(read_all(sock))
        assert status == 503 and "all the 20 connections" in str(error["message"])
    finally:
        for sock in held:
            sock.close()
    with httpx.Client(base_url=f"http://127.0.0.1:{limited.port}") as client:
        limit = time.monotonic() + 5
        while True:
            try:
                if client.get("/health/live").status_code == 200:
                    break
            except httpx.TransportError:
                assert time.monotonic() < limit
            time.sleep(0.02)


def test_the_kernel_holds_little_for_a_client_that_does_not_read() -> None:
    """By itself it holds megabytes, and a client that reads nothing is not noticed before those are full."""
    [listening] = bind_sockets("127.0.0.1", 0, 1)
    with listening, socket.socket() as client:
        listening.listen()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(listening.getsockname())
        connection, _ = listening.accept()
        with connection:
            connection.setblocking(False)
            num_bytes = 0
            with pytest.raises(BlockingIOError):
                while num_bytes < 10 * MAX_UNSENT:
                    num_bytes += connection.send(bytes(1000))
    assert num_bytes < 4 * MAX_UNSENT
