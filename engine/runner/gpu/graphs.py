"""A step as one CUDA graph, captured the first time its bucket is needed."""

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import torch

from engine.runner.gpu.buckets import Bucket, EncoderBucket
from engine.step import Launch

Size = TypeVar("Size", Bucket, EncoderBucket)
Result = TypeVar("Result")
Compute = Callable[[Size], Result]  # launches a step's kernels on the current stream
AnySize = TypeVar("AnySize", Bucket, EncoderBucket, contravariant=True)
AnyResult = TypeVar("AnyResult", covariant=True)


class Steps(Protocol[AnySize, AnyResult]):
    """How a step is launched."""

    def run(self, bucket: AnySize) -> AnyResult:
        """What the step makes; where it lies, the bucket's next step may write."""
        ...

    def launch_of(self, bucket: AnySize) -> Launch:
        """How `run` would launch it now."""
        ...


class EagerSteps(Generic[Size, Result]):
    """Kernel by kernel: where there are no graphs."""

    def __init__(self, compute: Compute[Size, Result]) -> None:
        self._compute: Compute[Size, Result] = compute

    def run(self, bucket: Size) -> Result:
        return self._compute(bucket)

    def launch_of(self, bucket: Size) -> Launch:
        return "eager"


class GraphSteps(Generic[Size, Result]):
    """As graphs, which share the memory of what lives only within a step: no two of them run at once."""

    def __init__(self, compute: Compute[Size, Result]) -> None:
        self._compute: Compute[Size, Result] = compute
        self._graphs: dict[Size, tuple[torch.cuda.CUDAGraph, Result]] = {}
        self._pool = torch.cuda.graph_pool_handle()

    def run(self, bucket: Size) -> Result:
        """On the current stream, which must not be the default one."""
        if bucket not in self._graphs:
            self._graphs[bucket] = self._capture(bucket)
        graph, result = self._graphs[bucket]
        graph.replay()
        return result

    def launch_of(self, bucket: Size) -> Launch:
        return "replayed" if bucket in self._graphs else "captured"

    def _capture(self, bucket: Size) -> tuple[torch.cuda.CUDAGraph, Result]:
        """Records, computes nothing. The step in flight goes on meanwhile."""
        graph = torch.cuda.CUDAGraph()
        graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
        try:
            result = self._compute(bucket)
        finally:
            graph.capture_end()
        return graph, result
