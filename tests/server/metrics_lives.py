"""Whole lives of processes that count something; the library is imported after its directory was set."""

from pathlib import Path

from engine.process.environment import share_metrics
from engine.request import EngineInfo, SamplingParams, Status


def serve_some(directory: str, process: str, num_requests: int, output: str) -> None:
    """A server process's whole life; writes what it would answer to /metrics."""
    share_metrics(Path(directory))
    from server.metrics.metrics import ServerMetrics

    metrics = ServerMetrics("m", Path(directory), process)
    for _ in range(num_requests):
        timer = metrics.track(10, SamplingParams(), 1)
        timer.on_tokens(3)
        timer.finish("length")
    metrics.http_response("POST", '/a "quoted\\ route"', 200, 0.5)
    Path(output).write_bytes(metrics.render()[0])
    Path(f"{output}.library").write_bytes(_render_by_the_library(directory))


def _render_by_the_library(directory: str) -> bytes:
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.multiprocess import MultiProcessCollector

    registry = CollectorRegistry()
    MultiProcessCollector(registry, directory)  # type: ignore[no-untyped-call]
    return generate_latest(registry)


def run_engine_metrics(directory: str) -> None:
    share_metrics(Path(directory))
    from engine.metrics.metrics import EngineMetrics

    metrics = EngineMetrics("m")
    info = EngineInfo(
        epoch=1,
        max_model_len=64,
        max_requests=4,
        kv_tokens=256,
        block_size=16,
        dtype="float32",
        device="cpu",
        phases={"weights": 1.5},
        memory={},
    )
    metrics.on_loaded(info, prefix_cache=True)
    metrics.on_step(num_tokens=12, num_rows=3, seconds=0.004, host_gap=0.0)
    metrics.on_launch("replayed", num_moves=2)
    metrics.on_preempted()
    metrics.on_prefix(queried=20, hit=16)
    metrics.on_aborted("disconnect")
    metrics.on_rejected("queue_tokens")
    metrics.on_status(Status(epoch=1, state="ready", step=1, num_running=3, num_waiting=2, kv_usage=0.5))
