"""An engine that follows a script, behind the real HTTP server on a port of its own."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx
import uvloop

from engine.checkpoint import open_checkpoint
from engine.client.client import Answer, EngineDied, RequestFailed, State, Stream
from engine.config import EngineConfig
from engine.request import (
    Encode,
    EngineInfo,
    Finish,
    Rejected,
    SamplingParams,
    Started,
    Submit,
    TokenLogprobs,
)
from server.access_log import AccessLog
from server.admin.desk import AdminDesk
from server.app import create_app
from server.auth.access import Access
from server.config import Config, ServerConfig
from server.context import AppContext
from server.metrics.metrics import ServerMetrics
from server.process.http_server import HttpServer
from server.text.encoder import Encoder
from server.text.load import load_template, load_tokenizer
from server.text.template import ChatTemplate
from server.text.tokenizer import Tokenizer
from server.tracing.tracer import RequestTracer

MODEL = "scripted"
MAX_MODEL_LEN = 256
MAX_BODY = 64 * 1024
PING_SECONDS = 0.05
SETTINGS = ServerConfig(max_body_bytes=MAX_BODY, ping_seconds=PING_SECONDS)


def top_of(token_id: int, count: int) -> TokenLogprobs:
    """The script's distribution: the token itself is most likely, those after it follow."""
    ids = tuple(token_id + i for i in range(count))
    return TokenLogprobs(token_id, -0.25, 1, ids, tuple(-0.25 - i for i in range(count)))


@dataclass
class Script:
    """What the engine does with every request."""

    answer: Callable[[Submit], list[int]]
    step_seconds: float = 0.001
    accept: bool = True
    start: bool = True  # False: it waits in the queue for ever
    reject: str | None = None
    die_after: int | None = None  # tokens, after which the engine dies
    fail_after: int | None = None  # tokens, after which this request fails
    fails_alone: bool = False  # only the first of the requests does
    abort_after: int | None = None  # tokens, after which the engine ends it
    num_cached: int = 0
    together: int = 1  # tokens that arrive at once


@dataclass
class ScriptedEngine:
    """The routes' `Client`. Lives in the server's event loop; tests only look, and set scripts."""

    script: Script
    info: EngineInfo | None
    state: State = "ready"
    healthy_answer: tuple[bool, str] = (True, "the engine is ready")
    submits: list[Submit] = field(default_factory=list)
    streams: list[Stream] = field(default_factory=list)
    aborts: list[tuple[int, str, float]] = field(default_factory=list)
    next_scripts: list[Script] = field(default_factory=list)  # for the next requests; then `script` again
    last_id: int = 0

    def next_id(self) -> int:
        self.last_id += 1
        return self.last_id

    def healthy(self, progress_seconds: float) -> tuple[bool, str]:
        return self.healthy_answer

    def encode(self, message: Encode) -> Answer:
        raise AssertionError("nothing is sent to a decoder to encode")

    def submit(self, submit: Submit) -> Stream:
        stream = Stream(submit, lambda id, cause: self.aborts.append((id, cause, time.monotonic())))
        self.submits.append(submit)
        self.streams.append(stream)
        script = self.next_scripts.pop(0) if self.next_scripts else self.script
        asyncio.get_running_loop().call_soon(self._accept, stream, script)
        return stream

    def _accept(self, stream: Stream, script: Script) -> None:
        if script.reject is not None:
            stream.reject(Rejected(id=stream.submit.id, reason=script.reject, retry_after=2.5))
            return
        if not script.accept:
            return
        stream.accept()
        if not script.start:
            return
        stream.start(Started(id=stream.submit.id, num_cached=script.num_cached, queued=0.001))
        count = stream.submit.sampling.prompt_logprobs
        if count is not None:
            stream.push_prompt_logprobs(tuple(top_of(i, count) for i in stream.submit.prompt[1:]))
        self._step(stream, script, script.answer(stream.submit), 0)

    def _step(self, stream: Stream, script: Script, token_ids: list[int], place: int) -> None:
        for _ in range(script.together):
            if stream.ended:
                return
            if place == script.die_after:
                stream.fail(EngineDied("killed by signal 9"))
                return
            if place == script.fail_after and not (script.fails_alone and stream is not self.streams[0]):
                stream.fail(RequestFailed("not a number in the logits of /secret/path"))
                return
            self._push(stream, script, token_ids, place)
            place += 1
        loop = asyncio.get_running_loop()
        loop.call_later(script.step_seconds, self._step, stream, script, token_ids, place)

    def _push(self, stream: Stream, script: Script, token_ids: list[int], place: int) -> None:
        sampling, token_id = stream.submit.sampling, token_ids[place % len(token_ids)]
        if sampling.logprobs is not None:
            stream.push_logprobs(top_of(token_id, sampling.logprobs))
        stream.push(token_id, self._finish(sampling, script, token_id, place + 1))

    def _finish(self, sampling: SamplingParams, script: Script, token_id: int, count: int) -> Finish:
        if count == script.abort_after:
            return Finish.ABORT
        if token_id in sampling.stop_token_ids and count > sampling.min_tokens:
            return Finish.STOP
        return Finish.LENGTH if count >= sampling.max_tokens else Finish.RUNNING


