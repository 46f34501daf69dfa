"""Attention of packed inputs whose tokens see each other: one launch for any mix of lengths, nothing padded."""

from dataclasses import dataclass

import torch

from engine.kernels.gpu.attention_mma import MmaTile, mma_tile
from engine.kernels.gpu.module import KernelLibrary
from engine.kernels.gpu.shape import element_defines

HEAD_DIMS = (32, 64, 96, 128)
BLOCKS_A_MULTIPROCESSOR = 3  # at most
PLAN_THREADS = 1024
TILE_WORDS = 4  # encoder_attention.cu's InputTile


@dataclass(frozen=True, slots=True)
class EncoderShape:
    """The geometry of one attention layer of an encoder."""

    num_heads: int
    head_dim: int
    element: torch.dtype  # bfloat16 or float16
    window: int  # a token sees those at most window // 2 away; 0: all of its input
    scale: float  # of the scores

    def defines(self, tile: MmaTile) -> dict[str, int]:
        """Errors: ValueError."""
        return {
            "NUM_HEADS": self.num_heads,
            "HEAD_DIM": self.head_dim,
            "WINDOW": self.window,
            "SOFTCAP": 0,
            **element_defines(self.element),
            **tile.defines(),
        }


@dataclass(frozen=True, slots=True)
class EncoderTiles:
    """A batch's work, for all layers of one head size: those that take longest first."""

    tiles: torch.Tensor  # int32 [at least num_tiles, TILE_WORDS]
    num_tiles: torch.Tensor  # int32 [1]


class EncoderAttention:
    """One shape's kernels, and what they keep between blocks. Launches that use it may not overlap."""

    def __init__(self, library: KernelLibrary, shape: EncoderShape) -> None:
        """Errors: ValueError for a shape that the kernels are not made for."""
        if shape.head_dim not in HEAD_DIMS:
            raise ValueError(f"attention heads of {shape.head_dim} channels; accepted: {HEAD_DIMS}")
        self._shape, self._tile = shape, mma_tile(shape.head_dim)
        self._max_blocks = library.num_multiprocessors * BLOCKS_A_MULTIPROCESSOR
        defines = shape.defines(self._tile)
        self._plan = library.get("encoder_attention.cu", "plan_encoder_attention", defines)
        self._attend = library.get(
            "encoder_attention.cu", "encoder_attention", defines, self._tile.shared_bytes
        )
        self._counters = torch.zeros(2, dtype=torch.int32, device=library.device)

    def plan(self, starts: torch.Tensor, num_tokens: int) -> EncoderTiles:
        """Once a batch. starts int32 [inputs + 1] on the device; its last entry is at most num_tokens."""
        num_inputs = starts.shape[0] - 1
        max_tiles = num_tokens // self._tile.num_rows + num_inputs
        tiles = EncoderTiles(starts.new_empty(max_tiles, TILE_WORDS), starts.new_empty(1))
        self._plan(1, PLAN_THREADS, starts, num_inputs, tiles.tiles, tiles.num_tiles)
        return tiles

    def __call__(self, qkv: torch.Tensor, tiles: EncoderTiles, out: torch.Tensor) -> None:
        """qkv Element [tokens, 3 * heads * head_dim], out Element [tokens, heads * head_dim]; tokens behind the last input's stay."""
        grid = min(tiles.tiles.shape[0] * self._shape.num_heads, self._max_blocks)
        work = tiles.tiles, tiles.num_tiles, float(self._shape.scale), self._counters
        self._attend(grid, self._tile.num_threads, qkv, *work, out)
