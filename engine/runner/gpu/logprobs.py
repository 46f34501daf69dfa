"""Log probabilities of a step, on their way to the host."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from engine.kernels.gpu.logprobs import RowLogprobs
from engine.runner.gpu.ring import Entry
from engine.runner.gpu.staging import to_host
from engine.step import Logprobs


@dataclass(frozen=True, slots=True)
class LogprobsInFlight:
    """By row of the step, in the host's memory once the step is over."""

    samples: torch.Tensor  # int32 [rows], 1: the row has an entry in the ring
    logprobs: torch.Tensor  # float32 [rows]
    ranks: torch.Tensor  # int32 [rows]
    top_ids: torch.Tensor  # int32 [rows, width]
    top_logprobs: torch.Tensor  # float32 [rows, width]

    def select(self, entry: Entry, wanted: Mapping[int, int]) -> Logprobs | None:
        """Those of the slots that want them: slot, how many of the likeliest tokens."""
        slots = entry.slots.tolist()
        places = [i for i, slot in enumerate(slots) if slot in wanted and entry.codes[i] >= 0]
        if not places:
            return None
        num_top = torch.tensor([wanted[slots[place]] for place in places], dtype=torch.int32)
        row_ids = self.samples.nonzero().flatten()[places]
        width = int(num_top.max())
        return Logprobs(
            places=torch.tensor(places, dtype=torch.int32).numpy(),
            token_ids=entry.codes[places],
            logprobs=self.logprobs[row_ids].numpy(),
            ranks=self.ranks[row_ids].numpy(),
            num_top=num_top.numpy(),
            top_ids=self.top_ids[row_ids, :width].numpy(),
            top_logprobs=self.top_logprobs[row_ids, :width].numpy(),
        )


def start_copy(samples: torch.Tensor, rows: RowLogprobs, num_rows: int) -> LogprobsInFlight:
    """Of the first num_rows rows; behind what the current stream holds."""
    parts = samples, rows.logprobs, rows.ranks, rows.top_ids, rows.top_logprobs
    return LogprobsInFlight(*(to_host(part[:num_rows]) for part in parts))
