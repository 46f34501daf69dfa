"""The asyncio end of the engine: requests go out at once, one Emit a step comes back. Free of torch."""

import asyncio
import math
import time
from typing import Literal, TypeVar

import msgspec
import numpy as np

from engine import wire
from engine.client.answer import Answer
from engine.client.link import Link
from engine.client.request import ClientRequest, EngineDied, RequestFailed, RequestRejected
from engine.client.stream import Output, Stream
from engine.request import Abort, Emit, Encode, EngineInfo, FromEngine, LoadPhase, Rejected, Status, Submit

__all__ = [
    "Answer",
    "EngineClient",
    "EngineDied",
    "Output",
    "RequestFailed",
    "RequestRejected",
    "State",
    "Stream",
]

R = TypeVar("R", bound=ClientRequest)
State = Literal["starting", "ready", "draining", "down", "unloaded"]
SILENCE_SECONDS = 3.0  # an engine that says nothing for so long is stuck
MAX_LIVES = 2  # a request that two engines died with is not tried on a third
MAX_RETRY_AFTER = 60.0


class EngineClient:
    """One server process's line to the engine; lives in one event loop.

    `endpoint` is the engine's address without the epoch, `index` this process's own number.
    """

    def __init__(self, endpoint: str, index: int) -> None:
        if not 0 <= index < wire.SUPERVISOR:
            raise ValueError(f"index is {index}; accepted are 0 to {wire.SUPERVISOR - 1}")
        self.info: EngineInfo | None = None
        self.status: Status | None = None
        self._endpoint = endpoint
        self._index = index
        # Microseconds since 1970: a process that takes a dead one's index takes none of its ids.
        self._last_id = (index << wire.CLIENT_SHIFT) | (time.time_ns() // 1000 % (1 << wire.CLIENT_SHIFT))
        self._streams: dict[int, Stream] = {}  # those that have not ended, by id
        self._answers: dict[int, Answer] = {}  # the same of an encoder
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode_emit = msgspec.msgpack.Decoder(Emit).decode
        self._decode_status = msgspec.msgpack.Decoder(FromEngine).decode
        self._link: Link | None = None
        self._down_cause = ""
        self._draining = False
        self._unloaded = False
        self._ready = asyncio.Event()
        self._retry_after = 5.0
        self._step = -1
        self._heard = self._progressed = time.monotonic()

    def start(self, epoch: int = 0) -> None:
        """Needs the running event loop. Connects to that life of the engine; with 0 `up` does it later."""
        self._link = Link(self._endpoint, self._index, self._on_emit, self._on_status)
        if epoch:
            self.up(epoch)

    def close(self) -> None:
        """Ends every request and closes the sockets."""
        self._fail_all(self._open_requests(), "the server is shutting down")
        if self._link is not None:
            self._link.close()
            self._link = None

    def next_id(self) -> int:
        """An id for a Submit or an Encode, unique among all clients and over their restarts."""
        self._last_id += 1
        return self._last_id

    @property
    def num_streams(self) -> int:
        """Requests that have not ended."""
        return len(self._streams) + len(self._answers)

    @property
    def state(self) -> State:
        if self._draining:
            return "draining"
        if self._unloaded:
            return "unloaded"
        if self._link is None or not self._link.is_open:
            return "down"
        if self.status is None or self.info is None or self.status.state == "loading":
            return "starting"
        return "draining" if self.status.state == "draining" else "ready"

    async def ready(self) -> None:
        """Returns once the engine takes requests."""
        await self._ready.wait()

    def submit(self, submit: Submit) -> Stream:
        """Sends the request; what becomes of it shows on the stream."""
        return self._enter(Stream(submit, self._abort), self._streams)

    def encode(self, message: Encode) -> Answer:
        """Sends an encoder its input; what becomes of it shows on the answer."""
        return self._enter(Answer(message, self._abort), self._answers)

    def healthy(self, progress_seconds: float) -> tuple[bool, str]:
        """Whether the engine is up, heard from, and doing steps if there is work; and the reason in words."""
        now = time.monotonic()
        silence, stuck = now - self._heard, now - self._progressed
        if self._unloaded:
            return False, "the model is unloaded"
        if self._link is None or not self._link.is_open:
            return False, f"the engine is down: {self._down_cause or 'not started'}"
        if self.state == "starting":
            return False, "the engine is starting"
        if silence > SILENCE_SECONDS:
            return False, f"the engine has sent no heart-beat for {silence:.1f} s"
        if self._has_work() and stuck > progress_seconds:
            return False, f"work is pending and the engine has done no step for {stuck:.1f} s"
        return True, f"the engine is {self.state}"

    def up(self, epoch: int) -> None:
        """A life of the engine begins; requests that are still here are sent to it once it is ready."""
        if self._link is None:
            raise RuntimeError("the client is not started")
        self._unloaded = False
        self._ready.clear()
        self.info, self.status, self._step = None, None, -1
        self._heard = self._progressed = time.monotonic()
        self._link.open(epoch)

    def down(self, cause: str) -> None:
        """The engine died. What had begun to answer fails; the rest waits for the next life."""
        self._down_cause = cause
        self._ready.clear()
        if self.info is not None:
            self._retry_after = min(MAX_RETRY_AFTER, math.ceil(sum(self.info.phases.values())) + 1.0)
        if self._link is not None:
            self._link.shut()
        self._fail_all([request for request in self._open_requests() if self._is_lost(request)], cause)

    def unload(self) -> None:
        """The engine is being ended on purpose: as drain, until `up`."""
        self._unloaded = True

    def drain(self) -> None:
        """Refuses new requests from now on; those that are here go on."""
        self._draining = True

    def abort_all(self, cause: str, reason: str) -> None:
        """Ends every request: the engine is told the cause, the readers get EngineDied with the reason."""
        ids = (*self._streams, *self._answers)
        if ids and self._link is not None:
            self._link.send(self._encode(Abort(ids=ids, cause=cause)))
        self._fail_all(self._open_requests(), reason)

    def _enter(self, request: R, table: dict[int, R]) -> R:
        """Sends it, or rejects it while the engine takes no requests."""
        state = self.state
        if state != "ready":
            request.reject(Rejected(id=request.message.id, reason=state, retry_after=self._retry_after))
            return request
        if not self._has_work():
            self._progressed = time.monotonic()
        table[request.message.id] = request
        self._send(request)
        return request

    def _open_requests(self) -> list[ClientRequest]:
        return [*self._streams.values(), *self._answers.values()]

    def _find(self, request_id: int) -> ClientRequest | None:
        return self._streams.get(request_id) or self._answers.get(request_id)

    def _pop(self, request_id: int) -> ClientRequest | None:
        return self._streams.pop(request_id, None) or self._answers.pop(request_id, None)

    def _is_lost(self, request: ClientRequest) -> bool:
        return request.produced or request.num_lives >= MAX_LIVES or self._draining or self._unloaded

    def _has_work(self) -> bool:
        status = self.status
        return self.num_streams > 0 or (status is not None and status.num_running + status.num_waiting > 0)

    def _send(self, request: ClientRequest) -> None:
        request.num_lives += 1
        self._post(request)

    def _post(self, request: ClientRequest) -> None:
        if self._link is not None:
            self._link.send(self._encode(request.message))

    def _abort(self, request_id: int, cause: str) -> None:
        if self._pop(request_id) is not None and self._link is not None:
            self._link.send(self._encode(Abort(ids=(request_id,), cause=cause)))

    def _fail_all(self, requests: list[ClientRequest], cause: str) -> None:
        for request in requests:
            self._pop(request.message.id)
            request.fail(EngineDied(cause))

    def _on_status(self, payload: bytes) -> None:
        message = self._decode_status(payload)
        self._heard = time.monotonic()
        match message:
            case EngineInfo():
                self.info = message
            case Status():
                self.status = message
                if message.step != self._step or not self._has_work():
                    self._step, self._progressed = message.step, self._heard
                if self.info is not None and message.state == "ready" and not self._ready.is_set():
                    self._ready.set()
                    for request in self._open_requests():
                        self._send(request)
            case LoadPhase() | Emit():  # for the one who prints; on the other channel
                return

    def _on_emit(self, payload: bytes) -> None:
        emit = self._decode_emit(payload)
        if emit.step != self._step:
            self._step, self._progressed = emit.step, time.monotonic()
        if emit.accepted or emit.rejected or emit.started:
            self._on_queue(emit)
        if emit.logprobs or emit.prompt_logprobs or emit.failed:
            self._on_details(emit)
        for request_id, values in emit.encoded.items():
            if (answer := self._answers.pop(request_id, None)) is not None:
                answer.push(values)
        self._on_tokens(emit)

    def _on_queue(self, emit: Emit) -> None:
        for request_id in emit.accepted:
            if (request := self._find(request_id)) is not None:
                request.accept()
        for rejected in emit.rejected:
            if (request := self._pop(rejected.id)) is not None:
                request.reject(rejected)
        for started in emit.started:
            if (request := self._find(started.id)) is not None:
                request.start(started)

    def _on_details(self, emit: Emit) -> None:
        ids = np.frombuffer(emit.ids, "<i8")
        for place, entry in emit.logprobs.items():
            if (stream := self._streams.get(int(ids[place]))) is not None:
                stream.push_logprobs(entry)
        for request_id, entries in emit.prompt_logprobs.items():
            if (stream := self._streams.get(request_id)) is not None:
                stream.push_prompt_logprobs(entries)
        for request_id, message in emit.failed.items():
            if (stream := self._streams.get(request_id)) is not None and stream.may_be_infected:
                stream.share_nothing()
                self._post(stream)
            elif (request := self._pop(request_id)) is not None:
                request.fail(RequestFailed(message))

    def _on_tokens(self, emit: Emit) -> None:
        streams = self._streams
        ids = np.frombuffer(emit.ids, "<i8").tolist()
        tokens = np.frombuffer(emit.tokens, "<i4").tolist()
        finishes = np.frombuffer(emit.finishes, np.uint8).tolist()
        for request_id, token, finish in zip(ids, tokens, finishes, strict=True):
            stream = streams.get(request_id)
            if stream is None:  # aborted a moment ago
                continue
            if finish:
                del streams[request_id]
            stream.push(token, finish)
