"""The engine's side of the metrics."""

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from engine.metrics import catalogue
from engine.metrics.family import MemoryGauge, MetricFamily
from engine.metrics.step_tally import StepTally
from engine.request import EngineInfo, Status

if TYPE_CHECKING:
    from engine.step import Launch  # with the arrays' library, which whoever counts need not have


class EngineMetrics:
    """Observes one engine: the loop reports what it does, the heart-beat what there is."""

    def __init__(self, model_name: str) -> None:
        family = self._family = MetricFamily(CollectorRegistry(), model_name)
        self._running = family.gauge(catalogue.RUNNING)
        self._waiting = family.gauge(catalogue.WAITING)
        self._kv_usage = family.gauge(catalogue.KV_USAGE)
        self._preemptions = family.counter(catalogue.PREEMPTIONS)
        self._queried = family.counter(catalogue.PREFIX_QUERIES)
        self._hits = family.counter(catalogue.PREFIX_HITS)
        self._steps = StepTally(family)
        self._aborts = family.counters(catalogue.ABORTS)
        self._rejections = family.counters(catalogue.REFUSALS)
        self._memory = MemoryGauge(family, "engine")

    def on_loaded(self, info: EngineInfo, prefix_cache: bool) -> None:
        """The engine is built: what start-up took, and how the cache is laid out, if there is one."""
        family = self._family
        phases = family.gauges(catalogue.STARTUP)
        for phase, seconds in info.phases.items():
            phases.labels(*family.values, phase).set(seconds)
        if info.block_size:
            self._on_cache(info, prefix_cache)

    def _on_cache(self, info: EngineInfo, prefix_cache: bool) -> None:
        family = self._family
        num_blocks = info.kv_tokens // info.block_size
        values = (str(info.block_size), str(num_blocks), info.dtype, str(prefix_cache))
        family.gauges(catalogue.CACHE_LAYOUT).labels(*family.values, *values).set(1)

    def on_status(self, status: Status) -> None:
        """Called at each heart-beat, in its thread."""
        self._steps.write()
        self._running.set(status.num_running)
        self._waiting.set(status.num_waiting)
        self._kv_usage.set(status.kv_usage)
        self._memory.sample()

    def on_step(self, num_tokens: int, num_rows: int, seconds: float, host_gap: float) -> None:
        self._steps.add(num_tokens, num_rows, seconds, host_gap)

    def on_launch(self, launch: "Launch", num_moves: int) -> None:
        self._steps.add_launch(launch, num_moves)

    def on_preempted(self) -> None:
        self._preemptions.inc()

    def on_prefix(self, queried: int, hit: int) -> None:
        self._queried.inc(queried)
        self._hits.inc(hit)

    def on_aborted(self, cause: str) -> None:
        self._aborts.labels(*self._family.values, cause).inc()

    def on_rejected(self, reason: str) -> None:
        self._rejections.labels(*self._family.values, reason).inc()
