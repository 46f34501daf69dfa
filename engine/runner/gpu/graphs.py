"""A step as one CUDA graph, captured the first time its bucket is needed."""

from collections.abc import Callable
from typing import Protocol

import torch

from engine.runner.gpu.buckets import Bucket

Compute = Callable[[Bucket], None]  # launches a step's kernels on the current stream


class Steps(Protocol):
    """How a step is launched."""

    def run(self, bucket: Bucket) -> None: ...


class EagerSteps:
    """Kernel by kernel: where there are no graphs."""

    def __init__(self, compute: Compute) -> None:
        self._compute = compute

    def run(self, bucket: Bucket) -> None:
        self._compute(bucket)


class GraphSteps:
    """As graphs, which share the memory of what lives only within a step: no two of them run at once."""

    def __init__(self, compute: Compute) -> None:
        self._compute = compute
        self._graphs: dict[Bucket, torch.cuda.CUDAGraph] = {}
        self._pool = torch.cuda.graph_pool_handle()

    @property
    def num_captured(self) -> int:
        return len(self._graphs)

    def run(self, bucket: Bucket) -> None:
        """On the current stream, which must not be the default one."""
        if bucket not in self._graphs:
            self._graphs[bucket] = self._capture(bucket)
        self._graphs[bucket].replay()

    def _capture(self, bucket: Bucket) -> torch.cuda.CUDAGraph:
        """Records, computes nothing. The step in flight goes on meanwhile."""
        graph = torch.cuda.CUDAGraph()
        graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
        try:
            self._compute(bucket)
        finally:
            graph.capture_end()
        return graph
