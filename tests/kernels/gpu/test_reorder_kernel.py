"""Holes closed on the device, in rows of any size, against plain moves; and in ranges of keys and values as long as their contexts."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.kernels.gpu.contiguous import KvReorder
from engine.kernels.gpu.module import KernelLibrary
from engine.kernels.reorder import apply_moves, plan_moves

# Words of an element and columns: by words of 4 and of 16 bytes, shorter than what a block copies at a time, as long, and longer.
WIDTHS = [(1, 12), (2, 1), (3, 2), (4, 1), (64, 2), (2049, 1), (2048, 2), (8192, 1), (8204, 1), (20_000, 1)]
flags = st.lists(st.booleans(), max_size=40)


class Reordered:
    """Buffers int32 [columns, rows, words] of which the first rows are live, and the state beside them."""

    def __init__(
        self, library: KernelLibrary, widths: Sequence[tuple[int, int]], max_rows: int, finished: torch.Tensor
    ) -> None:
        """finished bool [num_rows]."""
        device, self.library, self.finished = library.device, library, finished
        self.buffers = [
            torch.randint(1 << 30, (num_columns, max_rows, num_words), dtype=torch.int32, device=device)
            for num_words, num_columns in widths
        ]
        table = [(x.data_ptr(), 4 * x.shape[2], x.shape[0], 4 * x.stride(0)) for x in self.buffers]
        self.table = torch.tensor(table, dtype=torch.int64, device=device)
        self.slots = torch.randperm(max_rows, device=device).int()
        self.row_of_slot = rows_of(self.slots, len(finished))
        self.flags = torch.zeros_like(self.slots)
        self.flags[: len(finished)] = finished.to(device)
        counts = [[len(finished)], [int(finished.any())], [0]]
        self.num_rows, self.any_finished, self.arrivals = torch.tensor(counts, device=device).int()

    def check(self, num_blocks: int) -> None:
        """Launch, and compare all that the kernel writes."""
        moves = plan_moves(self.finished)
        wanted = [buffer.cpu().transpose(0, 1).clone() for buffer in self.buffers]
        slots = self.slots.cpu().clone()
        apply_moves([*wanted, slots], moves)
        kernel = self.library.get("reorder.cu", "reorder", {})
        by_row = self.slots, self.row_of_slot, self.num_rows, self.flags
        counts = self.any_finished, self.arrivals
        kernel(num_blocks, 512, self.table, len(self.buffers), *by_row, *counts)
        for buffer, want in zip(self.buffers, wanted, strict=True):
            assert torch.equal(buffer.cpu().transpose(0, 1), want)
        assert torch.equal(self.slots.cpu(), slots)
        assert torch.equal(self.row_of_slot.cpu(), rows_of(slots, moves.num_live))
        assert int(self.num_rows) == moves.num_live
        assert not any(left.any() for left in (self.any_finished, self.arrivals, self.flags))


def rows_of(slots: torch.Tensor, num_rows: int) -> torch.Tensor:
    rows = torch.full_like(slots, -1)
    rows[slots[:num_rows].long()] = torch.arange(num_rows, dtype=torch.int32, device=slots.device)
    return rows


@given(finished=flags, num_blocks=st.sampled_from([1, 3, 8]))
@settings(max_examples=12, deadline=None)
def test_every_buffer_is_moved_and_the_state_follows(
    kernel_library: KernelLibrary, finished: list[bool], num_blocks: int
) -> None:
    Reordered(kernel_library, WIDTHS, 41, torch.tensor(finished, dtype=torch.bool)).check(num_blocks)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99, 1.0])
@pytest.mark.parametrize("num_rows", [513, 4096])
def test_as_many_rows_as_there_can_be(kernel_library: KernelLibrary, num_rows: int, share: float) -> None:
    finished = torch.rand(num_rows) < share
    Reordered(kernel_library, [(1, 3), (4, 1)], 4096, finished).check(num_blocks=2)


@given(
    rows=st.lists(st.tuples(st.booleans(), st.integers(0, 50)), min_size=1, max_size=20),
    width=st.sampled_from([8, 24, 2056]),
)
@settings(max_examples=15, deadline=None)
def test_ranges_of_keys_and_values_move_as_far_as_they_are_long(
    kernel_library: KernelLibrary, rows: list[tuple[bool, int]], width: int
) -> None:
    max_len, device = 50, kernel_library.device
    finished = torch.tensor([ended for ended, _ in rows])
    lens = torch.tensor([num_tokens for _, num_tokens in rows], dtype=torch.int32)
    buffers = [torch.randn(len(rows) + 1, max_len, width, device=device).bfloat16() for _ in range(4)]
    wanted = [buffer.clone() for buffer in buffers]
    moves = plan_moves(finished)
    for source, destination in zip(moves.sources.tolist(), moves.destinations.tolist(), strict=True):
        for want in wanted:
            want[destination, : lens[source]] = want[source, : lens[source]]
    reorder = KvReorder(kernel_library, buffers)
    reorder(
        torch.tensor([len(rows)], dtype=torch.int32, device=device),
        finished.int().to(device),
        lens.to(device),
    )
    for got, want in zip(buffers, wanted, strict=True):
        assert torch.equal(got, want)


def test_what_cannot_be_moved_is_refused(kernel_library: KernelLibrary) -> None:
    with pytest.raises(ValueError, match="4097 rows of 16 bytes a token; accepted: at most 4096 rows"):
        KvReorder(kernel_library, [torch.zeros(4097, 1, 4, device=kernel_library.device)])
    with pytest.raises(ValueError, match="2 rows of 12 bytes a token"):
        KvReorder(kernel_library, [torch.zeros(2, 5, 3, device=kernel_library.device)])
    with pytest.raises(ValueError, match="different shapes or strides"):
        KvReorder(kernel_library, [torch.zeros(2, 5, 4), torch.zeros(2, 6, 4)])
