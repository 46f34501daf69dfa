"""One layer of an encoder: attention and feed-forward, normed after each or before each."""

from dataclasses import dataclass

import torch

from engine.batch import EncoderBatch
from engine.layers.encoder_attention import EncoderAttention
from engine.layers.encoder_mlp import FeedForward, GegluFeedForward
from engine.layers.encoder_norm import LayerNorm


@dataclass(frozen=True, slots=True)
class PostNormBlock:
    """Norms each sum it leaves (BERT, arXiv 1810.04805)."""

    attention: EncoderAttention
    attention_norm: LayerNorm
    mlp: FeedForward
    mlp_norm: LayerNorm

    def __call__(self, x: torch.Tensor, same: torch.Tensor, batch: EncoderBatch) -> torch.Tensor:
        """x [tokens, hidden] in place; `same` and the result are x in dtype, before and after. They may be one tensor."""
        attended = self.attention_norm.post(x, self.attention(same, batch))
        return self.mlp_norm.post(x, self.mlp(attended))


@dataclass(frozen=True, slots=True)
class PreNormBlock:
    """Norms what each half reads (ModernBERT, arXiv 2412.13663)."""

    attention_norm: LayerNorm | None  # None: x comes normed
    attention: EncoderAttention
    mlp_norm: LayerNorm
    mlp: GegluFeedForward
    dtype: torch.dtype

    def __call__(self, x: torch.Tensor, delta: torch.Tensor | None, batch: EncoderBatch) -> torch.Tensor:
        """Add delta, what the block before left to add, to x in place; return what this one leaves.

        x float32, delta dtype: [tokens, hidden].
        """
        attended = self.attention(self._normed(x, delta), batch)
        return self.mlp(self.mlp_norm.add(x, attended))

    def _normed(self, x: torch.Tensor, delta: torch.Tensor | None) -> torch.Tensor:
        if self.attention_norm is None:
            return (x if delta is None else x.add_(delta)).to(self.dtype)
        if delta is None:
            return self.attention_norm(x, self.dtype)
        return self.attention_norm.add(x, delta)
