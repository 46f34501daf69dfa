"""Attention of packed inputs whose tokens see each other: one launch for any mix of lengths, nothing padded."""

import torch

from engine.kernels.gpu import encoder_attention_sm90
from engine.kernels.gpu.encoder_attention_mma import EncoderAttentionMma
from engine.kernels.gpu.encoder_attention_sm90 import EncoderAttentionSm90
from engine.kernels.gpu.encoder_shape import EncoderShape as EncoderShape
from engine.kernels.gpu.encoder_shape import EncoderTiles as EncoderTiles
from engine.kernels.gpu.module import KernelLibrary

HEAD_DIMS = (32, 64, 96, 128)


class EncoderAttention:
    """One shape's kernels, those that suit the architecture. Launches that use it may not overlap.

    What a token gets does not depend on the inputs beside its own.
    """

    def __init__(self, library: KernelLibrary, shape: EncoderShape) -> None:
        """Errors: ValueError for a shape that the kernels are not made for."""
        if shape.head_dim not in HEAD_DIMS:
            raise ValueError(f"attention heads of {shape.head_dim} channels; accepted: {HEAD_DIMS}")
        self._kernels: EncoderAttentionSm90 | EncoderAttentionMma
        if encoder_attention_sm90.takes(library, shape):
            self._kernels = EncoderAttentionSm90(library, shape)
        else:
            self._kernels = EncoderAttentionMma(library, shape)

    def plan(self, starts: torch.Tensor, num_tokens: int) -> EncoderTiles:
        """Once a batch. starts int32 [inputs + 1] on the device; its last entry is at most num_tokens."""
        return self._kernels.plan(starts, num_tokens)

    def __call__(self, qkv: torch.Tensor, tiles: EncoderTiles, out: torch.Tensor) -> None:
        """qkv Element [tokens, 3 * heads * head_dim], out Element [tokens, heads * head_dim]; tokens behind the last input's stay."""
        self._kernels(qkv, tiles, out)
