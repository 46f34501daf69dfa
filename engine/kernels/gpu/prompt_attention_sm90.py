"""Attention of rows with several tokens this step, on Hopper's warpgroup products (cuda/prompt_attention_sm90.cu)."""

import math
from dataclasses import dataclass

import torch

from engine.batch import DeviceBatch
from engine.kernels.gpu.module import KernelLibrary
from engine.kernels.gpu.shape import AttentionShape
from engine.kernels.ops import LayerCache

NUM_THREADS = 384  # a warpgroup that loads, two that compute
QUERY_ROWS = 128  # of a work item: tokens times query heads of a group
LOG2_E = math.log2(math.e)


@dataclass(frozen=True, slots=True)
class Tiles:
    """What a block keeps in shared memory."""

    key_tokens: int  # of a tile of keys or values
    num_stages: int  # tiles of keys, and as many of values
    query_slots: int  # work items whose queries are there

    def shared_bytes(self, head_dim: int) -> int:
        rows = self.query_slots * QUERY_ROWS + 2 * self.num_stages * self.key_tokens
        return rows * head_dim * 2 + 1024  # barriers and work items

    def defines(self, head_dim: int) -> dict[str, int]:
        return {
            "KEY_TOKENS": self.key_tokens,
            "STAGES": self.num_stages,
            "QUERY_SLOTS": self.query_slots,
            "SHARED_SIZE": self.shared_bytes(head_dim),
        }


TILES = {64: Tiles(128, 4, 2), 128: Tiles(128, 2, 2), 256: Tiles(64, 2, 1)}  # by head_dim


class PromptAttentionSm90:
    """Causal attention of prompt chunks over the paged cache. Rows with one token are somebody else's."""

    def __init__(self, library: KernelLibrary, shape: AttentionShape) -> None:
        """Errors: ValueError for a shape that the kernel does not take."""
        if not takes(shape):
            raise ValueError(
                f"heads of {shape.head_dim}, {shape.num_heads} over {shape.num_kv_heads}: no sm_90 kernel"
            )
        tiles = TILES[shape.head_dim]
        self._kernel = library.get(
            "prompt_attention_sm90.cu",
            "prompt_attention",
            kernel_defines(shape),
            shared_bytes=tiles.shared_bytes(shape.head_dim),
        )
        self._num_blocks = library.num_multiprocessors
        self._counters = torch.zeros(2, dtype=torch.int32, device=library.device)
        self._factor = LOG2_E * (shape.softcap or shape.scale)
        self._squash_factor = 2 * LOG2_E * shape.scale / shape.softcap if shape.softcap else 0.0

    def __call__(self, qkv: torch.Tensor, batch: DeviceBatch, cache: LayerCache, out: torch.Tensor) -> None:
        """Writes `out` Element [tokens, heads * head_dim] where a row has several tokens; `batch.prompt_starts` counts tiles of
        QUERY_ROWS // group tokens. qkv Element [tokens, width], its queries rotated; keys and values are in the cache already."""
        self._kernel(
            self._num_blocks,
            NUM_THREADS,
            qkv,
            cache.keys,
            cache.values,
            out,
            batch.query_starts,
            batch.context_lens,
            batch.block_tables,
            batch.row_slots,
            batch.prompt_starts,
            batch.counts,
            self._counters,
            batch.block_tables.shape[1],
            self._factor,
            self._squash_factor,
        )


def takes(shape: AttentionShape) -> bool:
    """Whether the kernel can serve this shape."""
    return shape.head_dim in TILES and shape.num_heads <= QUERY_ROWS * shape.num_kv_heads


def kernel_defines(shape: AttentionShape) -> dict[str, int]:
    features = {"WINDOW": shape.window, "SOFTCAP": int(shape.softcap > 0)}
    return {**shape.defines(), **features, **TILES[shape.head_dim].defines(shape.head_dim)}
