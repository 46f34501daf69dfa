"""A step's inputs on the device: as large as their bucket, and always at the same places."""

import numpy as np
import numpy.typing as npt
import torch

from engine.batch import EncoderBatch
from engine.models.encoders.answers import AnswerPlan
from engine.runner.gpu.buckets import EncoderBucket
from engine.runner.gpu.staging import Staging

Words = npt.NDArray[np.int32]


class EncoderInputs:
    """Owns the memory that captured steps read their inputs from."""

    def __init__(self, largest: EncoderBucket, device: torch.device) -> None:
        """largest: without picked tokens, of which there may be as many as tokens, rounded up to a power of two."""
        num_words = sum(_sizes(largest)) + 2 * largest.num_tokens
        self._words = torch.zeros(num_words, dtype=torch.int32, device=device)
        self._staging = Staging(device)

    @property
    def num_bytes(self) -> int:
        return self._words.nbytes

    def write(self, batch: EncoderBatch, plan: AnswerPlan, bucket: EncoderBucket) -> None:
        """Queue the copy of a packed batch, behind the step before it. batch and plan lie on the host."""
        words = _pack(batch, plan, bucket)
        self._staging.write(words, self._words[: len(words)])

    def batch(self, bucket: EncoderBucket) -> EncoderBatch:
        """Views of a bucket's sizes. max_len is the most that there could be."""
        starts, token_ids, type_ids, positions, _ = self._views(bucket)
        return EncoderBatch(token_ids, type_ids, positions, starts, bucket.num_tokens)

    def picked(self, bucket: EncoderBucket) -> torch.Tensor | None:
        """int32 [num_picked], places of tokens; None where no head picks any."""
        return self._views(bucket)[-1] if bucket.num_picked else None

    def _views(self, bucket: EncoderBucket) -> tuple[torch.Tensor, ...]:
        sizes = _sizes(bucket)
        return torch.split(self._words[: sum(sizes)], sizes)


def _sizes(bucket: EncoderBucket) -> list[int]:
    """Words: starts, token ids, type ids, positions, picked tokens."""
    tokens = bucket.num_tokens
    return [bucket.num_inputs + 1, tokens, tokens, tokens, bucket.num_picked]


def _pack(batch: EncoderBatch, plan: AnswerPlan, bucket: EncoderBucket) -> Words:
    """Zeros behind what there is; inputs behind the last begin and end where it ends."""
    picked = torch.empty(0) if plan.token_ids is None else plan.token_ids
    tensors = batch.starts, batch.token_ids, batch.type_ids, batch.positions, picked
    sizes = _sizes(bucket)
    words = np.zeros(sum(sizes), np.int32)
    words[: bucket.num_inputs + 1] = batch.num_tokens
    for place, tensor in zip(np.cumsum([0, *sizes]), tensors, strict=False):
        words[place : place + len(tensor)] = tensor.numpy()
    return words
