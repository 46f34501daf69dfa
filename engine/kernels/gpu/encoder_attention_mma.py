"""Attention of packed inputs whose tokens see each other, for any architecture (cuda/encoder_attention.cu)."""

import torch

from engine.kernels.gpu.attention_mma import mma_tile
from engine.kernels.gpu.encoder_shape import PLAN_THREADS, TILE_WORDS, EncoderShape, EncoderTiles
from engine.kernels.gpu.module import KernelLibrary

BLOCKS_A_MULTIPROCESSOR = 3  # at most


class EncoderAttentionMma:
    """engine.kernels.gpu.encoder_attention.EncoderAttention by mma.sync. Launches that use it may not overlap."""

    def __init__(self, library: KernelLibrary, shape: EncoderShape) -> None:
        """Errors: ValueError."""
        self._shape, self._tile = shape, mma_tile(shape.head_dim)
        self._max_blocks = library.num_multiprocessors * BLOCKS_A_MULTIPROCESSOR
        defines = {**shape.defines(), **self._tile.defines()}
        self._plan = library.get("encoder_attention.cu", "plan_encoder_attention", defines)
        self._attend = library.get(
            "encoder_attention.cu", "encoder_attention", defines, self._tile.shared_bytes
        )
        self._counters = torch.zeros(2, dtype=torch.int32, device=library.device)

    def plan(self, starts: torch.Tensor, num_tokens: int) -> EncoderTiles:
        num_inputs = starts.shape[0] - 1
        max_tiles = num_tokens // self._tile.num_rows + num_inputs
        tiles = EncoderTiles(starts.new_empty(max_tiles, TILE_WORDS), starts.new_empty(1))
        self._plan(1, PLAN_THREADS, starts, num_inputs, tiles.tiles, tiles.num_tiles)
        return tiles

    def __call__(self, qkv: torch.Tensor, tiles: EncoderTiles, out: torch.Tensor) -> None:
        grid = min(tiles.tiles.shape[0] * self._shape.num_heads, self._max_blocks)
        work = tiles.tiles, tiles.num_tiles, float(self._shape.scale), self._counters
        self._attend(grid, self._tile.num_threads, qkv, *work, out)
