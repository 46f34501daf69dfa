"""What steps are counted by, added up and written only now and then: a step on a fast GPU is over in a millisecond."""

import threading
import time
from typing import TYPE_CHECKING

from engine.metrics import catalogue
from engine.metrics.family import MetricFamily
from engine.metrics.metric import Metric
from engine.metrics.observations import Observations, TalliedHistogram

if TYPE_CHECKING:
    from engine.step import Launch

WRITE_SECONDS = 0.05


class StepTally:
    """The loop's thread adds, and writes as it adds; whoever wants what is left to be written calls `write` from any thread."""

    def __init__(self, family: MetricFamily) -> None:
        def observed(metric: Metric) -> Observations:
            return Observations(family.histogram(metric, TalliedHistogram), metric.buckets)

        self._values = family.values
        self._tokens = observed(catalogue.STEP_TOKENS)
        self._rows = observed(catalogue.STEP_ROWS)
        self._seconds = observed(catalogue.STEP_SECONDS)
        self._gap = observed(catalogue.HOST_GAP)
        self._launches = family.counters(catalogue.LAUNCHES)
        self._moves = family.counter(catalogue.MOVES)
        self._num_launches: dict[Launch, int] = {}
        self._num_moves = 0
        self._written = 0.0
        self._lock = threading.Lock()

    def add(self, num_tokens: int, num_rows: int, seconds: float, host_gap: float) -> None:
        with self._lock:
            self._tokens.add(num_tokens)
            self._rows.add(num_rows)
            self._seconds.add(seconds)
            self._gap.add(host_gap)

    def add_launch(self, launch: "Launch", num_moves: int) -> None:
        """Of the same step."""
        with self._lock:
            self._num_launches[launch] = self._num_launches.get(launch, 0) + 1
            self._num_moves += num_moves
            if time.perf_counter() - self._written >= WRITE_SECONDS:
                self._write()

    def write(self) -> None:
        """What was added up, if anything was."""
        with self._lock:
            self._write()

    def _write(self) -> None:
        self._written = time.perf_counter()
        for observations in (self._tokens, self._rows, self._seconds, self._gap):
            observations.write()
        for launch, count in self._num_launches.items():
            self._launches.labels(*self._values, launch).inc(count)
        self._num_launches.clear()
        if self._num_moves:
            self._moves.inc(self._num_moves)
            self._num_moves = 0
