"""Where an encoder's residual stream begins."""

from dataclasses import dataclass

import torch

from engine.batch import EncoderBatch
from engine.kernels.encoder_ops import Embedded
from engine.kernels.ops import Linear
from engine.layers.encoder_norm import LayerNorm


@dataclass(frozen=True, slots=True)
class EncoderEmbeddings:
    """Embeddings of token, position and segment, summed and normed; projected where they are narrower than the model."""

    tables: Embedded
    norm: LayerNorm
    projection: Linear | None  # size -> hidden
    stream: torch.dtype  # of the residual stream: float32, or EncoderOps.stream_dtype

    @property
    def words(self) -> torch.Tensor:
        """dtype [vocab, size]."""
        return self.tables.words

    def __call__(self, batch: EncoderBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """The stream [tokens, hidden], and the same in dtype; they may be one tensor."""
        if self.projection is None:
            x = self.norm.embed(self.tables, batch, self.stream)
            return x, x.to(self.words.dtype)
        same = self.projection(self.norm.embed(self.tables, batch, self.words.dtype))
        return same.to(self.stream), same
