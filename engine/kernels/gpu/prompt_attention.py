"""Attention of the rows that compute several tokens: one launch for any mix of chunks and contexts."""

import torch

from engine.batch import DeviceBatch
from engine.kernels.gpu import prompt_attention_sm90
from engine.kernels.gpu.attention_mma import mma_tile
from engine.kernels.gpu.module import KernelLibrary
from engine.kernels.gpu.prompt_attention_sm90 import PromptAttentionSm90
from engine.kernels.gpu.shape import AttentionShape
from engine.kernels.ops import LayerCache

TILE_ROWS = 128  # of a tile of DeviceBatch.prompt_starts: tokens times the query heads of a KV head
BLOCKS_A_MULTIPROCESSOR = 2  # as many as fit
HEAD_DIMS = (64, 96, 128, 256)


class PromptAttention:
    """One shape's kernel for any architecture, and what it keeps between blocks. Launches that use it may not overlap."""

    def __init__(self, library: KernelLibrary, shape: AttentionShape) -> None:
        """Errors: ValueError for a shape that the kernel is not made for."""
        if shape.head_dim not in HEAD_DIMS:
            raise ValueError(f"attention heads of {shape.head_dim} channels; accepted: {HEAD_DIMS}")
        tile = mma_tile(shape.head_dim)
        self._shape = shape
        self._kernel = library.get(
            "prompt_attention.cu", "prompt_attention", kernel_defines(shape), tile.shared_bytes
        )
        self._grid, self._block = library.num_multiprocessors * BLOCKS_A_MULTIPROCESSOR, tile.num_threads
        self._counters = torch.zeros(2, dtype=torch.int32, device=library.device)

    def __call__(self, qkv: torch.Tensor, batch: DeviceBatch, cache: LayerCache, out: torch.Tensor) -> None:
        """qkv Element [tokens, width], queries rotated; out Element [tokens, heads * head_dim].

        Tokens of other rows are left as they are. batch.prompt_starts counts tiles of prompt_tile(shape) tokens.
        """
        rows = batch.query_starts, batch.context_lens, batch.row_slots, batch.block_tables
        work = batch.prompt_starts, batch.counts, batch.block_tables.shape[1]
        scale = float(self._shape.scale), float(self._shape.softcap)
        self._kernel(
            *(self._grid, self._block, qkv, cache.keys, cache.values, *rows),
            *(*work, *scale, self._counters, out),
        )


def prompt_tile(shape: AttentionShape) -> int:
    """Query tokens of a tile, of which plan_step counts how many a row has. Errors: ValueError."""
    group = shape.num_heads // shape.num_kv_heads
    if group * shape.num_kv_heads != shape.num_heads or group > TILE_ROWS:
        raise ValueError(
            f"{shape.num_heads} query heads over {shape.num_kv_heads} KV heads;"
            f" accepted: multiples up to {TILE_ROWS}"
        )
    return TILE_ROWS // group


def kernel_defines(shape: AttentionShape) -> dict[str, int]:
    """Errors: ValueError."""
    features = {"WINDOW": shape.window, "SOFTCAP": int(shape.softcap > 0), "PROMPT_TILE": prompt_tile(shape)}
    return {**shape.defines(), **features, **mma_tile(shape.head_dim).defines()}


def make_prompt_attention(
    library: KernelLibrary, shape: AttentionShape
) -> PromptAttention | PromptAttentionSm90:
    """The kernel that suits the architecture. Errors: ValueError for a shape that none is made for."""
    if library.architecture == "sm_90a" and prompt_attention_sm90.takes(shape):
        return PromptAttentionSm90(library, shape)
    return PromptAttention(library, shape)