@dataclass(frozen=True)
class Api:
    """The server under test."""

    engine: ScriptedEngine
    tokenizer: Tokenizer
    port: int
    client: httpx.Client
    context: AppContext

    def script(self, text: str, **changes: Any) -> Script:
        """Answers every request with `text` and an end-of-sequence token."""
        token_ids = [*self.tokenizer.encode(text, False), self.tokenizer.special.eos_ids[0]]
        self.engine.script = Script(lambda _: token_ids, **changes)
        return self.engine.script

    def reset(self) -> None:
        """As new: ready, answering `Hello, wide world.`, nothing seen."""
        self.engine.state = "ready"
        self.engine.info = engine_info()
        self.engine.healthy_answer = (True, "the engine is ready")
        self.engine.submits.clear()
        self.engine.streams.clear()
        self.engine.aborts.clear()
        self.script("Hello, wide world.")

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=5)

    def wait_abort(self, cause: str, seconds: float = 3.0) -> float:
        """When the first request was aborted for `cause`."""
        limit = time.monotonic() + seconds
        while time.monotonic() < limit:
            for _, seen, when in list(self.engine.aborts):
                assert seen == cause
                return when
            time.sleep(0.002)
        raise AssertionError(f"no request was aborted for {cause}")


def complete(api: Api, **fields: object) -> dict[str, Any]:
    """The answer to a completion that succeeds."""
    response = api.client.post(
        "/v1/completions", json={"prompt": "Once upon a time", "max_tokens": 20} | fields
    )
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def engine_info() -> EngineInfo:
    return EngineInfo(
        epoch=1,
        max_model_len=MAX_MODEL_LEN,
        max_requests=8,
        kv_tokens=4096,
        block_size=16,
        dtype="float32",
        device="cpu",
        phases={},
        memory={},
    )


@contextlib.contextmanager
def serve_api(
    settings: ServerConfig = SETTINGS,
    access: Access | None = None,
    desk: AdminDesk | None = None,
    policy: Literal["fcfs", "priority"] = "fcfs",
    access_log: AccessLog | None = None,
    tracer: RequestTracer | None = None,
    template: ChatTemplate | None = None,
) -> Iterator[Api]:
    """The application with the bundled model's tokenizer and template, on a real socket."""
    checkpoint = open_checkpoint("")
    tokenizer = load_tokenizer(checkpoint)
    engine = ScriptedEngine(Script(lambda _: [0]), engine_info())
    encoder = Encoder(tokenizer)
    context = AppContext(
        config=Config(settings, EngineConfig(max_queued_requests=64, policy=policy)),
        client=engine,
        tokenizer=tokenizer,
        encoder=encoder,
        template=template or load_template(checkpoint, tokenizer),
        metrics=ServerMetrics(MODEL),
        model=MODEL,
        created=1_700_000_000,
        version="0.0.test",
        access=access or Access(),
        desk=desk,
        access_log=access_log,
        tracer=tracer,
    )
    with running(context) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
        api = Api(engine, tokenizer, port, client, context)
        api.reset()
        yield api
    encoder.close()


@contextlib.contextmanager
def running(context: AppContext) -> Iterator[int]:
    """The application on a port of its own."""
    started = threading.Event()
    server = HttpServer(create_app(context), started.set, context.config.server)
    sock = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(server.serve(sockets=[sock]))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        assert started.wait(10)
        yield sock.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(15)
        sock.close()
        assert not thread.is_alive()
