"""The state of live requests on the device. Kernels alone write it: the host knows neither how many rows there are nor where."""

import torch

from engine.columns import FLOAT_COLUMNS, INT_COLUMNS, Columns, make_columns
from engine.kernels.gpu.row_shape import MAX_ROWS
from engine.request import MAX_STOP_IDS
from engine.runner.gpu.vocab_entries import VocabEntries


class DeviceRows:
    """Dense arrays of rows, of which the first `num_rows` are live, and what is found by slot and never moves.

    engine.runner.rows.RowBuffers is its twin. All tensors keep their addresses, but for the values of `vocab`, whose are in `pools`.
    """

    def __init__(
        self, max_requests: int, max_model_len: int, max_blocks: int, vocab_size: int, device: torch.device
    ) -> None:
        """Raises ValueError for more requests than the kernels keep."""
        if max_requests > MAX_ROWS:
            raise ValueError(
                f"max_requests = {max_requests} is not accepted; accepted on a GPU: 1 to {MAX_ROWS}"
            )

        def filled(*shape: int, value: int = 0, dtype: torch.dtype = torch.int32) -> torch.Tensor:
            return torch.full(shape, value, dtype=dtype, device=device)

        self.max_requests, self.max_model_len, self.max_blocks = max_requests, max_model_len, max_blocks
        self.vocab_size = vocab_size
        self.device = device
        self.vocab = VocabEntries(vocab_size, max_requests, device)
        self.pools = filled(2, dtype=torch.int64)  # addresses of history and bias
        self.steps = filled(1, value=1, dtype=torch.int64)  # the number of the next one
        self.num_rows = filled(1)
        self.ints = filled(len(INT_COLUMNS), max_requests)
        self.floats = filled(len(FLOAT_COLUMNS), max_requests, dtype=torch.float32)
        self.seed = filled(max_requests, dtype=torch.int64)
        self.stop_ids = filled(max_requests, MAX_STOP_IDS, value=-1)
        self.finished = filled(max_requests)  # [rows], 1: the next reorder takes the row out
        self.any_finished = filled(1)
        self.arrivals = filled(1)  # blocks of a launch that are done; 0 between launches
        self.token_ids = filled(max_requests, max_model_len)  # [slots, places], and by slot all below
        self.block_tables = filled(max_requests, max_blocks)
        self.row_of_slot = filled(max_requests, value=-1)
        self.chunk_of_slot = filled(max_requests)  # tokens to compute at the next step, 0 afterwards
        self.buffer_table = _buffer_table((self.ints[1:], self.floats, self.seed, self.stop_ids))

    @property
    def columns(self) -> Columns:
        """All max_requests rows, as views. History and bias are good until the next admission."""
        vocab = self.vocab.history.values, self.vocab.bias.values
        return make_columns(self.ints, self.floats, self.seed, self.stop_ids, vocab)

    @property
    def slots(self) -> torch.Tensor:
        """int32 [rows]; what moves a slot tells row_of_slot, so it is not among the buffers."""
        return self.ints[INT_COLUMNS.index("slot")]

    @property
    def num_bytes(self) -> int:
        """What the buffers take now; state as wide as the vocabulary comes when it is asked for."""
        by_row = self.ints, self.floats, self.seed, self.stop_ids, self.finished
        by_slot = self.token_ids, self.block_tables, self.row_of_slot, self.chunk_of_slot
        return sum(tensor.nbytes for tensor in (*by_row, *by_slot)) + self.vocab.num_bytes


def _buffer_table(buffers: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """int64 [buffers, 4]: address, bytes of an element, number of columns, bytes from one column to the next.

    ints and floats are [columns, rows]; seed is one column, of 8 bytes; stop_ids is one too, of MAX_STOP_IDS words.
    """
    ints, floats, seed, stop_ids = buffers
    columns = [(x.data_ptr(), 4, x.shape[0], 4 * x.shape[1]) for x in (ints, floats)]
    whole = [(x.data_ptr(), x.nbytes // x.shape[0], 1, 0) for x in (seed, stop_ids)]
    return torch.tensor([*columns, *whole], dtype=torch.int64, device=ints.device)
