"""The kernels that keep the rows: what changes before a step, the step's plan, its end, the holes closed."""

from engine.kernels.gpu.module import KernelLibrary
from engine.kernels.gpu.row_shape import StepShape, column_defines
from engine.runner.gpu.delta import Delta
from engine.runner.gpu.ring import NUM_ENTRIES, ResultRing
from engine.runner.gpu.rows import DeviceRows
from engine.runner.gpu.staging import Staging
from engine.runner.gpu.step_buffers import StepBuffers

APPLY_THREADS, APPLY_TOKENS = 256, 4096  # of a block, as in cuda/apply.cu
PLAN_THREADS, FILL_THREADS = 1024, 256
FINISH_THREADS = 1024
MOVE_THREADS = 512


class RowKernels:
    """Launches on the current stream. All but `apply` can be captured: what they read is on the device."""

    def __init__(
        self,
        library: KernelLibrary,
        rows: DeviceRows,
        buffers: StepBuffers,
        ring: ResultRing,
        shape: StepShape,
    ) -> None:
        self._rows = rows
        self._buffers = buffers
        self._ring = ring
        self._staging = Staging(rows.device)
        self._move_blocks = _num_move_blocks(rows, library.num_multiprocessors)
        columns = column_defines()
        self._evict = library.get("apply.cu", "evict", columns)
        self._apply = library.get("apply.cu", "apply", columns)
        self._plan_step = library.get("plan_step.cu", "plan_step", shape.defines())
        self._fill_tokens = library.get("plan_step.cu", "fill_tokens", shape.defines())
        self._finish = library.get("finish.cu", "finish", columns)
        self._reorder = library.get("reorder.cu", "reorder", {})

    def apply(self, delta: Delta) -> None:
        """The plan's changes, on rows that are still there: evictions, then what is given."""
        rows, words, num_evicted = self._rows, self._staging.copy(delta.words), delta.num_evicted
        if num_evicted:
            flags = rows.row_of_slot, rows.finished, rows.any_finished
            self._evict(-(-num_evicted // APPLY_THREADS), APPLY_THREADS, words, num_evicted, *flags)
            self.reorder()
        if delta.num_given == 0:
            return
        grid = max(1, delta.num_admitted), max(1, -(-delta.max_tokens // APPLY_TOKENS)), 1
        counts = delta.num_admitted, delta.num_blocks, delta.num_chunks
        pools = rows.vocab.history.values, rows.vocab.bias.values
        columns = rows.max_requests, rows.ints, rows.floats, rows.seed, rows.stop_ids
        requests = rows.token_ids, rows.max_model_len, rows.block_tables, rows.max_blocks
        state = rows.row_of_slot, rows.chunk_of_slot, rows.num_rows, rows.pools, rows.arrivals
        args = *counts, *pools, rows.vocab_size, *columns, *requests, *state
        self._apply(grid, APPLY_THREADS, words[num_evicted:], *args)

    def plan_step(self, num_tokens: int, num_rows: int) -> None:
        """The batch of this bucket. As many tokens as rows: no row has a chunk of more than one."""
        rows, out = self._rows, self._buffers
        columns = rows.num_rows, rows.ints, rows.max_requests, rows.chunk_of_slot
        requests = rows.token_ids, rows.max_model_len, rows.block_tables, rows.max_blocks
        bucket = num_tokens, num_rows
        by_row = out.query_starts, out.context_lens, out.samples, out.logit_ids, out.row_slots
        tiles = out.decode_starts, out.prompt_starts
        by_token = out.token_ids, out.positions, out.cache_slots, out.token_rows
        planned = out.counts, out.began, *by_row, *tiles
        self._plan_step(1, PLAN_THREADS, *columns, *requests, *bucket, *planned, *by_token)
        if num_tokens > num_rows:
            plan = out.counts, out.query_starts, out.context_lens, out.row_slots
            grid = -(-num_tokens // FILL_THREADS)
            self._fill_tokens(grid, FILL_THREADS, *plan, *requests, *bucket, *by_token)

    def finish(self) -> None:
        """Append the tokens, mark the rows that ended, write the ring's entry."""
        rows, step, ring = self._rows, self._buffers, self._ring
        columns = rows.num_rows, rows.ints, rows.max_requests, rows.stop_ids
        picked = step.query_starts, step.samples, step.codes, step.began
        requests = rows.token_ids, rows.max_model_len, rows.pools, rows.vocab_size
        ended = rows.finished, rows.any_finished, rows.steps
        entries = ring.memory, NUM_ENTRIES, ring.entry_bytes
        self._finish(1, FINISH_THREADS, *columns, *picked, *requests, *ended, *entries)

    def reorder(self) -> None:
        """Take the marked rows out and close their holes."""
        rows = self._rows
        buffers = rows.buffer_table, rows.buffer_table.shape[0]
        state = rows.slots, rows.row_of_slot, rows.num_rows, rows.finished, rows.any_finished, rows.arrivals
        self._reorder(self._move_blocks, MOVE_THREADS, *buffers, *state)


def _num_move_blocks(rows: DeviceRows, num_multiprocessors: int) -> int:
    """A thread for each word of the most moves there can be, as far as the device runs them at once."""
    row_words = sum(x.nbytes for x in (rows.ints, rows.floats, rows.seed, rows.stop_ids)) // 4
    return max(1, min(2 * num_multiprocessors, row_words // 2 // MOVE_THREADS))
