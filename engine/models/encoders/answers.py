"""From the trunk's vectors to each input's answer, by task. Shapes: engine.request.Task."""

from dataclasses import dataclass
from typing import Protocol

import torch

from engine.batch import EncoderBatch
from engine.checkpoint import Pooling
from engine.kernels.encoder_ops import EncoderOps
from engine.kernels.ops import Linear
from engine.layers.encoder_pooling import pool
from engine.models.encoders.head import Head


@dataclass(frozen=True, slots=True)
class AnswerPlan:
    """How many rows of numbers a batch is answered with, and whose they are."""

    num_rows: int
    counts: list[int] | None  # by input; None: a row each, which is a vector and no matrix
    token_ids: torch.Tensor | None = None  # int32 [rows] places in the batch; None: inputs or tokens, all

    def split(self, rows: torch.Tensor) -> list[torch.Tensor]:
        """[num_rows, width] -> an answer an input."""
        return list(rows.unbind() if self.counts is None else torch.split(rows, self.counts))


class Answers(Protocol):
    """One task's."""

    def plan(self, batch: EncoderBatch) -> AnswerPlan:
        """As EncoderModel.plan_answers."""
        ...

    def __call__(self, x: torch.Tensor, batch: EncoderBatch, token_ids: torch.Tensor | None) -> torch.Tensor:
        """x [tokens, hidden], float32 or dtype -> float32 [rows, width], as EncoderModel.compute."""
        ...


@dataclass(frozen=True, slots=True)
class Embeddings:
    """One vector an input."""

    pooling: tuple[Pooling, ...]
    projections: tuple[Linear, ...]
    normalize: bool
    num_kept: int  # the first numbers of a vector
    ops: EncoderOps

    def plan(self, batch: EncoderBatch) -> AnswerPlan:
        return AnswerPlan(batch.num_inputs, None)

    def __call__(self, x: torch.Tensor, batch: EncoderBatch, token_ids: torch.Tensor | None) -> torch.Tensor:
        vectors = pool(x, batch, self.pooling, self.ops)
        for projection in self.projections:
            vectors = projection(vectors)
        if self.normalize:
            vectors = self.ops.normalize(vectors)
        return vectors[:, : self.num_kept].contiguous()


@dataclass(frozen=True, slots=True)
class Classes:
    """Logits of an input's labels."""

    head: Head
    pooling: Pooling
    ops: EncoderOps

    def plan(self, batch: EncoderBatch) -> AnswerPlan:
        return AnswerPlan(batch.num_inputs, None)

    def __call__(self, x: torch.Tensor, batch: EncoderBatch, token_ids: torch.Tensor | None) -> torch.Tensor:
        return self.head(pool(x, batch, (self.pooling,), self.ops))


@dataclass(frozen=True, slots=True)
class TokenClasses:
    """Logits of each token's labels."""

    head: Head

    def plan(self, batch: EncoderBatch) -> AnswerPlan:
        return AnswerPlan(batch.num_tokens, batch.starts.diff().tolist())

    def __call__(self, x: torch.Tensor, batch: EncoderBatch, token_ids: torch.Tensor | None) -> torch.Tensor:
        return self.head(x.float())


@dataclass(frozen=True, slots=True)
class Fillings:
    """Logits of the tokens that may stand where the mask token is."""

    head: Head
    mask_id: int

    def plan(self, batch: EncoderBatch) -> AnswerPlan:
        masks = (batch.token_ids == self.mask_id).nonzero().squeeze(1)
        bounds = torch.searchsorted(masks, batch.starts.long())  # masks before each input
        return AnswerPlan(masks.shape[0], bounds.diff().tolist(), masks.int())

    def __call__(self, x: torch.Tensor, batch: EncoderBatch, token_ids: torch.Tensor | None) -> torch.Tensor:
        assert token_ids is not None  # of this task's plans
        return self.head(x.index_select(0, token_ids).float())
