"""How all metrics are made: the labels that every one carries, and their values."""

from typing import Final, TypeVar, overload

import psutil
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from engine.metrics import catalogue
from engine.metrics.metric import LABELS, PREFIX, Metric

ENGINE = "0"  # the one engine's name in the label
H = TypeVar("H", bound=Histogram)
LIVE: Final = "livemostrecent"  # of a gauge: the value of a living process, the newest if several set it


class MetricFamily:
    """Makes metrics of one model.

    Singular: the one child, resolved. Plural: `.labels(*family.values, ...)` picks a child.
    """

    def __init__(self, registry: CollectorRegistry, model_name: str) -> None:
        self.values = (model_name, ENGINE)
        self._registry = registry

    def counter(self, metric: Metric) -> Counter:
        return self.counters(metric).labels(*self.values)

    def counters(self, metric: Metric) -> Counter:
        """The exposition adds `_total` to the name."""
        return Counter(PREFIX + metric.name, metric.text, LABELS + metric.labels, registry=self._registry)

    def gauge(self, metric: Metric) -> Gauge:
        return self.gauges(metric).labels(*self.values)

    def gauges(self, metric: Metric) -> Gauge:
        labels = LABELS + metric.labels
        return Gauge(
            PREFIX + metric.name, metric.text, labels, registry=self._registry, multiprocess_mode=LIVE
        )

    @overload
    def histogram(self, metric: Metric) -> Histogram: ...
    @overload
    def histogram(self, metric: Metric, kind: type[H]) -> H: ...
    def histogram(self, metric: Metric, kind: type[Histogram] = Histogram) -> Histogram:
        return self.histograms(metric, kind).labels(*self.values)

    def histograms(self, metric: Metric, kind: type[Histogram] = Histogram) -> Histogram:
        labels = LABELS + metric.labels
        return kind(
            PREFIX + metric.name, metric.text, labels, registry=self._registry, buckets=metric.buckets
        )


class MemoryGauge:
    """The resident bytes of this process."""

    def __init__(self, family: MetricFamily, process: str) -> None:
        self._gauge = family.gauges(catalogue.MEMORY).labels(*family.values, process)
        self._process = psutil.Process()

    def sample(self) -> None:
        self._gauge.set(self._process.memory_info().rss)
