"""DeBERTa, versions 2 and 3 (arXiv 2006.03654, 2111.09543): attention that scores content and distance apart."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from engine.checkpoint import Disentangled, EncoderConfig
from engine.kernels.encoder_ops import Relative
from engine.kernels.ops import Heads
from engine.layers.encoder_attention import DisentangledAttention, PlainAttention
from engine.models.encoders.bert import NAMES as BERT_NAMES
from engine.models.encoders.bert import masked_head
from engine.models.encoders.post_norm import (
    BlockNames,
    PostNormTrunk,
    build_trunk,
    layer_prefixes,
    trunk_shapes,
)
from engine.models.encoders.tensors import Shapes, Tensors, linear_shapes, norm_shapes
from engine.models.encoders.trunk import EncoderType, HeadShape

_NAMES = BlockNames(
    qkv=BERT_NAMES.qkv,
    parts=("query_proj", "key_proj", "value_proj"),
    o=BERT_NAMES.o,
    attention_norm=BERT_NAMES.attention_norm,
    up=BERT_NAMES.up,
    down=BERT_NAMES.down,
    mlp_norm=BERT_NAMES.mlp_norm,
)
_LAYERS = "encoder.layer"
_SELF = "attention.self"


def _shape(config: EncoderConfig) -> Disentangled:
    assert config.disentangled is not None  # every DeBERTa has it
    return config.disentangled


def _shapes(config: EncoderConfig) -> Shapes:
    shape, hidden = _shape(config), config.hidden_size
    prefixes = layer_prefixes(config, _LAYERS)
    shapes = trunk_shapes(config, _NAMES, prefixes)
    if shape.normed:
        shapes |= norm_shapes("encoder.LayerNorm", hidden)
    if not shape.relative:
        return shapes
    shapes["encoder.rel_embeddings.weight"] = (2 * shape.span, hidden)
    for prefix in prefixes:
        for name in _position_projections(shape):
            shapes |= linear_shapes(f"{prefix}.{_SELF}.{name}", hidden, hidden)
    return shapes


def _position_projections(shape: Disentangled) -> list[str]:
    """Those a layer has of its own."""
    wanted = {"pos_key_proj": shape.content_to_position, "pos_query_proj": shape.position_to_content}
    return [] if shape.shared else [name for name, is_there in wanted.items() if is_there]


def _build(config: EncoderConfig, tensors: Tensors) -> PostNormTrunk:
    places = tensors.keep(_places(config).to(tensors.weights.device))
    builder = _AttentionBuilder(config, tensors, _positions(config, tensors), places)
    prefixes = layer_prefixes(config, _LAYERS)
    return build_trunk(config, tensors, _NAMES, prefixes, attend=builder.build)


def _positions(config: EncoderConfig, tensors: Tensors) -> torch.Tensor | None:
    """The table of distances, float32 [2 * span, hidden], normed where the model norms it; it is not kept."""
    shape, take = _shape(config), tensors.weights.take
    norm = [take(f"encoder.LayerNorm.{kind}", torch.float32) for kind in ("weight", "bias") if shape.normed]
    if not shape.relative:
        return None
    table = take("encoder.rel_embeddings.weight", torch.float32)
    tensors.weights.wait()
    if not shape.normed:
        return table
    weight, bias = norm
    return F.layer_norm(table, table.shape[1:], weight, bias, config.norm_eps)


def _places(config: EncoderConfig) -> torch.Tensor:
    """engine.kernels.encoder_ops.Relative.places, for inputs of up to max_len tokens."""
    shape = _shape(config)
    distances = torch.arange(1 - config.max_len, config.max_len)
    if shape.num_buckets:
        distances = _bucketed(distances, shape.num_buckets // 2, shape.max_distance)
    return (distances + shape.span).clamp(0, 2 * shape.span - 1).int()


def _bucketed(distances: torch.Tensor, half: int, max_distance: int) -> torch.Tensor:
    """Distances up to half are kept; those beyond share the other half of the buckets by their logarithm.

    In float32, as models were trained: rounding decides buckets.
    """
    far = (distances.abs().clamp(min=half) / half).log() / torch.tensor((max_distance - 1) / half).log()
    shared = (far * (half - 1)).ceil() + half
    return torch.where(distances.abs() <= half, distances, shared * distances.sign()).long()


@dataclass(frozen=True, slots=True)
class _AttentionBuilder:
    """Projects the positions with each layer's weights once, so that a step need not."""

    config: EncoderConfig
    tensors: Tensors
    positions: torch.Tensor | None
    places: torch.Tensor

    def build(self, prefix: str) -> DisentangledAttention | PlainAttention:
        tensors = self.tensors
        weight, bias = (tensors.weights.take(f"{prefix}.{_NAMES.qkv}.{kind}") for kind in ("weight", "bias"))
        qkv = tensors.ops.linear(tensors.keep(weight), tensors.keep(bias))
        relative = self._relative(prefix, weight, bias)
        o = tensors.linear(f"{prefix}.{_NAMES.o}")
        if relative is None:
            return PlainAttention(qkv, o, self._heads(), tensors.ops)
        return DisentangledAttention(qkv, o, self._heads(), relative, tensors.ops)

    def _heads(self) -> Heads:
        """As many terms as a score has, so much smaller each."""
        shape, config = _shape(self.config), self.config
        num_terms = 1 + shape.content_to_position + shape.position_to_content
        return Heads(
            config.num_heads, config.num_heads, config.head_dim, (config.head_dim * num_terms) ** -0.5
        )

    def _relative(self, prefix: str, weight: torch.Tensor, bias: torch.Tensor) -> Relative | None:
        shape, hidden = _shape(self.config), self.config.hidden_size
        if self.positions is None:
            return None
        keys = queries = None
        if shape.content_to_position:
            own = self._own(prefix, "pos_key_proj")
            keys = self._projected(*(own or (weight[hidden : 2 * hidden], bias[hidden : 2 * hidden])))
        if shape.position_to_content:
            own = self._own(prefix, "pos_query_proj")
            queries = self._projected(*(own or (weight[:hidden], bias[:hidden])))
        return Relative(keys, queries, self.places)

    def _own(self, prefix: str, name: str) -> tuple[torch.Tensor, torch.Tensor] | None:
        if _shape(self.config).shared:
            return None
        take = self.tensors.weights.take
        return take(f"{prefix}.{_SELF}.{name}.weight"), take(f"{prefix}.{_SELF}.{name}.bias")

    def _projected(self, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        assert self.positions is not None
        self.tensors.weights.wait()
        rows = self.positions @ weight.float().T + bias.float()
        return self.tensors.keep(rows.to(self.tensors.dtype))


def _head(config: EncoderConfig) -> HeadShape:
    match config.task:
        case "classify":
            return HeadShape("classifier", dense="pooler.dense", act=config.head_act)
        case "token_classify":
            return HeadShape("classifier")
        case _ if _shape(config).legacy_head:
            return masked_head(config)
        case _:
            return HeadShape(
                "lm_predictions.lm_head",
                dense="lm_predictions.lm_head.dense",
                act=config.hidden_act,
                norm="lm_predictions.lm_head.LayerNorm",
                tied=True,  # whatever the configuration says
            )


DEBERTA = EncoderType(
    _shapes,
    _build,
    _head,
    prefix="deberta.",
    fused={"qkv": _NAMES.parts},
    unused=(
        "pooler.dense",
        "embeddings.position_embeddings",
        "lm_predictions.lm_head",
        "lm_predictions.lm_head.dense",
        "lm_predictions.lm_head.LayerNorm",
        "mask_predictions.dense",
        "mask_predictions.LayerNorm",
        "mask_predictions.classifier",
        "qa_outputs",
    ),
)
