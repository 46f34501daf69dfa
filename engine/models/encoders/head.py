"""What a classifier, a tagger or a filler of masks puts on the trunk. It sees few rows, and computes in float32."""

from dataclasses import dataclass, replace

import torch

from engine.checkpoint import EncoderConfig
from engine.checkpoint.encoder import ENCODER_TASKS
from engine.kernels.ops import Linear
from engine.layers.encoder_norm import LayerNorm
from engine.models.encoders.tensors import Shapes, Tensors, linear_shapes, norm_shapes
from engine.models.encoders.trunk import EncoderType, HeadShape


@dataclass(frozen=True, slots=True)
class Head:
    """dense: hidden -> size, and its activation. out: size -> labels or vocabulary."""

    dense: Linear | None
    norm: LayerNorm | None
    out: Linear
    num_outputs: int

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [rows, hidden] -> logits, float32 [rows, outputs]."""
        if x.shape[0] == 0:  # no mask in any input
            return x.new_empty(0, self.num_outputs)
        if self.dense is not None:
            x = self.dense(x)
        if self.norm is not None:
            x = self.norm(x, torch.float32)
        return self.out(x)


def head_shapes(config: EncoderConfig, shape: HeadShape) -> Shapes:
    size, shapes = _size(config, shape), Shapes()
    if shape.dense is not None:
        shapes |= linear_shapes(shape.dense, size, config.hidden_size, shape.dense_bias)
    if shape.norm is not None:
        shapes |= norm_shapes(shape.norm, size, shape.norm_bias)
    shapes |= linear_shapes(shape.out, _num_outputs(config), size, shape.out_bias)
    if shape.tied:
        del shapes[f"{shape.out}.weight"]
    return shapes


def build_head(config: EncoderConfig, shape: HeadShape, tensors: Tensors, words: torch.Tensor) -> Head:
    dense = norm = None
    if shape.dense is not None:
        dense = tensors.activated(shape.dense, shape.act, shape.dense_bias, torch.float32)
    if shape.norm is not None:
        norm = tensors.norm(shape.norm, config.norm_eps, shape.norm_bias)
    return Head(dense, norm, _out(shape, tensors, words), _num_outputs(config))


def unused_tensors(config: EncoderConfig, family: EncoderType) -> tuple[str, ...]:
    """Names of tensors that this family's files may have for other tasks than this one, and copies of tied ones."""
    tasks = [task for task in ENCODER_TASKS.values() if task != "embed"]
    heads = [family.head(replace(config, task=task)) for task in tasks]
    modules = {name for head in heads for name in (head.dense, head.norm, head.out, head.alias)}
    return tuple(
        f"{name}.{kind}" for name in modules | set(family.unused) if name for kind in ("weight", "bias")
    )


def _out(shape: HeadShape, tensors: Tensors, words: torch.Tensor) -> Linear:
    if not shape.tied:
        return tensors.linear(shape.out, shape.out_bias, torch.float32)
    bias = tensors.weights.take(f"{shape.out}.bias", torch.float32) if shape.out_bias else None
    if words.device.type == "cpu":
        tensors.num_bytes += words.numel() * torch.float32.itemsize  # packed a second time
    return tensors.ops.head(words, bias)


def _size(config: EncoderConfig, shape: HeadShape) -> int:
    return (shape.size if shape.dense is not None else 0) or config.hidden_size


def _num_outputs(config: EncoderConfig) -> int:
    return config.vocab_size if config.task == "fill_mask" else len(config.labels)
