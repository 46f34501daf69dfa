"""Holes closed in a cache of keys and values that is not paged: whole ranges move, each as long as its row's context."""

from collections.abc import Sequence

import torch

from engine.kernels.gpu.module import KernelLibrary
from engine.kernels.gpu.row_shape import MAX_ROWS

MOVE_THREADS = 512


class KvReorder:
    """One launch for all buffers: one of keys and one of values a layer, dtype [rows, max_len, width], all alike."""

    def __init__(self, library: KernelLibrary, buffers: Sequence[torch.Tensor]) -> None:
        """Raises ValueError for buffers that the kernel cannot move."""
        first = buffers[0]
        self._token_bytes = first.shape[2] * first.element_size()
        self._max_len = first.shape[1]
        if first.shape[0] > MAX_ROWS or self._token_bytes % 16:
            raise ValueError(
                f"{first.shape[0]} rows of {self._token_bytes} bytes a token; accepted: at most {MAX_ROWS} rows, a multiple of 16 bytes"
            )
        if any(buffer.shape != first.shape or not buffer.is_contiguous() for buffer in buffers):
            raise ValueError("the buffers have different shapes or strides")
        self._buffers = tuple(buffers)  # keeps the addresses below good
        addresses = [buffer.data_ptr() for buffer in buffers]
        self._table = torch.tensor(addresses, dtype=torch.int64, device=library.device)
        self._grid = 2 * library.num_multiprocessors
        self._kernel = library.get("reorder_kv.cu", "reorder_kv", {})

    def __call__(self, num_rows: torch.Tensor, finished: torch.Tensor, lens: torch.Tensor) -> None:
        """Before the row buffers are reordered: num_rows int32 [1], finished and lens (tokens) int32 [rows] are by the old rows."""
        table, num_buffers = self._table, len(self._buffers)
        sizes = self._max_len, self._token_bytes
        self._kernel(self._grid, MOVE_THREADS, table, num_buffers, num_rows, finished, lens, *sizes)
