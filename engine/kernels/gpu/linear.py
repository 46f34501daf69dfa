"""Matrix products through cuBLAS, with weights as the checkpoint has them."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass(frozen=True, slots=True)
class GpuLinear:
    """engine.kernels.ops.Linear: x [tokens, in] -> [tokens, out] in x's dtype."""

    weight: torch.Tensor  # dtype [out, in]
    bias: torch.Tensor | None  # dtype [out]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight, self.bias)


@dataclass(frozen=True, slots=True)
class GpuHead:
    """engine.kernels.ops.Linear that keeps the products' float32: equal logits would tie where rounding made them so."""

    weight: torch.Tensor  # dtype [vocab, in]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if x.is_cuda:
            return torch.mm(x, self.weight.t(), out_dtype=torch.float32)
        return F.linear(x.float(), self.weight.float())
