"""One HTTP connection that keeps to limits: how much a head may hold, how slowly a client may send and read."""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from server.errors import ApiError, bad_request, http_fault


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Each is a setting of the same name."""

    max_header_bytes: int
    max_headers: int
    header_seconds: float
    body_seconds: float
    stall_seconds: float
    max_connections: int


class Connection(HttpToolsProtocol):
    """Uvicorn's protocol with deadlines. At most one timer waits for the client to send, one for it to read.

    A head that is too large but complete is answered by the application, which finds `refusal` in the request's state;
    what never becomes a request is answered here.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        limits: ConnectionLimits,
    ) -> None:
        super().__init__(config, server_state, app_state)
        self._limits = limits
        self._is_refused = False
        self._is_in_body = False
        self._head_bytes = 0  # of the message that is being read, trailers included
        self._num_headers = 0
        self._silent_bytes = 0  # fed to the parser since it last told of anything: it holds them
        self._unanswered: deque[RequestResponseCycle] = (
            deque()
        )  # a client may send the next before it has one's answer
        self._sending: asyncio.TimerHandle | None = None
        self._reading: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        if len(self.connections) >= self._limits.max_connections:
            self.transport = transport
            self._refuse(_too_many_connections(self._limits.max_connections))
            return
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_sending()
        self._stop_reading()
        self._leave()
        super().connection_lost(exc)

    def eof_received(self) -> None:
        """The client closed its side, which is how clients go away: nothing is written to it from here on."""
        self._leave()

    def data_received(self, data: bytes) -> None:
        if self._is_refused:
            return
        self._silent_bytes += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._silent_bytes > self._limits.max_header_bytes or (self._is_over and not self._is_in_body):
            self._refuse(self._headers_too_large())
        elif self._sending is None and not self._is_in_body and not self._is_answering:
            self._await_head()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_bytes = self._num_headers = 0

    def on_url(self, url: bytes) -> None:
        self._add(len(url))
        if not self._is_over:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._num_headers += 1
        self._add(len(name) + len(value))
        if not self._is_over:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._silent_bytes = 0
        if self._is_over:
            self.scope.setdefault("state", {})["refusal"] = self._headers_too_large()
            self.url = self.url or b"/"
        self._stop_sending()
        assert self.parser is not None, "it has just called"
        if self.parser.should_upgrade() and self._announces_body():
            self.scope.setdefault("state", {})["refusal"] = _upgrade_with_body()
        super().on_headers_complete()  # raises for an address that is none
        self._unanswered.append(self.cycle)
        self._is_in_body = True
        self._await_body()

    def on_body(self, body: bytes) -> None:
        self._silent_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._silent_bytes = self._head_bytes = self._num_headers = 0
        self._is_in_body = False
        self._stop_sending()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self._unanswered.popleft()
        super().on_response_complete()
        if self._is_in_body:  # of a pipelined request, perhaps, that waited unread
            self._stop_sending()
            self._await_body()
        if self.transport.get_write_buffer_size() and self._reading is None:
            self._await_reader()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stop_reading()
        self._await_reader()

    def resume_writing(self) -> None:
        self._stop_reading()
        super().resume_writing()

    @property
    def _is_over(self) -> bool:
        """The head is larger than it may be; what comes on top is dropped."""
        limits = self._limits
        return self._head_bytes > limits.max_header_bytes or self._num_headers > limits.max_headers

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _add(self, num_bytes: int) -> None:
        self._silent_bytes = 0
        self._head_bytes += num_bytes

    def _await_head(self) -> None:
        self._sending = self.loop.call_later(self._limits.header_seconds, self._on_late_head)

    def _on_late_head(self) -> None:
        """A connection on which nothing came is closed without a word."""
        self._sending = None
        if self._silent_bytes or self._head_bytes:
            self._refuse(_too_slow("head", self._limits.header_seconds))
        else:
            self.transport.close()

    def _await_body(self) -> None:
        self._sending = self.loop.call_later(self._limits.body_seconds, self._on_late_body)

    def _on_late_body(self) -> None:
        """While this side does not read, the client is not to blame."""
        self._sending = None
        if self.flow.read_paused:
            self._await_body()
        elif self.cycle.response_started:
            self.transport.close()
        else:
            self._refuse(_too_slow("body", self._limits.body_seconds))

    def _await_reader(self) -> None:
        self._reading = self.loop.call_later(self._limits.stall_seconds, self._on_stalled)

    def _on_stalled(self) -> None:
        """The client does not read. Its requests end as those of any client that goes away."""
        self._reading = None
        if self.transport.get_write_buffer_size():
            self.transport.abort()

    def _stop_sending(self) -> None:
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None

    def _stop_reading(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def send_400_response(self, msg: str) -> None:
        """What follows a request that is still being answered gets no answer: it would be taken for that one's."""
        is_its_own = self._is_in_body and not self.cycle.response_started
        num_others = len(self._unanswered) - is_its_own
        self._leave()
        if num_others:
            self.transport.close()
        else:
            self._refuse(bad_request(msg, code="invalid_http"))

    def _unsupported_upgrade_warning(self) -> None:
        """Other protocols may be offered; the request is answered in this one."""

    def _announces_body(self) -> bool:
        return any(
            name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0"))
            for name, value in self.headers
        )

    def _leave(self) -> None:
        """The client is gone for all its requests; uvicorn itself tells the last one only."""
        for cycle in self._unanswered:
            cycle.disconnected = True
            cycle.message_event.set()

    def _refuse(self, error: ApiError) -> None:
        """Answers what the application never sees, and closes."""
        self._is_refused = True
        self._stop_sending()
        self.transport.write(_response(error))
        self.transport.close()

    def _headers_too_large(self) -> ApiError:
        limits = self._limits
        message = f"the request's head is too large; accepted: {limits.max_headers} headers, {limits.max_header_bytes} bytes"
        return http_fault(431, message, {"Connection": "close"})


def connections(
    config: uvicorn.Config, state: ServerState, limits: ConnectionLimits
) -> Callable[[], Connection]:
    """What the event loop makes one of for each client."""
    return lambda: Connection(config, state, {}, limits)


def _too_slow(what: str, seconds: float) -> ApiError:
    return http_fault(408, f"the request's {what} did not arrive within {seconds:g} s")


def _upgrade_with_body() -> ApiError:
    """The parser takes what follows for the other protocol's."""
    message = "the request offers another protocol (Upgrade) and has a body; accepted: one of the two"
    return ApiError(400, message, code="upgrade_with_body", headers={"Connection": "close"})


def _too_many_connections(max_connections: int) -> ApiError:
    message = f"this server process has all the {max_connections} connections it takes"
    return http_fault(503, message, {"Retry-After": "1"})


def _response(error: ApiError) -> bytes:
    body = error.body()
    headers: Mapping[str, str] = {
        **error.headers,
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Connection": "close",
    }
    lines = [f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
