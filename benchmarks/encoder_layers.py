"""Layers of BERT-base in plain torch, as their users write them: over padded inputs, with attention in several forms."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F

from benchmarks.encoder_cells import HEAD_DIM, HIDDEN, NORM_EPS, NUM_HEADS

Unary = Callable[[torch.Tensor], torch.Tensor]
SCALE = HEAD_DIM**-0.5


class NormWeights(NamedTuple):
    """[hidden] each; in float32 for kernels that want it."""

    weight: torch.Tensor
    bias: torch.Tensor
    wide_weight: torch.Tensor
    wide_bias: torch.Tensor


Norm = Callable[[torch.Tensor, torch.Tensor, NormWeights], torch.Tensor]  # of x + delta


class LayerWeights(NamedTuple):
    """One layer's, [out, in] and [out]. A plain tuple: torch.compile takes it apart, so that all layers share what it makes."""

    qkv: torch.Tensor
    qkv_bias: torch.Tensor
    o: torch.Tensor
    o_bias: torch.Tensor
    attention_norm: NormWeights
    up: torch.Tensor
    up_bias: torch.Tensor
    down: torch.Tensor
    down_bias: torch.Tensor
    mlp_norm: NormWeights


def run_layer(x: torch.Tensor, w: LayerWeights, attend: Unary, norm: Norm, up: Unary) -> torch.Tensor:
    """x dtype [..., hidden] -> the same. attend: [..., 3 * hidden] -> [..., hidden]; up: hidden -> inner, and its activation."""
    attended = F.linear(attend(F.linear(x, w.qkv, w.qkv_bias)), w.o, w.o_bias)
    x = norm(x, attended, w.attention_norm)
    return norm(x, F.linear(up(x), w.down, w.down_bias), w.mlp_norm)


def unfused_layer(x: torch.Tensor, w: LayerWeights, mask: torch.Tensor | None) -> torch.Tensor:
    """x dtype [inputs, max_len, hidden], mask as encoder_cells.padding_mask."""
    return run_layer(
        x, w, lambda qkv: unfused_attention(qkv, mask), plain_norm, lambda x: plain_up(x, w.up, w.up_bias)
    )


def sdpa_layer(x: torch.Tensor, w: LayerWeights, mask: torch.Tensor | None) -> torch.Tensor:
    """As unfused_layer. Without a mask, padding is taken for tokens."""
    return run_layer(
        x, w, lambda qkv: sdpa_attention(qkv, mask), plain_norm, lambda x: plain_up(x, w.up, w.up_bias)
    )


def plain_norm(x: torch.Tensor, delta: torch.Tensor, norm: NormWeights) -> torch.Tensor:
    return F.layer_norm(x + delta, norm.weight.shape, norm.weight, norm.bias, NORM_EPS)


def plain_up(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return F.gelu(F.linear(x, weight, bias))


def unfused_attention(qkv: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """qkv dtype [inputs, max_len, 3 * hidden] -> [inputs, max_len, hidden]."""
    return _join_heads(attend_unfused(*split_heads(qkv), mask))


def attend_unfused(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None
) -> torch.Tensor:
    """[inputs, heads, max_len, head_dim] each, and the result: a product, a scale, a mask, a softmax, a product."""
    scores: torch.Tensor = (q @ k.mT) * SCALE
    if mask is not None:
        scores = scores + mask
    return scores.softmax(-1) @ v


def sdpa_attention(qkv: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """As unfused_attention."""
    q, k, v = split_heads(qkv)
    return _join_heads(F.scaled_dot_product_attention(q, k, v, attn_mask=mask))


def split_heads(qkv: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Views [inputs, heads, max_len, head_dim] of queries, keys and values."""
    q, k, v = qkv.view(*qkv.shape[:2], 3, NUM_HEADS, HEAD_DIM).permute(2, 0, 3, 1, 4).unbind(0)
    return q, k, v


def _join_heads(out: torch.Tensor) -> torch.Tensor:
    return out.transpose(1, 2).reshape(out.shape[0], out.shape[2], HIDDEN)
