"""The fusion loop: launch step k + 1, read step k, tell the clients. The host is never between two steps."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from engine.config import EngineConfig
from engine.loop.gap_meter import GapMeter
from engine.loop.history import History
from engine.loop.observer import EngineObserver
from engine.loop.outbox import Outbox, Publish
from engine.loop.owners import Owners
from engine.loop.pace import Pace
from engine.loop.patience import find_patience
from engine.loop.reception import Reception
from engine.request import MAX_STOP_IDS, Abort, Encode, Started, Submit
from engine.scheduler.blocks import Chain
from engine.scheduler.queue import Request
from engine.scheduler.scheduler import Scheduler
from engine.step import Admit, Pending, Plan, Runner


@dataclass(frozen=True, slots=True)
class InFlight:
    """A launched step."""

    pending: Pending
    launched: float
    num_chunk_tokens: int
    num_drained: (
        int | None
    )  # tokens that left the queue for this step; None if nobody waited since the step before


class Engine:
    """One engine: requests in, Emits out through `publish`. Not thread-safe, but for its counts and `drain`.

    While `has_work`, call `step` again and again, taking in messages between; else sleep until one comes.
    """

    def __init__(
        self,
        config: EngineConfig,
        runner: Runner,
        max_model_len: int,
        publish: Publish,
        observer: EngineObserver,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises ConfigError if the configuration and the runner's blocks do not fit together."""
        self._config = config
        self._runner = runner
        self._max_model_len = max_model_len
        self._observer = observer
        self._clock = clock
        self._history = History(config.max_requests, max_model_len)
        self._scheduler = Scheduler(config, max_model_len, runner.num_blocks, self._history)
        self._owners = Owners(config.max_requests)
        self._outbox = Outbox(publish)
        self._reception = Reception(config, self._outbox, observer, clock)
        self._gap_meter = GapMeter(clock)
        self._pace = Pace(config.step_seconds)
        self._in_flight: InFlight | None = None
        self._waited = False  # the last plan left requests in the queue
        self._num_steps = 0
        self._last_seconds = 0.0  # of the step that was read last

    @property
    def num_running(self) -> int:
        return self._scheduler.num_running

    @property
    def num_waiting(self) -> int:
        return self._scheduler.num_waiting

    @property
    def kv_usage(self) -> float:
        return self._scheduler.kv_usage

    @property
    def num_steps(self) -> int:
        """Steps whose result was read."""
        return self._num_steps

    @property
    def has_work(self) -> bool:
        return self._in_flight is not None or self._scheduler.has_work or len(self._outbox) > 0

    @property
    def patience(self) -> float:
        """Seconds that the next `step` may be waited with, to be asked for right after one."""
        if self._in_flight is None:
            return 0.0
        return find_patience(min(self._last_seconds, self._pace.expect(self._in_flight.num_chunk_tokens)))

    def requests_of(self, client: int) -> tuple[int, ...]:
        """The ids of a client's requests that have not ended."""
        return self._scheduler.requests_of(client)

    def submit(self, message: Submit | Encode, client: int) -> None:
        """Queue a request; whether it was accepted is told with the next step."""
        if isinstance(message, Encode):
            self._reception.fail(message.id, client, "the model generates text, it encodes no inputs")
        elif (fault := self._find_fault(message)) is not None:
            self._reception.fail(message.id, client, fault)
        else:
            before = self._scheduler.tokens_before(message.owner, len(message.prompt))
            refusal = self._reception.refusal(message, before) or self._scheduler.add(
                self._enter(message, client)
            )
            self._reception.answer(message, client, refusal, before)

    def abort(self, message: Abort) -> None:
        """End requests: nothing more is told of them, and the next step has their rows and blocks."""
        for request_id in message.ids:
            request = self._scheduler.abort(request_id)
            if request is None:
                continue
            if request.slot is not None:
                self._owners.disown(request.slot)
            self._observer.on_aborted(message.cause)

    def drain(self) -> None:
        """From now on every new request is rejected; those that are here go on."""
        self._reception.drain()

    def step(self, step_tokens: int | None = None) -> None:
        """Launch the next step if there is one to compute, then wait for the one before and publish it.

        step_tokens: prompts are read while the step has no more; None: as many as the settings let it have.
        """
        plan = self._scheduler.plan(self._pace.max_chunk_tokens, step_tokens)
        launched = None if plan is None else self._launch(plan)
        self._outbox.flush(self._num_steps)  # answers to messages do not wait for the step in flight
        previous, self._in_flight = self._in_flight, launched
        if previous is not None:
            self._finish(previous)

    def idle(self) -> None:
        """To be called before a long sleep: raise if a block, a slot or a row has been lost."""
        if not self.has_work:
            self._scheduler.check()

    def close(self) -> None:
        """Wait for the step in flight, and close the runner."""
        if self._in_flight is not None:
            self._in_flight.pending.result()
            self._in_flight = None
        self._runner.close()

    def _find_fault(self, message: Submit) -> str | None:
        """The server checks requests; one that slips through must not take the engine down."""
        num_tokens = len(message.prompt)
        if not 0 < num_tokens < self._max_model_len:
            return f"prompt has {num_tokens} tokens, accepted are 1 to {self._max_model_len - 1}"
        if message.sampling.max_tokens < 1:
            return f"max_tokens is {message.sampling.max_tokens}, accepted is 1 and more"
        num_stop_ids = len(message.sampling.stop_token_ids)
        if num_stop_ids > MAX_STOP_IDS:
            return f"stop_token_ids has {num_stop_ids} ids, accepted are at most {MAX_STOP_IDS}"
        return None

    def _enter(self, message: Submit, client: int) -> Request:
        return Request(
            id=message.id,
            client=client,
            sampling=message.sampling,
            num_prompt=len(message.prompt),
            token_ids=np.array(message.prompt, np.int32),
            chain=Chain(message.cache_salt),
            key=self._reception.give_turn(message),
            received=self._clock(),
            num_tokens=len(message.prompt),
            owner=message.owner,
            handicap=self._reception.handicap(message),
        )

    def _launch(self, plan: Plan) -> InFlight:
        now = self._clock()
        pending = self._runner.launch(plan)
        num_drained = sum(self._start(admit, now) for admit in plan.admit)
        for _ in range(self._scheduler.take_preemptions()):
            self._observer.on_preempted()
        # Where nobody waited before, rows that were free are filled: that is no measure of how they become free.
        waited, self._waited = self._waited, self._scheduler.num_waiting > 0
        return InFlight(pending, now, plan.num_chunk_tokens, num_drained if waited else None)

    def _start(self, admit: Admit, now: float) -> int:
        """A request got a row. Returns the tokens that left the queue: none if it had a row before."""
        request = self._scheduler.request_at(admit.slot)
        self._owners.assign(admit.slot, request)
        if self._config.prefix_cache:
            self._observer.on_prefix(len(admit.token_ids), admit.num_cached)
        if request.started:
            return 0
        request.started = True
        queued = now - request.received
        started = Started(id=request.id, num_cached=admit.num_cached, queued=queued)
        self._outbox.to(request.client).started.append(started)
        return request.num_prompt

    def _finish(self, step: InFlight) -> None:
        result = step.pending.result()
        self._history.append(result.slots, result.tokens)
        self._outbox.add(result, self._owners)
        self._num_steps, self._last_seconds = result.step, result.seconds
        self._outbox.flush(result.step)
        ended = result.slots[result.finishes != 0].tolist()
        self._scheduler.commit(result.step, ended, result.failed)
        gap = self._gap_meter.measure(step.launched, result.seconds, self.has_work, result.gap)
        self._observer.on_step(result.num_tokens, result.num_rows, result.seconds, gap)
        self._observer.on_launch(result.launch, result.num_moves)
        self._pace.observe(step.num_chunk_tokens, gap + result.seconds)
        if step.num_drained is not None:
            self._reception.on_drained(step.num_drained, gap + result.seconds)
