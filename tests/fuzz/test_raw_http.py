"""Bytes at the port that no HTTP client would send: no fault of the server's, nothing that hangs, and the next client is served."""

import json
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.effort import effort
from tests.server.scripted import SETTINGS, Api, serve_api

SECONDS = 0.3
LIMITS = replace(SETTINGS, header_seconds=SECONDS, body_seconds=SECONDS, stall_seconds=SECONDS)
BODY = b'{"prompt":"Hi","max_tokens":3}'
GET = b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n"
WHOLE = POST + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
UPGRADE = b"Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
SOCKET = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZQ==\r\n"

# What comes back, as the statuses in order.
SHAPES: dict[str, tuple[bytes, list[int]]] = {
    "length and chunks": (
        POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + GET,
        [400],
    ),
    "chunks and length": (CHUNKED + b"Content-Length: 5\r\n\r\n0\r\n\r\n" + GET, [400]),
    "two lengths": (POST + b"Content-Length: 2\r\nContent-Length: 30\r\n\r\n" + BODY, [400]),
    "a list of lengths": (POST + b"Content-Length: 5, 5\r\n\r\nabcde", [400]),
    "a length of no number": (POST + b"Content-Length: ten\r\n\r\n", [400]),
    "a negative length": (POST + b"Content-Length: -1\r\n\r\n", [400]),
    "a signed length": (POST + b"Content-Length: +5\r\n\r\nabcde", [400]),
    "an endless length": (POST + b"Content-Length: 99999999999999999999999\r\n\r\n", [400]),
    "chunked twice": (CHUNKED + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + GET, [400]),
    "nearly chunked": (POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + GET, [400]),
    "hidden chunked": (POST + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n" + GET, [400]),
    "spaced chunked": (POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + GET, [400]),
    "chunked, then not": (POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + GET, [400]),
    "a chunk of no number": (CHUNKED + b"\r\nZZ\r\n", [400]),
    "a negative chunk": (CHUNKED + b"\r\n-1\r\n\r\n", [400]),
    "a chunk beyond all numbers": (CHUNKED + b"\r\nFFFFFFFFFFFFFFFFF\r\n", [400]),
    "a chunk that never comes": (CHUNKED + b"\r\nFFFFFFFFFFFFFFF\r\nabc", [408]),
    "a chunk too long": (CHUNKED + b"\r\n3\r\nabcd\r\n0\r\n\r\n", [400]),
    "chunks with bare ends of lines": (CHUNKED + b"\r\n3\nabc\n0\n\n", [400]),
    "a length in the trailer": (CHUNKED + b"\r\n0\r\nContent-Length: 5\r\n\r\n" + GET, [400]),
    "good chunks": (CHUNKED + b"\r\n1e\r\n" + BODY + b"\r\n0\r\n\r\n", [200]),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", [400]),
    "an offer of HTTP/2": (b"GET /version HTTP/1.1\r\nHost: x\r\n" + UPGRADE + b"\r\n", [200]),
    "a websocket": (b"GET /version HTTP/1.1\r\nHost: x\r\n" + SOCKET + b"\r\n", [200]),
    "an offer with a body": (POST + UPGRADE + b"Content-Length: 38\r\n\r\n" + GET, [400]),
    "a tunnel": (b"CONNECT example.com:443 HTTP/1.1\r\nHost: x\r\n\r\n\x16\x03\x01", [400]),
    "another port": (b"GET http://a:999999/version HTTP/1.1\r\nHost: x\r\n\r\n", [400]),
    "a broken address": (b"GET http://[::1/version HTTP/1.1\r\nHost: x\r\n\r\n", [400]),
    "bytes in the path": (b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n", [400]),
    "bytes in headers": (
        b"GET /version HTTP/1.1\r\nX-Request-Id: \xff\r\nAuthorization: \xff\r\n\r\n",
        [200],
    ),
    "broken escapes": (b"GET /v1/models/%00%ff%zz HTTP/1.1\r\nHost: x\r\n\r\n", [404]),
    "a folded header": (b"GET /version HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n", [400]),
    "a header in a header": (b"GET /version HTTP/1.1\r\nHost: x\r\nX: a\rb\r\n\r\n", [400]),
    "a zero in a header": (b"GET /version HTTP/1.1\r\nHost: x\0y\r\n\r\n", [400]),
    "a space behind a name": (b"GET /version HTTP/1.1\r\nHost : x\r\n\r\n", [400]),
    "a header of no name": (b"GET /version HTTP/1.1\r\n: x\r\n\r\n", [400]),
    "no version": (b"GET /version\r\n\r\n", [200]),
    "an odd version": (b"GET /version HTTP/9.9\r\nHost: x\r\n\r\n", [400]),
    "an odd expectation": (POST + b"Expect: 200-maybe\r\nContent-Length: 30\r\n\r\n" + BODY, [200]),
    "an odd type": (
        b"POST /v1/completions HTTP/1.1\r\nContent-Type: \xff/\xff\r\nContent-Length: 30\r\n\r\n" + BODY,
        [415],
    ),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64), [400]),
    "a word": (b"hello\r\n\r\n", [400]),
    "SSH": (b"SSH-2.0-OpenSSH_9\r\n", [400]),
    "a proxy's line": (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + GET, [400]),
    "zeros": (bytes(1000), [400]),
    "one after the other": (GET * 40, [200] * 40),
    "answers one after the other": (WHOLE * 3 + GET, [200] * 3 + [200]),
    "garbage after a request": (WHOLE + b"\x00\x00garbage", []),
}


