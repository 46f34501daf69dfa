"""Times of what is queued on a GPU: many launches in one graph, so that the host is not measured."""

import statistics
from collections.abc import Callable

import torch

NUM_LAUNCHES = 20
NUM_REPLAYS = 9


def time_us(launch: Callable[[], object]) -> float:
    """Median microseconds of one launch, back to back with others of its kind; its inputs may stay in the cache."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    with torch.cuda.stream(stream):
        launch()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        graph.capture_begin()
        for _ in range(NUM_LAUNCHES):
            launch()
        graph.capture_end()
        graph.replay()
        times = [_replay(graph, stream) for _ in range(NUM_REPLAYS)]
    return statistics.median(times) / NUM_LAUNCHES * 1e3


def _replay(graph: torch.cuda.CUDAGraph, stream: torch.cuda.Stream) -> float:
    """Milliseconds."""
    begin, end = make_event(), make_event()
    begin.record(stream)
    graph.replay()
    end.record(stream)
    end.synchronize()
    return float(begin.elapsed_time(end))


def make_event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
