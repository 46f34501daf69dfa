"""The device's state of live requests: dense arrays of rows, and what is found by slot and never moves."""

from collections.abc import Sequence

import torch

from engine.columns import FLOAT_COLUMNS, INT_COLUMNS, Columns, make_columns
from engine.kernels.reorder import apply_moves, plan_moves
from engine.request import MAX_STOP_IDS, SamplingParams
from engine.sampler.vocab import VocabPool, make_bias, make_history, needs_bias, needs_history
from engine.step import Admit


class RowBuffers:
    """Rows 0 to num_rows are live. The hole of a row that ends is closed by a row from the tail."""

    def __init__(
        self, max_requests: int, max_model_len: int, max_blocks: int, vocab_size: int, device: torch.device
    ) -> None:
        def filled(*shape: int, value: int, dtype: torch.dtype = torch.int32) -> torch.Tensor:
            return torch.full(shape, value, dtype=dtype, device=device)

        self.num_rows = 0
        self.token_ids = torch.empty(
            max_requests, max_model_len, dtype=torch.int32, device=device
        )  # [slots, places]
        self.row_of_slot = filled(max_requests, value=-1, dtype=torch.int64)  # [slots], -1 where none is live
        self._block_table = filled(max_requests, max_blocks, value=0)
        self._ints = filled(len(INT_COLUMNS), max_requests, value=0)
        self._floats = filled(len(FLOAT_COLUMNS), max_requests, value=0, dtype=torch.float32)
        self._seed = filled(max_requests, value=0, dtype=torch.int64)
        self._stop_ids = filled(max_requests, MAX_STOP_IDS, value=-1)
        self._history = VocabPool(vocab_size, max_requests, torch.int32, device)
        self._bias = VocabPool(vocab_size, max_requests, torch.float32, device)
        self._vocab_size = vocab_size
        self._columns = self._narrowed()

    @property
    def columns(self) -> Columns:
        """The live rows, as views: what is written to them stays. Good until admit, evict or compact."""
        return self._columns

    @property
    def block_table(self) -> torch.Tensor:
        """int32 [rows, max_blocks]; a view. Behind a row's num_blocks it holds anything."""
        return self._block_table[: self.num_rows]

    @property
    def num_bytes(self) -> int:
        """What the buffers take now; state as wide as the vocabulary comes when it is asked for."""
        held = (
            *(self.token_ids, self.row_of_slot, self._block_table, self._ints, self._floats, self._seed),
            *(self._stop_ids, self._history.values, self._bias.values),
        )
        return sum(tensor.nbytes for tensor in held)

    def select(self, row_ids: torch.Tensor) -> Columns:
        """Copies of some rows' columns, in this order. row_ids int64 or int32 [n]."""
        packed = self._ints.index_select(1, row_ids), self._floats.index_select(1, row_ids)
        seed, stop_ids = self._seed.index_select(0, row_ids), self._stop_ids.index_select(0, row_ids)
        return make_columns(*packed, seed, stop_ids, (self._history.values, self._bias.values))

    def admit(self, admit: Admit) -> int:
        """Give a request the row behind the last, and return it. Raises ValueError for what does not fit."""
        self._check(admit)
        row, device = self.num_rows, self.token_ids.device
        ints, params = self._int_values(admit), admit.sampling
        self._ints[:, row] = torch.tensor(
            [ints[name] for name in INT_COLUMNS], dtype=torch.int32, device=device
        )
        self._floats[:, row] = torch.tensor([getattr(params, name) for name in FLOAT_COLUMNS], device=device)
        self._seed[row] = _as_signed(params.seed)
        self._stop_ids[row] = -1
        self._stop_ids[row, : len(params.stop_token_ids)] = torch.tensor(
            params.stop_token_ids, dtype=torch.int32, device=device
        )
        self._block_table[row, : len(admit.blocks)] = torch.tensor(
            admit.blocks, dtype=torch.int32, device=device
        )
        self.token_ids[admit.slot, : len(admit.token_ids)] = torch.tensor(
            admit.token_ids, dtype=torch.int32, device=device
        )
        self.row_of_slot[admit.slot] = row
        self.num_rows += 1
        self._columns = self._narrowed()
        return row

    def append_blocks(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Put (slot, block id) at the end of block tables, in this order; slots without a row are ignored."""
        if not pairs:
            return
        slots, blocks = torch.tensor(pairs, dtype=torch.int64, device=self.token_ids.device).unbind(1)
        rows = self.row_of_slot[slots]
        rows, blocks = rows[rows >= 0], blocks[rows >= 0]
        num_blocks = self._columns.num_blocks
        earlier = (rows[:, None] == rows[None, :]).tril(-1).sum(1)  # pairs of the same row before this one
        self._block_table[rows, num_blocks[rows] + earlier] = blocks.int()
        num_blocks.index_add_(0, rows, torch.ones_like(rows, dtype=torch.int32))

    def append_tokens(self, row_ids: torch.Tensor, token_ids: torch.Tensor) -> None:
        """Put one token at the end of each of these rows, which are all different; a token below 0 is none.

        row_ids int64 [n], token_ids int32 [n].
        """
        rows, tokens = row_ids[token_ids >= 0], token_ids[token_ids >= 0]
        columns = self._columns
        self.token_ids[columns.slot[rows].long(), columns.num_tokens[rows].long()] = tokens
        columns.num_tokens.index_add_(0, rows, torch.ones_like(tokens))
        if self._history.num_used:
            entries = columns.history_entry[rows].long()
            self._history.values[entries[entries >= 0], tokens[entries >= 0].long()] += 1

    def evict(self, slots: Sequence[int]) -> None:
        """Take rows out by their slots; slots without a row are ignored."""
        rows = self.row_of_slot[torch.tensor(slots, dtype=torch.int64, device=self.row_of_slot.device)]
        finished = torch.zeros(self.num_rows, dtype=torch.bool, device=rows.device)
        finished[rows[rows >= 0]] = True
        self.compact(finished)

    def compact(self, finished: torch.Tensor) -> int:
        """Take the finished rows out and close the holes: how many rows moved. finished bool [num_rows]."""
        if not finished.any():
            return 0
        moves = plan_moves(finished)
        columns = self._columns
        self.row_of_slot[columns.slot[finished].long()] = -1
        self._history.give_back(columns.history_entry[finished].tolist())
        self._bias.give_back(columns.bias_entry[finished].tolist())
        apply_moves((self._ints.T, self._floats.T, self._seed, self._stop_ids, self._block_table), moves)
        self.row_of_slot[columns.slot[moves.destinations].long()] = moves.destinations
        self.num_rows = moves.num_live
        self._columns = self._narrowed()
        return len(moves.sources)

    def _narrowed(self) -> Columns:
        n = self.num_rows
        vocab = self._history.values, self._bias.values
        return make_columns(self._ints[:, :n], self._floats[:, :n], self._seed[:n], self._stop_ids[:n], vocab)

    def _check(self, admit: Admit) -> None:
        limits = {
            "rows": (self.num_rows + 1, self.token_ids.shape[0]),
            "tokens": (len(admit.token_ids), self.token_ids.shape[1]),
            "blocks": (len(admit.blocks), self._block_table.shape[1]),
            "stop_token_ids": (len(admit.sampling.stop_token_ids), MAX_STOP_IDS),
        }
        for name, (wanted, limit) in limits.items():
            if wanted > limit:
                raise ValueError(f"slot {admit.slot} needs {wanted} {name}; there are at most {limit}")
        if self.row_of_slot[admit.slot] >= 0:
            raise ValueError(f"slot {admit.slot} already has a row")

    def _int_values(self, admit: Admit) -> dict[str, int]:
        params: SamplingParams = admit.sampling
        history = bias = -1
        if needs_history(params):
            history = self._history.put(make_history(admit.token_ids, admit.num_prompt, self._vocab_size))
        if needs_bias(params):
            bias = self._bias.put(make_bias(params, self._vocab_size))
        return {
            "slot": admit.slot,
            "num_tokens": len(admit.token_ids),
            "num_prompt": admit.num_prompt,
            "num_computed": admit.num_cached,
            "max_total": min(admit.num_prompt + params.max_tokens, self.token_ids.shape[1]),
            "min_total": min(admit.num_prompt + params.min_tokens, self.token_ids.shape[1]),
            "top_k": min(max(params.top_k, 0), self._vocab_size),
            "num_logprobs": -1 if params.logprobs is None else params.logprobs,
            "num_prompt_logprobs": -1 if params.prompt_logprobs is None else params.prompt_logprobs,
            "num_blocks": len(admit.blocks),
            "history_entry": history,
            "bias_entry": bias,
        }


def _as_signed(seed: int) -> int:
    """The 64-bit integer with the same bits."""
    return (seed + (1 << 63)) % (1 << 64) - (1 << 63)
