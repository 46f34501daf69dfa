"""Weights that stay quantised in memory, as files have them: what computes with them widens them on the way."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

FOUR_BLOCK, EIGHT_BLOCK = 32, 16  # inputs that share a scale


@dataclass(frozen=True, slots=True, eq=False)
class Quantised:
    """A weight [out, in], scale * quant + least, that stands for a dense one in `dtype`.

    Four bits: quants from 0 to 15, with leasts. Eight bits: quants with a sign, without.
    """

    quants: torch.Tensor  # uint8, or int8 [out, in]
    scales: torch.Tensor  # float32 [out, in / block]
    leasts: torch.Tensor | None  # float32 [out, in / block]
    dtype: torch.dtype = torch.float32

    @property
    def shape(self) -> torch.Size:
        return self.quants.shape

    @property
    def nbytes(self) -> int:
        """Once packed: two of four bits to a byte."""
        if self.leasts is None:
            return self.quants.nbytes + self.scales.nbytes
        return self.quants.nbytes // 2 + self.scales.nbytes + self.leasts.nbytes

    def rows(self, ids: torch.Tensor) -> "Quantised":
        """Of the outputs `ids` alone."""
        quants, scales = self.quants.index_select(0, ids), self.scales.index_select(0, ids)
        leasts = None if self.leasts is None else self.leasts.index_select(0, ids)
        return replace(self, quants=quants, scales=scales, leasts=leasts)

    def dense(self) -> torch.Tensor:
        """dtype [out, in]: the float32 numbers that the file's own formula gives, rounded to dtype."""
        outputs, blocks = self.scales.shape
        values = self.quants.view(outputs, blocks, -1).float() * self.scales.unsqueeze(2)
        if self.leasts is not None:
            values += self.leasts.unsqueeze(2)
        return values.view(self.shape).to(self.dtype)


Matrix = torch.Tensor | Quantised


def as_dense(weight: Matrix) -> torch.Tensor:
    return weight.dense() if isinstance(weight, Quantised) else weight


def concatenate(parts: Sequence[Quantised]) -> Quantised | None:
    """Their rows, one after the other; None where they are not of one kind."""
    if len({part.leasts is None for part in parts}) > 1:
        return None
    leasts = [part.leasts for part in parts if part.leasts is not None]
    return replace(
        parts[0],
        quants=torch.cat([part.quants for part in parts]),
        scales=torch.cat([part.scales for part in parts]),
        leasts=torch.cat(leasts) if leasts else None,
    )
