"""What planning a step writes and the rest of the step reads."""

import torch

from engine.batch import DeviceBatch


class StepBuffers:
    """Allocated once, for the largest bucket; a smaller one takes the beginning of each."""

    def __init__(self, max_rows: int, max_tokens: int, block_tables: torch.Tensor) -> None:
        """block_tables int32 [slots, max_blocks], on the device that all is on."""

        def zeros(length: int, dtype: torch.dtype = torch.int32) -> torch.Tensor:
            return torch.zeros(length, dtype=dtype, device=block_tables.device)

        self._block_tables = block_tables
        self.counts = zeros(4)  # live rows, tokens, decode tiles, prompt tiles
        self.began = zeros(1, torch.int64)  # nanoseconds of the device's clock
        self.token_ids = zeros(max_tokens)  # [tokens], as all down to token_rows
        self.positions = zeros(max_tokens)
        self.cache_slots = zeros(max_tokens)
        self.token_rows = zeros(max_tokens)
        self.query_starts = zeros(max_rows + 1)
        self.decode_starts = zeros(max_rows + 1)
        self.prompt_starts = zeros(max_rows + 1)
        self.context_lens = zeros(max_rows)  # [rows], as all below
        self.logit_ids = zeros(max_rows)
        self.row_slots = zeros(max_rows)
        self.samples = zeros(
            max_rows
        )  # 1: the last pending token is computed in this step, so the row samples
        self.codes = zeros(max_rows)  # the sampler's: a token, or why there is none

    @property
    def num_bytes(self) -> int:
        by_token = self.token_ids, self.positions, self.cache_slots, self.token_rows
        by_row = self.context_lens, self.logit_ids, self.row_slots, self.samples, self.codes
        starts = self.query_starts, self.decode_starts, self.prompt_starts
        return sum(tensor.nbytes for tensor in (*by_token, *by_row, *starts))

    def batch(self, num_tokens: int, num_rows: int, decode_tiles: torch.Tensor) -> DeviceBatch:
        """Views of a bucket's sizes."""
        return DeviceBatch(
            token_ids=self.token_ids[:num_tokens],
            positions=self.positions[:num_tokens],
            cache_slots=self.cache_slots[:num_tokens],
            query_starts=self.query_starts[: num_rows + 1],
            context_lens=self.context_lens[:num_rows],
            block_tables=self._block_tables,
            logit_ids=self.logit_ids[:num_rows],
            counts=self.counts,
            row_slots=self.row_slots[:num_rows],
            token_rows=self.token_rows[:num_tokens],
            decode_starts=self.decode_starts[: num_rows + 1],
            prompt_starts=self.prompt_starts[: num_rows + 1],
            decode_tiles=decode_tiles,
        )
