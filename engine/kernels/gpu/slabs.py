"""Matrix products whose results for a token do not depend on how many tokens there are.

cuBLAS picks its kernel, and with it the order of additions, by the number of tokens. So tokens are computed a slab of SLAB_TOKENS at a
time, the last one filled up with zeros: every product of a weight then has one shape. Costs a slab's time for a single token, and reads
the weight once a slab.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

SLAB_TOKENS = 128

Multiply = Callable[
    [torch.Tensor, torch.Tensor], object
]  # (slab [SLAB_TOKENS, in], its results [SLAB_TOKENS, out])


@dataclass(frozen=True, slots=True)
class SlabLinear:
    """engine.kernels.ops.Linear: x [tokens, in] -> [tokens, out] in x's dtype."""

    weight: torch.Tensor  # dtype [out, in]
    bias: torch.Tensor | None  # dtype [out]
    zeros: torch.Tensor  # dtype [SLAB_TOKENS, in]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return _by_slabs(x, self.zeros, _new_slabs(x, self.weight.shape[0], x.dtype), self._multiply)

    def _multiply(self, slab: torch.Tensor, out: torch.Tensor) -> None:
        if self.bias is None:
            torch.mm(slab, self.weight.t(), out=out)
        else:
            torch.addmm(self.bias, slab, self.weight.t(), out=out)


@dataclass(frozen=True, slots=True)
class SlabHead:
    """engine.kernels.ops.Linear that keeps the products' float32, as GpuHead does."""

    weight: torch.Tensor  # dtype [vocab, in]
    zeros: torch.Tensor  # dtype [SLAB_TOKENS, in]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        out = _new_slabs(x, self.weight.shape[0], torch.float32)
        return _by_slabs(x, self.zeros, out, self._multiply)

    def _multiply(self, slab: torch.Tensor, out: torch.Tensor) -> None:
        if slab.is_cuda:
            torch.mm(slab, self.weight.t(), out_dtype=torch.float32, out=out)
        else:
            torch.mm(slab.float(), self.weight.float().t(), out=out)


class Zeros:
    """What slabs are filled up with: one tensor for all weights of a width."""

    def __init__(self) -> None:
        self._by_width: dict[tuple[int, torch.dtype], torch.Tensor] = {}

    def for_weight(self, weight: torch.Tensor) -> torch.Tensor:
        """weight dtype [out, in] -> dtype [SLAB_TOKENS, in]. The first of a width allocates."""
        key = weight.shape[1], weight.dtype
        if key not in self._by_width:
            self._by_width[key] = weight.new_zeros(SLAB_TOKENS, weight.shape[1])
        return self._by_width[key]


def _new_slabs(x: torch.Tensor, width: int, dtype: torch.dtype) -> torch.Tensor:
    """dtype [x's tokens in whole slabs, width], to be written."""
    return x.new_empty(-(-x.shape[0] // SLAB_TOKENS) * SLAB_TOKENS, width, dtype=dtype)


def _by_slabs(x: torch.Tensor, zeros: torch.Tensor, out: torch.Tensor, multiply: Multiply) -> torch.Tensor:
    """x [tokens, in], out [tokens in whole slabs, width] -> its first [tokens, width]."""
    num_tokens = x.shape[0]
    for start in range(0, num_tokens, SLAB_TOKENS):
        slab = x[start : start + SLAB_TOKENS]
        if missing := SLAB_TOKENS - slab.shape[0]:
            slab = torch.cat((slab, zeros[:missing]))
        multiply(slab, out[start : start + SLAB_TOKENS])
    return out[:num_tokens]
