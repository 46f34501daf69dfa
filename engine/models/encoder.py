"""What the runner needs of an encoder, and how it comes by one."""

from typing import Protocol

import torch

from engine.batch import EncoderBatch
from engine.checkpoint import Checkpoint, EncoderConfig
from engine.kernels.encoder_ops import EncoderOps
from engine.models import find_encoder
from engine.models.encoders.answers import AnswerPlan
from engine.models.encoders.packed import PackedEncoder, encoder_layout
from engine.request import Task
from engine.weights import CPU, LoadFormat, Progress, open_weights


class EncoderModel(Protocol):
    """An encoder and its head, built."""

    @property
    def config(self) -> EncoderConfig: ...

    @property
    def task(self) -> Task: ...

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def num_bytes(self) -> int:
        """Of all weights, as they lie in memory."""
        ...

    @property
    def max_len(self) -> int:
        """Tokens of the longest input."""
        ...

    def __call__(self, batch: EncoderBatch) -> list[torch.Tensor]:
        """One answer an input, float32, in the batch's order; its shape: engine.request.Task.

        No input is empty or longer than max_len; type ids are below config.num_types, or anything where that is 0 or 1.
        """
        ...

    def plan_answers(self, batch: EncoderBatch) -> AnswerPlan:
        """By the batch as the host knows it, of which type ids and positions do not count."""
        ...

    def compute(self, batch: EncoderBatch, token_ids: torch.Tensor | None) -> torch.Tensor:
        """The plan's answers, float32 [rows, width], by a batch that may have empty inputs and further tokens behind its last.

        Waits for nothing, on a GPU. token_ids: the plan's, perhaps with more behind them.
        """
        ...


def load_encoder(
    checkpoint: Checkpoint,
    ops: EncoderOps,
    dtype: torch.dtype,
    load_format: LoadFormat = "auto",
    progress: Progress | None = None,
    device: torch.device = CPU,
) -> EncoderModel:
    """Build the model, packing each weight as soon as it is read.

    Errors: CheckpointError for tensors that are missing, left over, damaged, or of the wrong shape or dtype.
    """
    config = checkpoint.encoder
    family = find_encoder(config.family)
    weights = open_weights(checkpoint, encoder_layout(config, family), dtype, load_format, progress, device)
    model = PackedEncoder(config, family, weights, ops)
    weights.finish()
    assert not weights.left, f"the model did not take {weights.left}"
    return model
