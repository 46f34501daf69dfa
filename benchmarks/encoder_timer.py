"""Times of whole steps: as a graph replayed again and again, or as the host sees them."""

import statistics
import sys
import time
import traceback
from collections.abc import Callable
from typing import TypeVar

import torch

from benchmarks.gpu_timer import make_event

T = TypeVar("T")
WARMUPS = 2
MIN_RUNS, MAX_RUNS = 7, 60
RUN_MS = 80.0  # of one measurement, about


class Budget:
    """What may take long is left out once `seconds` have passed."""

    def __init__(self, seconds: float) -> None:
        self._began = time.perf_counter()
        self._seconds = seconds

    @property
    def passed(self) -> float:
        return time.perf_counter() - self._began

    @property
    def is_spent(self) -> bool:
        return self.passed > self._seconds


def attempt(what: str, work: Callable[[], T]) -> T | None:
    """None where it fails: its reason is printed, the rest of the benchmark goes on."""
    began = time.perf_counter()
    try:
        return work()
    except Exception as error:
        where = traceback.format_exc(limit=-3)
        print(f"{what} failed: {type(error).__name__}: {str(error)[:2000]}\n{where[-2000:]}", file=sys.stderr)
        return None
    finally:
        print(f"{what}: {time.perf_counter() - began:.1f} s", file=sys.stderr, flush=True)


def time_graph_ms(launch: Callable[[], object]) -> float:
    """Median milliseconds of one graph that holds one launch, replayed back to back."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        graph = _capture(launch)
        graph.replay()
        (once,) = _replay(graph, stream, 1)
        num_runs = int(min(MAX_RUNS, max(MIN_RUNS, RUN_MS / once)))
        times = _replay(graph, stream, num_runs)
    return statistics.median(times)


def time_host_ms(step: Callable[[], object]) -> float:
    """Median milliseconds from the call of a step until the GPU has nothing left to do."""
    for _ in range(WARMUPS):
        step()
    once = _host_ms(step)
    num_runs = int(min(MAX_RUNS, max(MIN_RUNS, 2 * RUN_MS / once)))
    return statistics.median(_host_ms(step) for _ in range(num_runs))


def _capture(launch: Callable[[], object]) -> torch.cuda.CUDAGraph:
    """What is compiled or allocated at the first call is so before. Kept out of the graph: what other threads do."""
    for _ in range(WARMUPS):
        launch()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    graph.capture_begin(capture_error_mode="thread_local")
    try:
        launch()
    finally:
        graph.capture_end()
    return graph


def _replay(graph: torch.cuda.CUDAGraph, stream: torch.cuda.Stream, num_runs: int) -> list[float]:
    """Milliseconds of each."""
    events = [make_event() for _ in range(num_runs + 1)]
    events[0].record(stream)
    for event in events[1:]:
        graph.replay()
        event.record(stream)
    torch.cuda.synchronize()
    return [begin.elapsed_time(end) for begin, end in zip(events, events[1:], strict=False)]


def _host_ms(step: Callable[[], object]) -> float:
    torch.cuda.synchronize()
    began = time.perf_counter()
    step()
    torch.cuda.synchronize()
    return (time.perf_counter() - began) * 1e3
