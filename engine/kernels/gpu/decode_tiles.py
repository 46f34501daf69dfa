"""Where the warps of decode attention begin: found once a step, for all of its layers."""

import torch

from engine.batch import DeviceBatch
from engine.kernels.gpu.decode_attention import TILE_WORDS, WARP, decode_defines, plan_decode
from engine.kernels.gpu.module import KernelLibrary
from engine.kernels.gpu.shape import AttentionShape


class DecodeTiles:
    """For DecodeAttention of the same shape. `found` int32 [threads of its grid, 8] is a batch's decode_tiles.

    At least one kernel that waits for those before it comes between this one and the attention's.
    """

    def __init__(self, library: KernelLibrary, shape: AttentionShape, deterministic: bool = False) -> None:
        """Errors: ValueError, as plan_decode."""
        plan = plan_decode(shape, library.architecture)
        self._grid, self._block = library.num_multiprocessors, plan.num_warps * WARP
        defines = decode_defines(shape, plan, deterministic)
        self._kernel = library.get("decode_tiles.cu", "find_tiles", defines)
        threads = self._grid * self._block
        self.found = torch.zeros(threads, TILE_WORDS, dtype=torch.int32, device=library.device)

    def __call__(self, batch: DeviceBatch) -> None:
        """Fills the batch's decode_tiles."""
        tables = batch.block_tables
        rows = batch.query_starts, batch.context_lens, batch.row_slots, tables, tables.shape[1]
        line = batch.counts, batch.num_rows, batch.decode_starts
        self._kernel(self._grid, self._block, *line, *rows, batch.decode_tiles)
