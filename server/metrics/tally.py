"""Tokens, and the time between them, added up and written to where all processes are read only now and then.

A write costs as much as a token's text, so that one a token would be felt where a thousand streams are served.
"""

from prometheus_client import Counter

from engine.metrics.observations import Observations

WRITE_SECONDS = 0.1


class Tally:
    """Of one process. `now` is by time.perf_counter."""

    __slots__ = ("_between_tokens", "_num_tokens", "_tokens", "_written")

    def __init__(self, tokens: Counter, between_tokens: Observations) -> None:
        self._tokens = tokens
        self._between_tokens = between_tokens
        self._num_tokens = 0
        self._written = 0.0

    def add(self, num_tokens: int, num_gaps: int, gap: float, now: float) -> None:
        """Tokens that came together, and `gap` seconds before each of `num_gaps` of them."""
        self._num_tokens += num_tokens
        if num_gaps:
            self._between_tokens.add(gap, num_gaps)
        if now - self._written >= WRITE_SECONDS:
            self.write(now)

    def write(self, now: float) -> None:
        """What was added up, if anything was."""
        self._written = now
        if not self._num_tokens:
            return
        self._tokens.inc(self._num_tokens)
        self._between_tokens.write()
        self._num_tokens = 0
