"""One vector an input of its tokens' vectors, by offsets."""

import torch

from engine.batch import EncoderBatch
from engine.checkpoint import Pooling
from engine.kernels.encoder_ops import EncoderOps


def pool(x: torch.Tensor, batch: EncoderBatch, kinds: tuple[Pooling, ...], ops: EncoderOps) -> torch.Tensor:
    """[tokens, hidden] -> float32 [inputs, hidden * kinds], the kinds side by side. No input is empty."""
    pooled = [ops.pool(x, batch, kind) for kind in kinds]
    return pooled[0] if len(pooled) == 1 else torch.cat(pooled, dim=-1)
