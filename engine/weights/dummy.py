"""Random tensors, to run a bare configuration."""

import math
import zlib
from collections.abc import Mapping

import torch

from engine.weights.source import Shape

_NUM_BYTES = 4


class DummySource:
    """engine.weights.source.TensorSource that has whatever is wanted; on one kind of device a name gives the same numbers."""

    def __init__(self, shapes: Mapping[str, Shape], seed: int = 0) -> None:
        self.shapes = shapes
        self._seed = seed

    def label(self, name: str) -> str:
        return f"random tensor {name}"

    def num_bytes(self, name: str) -> int:
        return math.prod(self.shapes[name]) * _NUM_BYTES

    def read(self, name: str, out: torch.Tensor) -> None:
        """Vectors are ones (norms) or zeros (biases); a matrix keeps the size of what it multiplies."""
        if out.dim() == 1:
            out.fill_(0.0 if name.endswith(".bias") else 1.0)
            return
        generator = torch.Generator(out.device).manual_seed(self._seed ^ zlib.crc32(name.encode()))
        bound = math.sqrt(
            3.0 / out.shape[1]
        )  # the variance of uniform numbers is a third of their bound's square
        out.uniform_(-bound, bound, generator=generator)
