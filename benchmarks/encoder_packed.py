"""Layers of BERT-base over a packed batch: as they are served, and with one fusion after the other put into plain torch."""

from dataclasses import dataclass
from functools import partial

import torch

from benchmarks.encoder_cells import (
    HEAD_DIM,
    HIDDEN,
    NORM_EPS,
    NUM_HEADS,
    Cell,
    pack,
    padded_places,
    padding_mask,
)
from benchmarks.encoder_layers import (
    SCALE,
    LayerWeights,
    Norm,
    NormWeights,
    Unary,
    plain_norm,
    plain_up,
    run_layer,
    unfused_attention,
)
from engine.kernels.gpu.encoder_ops import GpuEncoderOps
from engine.kernels.ops import Heads
from engine.models.encoders.post_norm import PostNormTrunk

HEADS = Heads(NUM_HEADS, NUM_HEADS, HEAD_DIM, SCALE)


@dataclass(frozen=True, slots=True)
class Fusions:
    """Which kernels of this product take the place of torch's operations."""

    name: str
    norm: bool = False  # residual and layer norm
    gelu: bool = False  # with its product
    attention: bool = False  # and no padding anywhere


STAGES = (
    Fusions("packed"),
    Fusions("+ layer norm", norm=True),
    Fusions("+ GELU", norm=True, gelu=True),
    Fusions("+ attention", norm=True, gelu=True, attention=True),
)


class ServedLayers:
    """The blocks of the product's model over one batch."""

    def __init__(self, trunk: PostNormTrunk, ops: GpuEncoderOps, hidden: torch.Tensor, cell: Cell) -> None:
        """hidden dtype [tokens, HIDDEN], which the first block reads."""
        self._trunk, self._ops = trunk, ops
        self._x = hidden.to(ops.stream_dtype(hidden.dtype), copy=True)
        self._batch = pack(cell.lens, hidden.device)

    def run(self) -> torch.Tensor:
        """dtype [tokens, HIDDEN]. In place, so that each run goes on from the last; the plan of its attention is part of each."""
        batch = self._ops.plan(self._batch, HEADS, self._x.dtype)
        same = self._x
        for block in self._trunk.blocks:
            same = block(self._x, same, batch)
        return same


class StagedLayers:
    """Plain torch over one packed batch, some of it replaced."""

    def __init__(self, weights: list[LayerWeights], ops: GpuEncoderOps, fusions: Fusions, cell: Cell) -> None:
        self._weights, self._ops, self._fusions = weights, ops, fusions
        device, dtype = weights[0].qkv.device, weights[0].qkv.dtype
        self._ups: list[Unary] = [self._make_up(w) for w in weights]
        self._norm: Norm = self._fused_norm if fusions.norm else plain_norm
        self._batch = pack(cell.lens, device)
        self._padded = PaddedAttention(cell, dtype, device)

    def run(self, hidden: torch.Tensor) -> torch.Tensor:
        """hidden dtype [tokens, HIDDEN], overwritten -> the same after all layers."""
        attend = self._fused_attention(hidden.dtype) if self._fusions.attention else self._padded
        for w, up in zip(self._weights, self._ups, strict=True):
            hidden = run_layer(hidden, w, attend, self._norm, up)
        return hidden

    def _make_up(self, w: LayerWeights) -> Unary:
        if self._fusions.gelu:
            return self._ops.linear_gelu(w.up, w.up_bias, tanh=False)
        return partial(plain_up, weight=w.up, bias=w.up_bias)

    def _fused_norm(self, x: torch.Tensor, delta: torch.Tensor, norm: NormWeights) -> torch.Tensor:
        return self._ops.post_layer_norm(x, delta, norm.wide_weight, norm.wide_bias, NORM_EPS)

    def _fused_attention(self, dtype: torch.dtype) -> Unary:
        batch = self._ops.plan(self._batch, HEADS, dtype)
        return lambda qkv: self._ops.encoder_attention(qkv, batch, HEADS)


class PaddedAttention:
    """Unfused attention of a packed batch: it is padded for it, and packed again."""

    def __init__(self, cell: Cell, dtype: torch.dtype, device: torch.device) -> None:
        self._places = padded_places(cell, device)
        self._mask = padding_mask(cell, dtype, device)

    def __call__(self, qkv: torch.Tensor) -> torch.Tensor:
        """dtype [tokens, 3 * HIDDEN] -> [tokens, HIDDEN]."""
        num_inputs, max_len = self._mask.shape[0], self._mask.shape[-1]
        padded = qkv.new_zeros(num_inputs * max_len, qkv.shape[1]).index_copy_(0, self._places, qkv)
        attended = unfused_attention(padded.view(num_inputs, max_len, -1), self._mask)
        return attended.view(-1, HIDDEN).index_select(0, self._places)
