"""A step as one CUDA graph, captured the first time its bucket is needed."""

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import torch

from engine.runner.gpu.buckets import Bucket, EncoderBucket

Size = TypeVar("Size", Bucket, EncoderBucket)
AnySize = TypeVar("AnySize", Bucket, EncoderBucket, contravariant=True)
Compute = Callable[[Size], None]  # launches a step's kernels on the current stream


class Steps(Protocol[AnySize]):
    """How a step is launched."""

    def run(self, bucket: AnySize) -> None: ...


class EagerSteps(Generic[Size]):
    """Kernel by kernel: where there are no graphs."""

    def __init__(self, compute: Compute[Size]) -> None:
        self._compute: Compute[Size] = compute

    def run(self, bucket: Size) -> None:
        self._compute(bucket)


class GraphSteps(Generic[Size]):
    """As graphs, which share the memory of what lives only within a step: no two of them run at once."""

    def __init__(self, compute: Compute[Size]) -> None:
        self._compute: Compute[Size] = compute
        self._graphs: dict[Size, torch.cuda.CUDAGraph] = {}
        self._pool = torch.cuda.graph_pool_handle()

    @property
    def num_captured(self) -> int:
        return len(self._graphs)

    def run(self, bucket: Size) -> None:
        """On the current stream, which must not be the default one."""
        if bucket not in self._graphs:
            self._graphs[bucket] = self._capture(bucket)
        self._graphs[bucket].replay()

    def _capture(self, bucket: Size) -> torch.cuda.CUDAGraph:
        """Records, computes nothing. The step in flight goes on meanwhile."""
        graph = torch.cuda.CUDAGraph()
        graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
        try:
            self._compute(bucket)
        finally:
            graph.capture_end()
        return graph