@pytest.fixture(scope="module")
def server() -> Iterator[Api]:
    with serve_api(LIMITS) as api:
        yield api


def statuses(answer: bytes) -> list[int]:
    return [int(found) for found in re.findall(rb"HTTP/1\.1 ([2-5]\d\d) ", answer)]


def exchange(api: Api, sent: list[bytes], half_closes: bool, wanted: int = 0) -> bytes:
    """What comes back, until the server closes, `wanted` answers are there or it has had its time."""
    answer, deadline = b"", time.monotonic() + 4 * SECONDS
    with api.connect() as sock:
        try:
            for piece in sent:
                sock.sendall(piece)
            if half_closes:
                sock.shutdown(socket.SHUT_WR)
            while (left := deadline - time.monotonic()) > 0:
                sock.settimeout(left)
                piece = sock.recv(65536)
                answer += piece
                if not piece or (wanted and len(statuses(answer)) >= wanted and answer.endswith(b"}")):
                    return answer
        except OSError:  # it closed first, or did not answer
            pass
    return answer


def read_to_end(api: Api, sent: bytes) -> bytes:
    """What comes back before the server closes, which it has to do."""
    answer = b""
    with api.connect() as sock:
        sock.settimeout(4 * SECONDS)
        try:
            sock.sendall(sent)
            while piece := sock.recv(65536):
                answer += piece
        except ConnectionError:  # it closed with some of it unread
            pass
    return answer


def check_served(api: Api) -> None:
    answer = exchange(api, [GET], False, 1)
    assert statuses(answer) == [200] and json.loads(answer.partition(b"\r\n\r\n")[2])["version"]


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_is_answered_as_it_deserves(server: Api, name: str, caplog: pytest.LogCaptureFixture) -> None:
    """One that is refused is the last of its connection: what hides behind it is no request."""
    sent, wanted = SHAPES[name]
    server.engine.submits.clear()
    if wanted in ([400], [408], []):
        assert statuses(read_to_end(server, sent)) == wanted
        assert not server.engine.submits
    else:
        assert statuses(exchange(server, [sent], False, len(wanted))) == wanted
    exchange(server, [sent], True)
    check_served(server)
    assert not [record for record in caplog.records if record.exc_info], "no traceback is logged"


def test_what_follows_a_refused_offer_is_no_request(server: Api) -> None:
    """In the same piece or in the next."""
    head = POST + UPGRADE + b"Content-Length: %d\r\n\r\n" % len(WHOLE)
    server.engine.submits.clear()
    for sent in ([head + WHOLE], [head, WHOLE]):
        assert b"upgrade_with_body" in exchange(server, sent, False, 1)
    check_served(server)
    assert not server.engine.submits


def test_a_client_that_leaves_with_requests_in_line(server: Api) -> None:
    """The one that is computed ends, though it is not the last that came."""
    server.reset()
    server.script("Hello, wide world.", step_seconds=0.05)
    body = json.dumps({"prompt": "Hi", "max_tokens": 200, "ignore_eos": True}).encode()
    with server.connect() as sock:
        sock.sendall((POST + b"Content-Length: %d\r\n\r\n" % len(body) + body) * 3)
        deadline = time.monotonic() + 5
        while not server.engine.streams:
            assert time.monotonic() < deadline
            time.sleep(0.005)
    server.wait_abort("disconnect")
    assert len(server.engine.submits) == 1
    server.reset()
    check_served(server)


@effort(0.4)
@given(
    seed=st.sampled_from([GET, WHOLE, CHUNKED + b"\r\n1e\r\n" + BODY + b"\r\n0\r\n\r\n", GET + WHOLE + GET]),
    changes=st.lists(
        st.tuples(
            st.floats(0, 1),
            st.integers(0, 8),
            st.binary(max_size=6) | st.sampled_from([b"\r\n", b"\0", b": "]),
        ),
        max_size=4,
    ),
    cuts=st.lists(st.floats(0, 1), max_size=3),
    half_closes=st.booleans(),
)
def test_changed_bytes(
    server: Api, seed: bytes, changes: list[tuple[float, int, bytes]], cuts: list[float], half_closes: bool
) -> None:
    """Valid requests with a few bytes put in place of others, in any pieces."""
    for where, num_gone, put in changes:
        place = int(where * len(seed))
        seed = seed[:place] + put + seed[place + num_gone :]
    places = [0, *sorted(int(cut * len(seed)) for cut in cuts), len(seed)]
    answer = exchange(server, [seed[a:b] for a, b in zip(places, places[1:], strict=False)], half_closes, 1)
    assert all(status < 500 for status in statuses(answer)), answer
    check_served(server)


@effort(0.3)
@given(sent=st.binary(min_size=1, max_size=400))
def test_random_bytes(server: Api, sent: bytes) -> None:
    assert all(status < 500 for status in statuses(exchange(server, [sent], True)))
    check_served(server)
