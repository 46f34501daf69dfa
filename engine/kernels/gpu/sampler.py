"""The sampler on a GPU: cuda/sample.cu."""

import torch

from engine.columns import Columns
from engine.kernels.gpu.module import KernelLibrary
from engine.kernels.gpu.vocab_parts import (
    LIST_BYTES,
    MAX_PARTS,
    THREADS,
    check_logits,
    num_parts,
    vocab_defines,
)
from engine.request import MAX_STOP_IDS

NUM_BINS = 2048  # kNumBins in cuda/include/draw.cuh
WORK_BYTES = 8 + 64 + 32 * MAX_PARTS + 8 * NUM_BINS + LIST_BYTES  # RowWork in cuda/sample.cu


class GpuSampler:
    """`engine.kernels.sample_reference.sample` without the host: three launches, which can be captured."""

    def __init__(self, library: KernelLibrary, vocab_size: int, max_rows: int) -> None:
        self._vocab_size = vocab_size
        self._num_multiprocessors = library.num_multiprocessors
        work_bytes = -(-WORK_BYTES // 16) * 16
        self._work = torch.zeros(max_rows, work_bytes, dtype=torch.uint8, device=library.device)
        defines = {**vocab_defines(vocab_size, work_bytes), "MAX_STOP_IDS": MAX_STOP_IDS}
        self._scan, self._weigh, self._race = (
            library.get("sample.cu", name, defines) for name in ("scan_logits", "weigh_tokens", "race_tokens")
        )

    @property
    def num_bytes(self) -> int:
        return self._work.nbytes

    def __call__(
        self,
        logits: torch.Tensor,
        columns: Columns,
        samples: torch.Tensor,
        counts: torch.Tensor,
        pools: torch.Tensor,
        codes: torch.Tensor,
    ) -> None:
        """Writes the next token, NOT_FINITE or NOTHING_ALLOWED of each row that samples; other rows' codes stay.

        logits float32 [rows, vocab], each row contiguous; columns of at least as many rows, whose history and bias are looked for
        at the addresses in pools int64 [2]; samples int32 [rows], 0 where a row has no logits; counts int32, the first how many of
        the rows there are; codes int32 [rows], out. All on the device. Raises ValueError.
        """
        most = min(self._work.shape[0], columns.num_rows, samples.shape[0], codes.shape[0])
        check_logits(logits, self._vocab_size, most)
        num_rows, stride, work = logits.shape[0], logits.stride(0), self._work
        grid = num_rows, num_parts(num_rows, self._vocab_size, self._num_multiprocessors), 1
        c = columns
        ours = (
            c.num_tokens, c.min_total, c.top_k, c.history_entry, c.bias_entry, c.temperature, c.top_p, c.min_p,
            c.repetition_penalty, c.presence_penalty, c.frequency_penalty, c.seed, c.stop_ids, pools,
        )  # fmt: skip
        self._scan(grid, THREADS, logits, stride, samples, counts, *ours, work, codes)
        self._weigh(grid, THREADS, logits, stride, *ours, work)
        self._race(grid, THREADS, logits, stride, *ours, work, codes)
