"""Where requests enter: whose turn each is, and what their clients are told of it."""

import time
from collections.abc import Callable

from engine.config import EngineConfig
from engine.loop.drain_meter import DrainMeter, whole_wait
from engine.loop.observer import EngineObserver
from engine.loop.outbox import Outbox
from engine.loop.promises import Promises
from engine.request import Encode, Rejected, Submit


class Reception:
    """Answers each request that comes with accepted, rejected or failed."""

    def __init__(
        self,
        config: EngineConfig,
        outbox: Outbox,
        observer: EngineObserver,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._outbox = outbox
        self._observer = observer
        self._clock = clock
        self._meter = DrainMeter()
        self._promises = Promises()
        self._max_seconds = config.max_queue_seconds
        self._seconds_a_level = config.priority_seconds if config.policy == "priority" else 0.0
        self._max_batch_tokens = config.max_batch_tokens
        self._num_arrived = 0
        self._draining = False

    def drain(self) -> None:
        """From now on every new request is to be refused."""
        self._draining = True

    def refusal(self, message: Submit | Encode, num_tokens_before: int) -> str | None:
        """Why it is not taken now, whatever the queue's bounds say."""
        if self._draining:
            return "draining"
        if not self._max_seconds or self._meter.seconds(num_tokens_before) <= self._limit(message):
            return None
        return "queue_seconds"

    def _limit(self, message: Submit | Encode) -> float:
        """Half of the queue is kept for those who were sent away and come back when they were told to."""
        was_told = self._promises.take_up(message.owner, _mark(message), self._clock())
        if was_told or not self._promises.has_any(message.owner):
            return self._max_seconds
        return self._max_seconds / 2

    def give_turn(self, message: Submit | Encode) -> tuple[float, int]:
        """The key of its place in the queue: arrival in seconds with priority, order of arrival."""
        self._num_arrived += 1
        arrived = message.arrived or time.time()
        return arrived + message.priority * self._seconds_a_level, self._num_arrived

    def handicap(self, message: Submit | Encode) -> float:
        """Tokens that other owners may be given before it, for its priority: a full step for each second that a level
        is worth among an owner's own."""
        return message.priority * self._seconds_a_level * self._max_batch_tokens

    def answer(
        self, message: Submit | Encode, client: int, refusal: str | None, num_tokens_before: int
    ) -> None:
        """It was queued, or refused and told when to come back."""
        parcel = self._outbox.to(client)
        if refusal is None:
            parcel.accepted.append(message.id)
            return
        wait = whole_wait(self._wait(message, num_tokens_before))
        parcel.rejected.append(Rejected(id=message.id, reason=refusal, retry_after=wait))
        self._observer.on_rejected(refusal)

    def _wait(self, message: Submit | Encode, num_tokens_before: int) -> float:
        """Seconds until the queue has room for it and for all who were sent away before, by the measured drain."""
        now, wait = self._clock(), self._meter.seconds(num_tokens_before)
        if self._draining:
            return wait
        if self._max_seconds:
            wait = max(0.0, wait - self._max_seconds / 2)
        seconds = self._meter.seconds(len(_prompt(message)))
        return self._promises.give(message.owner, _mark(message), now, wait, seconds) - now

    def fail(self, request_id: int, client: int, fault: str) -> None:
        """It is none that can be computed here."""
        self._outbox.to(client).failed[request_id] = fault

    def on_drained(self, num_tokens: int, seconds: float) -> None:
        """So many tokens left the queue for one step, and others still wait."""
        self._meter.observe(num_tokens, seconds)


def _prompt(message: Submit | Encode) -> tuple[int, ...]:
    return message.prompt if isinstance(message, Submit) else message.token_ids


def _mark(message: Submit | Encode) -> int:
    """Equal for requests that ask the same; others share one with as little luck as it takes to share a hash."""
    max_tokens = message.sampling.max_tokens if isinstance(message, Submit) else 0
    return hash((_prompt(message), max_tokens))
