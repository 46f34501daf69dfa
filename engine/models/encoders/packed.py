"""A whole encoder."""

from collections.abc import Mapping

import torch

from engine.batch import EncoderBatch
from engine.checkpoint import EncoderConfig
from engine.kernels.encoder_ops import EncoderOps
from engine.models.encoders.answers import (
    AnswerPlan,
    Answers,
    Classes,
    Embeddings,
    Fillings,
    TokenClasses,
)
from engine.models.encoders.head import build_head, head_shapes, unused_tensors
from engine.models.encoders.tensors import Shapes, Tensors, linear_shapes
from engine.models.encoders.trunk import EncoderType, Trunk
from engine.request import Task
from engine.weights import Layout, Weights


class PackedEncoder:
    """engine.models.encoder.EncoderModel of any family: its trunk, and what the task makes of the trunk's vectors."""

    def __init__(self, config: EncoderConfig, family: EncoderType, weights: Weights, ops: EncoderOps) -> None:
        """Takes every tensor of `encoder_layout(config, family)` out of weights."""
        self.config, self.dtype = config, weights.dtype
        tensors = Tensors(weights, ops)
        self._trunk = family.build(config, tensors)
        self._answers = _answers(config, family, tensors, self._trunk)
        self.num_bytes = tensors.num_bytes

    @property
    def task(self) -> Task:
        return self.config.task

    @property
    def max_len(self) -> int:
        return self.config.max_len

    def plan_answers(self, batch: EncoderBatch) -> AnswerPlan:
        return self._answers.plan(batch)

    def compute(self, batch: EncoderBatch, token_ids: torch.Tensor | None) -> torch.Tensor:
        return self._answers(self._trunk(batch), batch, token_ids)

    def __call__(self, batch: EncoderBatch) -> list[torch.Tensor]:
        plan = self.plan_answers(batch)
        return plan.split(self.compute(batch, plan.token_ids))


def encoder_layout(config: EncoderConfig, family: EncoderType) -> Layout:
    """The tensors of a checkpoint; those of other tasks' heads may be there too."""
    shapes = family.shapes(config)
    aliases: Mapping[str, str] = {}
    if config.task == "embed":
        shapes |= _projection_shapes(config)
    else:
        head = family.head(config)
        shapes |= head_shapes(config, head)
        aliases = {} if head.alias is None else {f"{head.out}.bias": f"{head.alias}.bias"}
    ignored = tuple(name for name in unused_tensors(config, family) if name not in shapes)
    return Layout(shapes, family.fused, ignored, family.prefix, aliases)


def _projection_shapes(config: EncoderConfig) -> Shapes:
    shapes: Shapes = {}
    for layer in config.sentence.projections if config.sentence is not None else ():
        shapes |= linear_shapes(f"{layer.folder}.linear", layer.num_outputs, layer.num_inputs, layer.bias)
    return shapes


def _answers(config: EncoderConfig, family: EncoderType, tensors: Tensors, trunk: Trunk) -> Answers:
    if config.task == "embed":
        return _embeddings(config, tensors)
    head = build_head(config, family.head(config), tensors, trunk.words)
    if config.task == "classify":
        return Classes(head, config.head_pooling, tensors.ops)
    if config.task == "token_classify":
        return TokenClasses(head)
    assert config.mask_id is not None  # of every model that fills masks
    return Fillings(head, config.mask_id)


def _embeddings(config: EncoderConfig, tensors: Tensors) -> Embeddings:
    """Projections compute in float32: they see one row an input."""
    sentence = config.sentence
    assert sentence is not None  # of every model that embeds
    projections = tuple(
        tensors.activated(f"{layer.folder}.linear", layer.activation, layer.bias, torch.float32)
        for layer in sentence.projections
    )
    return Embeddings(sentence.pooling, projections, sentence.normalize, config.dim, tensors.ops)
