"""Overload: what is admitted keeps its wait, and who is sent away finds a place when told to come back."""

import random
from dataclasses import replace

import msgspec
import pytest

from engine.loop.promises import GRACE_SECONDS, MAX_PROMISES, Line, Promises
from engine.request import SamplingParams, Submit
from tests.engine.counting_runner import VOCAB
from tests.engine.harness import Bench, small

MAX_SECONDS = 8.0
ROWS, TOKENS = 4, 10  # of an answer; a step takes a second
NUM_COLD = 40  # requests that come before it is known how fast the queue drains
CAPACITY = ROWS / TOKENS  # requests a second


def test_those_sent_away_come_back_one_after_the_other() -> None:
    line = Line()
    due = [line.give(mark, 100.0, 5.0, 2.0) for mark in range(3)]
    assert due == [105.0, 107.0, 109.0]
    assert line.give(0, 102.0, 50.0, 2.0) == 105.0, "who comes back too soon keeps its place"
    assert not line.take_up(0, 104.9) and not line.take_up(9, 105.0)
    assert line.take_up(0, 105.0) and line.take_up(0, 106.0), "it may have several choices"
    assert line.give(3, 200.0, 5.0, 2.0) == 205.0, "the line is over"


def test_places_nobody_comes_back_for_are_given_to_others() -> None:
    line, now = Line(), 0.0
    for mark in range(1000):
        line.give(mark, now, 1.0, 1.0)
        now += 1.0
    due = [line.give(mark, now, 1.0, 1.0) for mark in range(1000, 1100)]
    assert due[-1] - due[0] < 5.0, "a hundred, of whom nobody is expected"
    now += 10 * GRACE_SECONDS
    assert line.give(0, now, 1.0, 1.0) == now + 1.0 and len(line) == 1


def test_promises_are_bounded() -> None:
    line = Line()
    for mark in range(MAX_PROMISES + 10):
        line.give(mark, 0.0, 1.0, 0.0)
    assert len(line) == MAX_PROMISES


def test_owners_have_lines_of_their_own() -> None:
    promises = Promises()
    for mark in range(1000):
        promises.give("flood", mark, 0.0, 1.0, 1.0)
    assert promises.has_any("flood") and not promises.has_any("quiet")
    assert promises.give("quiet", 0, 0.0, 1.0, 1.0) == 1.0
    assert promises.give("quiet", 1, 0.0, 1.0, 1.0) == 3.0, "two owners share what leaves the queue"
    assert not promises.take_up("flood", -1, 2000.0) and not promises.has_any("flood"), "all of them are over"


def test_owners_whose_line_is_over_have_no_part_of_what_leaves_the_queue() -> None:
    promises = Promises()
    for owner in range(100):
        promises.give(f"{owner}", 0, 0.0, 1.0, 1.0)
    now = 2 * GRACE_SECONDS
    due = [promises.give("back", mark, now, 1.0, 1.0) for mark in range(2)]
    assert due == [now + 1.0, now + 2.0], "though none of the hundred was heard of again"


class Crowd:
    """Strangers who come at `times` the capacity for so many seconds, and obey. A step takes a second."""

    def __init__(self, times: float, seconds: int) -> None:
        config = small(max_requests=ROWS, max_batch_tokens=64, prefix_cache=False, max_queued_requests=10_000)
        self.bench = Bench(replace(config, max_queue_seconds=MAX_SECONDS))
        self.attempts: dict[int, int] = {}  # of every request ever sent
        self._rng = random.Random(0)
        self._rate = CAPACITY * times
        self._ends = self.bench.clock.now + seconds
        self._away: list[tuple[float, Submit]] = []  # when they come back
        self._sent: dict[int, Submit] = {}
        self._num_rejected = 0

    def run(self) -> None:
        """Until everybody was served."""
        for _ in range(10_000):
            now = self.bench.clock.now
            if now >= self._ends and not self._away and not self.bench.engine.has_work:
                return
            self._come(now)
            self.bench.engine.step()
            for rejected in self.bench.clients.rejected[self._num_rejected :]:
                self._away.append((now + rejected.retry_after, self._sent[rejected.id]))
            self._num_rejected = len(self.bench.clients.rejected)
            self.bench.clock.now += 1.0
        raise AssertionError("somebody is never served")

    def _come(self, now: float) -> None:
        back = [message for due, message in self._away if due <= now]
        self._away = [(due, message) for due, message in self._away if due > now]
        for message in back:
            self._send(message, self.attempts[message.id] + 1)
        for _ in range(8 if now < self._ends else 0):
            if self._rng.random() < self._rate / 8:
                prompt = tuple(self._rng.randrange(VOCAB) for _ in range(8))
                sampling = SamplingParams(max_tokens=TOKENS)
                self._send(Submit(id=0, prompt=prompt, sampling=sampling), 0)

    def _send(self, message: Submit, attempt: int) -> None:
        number, now = len(self.attempts) + 1, self.bench.clock.now
        again = msgspec.structs.replace(message, id=number, arrived=now)
        self.attempts[again.id], self._sent[again.id] = attempt, again
        self.bench.submit(again)


@pytest.mark.parametrize("times", [1.5, 3.0])
def test_under_overload_waits_are_bounded_and_whoever_obeys_is_served(times: float) -> None:
    crowd = Crowd(times, seconds=300)
    crowd.run()
    started = crowd.bench.clients.started
    waits = [entry.queued for entry in started[NUM_COLD:]]
    retries = [crowd.attempts[entry.id] for entry in started]
    assert max(waits) <= MAX_SECONDS * 1.25, "admitted requests keep to the limit"
    assert max(retries) >= 1, "it was an overload"
    served = [sum(count <= limit for count in retries) / len(retries) for limit in (1, 2)]
    assert served[0] > 0.85 and served[1] > 0.95, served
    busy = [rows for _, rows, _, _ in crowd.bench.clients.steps[50:250]]
    full = ROWS * TOKENS / (TOKENS + 1)  # the row of an answer that has ended is free for a step
    assert sum(busy) / len(busy) > 0.99 * full, "no row is idle while clients are sent away"


def test_nobody_is_sent_away_below_the_capacity() -> None:
    crowd = Crowd(0.6, seconds=300)
    crowd.run()
    assert not crowd.bench.clients.rejected
