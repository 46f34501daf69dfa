"""The server's side of the metrics, and the text that Prometheus reads."""

import platform
import time
from importlib.metadata import version
from pathlib import Path

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from engine.metrics.family import MemoryGauge, MetricFamily
from engine.request import SamplingParams
from server.metrics import catalogue
from server.metrics.exposition import Exposition
from server.metrics.held import HeldGauges
from server.metrics.input_timer import InputTimer
from server.metrics.request_timer import RequestMetrics, RequestTimer

METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))


class ServerMetrics:
    """One server process's metrics.

    With `directory`, the one given to `share_metrics`, all processes' are rendered.
    """

    def __init__(self, model_name: str, directory: Path | None = None, process: str = "server") -> None:
        self._exposition = None if directory is None else Exposition(directory)
        self._registry = CollectorRegistry()
        family = self._family = MetricFamily(self._registry, model_name)
        self._requests = RequestMetrics(family)
        self._rejections = family.counters(catalogue.REJECTIONS)
        self._responses = family.counters(catalogue.RESPONSES)
        self._seconds = family.histograms(catalogue.RESPONSE_SECONDS)
        self._restarts = family.counter(catalogue.RESTARTS)
        self._memory = MemoryGauge(family, process)
        self._memory.sample()
        self._held = HeldGauges(family, process)
        build = family.gauges(catalogue.BUILD)
        build.labels(*family.values, version("tokenloom"), platform.python_version()).set(1)

    def track(self, num_prompt_tokens: int, params: SamplingParams, n: int) -> RequestTimer:
        """Begins the clock of one request (one choice, if it has several)."""
        return RequestTimer(self._requests, time.perf_counter(), num_prompt_tokens, params.max_tokens, n)

    def track_inputs(self, num_inputs: int) -> InputTimer:
        """Begins the clock of an HTTP request to an encoder."""
        return InputTimer(self._requests, time.perf_counter(), num_inputs)

    def rejected(self, cause: str) -> None:
        self._rejections.labels(*self._family.values, cause).inc()

    def http_response(self, method: str, route: str, status: int, seconds: float) -> None:
        """`route` is the route's pattern, not the path: a path is anything a client likes."""
        method = method if method in METHODS else "other"
        self._responses.labels(*self._family.values, method, route, str(status)).inc()
        self._seconds.labels(*self._family.values, method, route).observe(seconds)

    def engine_restarted(self) -> None:
        """Called in one of the server processes."""
        self._restarts.inc()

    def sample_process(self) -> None:
        """Called now and then in the event loop, because this process may not be the one that is asked for the metrics."""
        self._memory.sample()
        self._held.sample()

    def render(self) -> tuple[bytes, str]:
        """The exposition and its content type. Reads all processes' files, some 1.5 ms: less than it takes to have a thread do it
        beside an event loop that is busy."""
        self._memory.sample()
        if self._exposition is not None:
            return self._exposition.render(), CONTENT_TYPE_LATEST
        return generate_latest(self._registry), CONTENT_TYPE_LATEST
