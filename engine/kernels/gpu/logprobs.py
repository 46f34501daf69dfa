"""Log probabilities of picked tokens on a GPU: cuda/logprobs.cu."""

from dataclasses import dataclass

import torch

from engine.kernels.gpu.module import KernelLibrary
from engine.kernels.gpu.vocab_parts import (
    LIST_BYTES,
    MAX_PARTS,
    THREADS,
    check_logits,
    num_parts,
    vocab_defines,
)

WORK_BYTES = 16 + 12 * MAX_PARTS + LIST_BYTES  # RowScores in cuda/logprobs.cu


@dataclass(frozen=True, slots=True)
class RowLogprobs:
    """By row. A row that has no token holds anything."""

    logprobs: torch.Tensor  # float32 [rows] of the token
    ranks: torch.Tensor  # int32 [rows] 1 + the number of strictly likelier tokens
    top_ids: torch.Tensor  # int32 [rows, width] the likeliest first, equal ones by id
    top_logprobs: torch.Tensor  # float32 [rows, width]


class GpuLogprobs:
    """`engine.sampler.logprobs.take_logprobs` without the host: two launches, which can be captured.

    `rows` has what the last call found, at addresses that stay; width is max_width, or the vocabulary where that is less.
    """

    def __init__(self, library: KernelLibrary, vocab_size: int, max_rows: int, max_width: int) -> None:
        device, width = library.device, min(max_width, vocab_size)
        self.rows = RowLogprobs(
            torch.zeros(max_rows, device=device),
            torch.zeros(max_rows, dtype=torch.int32, device=device),
            torch.zeros(max_rows, width, dtype=torch.int32, device=device),
            torch.zeros(max_rows, width, device=device),
        )
        self._vocab_size = vocab_size
        self._num_multiprocessors = library.num_multiprocessors
        work_bytes = -(-WORK_BYTES // 16) * 16
        self._work = torch.zeros(max_rows, work_bytes, dtype=torch.uint8, device=device)
        defines = {**vocab_defines(vocab_size, work_bytes), "WIDTH": width}
        self._score, self._list = (
            library.get("logprobs.cu", name, defines) for name in ("score_tokens", "list_likeliest")
        )

    @property
    def num_bytes(self) -> int:
        rows = self.rows
        return self._work.nbytes + sum(
            part.nbytes for part in (rows.logprobs, rows.ranks, rows.top_ids, rows.top_logprobs)
        )

    def __call__(
        self, logits: torch.Tensor, codes: torch.Tensor, samples: torch.Tensor, counts: torch.Tensor
    ) -> None:
        """Writes `rows` for the rows that sampled a token; the others' stay as they are.

        logits float32 [rows, vocab], the model's own; codes int32 [rows] of the sampler; samples int32 [rows] and counts int32 as
        the sampler's. All on the device. Raises ValueError.
        """
        most = min(self._work.shape[0], codes.shape[0], samples.shape[0])
        check_logits(logits, self._vocab_size, most)
        num_rows, out = logits.shape[0], self.rows
        grid = num_rows, num_parts(num_rows, self._vocab_size, self._num_multiprocessors), 1
        ours = logits, logits.stride(0), codes, samples, counts, self._work
        self._score(grid, THREADS, *ours, out.logprobs, out.ranks)
        if out.top_ids.shape[1] > 0:
            self._list(grid, THREADS, *ours, out.top_ids, out.top_logprobs)
