"""The kernels of one step, from the plan to the closed holes."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace

import numpy as np
import torch

from engine.batch import DeviceBatch
from engine.kernels.gpu.decode_tiles import DecodeTiles
from engine.kernels.gpu.logprobs import GpuLogprobs
from engine.kernels.gpu.sampler import GpuSampler
from engine.kernels.ops import LayerCache
from engine.models.model import Model
from engine.runner.gpu.buckets import Bucket
from engine.runner.gpu.logprobs import LogprobsInFlight, start_copy
from engine.runner.gpu.state import DeviceState
from engine.sampler.logprobs import ROWS_AT_ONCE, take_logprobs
from engine.step import Logprobs


class StepCompute:
    """Launches on the current stream. A call can be captured: what it reads is on the device, at addresses that stay."""

    def __init__(
        self,
        model: Model,
        caches: list[LayerCache],
        state: DeviceState,
        decode_tiles: DecodeTiles,
        sampler: GpuSampler,
        logprobs: GpuLogprobs,
    ) -> None:
        self._model = model
        self._caches = caches
        self._state = state
        self._decode_tiles = decode_tiles
        self._sampler = sampler
        self._logprobs = logprobs

    @property
    def dtype_name(self) -> str:
        return str(self._model.dtype).removeprefix("torch.")

    def __call__(self, bucket: Bucket) -> None:
        batch = self._plan(bucket)
        self._pick(bucket, self._model.logits(self._model(batch, self._caches)))

    def run_scored(self, bucket: Bucket, scored: Mapping[int, int]) -> dict[int, Logprobs]:
        """A step that also gives log probabilities of prompt tokens, by slot. Not captured: it waits for the device.

        scored: slots whose chunks are of such prompts, and how many of the likeliest tokens they want.
        """
        batch = self._plan(bucket)
        everything = torch.arange(batch.num_tokens, dtype=torch.int32, device=self._state.device)
        hidden = self._model(replace(batch, logit_ids=everything), self._caches)
        found = self._score_prompts(batch, hidden, scored)
        self._pick(bucket, self._model.logits(hidden.index_select(0, batch.logit_ids)))
        return found

    def read_logprobs(self, bucket: Bucket) -> LogprobsInFlight:
        """Of the step that was launched last."""
        return start_copy(self._state.buffers.samples, self._logprobs.rows, bucket.num_rows)

    def _plan(self, bucket: Bucket) -> DeviceBatch:
        self._state.kernels.plan_step(bucket.num_tokens, bucket.num_rows)
        batch = self._state.buffers.batch(bucket.num_tokens, bucket.num_rows, self._decode_tiles.found)
        self._decode_tiles(batch)
        return batch

    def _pick(self, bucket: Bucket, logits: torch.Tensor) -> None:
        """logits float32 [rows, vocab]."""
        rows, buffers = self._state.rows, self._state.buffers
        self._sampler(logits, rows.columns, buffers.samples, buffers.counts, rows.pools, buffers.codes)
        if bucket.logprobs:
            self._logprobs(logits, buffers.codes, buffers.samples, buffers.counts)
        self._state.kernels.finish()
        self._state.kernels.reorder()

    def _score_prompts(
        self, batch: DeviceBatch, hidden: torch.Tensor, scored: Mapping[int, int]
    ) -> dict[int, Logprobs]:
        """hidden dtype [tokens, hidden]."""
        num_rows = int(batch.counts[0])
        slots, starts = batch.row_slots[:num_rows].tolist(), batch.query_starts[: num_rows + 1].tolist()
        return {
            slot: self._score(row, slice(starts[row], starts[row + 1]), batch, hidden, scored[slot])
            for row, slot in enumerate(slots)
            if slot in scored and starts[row] < starts[row + 1]
        }

    def _score(
        self, row: int, tokens: slice, batch: DeviceBatch, hidden: torch.Tensor, num_top: int
    ) -> Logprobs:
        """Of the prompt tokens that follow this row's tokens."""
        rows = self._state.rows
        places = batch.positions[tokens] + 1
        places = places[: int((places < rows.columns.num_prompt[row]).sum())]
        token_ids = rows.token_ids[int(batch.row_slots[row]), places.long()]
        inputs = torch.split(
            hidden[tokens][: len(places)], ROWS_AT_ONCE
        )  # logits of a whole prompt would be large
        parts = zip(
            inputs, torch.split(token_ids, ROWS_AT_ONCE), torch.split(places, ROWS_AT_ONCE), strict=True
        )
        return _join(
            [
                take_logprobs(self._model.logits(x), ids, at, torch.full_like(at, num_top))
                for x, ids, at in parts
            ]
        )


def _join(parts: Sequence[Logprobs]) -> Logprobs:
    """One after the other. Each has the same number of columns."""
    return Logprobs(
        *(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Logprobs))
    )
