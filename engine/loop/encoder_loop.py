"""The loop of an encoder: pack whoever waits, launch step k + 1, read step k, tell the clients."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from engine.config import EngineConfig
from engine.encode_step import EncodeInput, EncodePlan, EncodeResult, EncoderRunner, PendingEncode
from engine.loop.gap_meter import GapMeter
from engine.loop.observer import EngineObserver
from engine.loop.outbox import Outbox, Publish
from engine.loop.patience import find_patience
from engine.loop.reception import Reception
from engine.request import Abort, Encode, Started, Submit
from engine.scheduler.inputs import InputRequest, InputScheduler


@dataclass(frozen=True, slots=True)
class InFlight:
    """A launched step."""

    pending: PendingEncode
    requests: tuple[InputRequest, ...]
    launched: float
    has_left_some: bool  # others still waited when it was launched


class EncoderEngine:
    """As loop.Engine, for a model whose requests are one input and one answer each."""

    def __init__(
        self,
        config: EngineConfig,
        runner: EncoderRunner,
        max_model_len: int,
        publish: Publish,
        observer: EngineObserver,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._runner = runner
        self._max_model_len = max_model_len
        self._observer = observer
        self._clock = clock
        self._scheduler = InputScheduler(config)
        self._outbox = Outbox(publish)
        self._reception = Reception(config, self._outbox, observer, clock)
        self._gap_meter = GapMeter(clock)
        self._in_flight: InFlight | None = None
        self._num_launched = 0
        self.num_steps = 0  # steps whose result was read
        self._last_seconds, self._last_tokens = 0.0, 1  # of the newest of them
        self.kv_usage = 0.0  # nothing is kept from one step to the next

    @property
    def num_running(self) -> int:
        return self._scheduler.num_running

    @property
    def num_waiting(self) -> int:
        return len(self._scheduler.queue)

    @property
    def has_work(self) -> bool:
        return self._in_flight is not None or self.num_waiting > 0 or len(self._outbox) > 0

    @property
    def patience(self) -> float:
        """Seconds that the next `step` may be waited with, to be asked for right after one."""
        if self._in_flight is None:
            return 0.0
        num_tokens = sum(request.num_tokens for request in self._in_flight.requests)
        return find_patience(min(1.0, num_tokens / self._last_tokens) * self._last_seconds)

    def requests_of(self, client: int) -> tuple[int, ...]:
        """The ids of a client's requests that have not ended."""
        return self._scheduler.requests_of(client)

    def submit(self, message: Submit | Encode, client: int) -> None:
        """Queue an input; whether it was accepted is told with the next step."""
        if isinstance(message, Submit):
            task = self._runner.task
            self._reception.fail(message.id, client, f"the model's task is {task}, it generates no text")
        elif (fault := self._find_fault(message)) is not None:
            self._reception.fail(message.id, client, fault)
        else:
            before = self._scheduler.queue.tokens_before(message.owner, len(message.token_ids))
            refusal = self._reception.refusal(message, before) or self._scheduler.add(
                self._enter(message, client)
            )
            self._reception.answer(message, client, refusal, before)

    def abort(self, message: Abort) -> None:
        """End requests: nothing more is told of them. Inputs of a step in flight are computed to the end."""
        for request_id in message.ids:
            if self._scheduler.abort(request_id):
                self._observer.on_aborted(message.cause)

    def drain(self) -> None:
        """From now on every new request is rejected; those that are here go on."""
        self._reception.drain()

    def step(self) -> None:
        """Launch the next step if anybody waits, then wait for the one before and publish it."""
        requests = self._scheduler.plan()
        launched = self._launch(requests) if requests else None
        self._outbox.flush(self.num_steps)  # answers to messages do not wait for the step in flight
        previous, self._in_flight = self._in_flight, launched
        if previous is not None:
            self._finish(previous, previous.pending.result())

    def idle(self) -> None:
        """To be called before a long sleep: raise if a request has been lost."""
        if not self.has_work:
            self._scheduler.check()

    def close(self) -> None:
        """Wait for the step in flight, and close the runner."""
        previous, self._in_flight = self._in_flight, None
        if previous is not None:
            previous.pending.result()
        self._runner.close()

    def _find_fault(self, message: Encode) -> str | None:
        """The server checks inputs; one that slips through must not take the engine down."""
        num_tokens, num_type_ids = len(message.token_ids), len(message.type_ids)
        if not 0 < num_tokens <= self._max_model_len:
            return f"input has {num_tokens} tokens, accepted are 1 to {self._max_model_len}"
        if num_type_ids not in (0, num_tokens):
            return f"type_ids has {num_type_ids} ids, accepted are none or {num_tokens}, one a token"
        return None

    def _enter(self, message: Encode, client: int) -> InputRequest:
        type_ids = np.array(message.type_ids, np.int32) if message.type_ids else None
        return InputRequest(
            id=message.id,
            client=client,
            input=EncodeInput(np.array(message.token_ids, np.int32), type_ids),
            num_tokens=len(message.token_ids),
            key=self._reception.give_turn(message),
            received=self._clock(),
            owner=message.owner,
            handicap=self._reception.handicap(message),
        )

    def _launch(self, requests: tuple[InputRequest, ...]) -> InFlight:
        now = self._clock()
        self._num_launched += 1
        inputs = tuple(request.input for request in requests)
        pending = self._runner.launch(EncodePlan(self._num_launched, inputs))
        for request in requests:
            started = Started(id=request.id, num_cached=0, queued=now - request.received)
            self._outbox.to(request.client).started.append(started)
        return InFlight(pending, requests, now, has_left_some=self.num_waiting > 0)

    def _finish(self, step: InFlight, result: EncodeResult) -> None:
        for place, request in enumerate(step.requests):
            if self._scheduler.end(request):
                self._answer(request, result, place)
        self.num_steps = result.step
        self._last_seconds, self._last_tokens = result.seconds, result.num_tokens
        self._outbox.flush(result.step)
        gap = self._gap_meter.measure(step.launched, result.seconds, self.has_work)
        self._observer.on_step(result.num_tokens, len(step.requests), result.seconds, gap)
        self._observer.on_launch(result.launch, 0)
        if step.has_left_some:
            self._reception.on_drained(result.num_tokens, gap + result.seconds)

    def _answer(self, request: InputRequest, result: EncodeResult, place: int) -> None:
        parcel = self._outbox.to(request.client)
        if place in result.failed:
            parcel.failed[request.id] = result.failed[place]
        else:
            parcel.encoded[request.id] = result.outputs[place].astype("<f4", copy=False).tobytes()
