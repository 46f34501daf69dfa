"""Tokens as they come, added up here and written to where all processes are read only now and then.

A write costs as much as a token's text, so that one a token would be felt where a thousand streams are served.
"""

from bisect import bisect_left
from collections.abc import Sequence

from prometheus_client import Counter, Histogram

WRITE_SECONDS = 0.1


class TalliedHistogram(Histogram):
    """A histogram that takes many observations at once."""

    def add(self, counts: Sequence[int], total: float) -> None:
        """So many observations in each bucket, the last of which has no bound, and their sum."""
        self._sum.inc(total)
        for bucket, count in zip(self._buckets, counts, strict=True):
            if count:
                bucket.inc(count)


class Tally:
    """Of one process. `now` is by time.perf_counter."""

    __slots__ = ("_between_tokens", "_bounds", "_counts", "_num_tokens", "_seconds", "_tokens", "_written")

    def __init__(self, tokens: Counter, between_tokens: TalliedHistogram, bounds: Sequence[float]) -> None:
        self._tokens = tokens
        self._between_tokens = between_tokens
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._seconds = 0.0
        self._num_tokens = 0
        self._written = 0.0

    def add(self, num_tokens: int, num_gaps: int, gap: float, now: float) -> None:
        """Tokens that came together, and `gap` seconds before each of `num_gaps` of them."""
        self._num_tokens += num_tokens
        if num_gaps:
            self._counts[bisect_left(self._bounds, gap)] += num_gaps
            self._seconds += num_gaps * gap
        if now - self._written >= WRITE_SECONDS:
            self.write(now)

    def write(self, now: float) -> None:
        """What was added up, if anything was."""
        self._written = now
        if not self._num_tokens:
            return
        self._tokens.inc(self._num_tokens)
        self._between_tokens.add(self._counts, self._seconds)
        self._counts = [0] * len(self._counts)
        self._num_tokens, self._seconds = 0, 0.0
