"""Observations of a histogram that are added up before they are written to where all processes are read: a write costs much more."""

from bisect import bisect_left
from collections.abc import Sequence

from prometheus_client import Histogram


class TalliedHistogram(Histogram):
    """A histogram that takes many observations at once."""

    def add(self, counts: Sequence[int], total: float) -> None:
        """So many observations in each bucket, the last of which has no bound, and their sum."""
        self._sum.inc(total)
        for bucket, count in zip(self._buckets, counts, strict=True):
            if count:
                bucket.inc(count)


class Observations:
    """Those that were not written yet."""

    __slots__ = ("_bounds", "_counts", "_histogram", "_num", "_total")

    def __init__(self, histogram: TalliedHistogram, bounds: Sequence[float]) -> None:
        self._histogram = histogram
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._num = 0
        self._total = 0.0

    def add(self, value: float, count: int = 1) -> None:
        """`count` times the same."""
        self._counts[bisect_left(self._bounds, value)] += count
        self._num += count
        self._total += count * value

    def write(self) -> None:
        if not self._num:
            return
        self._histogram.add(self._counts, self._total)
        self._counts = [0] * len(self._counts)
        self._num, self._total = 0, 0.0
