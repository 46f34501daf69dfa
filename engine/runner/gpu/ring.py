"""What steps tell the host: a ring of entries in the host's memory, which the device writes and nobody waits for."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

NUM_ENTRIES = 4  # the host reads a step before it launches the second after it
HEADER_FIELDS = (
    "step",
    "num_entries",
    "num_rows",
    "num_tokens",
    "begin_ns",
    "end_ns",
    "num_live",
    "num_moves",
)
HEADER_WORDS = 2 * len(HEADER_FIELDS)  # int64 each

Ints = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Entry:
    """One step, in the order of the rows that sampled."""

    step: int
    slots: Ints  # [n]
    codes: Ints  # [n] tokens; below 0 why there is none (engine.sampler.sampler.REASONS)
    finishes: Ints  # [n] Finish
    num_rows: int  # that computed anything
    num_tokens: int  # computed
    num_live: int  # rows left after the step
    num_moves: int  # rows that moved to close the holes
    begin_ns: int  # of the device's clock
    end_ns: int


class ResultRing:
    """Step s, as the device counts from 1 on, has entry s % NUM_ENTRIES."""

    def __init__(self, max_requests: int, device: torch.device) -> None:
        num_words = -(-(HEADER_WORDS + 3 * max_requests) // 16) * 16
        pinned = device.type == "cuda"
        self.memory = torch.full((NUM_ENTRIES, num_words), -1, dtype=torch.int32, pin_memory=pinned)
        self._max_requests = max_requests
        self._words: Ints = self.memory.numpy()
        self._headers: npt.NDArray[np.int64] = self._words[:, :HEADER_WORDS].view(np.int64)

    @property
    def entry_bytes(self) -> int:
        return 4 * self.memory.shape[1]

    def done(self, step: int) -> bool:
        return bool(self._headers[step % NUM_ENTRIES, 0] == step)

    def read(self, step: int) -> Entry:
        """Copies. Raises LookupError for a step that is not done, or whose entry was used again."""
        found, num_entries, num_rows, num_tokens, begin_ns, end_ns, num_live, num_moves = self._headers[
            step % NUM_ENTRIES
        ].tolist()
        if found != step:
            raise LookupError(f"the ring has step {found} where step {step} was looked for")
        body = self._words[step % NUM_ENTRIES, HEADER_WORDS:][: 3 * self._max_requests]
        slots, codes, finishes = body.reshape(3, self._max_requests)[:, :num_entries].copy()
        return Entry(
            step, slots, codes, finishes, num_rows, num_tokens, num_live, num_moves, begin_ns, end_ns
        )
