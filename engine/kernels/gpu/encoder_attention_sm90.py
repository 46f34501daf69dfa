"""Attention of packed inputs whose tokens see each other, on Hopper's warpgroup products (cuda/encoder_attention_sm90.cu)."""

import math
from dataclasses import dataclass

import torch

from engine.kernels.gpu.encoder_shape import PLAN_THREADS, TILE_WORDS, EncoderShape, EncoderTiles
from engine.kernels.gpu.module import KernelLibrary

UNIT_ROWS = 64  # queries that a warpgroup works on
WARPGROUP = 128  # threads
KEY_TOKENS = 128  # of a tile of keys or values
LOG2_E = math.log2(math.e)


@dataclass(frozen=True, slots=True)
class Layout:
    """What a block consists of. A warpgroup that copies, and these."""

    num_consumers: int  # warpgroups that compute
    num_stages: int  # tiles of keys in shared memory, and as many of values
    query_slots: int  # work items whose queries are there

    @property
    def num_threads(self) -> int:
        return (1 + self.num_consumers) * WARPGROUP

    def shared_bytes(self, head_dim: int) -> int:
        rows = self.query_slots * self.num_consumers * UNIT_ROWS + 2 * self.num_stages * KEY_TOKENS
        return rows * head_dim * 2 + 1024  # barriers and work items

    def defines(self, head_dim: int) -> dict[str, int]:
        return {
            "CONSUMERS": self.num_consumers,
            "KEY_TOKENS": KEY_TOKENS,
            "STAGES": self.num_stages,
            "QUERY_SLOTS": self.query_slots,
            "SHARED_SIZE": self.shared_bytes(head_dim),
        }


LAYOUTS = {64: Layout(3, 4, 4), 128: Layout(2, 2, 2)}  # by head_dim


class EncoderAttentionSm90:
    """engine.kernels.gpu.encoder_attention.EncoderAttention by wgmma."""

    def __init__(self, library: KernelLibrary, shape: EncoderShape) -> None:
        """Errors: ValueError for a shape that the kernel does not take."""
        if shape.head_dim not in LAYOUTS:
            raise ValueError(f"attention heads of {shape.head_dim} channels: no sm_90 kernel")
        self._layout = LAYOUTS[shape.head_dim]
        self._num_heads = shape.num_heads
        self._num_blocks = library.num_multiprocessors
        self._factor = LOG2_E * shape.scale
        defines = {**shape.defines(), **self._layout.defines(shape.head_dim)}
        source, shared_bytes = "encoder_attention_sm90.cu", self._layout.shared_bytes(shape.head_dim)
        self._plan = library.get(source, "plan_encoder_attention", defines)
        self._attend = library.get(source, "encoder_attention", defines, shared_bytes)

    def plan(self, starts: torch.Tensor, num_tokens: int) -> EncoderTiles:
        """How tall tiles are depends on how much work there is."""
        num_inputs = starts.shape[0] - 1
        max_tiles = num_tokens // UNIT_ROWS + num_inputs
        tiles = EncoderTiles(starts.new_empty(max_tiles, TILE_WORDS), starts.new_empty(1))
        self._plan(
            1, PLAN_THREADS, starts, num_inputs, self._num_blocks, tiles.tiles, max_tiles, tiles.num_tiles
        )
        return tiles

    def __call__(self, qkv: torch.Tensor, tiles: EncoderTiles, out: torch.Tensor) -> None:
        max_tiles = tiles.tiles.shape[0]
        grid = min(max_tiles * self._num_heads, self._num_blocks)
        self._attend(grid, self._layout.num_threads, qkv, tiles.tiles, max_tiles, self._factor, out)


def takes(library: KernelLibrary, shape: EncoderShape) -> bool:
    """Whether the kernel can serve this shape on the library's device."""
    return library.architecture == "sm_90a" and shape.head_dim in LAYOUTS
