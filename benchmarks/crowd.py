"""Thousands of clients in one process: HTTP/1.1 over bare transports, answers read no further than they must be.

The load shares its cores with the server, so that what a client costs is taken from what is measured.
"""

import asyncio
import json
import re
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

SMALL_BUFFER = 4096  # bytes
MAX_CONNECTING = 256  # at once: more overflow what the kernel holds for a listening socket
EVENT, LAST = b"data: ", b"data: [DONE]"


@dataclass(frozen=True, slots=True)
class Place:
    """Where the server listens, and how many clients may knock at once."""

    host: str
    port: int
    doors: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_CONNECTING))


@dataclass(slots=True)
class Told:
    """What a client was told. Times are perf_counter seconds."""

    asked: float
    status: int = 0  # 0: nothing came
    retry_after: int = 0
    first: float = 0.0  # the first event, 0: there was none
    last: float = 0.0
    longest_gap: float = 0.0  # between events
    num_events: int = 0
    is_whole: bool = False  # the answer came to its end
    has_left: bool = False
    head: bytes = b""
    body: bytearray = field(default_factory=bytearray)  # of whoever keeps it


def post(body: Mapping[str, object], path: str = "/v1/completions") -> bytes:
    """A request as it goes over the wire; its connection is closed after it."""
    content = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()


class Client(asyncio.Protocol):
    """One connection with one request. `ended` is set when it is closed, from whichever side."""

    def __init__(self, request: bytes, keeps: bool = False, leaves_at_event: int = 0) -> None:
        self.told = Told(time.perf_counter())
        self.ended = asyncio.get_running_loop().create_future()
        self._request = request
        self._keeps = keeps
        self._leaves_at_event = leaves_at_event
        self._transport: asyncio.Transport | None = None
        self._tail = b""  # the beginning of an event may lie in two reads

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        told = self.told
        if not told.status:
            data = self._read_head(data)
        if self._keeps or told.status != 200:
            told.body += data
        if not data:
            return
        joined = self._tail + data
        num_events = joined.count(EVENT) - self._tail.count(EVENT)
        self._tail = joined[-len(LAST) :]
        told.is_whole = told.is_whole or LAST in joined
        if num_events:
            self._on_events(num_events)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)

    def leave(self) -> None:
        """Without a word: what was not read is thrown away."""
        self.told.has_left = True
        if self._transport is not None:
            self._transport.abort()

    def _read_head(self, data: bytes) -> bytes:
        """What follows the head."""
        head, end, rest = (self.told.head + data).partition(b"\r\n\r\n")
        self.told.head = head
        if not end:
            return b""
        self.told.status = int(head[9:12])
        if found := re.search(rb"\r\nretry-after: (\d+)", head, re.IGNORECASE):
            self.told.retry_after = int(found[1])
        return rest

    def _on_events(self, count: int) -> None:
        told, now = self.told, time.perf_counter()
        if told.num_events:
            told.longest_gap = max(told.longest_gap, now - told.last)
        else:
            told.first = now
        told.last = now
        told.num_events += count
        if self._leaves_at_event and told.num_events >= self._leaves_at_event:
            self.leave()


async def call(place: Place, client: Client) -> Client:
    """Connects; the request goes out with it."""
    sock = await _connect(place)
    await asyncio.get_running_loop().create_connection(lambda: client, sock=sock)
    return client


async def call_and_never_read(place: Place, request: bytes) -> socket.socket:
    """The connection, on which the server may write what a small buffer holds."""
    sock = await _connect(place, SMALL_BUFFER)
    await asyncio.get_running_loop().sock_sendall(sock, request)
    return sock


async def _connect(place: Place, receive_bytes: int = 0) -> socket.socket:
    """`receive_bytes`: what the kernel may hold of an answer; 0: its own choice."""
    sock = socket.socket()
    sock.setblocking(False)
    if receive_bytes:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    try:
        async with place.doors:
            await asyncio.get_running_loop().sock_connect(sock, (place.host, place.port))
    except BaseException:
        sock.close()
        raise
    return sock


async def ask(place: Place, request: bytes, keeps: bool = False, leaves_at_event: int = 0) -> Told:
    """One request and what came of it, up to the end of its connection."""
    client = await call(place, Client(request, keeps, leaves_at_event))
    await client.ended
    return client.told


async def ask_and_leave(place: Place, request: bytes, seconds: float) -> Told:
    """Leaves after so long, unless the answer was sooner."""
    client = await call(place, Client(request))
    await asyncio.wait((client.ended,), timeout=seconds)
    client.leave()
    await client.ended
    return client.told
