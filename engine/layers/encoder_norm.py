"""Layer norm (arXiv 1607.06450), and the ways a block joins it to the sum before it."""

from dataclasses import dataclass

import torch

from engine.batch import EncoderBatch
from engine.kernels.encoder_ops import Embedded, EncoderOps


@dataclass(frozen=True, slots=True)
class LayerNorm:
    """weight and bias: float32 [hidden]."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    eps: float
    ops: EncoderOps

    def embed(self, tables: Embedded, batch: EncoderBatch, dtype: torch.dtype) -> torch.Tensor:
        """What the sum of each token's rows is normed, [tokens, size] in dtype."""
        return self.ops.embed(tables, batch, self.weight, self.bias, self.eps, dtype)

    def __call__(self, x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """x float32 [tokens, hidden] -> dtype; x stays."""
        return self.ops.layer_norm(x, self.weight, self.bias, self.eps, dtype)

    def add(self, x: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
        """x += delta in place -> what x is normed, in delta's dtype."""
        return self.ops.add_layer_norm(x, delta, self.weight, self.bias, self.eps)

    def post(self, x: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
        """x becomes what x + delta is normed, in place -> the same in delta's dtype."""
        return self.ops.post_layer_norm(x, delta, self.weight, self.bias, self.eps)
