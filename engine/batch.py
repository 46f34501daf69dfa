"""The packed batch of one step: the pending tokens of all rows back to back, offsets say where each row begins. No padding."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class EncoderBatch:
    """Whole inputs back to back, for an encoder. Input i's tokens are `starts[i]` to `starts[i + 1]`."""

    token_ids: torch.Tensor  # int32 [tokens]
    type_ids: torch.Tensor  # int32 [tokens] segment
    positions: torch.Tensor  # int32 [tokens] place in the input, from 0
    starts: torch.Tensor  # int32 [inputs + 1]
    max_len: int  # tokens of the longest input

    @property
    def num_tokens(self) -> int:
        return self.token_ids.shape[0]

    @property
    def num_inputs(self) -> int:
        return self.starts.shape[0] - 1


@dataclass(frozen=True, slots=True)
class Batch:
    """Device arrays of one step. Row r's tokens are `query_starts[r]` to `query_starts[r + 1]`; a row may have none."""

    token_ids: torch.Tensor  # int32 [tokens]
    positions: torch.Tensor  # int32 [tokens] place in the request
    cache_slots: (
        torch.Tensor
    )  # int32 [tokens] block id * block_size + place in the block, where keys and values go
    query_starts: torch.Tensor  # int32 [rows + 1]
    context_lens: torch.Tensor  # int32 [rows] tokens with keys and values once this step wrote its own
    block_tables: torch.Tensor  # int32 [rows, max_blocks]
    logit_ids: torch.Tensor  # int32 [logits] which of the tokens need logits

    @property
    def num_tokens(self) -> int:
        return self.token_ids.shape[0]

    @property
    def num_rows(self) -> int:
        return self.context_lens.shape[0]


@dataclass(frozen=True, slots=True)
class DeviceBatch(Batch):
    """A batch whose true sizes only the device knows.

    The tensors are as long as the captured graph's bucket; what lies behind the true sizes is padding that kernels skip or that
    is computed and thrown away.
    """

    counts: torch.Tensor  # int32 [4]: live rows, tokens, decode tiles, prompt tiles (both of one KV head)
    row_slots: torch.Tensor  # int32 [rows]
    token_rows: torch.Tensor  # int32 [tokens]
    decode_starts: (
        torch.Tensor
    )  # int32 [rows + 1] tiles of context of the rows with one token, prefix sums; others have none
    prompt_starts: (
        torch.Tensor
    )  # int32 [rows + 1] tiles of queries of the rows with several tokens, prefix sums
    decode_tiles: (
        torch.Tensor
    )  # int32 [threads of decode attention, 8] what each begins with (cuda/decode_tiles.cu)
