"""The clock of one request: when it was queued, got its first token, and ended."""

import time

from engine.metrics.family import MetricFamily
from engine.metrics.observations import Observations, TalliedHistogram
from server.metrics import catalogue
from server.metrics.tally import Tally
from server.metrics.work import Life


class RequestMetrics:
    """What is measured of every request."""

    def __init__(self, family: MetricFamily) -> None:
        self.family = family
        self.prompt_tokens = family.counter(catalogue.PROMPT_TOKENS)
        self.cached_tokens = family.counter(catalogue.CACHED_TOKENS)
        self.success = family.counters(catalogue.SUCCESS)
        self.cancelled = family.counters(catalogue.CANCELLATIONS)
        self.first_token = family.histogram(catalogue.FIRST_TOKEN)
        self.per_token = family.histogram(catalogue.PER_TOKEN)
        self.whole = family.histogram(catalogue.WHOLE)
        self.queue = family.histogram(catalogue.QUEUE)
        self.inference = family.histogram(catalogue.INFERENCE)
        self.prefill = family.histogram(catalogue.PREFILL)
        self.decode = family.histogram(catalogue.DECODE)
        self.prompt = family.histogram(catalogue.PROMPT)
        self.generated = family.histogram(catalogue.GENERATED)
        self.max_tokens = family.histogram(catalogue.MAX_TOKENS)
        self.choices = family.histogram(catalogue.CHOICES)
        gaps = family.histogram(catalogue.BETWEEN_TOKENS, TalliedHistogram)
        tokens = family.counter(catalogue.GENERATION_TOKENS)
        self.tally = Tally(tokens, Observations(gaps, catalogue.BETWEEN_TOKENS.buckets))


class RequestTimer:
    """One request's. The first of `finish` and `cancelled` counts."""

    __slots__ = (
        "_began",
        "_cause",
        "_first",
        "_last",
        "_max_tokens",
        "_metrics",
        "_n",
        "_num_prompt",
        "_num_tokens",
        "_reason",
        "_row",
    )

    def __init__(
        self, metrics: RequestMetrics, began: float, num_prompt: int, max_tokens: int, n: int
    ) -> None:
        self._metrics = metrics
        self._began = began
        self._num_prompt = num_prompt
        self._max_tokens = max_tokens
        self._n = n
        self._row: float | None = None  # when it got a row
        self._first = 0.0
        self._last = 0.0
        self._num_tokens = 0
        self._reason = ""  # until it ended
        self._cause = ""

    def on_started(self, queued: float, num_cached: int) -> None:
        """It got a row, `queued` seconds after it reached the engine."""
        if self._row is not None:
            return
        self._row = self._began + queued
        self._metrics.queue.observe(queued)
        self._metrics.prompt_tokens.inc(self._num_prompt)
        self._metrics.cached_tokens.inc(num_cached)

    def on_tokens(self, count: int) -> None:
        """`count` tokens arrived together."""
        if not count:
            return
        now = time.perf_counter()
        num_gaps = count
        if self._num_tokens == 0:
            self._first = self._last = now
            self._metrics.first_token.observe(now - self._began)
            num_gaps -= 1
        self._metrics.tally.add(count, num_gaps, (now - self._last) / max(1, num_gaps), now)
        self._num_tokens += count
        self._last = now

    def finish(self, reason: str) -> None:
        """It ended: stop, length, abort or error."""
        if self._reason:
            return
        self._reason = reason
        metrics = self._metrics
        metrics.tally.write(time.perf_counter())
        metrics.success.labels(*metrics.family.values, reason).inc()
        metrics.whole.observe(time.perf_counter() - self._began)
        metrics.prompt.observe(self._num_prompt)
        metrics.generated.observe(self._num_tokens)
        metrics.max_tokens.observe(self._max_tokens)
        metrics.choices.observe(self._n)
        if self._num_tokens:
            self._observe_tokens()

    def cancelled(self, cause: str) -> None:
        """It was cut short: disconnect, timeout, shutdown and the like."""
        if self._reason:
            return
        self._cause = cause
        self._metrics.cancelled.labels(*self._metrics.family.values, cause).inc()
        self.finish("abort")

    def life(self) -> Life:
        """So far."""
        first, last = (self._first, self._last) if self._num_tokens else (None, None)
        return Life(self._began, self._row, first, last, self._reason, self._cause)

    def _observe_tokens(self) -> None:
        metrics = self._metrics
        metrics.decode.observe(self._last - self._first)
        if self._num_tokens > 1:
            metrics.per_token.observe((self._last - self._first) / (self._num_tokens - 1))
        if self._row is not None:
            metrics.prefill.observe(max(0.0, self._first - self._row))
            metrics.inference.observe(max(0.0, self._last - self._row))
