"""An encoder's first and last operations in torch, on a CPU: rows of tables added up, tokens of an input made one vector."""

import torch
import torch.nn.functional as F

from engine.batch import EncoderBatch
from engine.checkpoint import Pooling
from engine.kernels.encoder_ops import Embedded


def sum_rows(tables: Embedded, batch: EncoderBatch) -> torch.Tensor:
    """float32 [tokens, size]."""
    x = tables.words.index_select(0, batch.token_ids).float()
    if tables.positions is not None:
        x += tables.positions.index_select(0, batch.positions)
    if tables.types is not None:
        x += tables.types if tables.types.shape[0] == 1 else tables.types.index_select(0, batch.type_ids)
    return x


def pool_tokens(x: torch.Tensor, batch: EncoderBatch, kind: Pooling) -> torch.Tensor:
    """float32 [tokens, hidden] -> [inputs, hidden]. No input is empty."""
    match kind:
        case "cls":
            return x.index_select(0, batch.starts[:-1])
        case "lasttoken":
            return x.index_select(0, batch.starts[1:] - 1)
        case "max" | "mean":
            return _reduce(x, batch, kind)
        case "mean_sqrt_len_tokens":
            return _reduce(x, batch, "sum") / batch.starts.diff().sqrt().unsqueeze(1)
        case "weightedmean":
            weights = (batch.positions + 1).float()
            lengths = batch.starts.diff().float().unsqueeze(1)
            return _reduce(x, batch, "sum", weights) / (lengths * (lengths + 1) / 2)


def _reduce(
    x: torch.Tensor, batch: EncoderBatch, mode: str, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Several times faster than segment_reduce or a loop over the inputs."""
    tokens = torch.arange(x.shape[0], dtype=batch.starts.dtype)
    return F.embedding_bag(
        tokens, x, batch.starts, mode=mode, per_sample_weights=weights, include_last_offset=True
    )
