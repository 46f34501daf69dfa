"""What BERT and its kin share: embeddings, and blocks that norm what they leave. Each calls its modules otherwise."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from engine.batch import EncoderBatch
from engine.checkpoint import EncoderConfig
from engine.kernels.encoder_ops import Embedded
from engine.kernels.ops import Heads
from engine.layers.encoder_attention import EncoderAttention, PlainAttention
from engine.layers.encoder_block import PostNormBlock
from engine.layers.encoder_embeddings import EncoderEmbeddings
from engine.layers.encoder_mlp import FeedForward
from engine.models.encoders.tensors import Shapes, Tensors, linear_shapes, norm_shapes


@dataclass(frozen=True, slots=True)
class BlockNames:
    """Of the modules of one block, within it."""

    qkv: str  # its last part stands for those of `parts`
    parts: tuple[str, str, str]
    o: str
    attention_norm: str
    up: str
    down: str
    mlp_norm: str


@dataclass(frozen=True, slots=True)
class ProjectionName:
    """The module from an embedding's size to the model's."""

    name: str
    bias: bool


@dataclass(frozen=True, slots=True)
class PostNormTrunk:
    """trunk.Trunk of BERT and its kin."""

    embeddings: EncoderEmbeddings
    blocks: tuple[PostNormBlock, ...]  # one may be there more than once

    @property
    def words(self) -> torch.Tensor:
        return self.embeddings.words

    def __call__(self, batch: EncoderBatch) -> torch.Tensor:
        x, same = self.embeddings(batch)
        for block in self.blocks:
            same = block(x, same, batch)
        return x


def layer_prefixes(config: EncoderConfig, stem: str) -> list[str]:
    return [f"{stem}.{layer}" for layer in range(config.num_layers)]


def trunk_shapes(
    config: EncoderConfig, names: BlockNames, prefixes: list[str], projection: ProjectionName | None = None
) -> Shapes:
    shapes = _embedding_shapes(config, projection)
    for prefix in prefixes:
        shapes |= _block_shapes(config, names, prefix)
    return shapes


def build_trunk(
    config: EncoderConfig,
    tensors: Tensors,
    names: BlockNames,
    prefixes: list[str],
    projection: ProjectionName | None = None,
    attend: Callable[[str], EncoderAttention] | None = None,
) -> PostNormTrunk:
    """One block a prefix. attend: its attention, by its prefix; None: plain."""
    if attend is None:
        attend = partial(_plain_attention, config, tensors, names)
    embeddings = _build_embeddings(config, tensors, projection)
    blocks = (_build_block(config, tensors, names, prefix, attend(prefix)) for prefix in prefixes)
    return PostNormTrunk(embeddings, tuple(blocks))


def _block_shapes(config: EncoderConfig, names: BlockNames, prefix: str) -> Shapes:
    hidden, inner = config.hidden_size, config.intermediate_size
    before = names.qkv.rpartition(".")[0]
    shapes: Shapes = {}
    for part in names.parts:
        shapes |= linear_shapes(f"{prefix}.{before}.{part}", hidden, hidden)
    shapes |= linear_shapes(f"{prefix}.{names.o}", hidden, hidden)
    shapes |= linear_shapes(f"{prefix}.{names.up}", inner, hidden)
    shapes |= linear_shapes(f"{prefix}.{names.down}", hidden, inner)
    return (
        shapes
        | norm_shapes(f"{prefix}.{names.attention_norm}", hidden)
        | norm_shapes(f"{prefix}.{names.mlp_norm}", hidden)
    )


def _build_block(
    config: EncoderConfig, tensors: Tensors, names: BlockNames, prefix: str, attention: EncoderAttention
) -> PostNormBlock:
    return PostNormBlock(
        attention=attention,
        attention_norm=tensors.norm(f"{prefix}.{names.attention_norm}", config.norm_eps),
        mlp=FeedForward(
            up=tensors.activated(f"{prefix}.{names.up}", config.hidden_act),
            down=tensors.linear(f"{prefix}.{names.down}"),
        ),
        mlp_norm=tensors.norm(f"{prefix}.{names.mlp_norm}", config.norm_eps),
    )


def _plain_attention(
    config: EncoderConfig, tensors: Tensors, names: BlockNames, prefix: str
) -> PlainAttention:
    return PlainAttention(
        qkv=tensors.linear(f"{prefix}.{names.qkv}"),
        o=tensors.linear(f"{prefix}.{names.o}"),
        heads=Heads(config.num_heads, config.num_heads, config.head_dim, config.head_dim**-0.5),
        ops=tensors.ops,
    )


def _embedding_shapes(config: EncoderConfig, projection: ProjectionName | None) -> Shapes:
    size = config.embedding_size
    rows = {
        "word": config.vocab_size,
        "position": config.num_positions,
        "token_type": config.num_types,
    }
    shapes: Shapes = {
        f"embeddings.{name}_embeddings.weight": (num, size) for name, num in rows.items() if num
    }
    shapes |= norm_shapes("embeddings.LayerNorm", size)
    if projection is not None:
        shapes |= linear_shapes(projection.name, config.hidden_size, size, projection.bias)
    return shapes


def _build_embeddings(
    config: EncoderConfig, tensors: Tensors, projection: ProjectionName | None
) -> EncoderEmbeddings:
    positions = types = None
    words = tensors.table("embeddings.word_embeddings")
    if config.num_positions:
        positions = tensors.table("embeddings.position_embeddings", torch.float32)[config.first_position :]
    if config.num_types:
        types = tensors.table("embeddings.token_type_embeddings", torch.float32)
    return EncoderEmbeddings(
        tables=Embedded(words, positions, types),
        norm=tensors.norm("embeddings.LayerNorm", config.norm_eps),
        projection=None if projection is None else tensors.linear(projection.name, projection.bias),
        stream=tensors.ops.stream_dtype(tensors.dtype),
    )
