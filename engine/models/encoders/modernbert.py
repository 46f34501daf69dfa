"""ModernBERT (arXiv 2412.13663): norms before its halves, rotary positions, local and global layers, gated feed-forward."""

from dataclasses import dataclass

import torch

from engine.batch import EncoderBatch
from engine.checkpoint import EncoderConfig, Modern, Rope
from engine.kernels.encoder_ops import Embedded
from engine.kernels.ops import Heads
from engine.layers.encoder_attention import RotaryAttention
from engine.layers.encoder_block import PreNormBlock
from engine.layers.encoder_embeddings import EncoderEmbeddings
from engine.layers.encoder_mlp import GegluFeedForward
from engine.layers.encoder_norm import LayerNorm
from engine.layers.rope import rope_table
from engine.models.encoders.tensors import Shapes, Tensors, linear_shapes, norm_shapes
from engine.models.encoders.trunk import EncoderType, HeadShape


@dataclass(frozen=True, slots=True)
class PreNormTrunk:
    """trunk.Trunk of ModernBERT."""

    embeddings: EncoderEmbeddings
    blocks: tuple[PreNormBlock, ...]
    norm: LayerNorm

    @property
    def words(self) -> torch.Tensor:
        return self.embeddings.words

    def __call__(self, batch: EncoderBatch) -> torch.Tensor:
        x, _ = self.embeddings(batch)
        delta: torch.Tensor | None = None
        for block in self.blocks:
            delta = block(x, delta, batch)
        return self.norm(x if delta is None else x.add_(delta), torch.float32)


def _modern(config: EncoderConfig) -> Modern:
    assert config.modern is not None  # every ModernBERT has it
    return config.modern


def _shapes(config: EncoderConfig) -> Shapes:
    hidden, bias = config.hidden_size, _modern(config).norm_bias
    shapes: Shapes = {"embeddings.tok_embeddings.weight": (config.vocab_size, hidden)}
    shapes |= norm_shapes("embeddings.norm", hidden, bias) | norm_shapes("final_norm", hidden, bias)
    for layer in range(config.num_layers):
        shapes |= _block_shapes(config, layer)
    return shapes


def _block_shapes(config: EncoderConfig, layer: int) -> Shapes:
    modern, hidden, inner = _modern(config), config.hidden_size, config.intermediate_size
    shapes = linear_shapes(f"layers.{layer}.attn.Wqkv", 3 * hidden, hidden, modern.attention_bias)
    shapes |= linear_shapes(f"layers.{layer}.attn.Wo", hidden, hidden, modern.attention_bias)
    shapes |= linear_shapes(f"layers.{layer}.mlp.Wi", 2 * inner, hidden, modern.mlp_bias)
    shapes |= linear_shapes(f"layers.{layer}.mlp.Wo", hidden, inner, modern.mlp_bias)
    for name in ("mlp_norm",) if layer == 0 else ("attn_norm", "mlp_norm"):
        shapes |= norm_shapes(f"layers.{layer}.{name}", hidden, modern.norm_bias)
    return shapes


def _build(config: EncoderConfig, tensors: Tensors) -> PreNormTrunk:
    modern = _modern(config)
    ropes = {
        windowed: tensors.keep(
            rope_table(Rope(theta), config.head_dim, config.max_len).to(tensors.weights.device)
        )
        for windowed, theta in ((False, modern.theta), (True, modern.windowed_theta))
        if windowed in modern.windowed
    }
    embeddings = EncoderEmbeddings(
        tables=Embedded(tensors.table("embeddings.tok_embeddings"), positions=None, types=None),
        norm=_norm(config, tensors, "embeddings.norm"),
        projection=None,
        stream=torch.float32,  # sums grow from block to block
    )
    blocks = tuple(
        _block(config, tensors, layer, ropes[windowed]) for layer, windowed in enumerate(modern.windowed)
    )
    return PreNormTrunk(embeddings, blocks, _norm(config, tensors, "final_norm"))


def _block(config: EncoderConfig, tensors: Tensors, layer: int, rope: torch.Tensor) -> PreNormBlock:
    modern, prefix = _modern(config), f"layers.{layer}"
    return PreNormBlock(
        attention_norm=_norm(config, tensors, f"{prefix}.attn_norm") if layer else None,
        attention=RotaryAttention(
            qkv=tensors.linear(f"{prefix}.attn.Wqkv", modern.attention_bias),
            o=tensors.linear(f"{prefix}.attn.Wo", modern.attention_bias),
            heads=_heads(config, layer),
            rope=rope,
            ops=tensors.ops,
        ),
        mlp_norm=_norm(config, tensors, f"{prefix}.mlp_norm"),
        mlp=GegluFeedForward(
            gate_up=tensors.linear(f"{prefix}.mlp.Wi", modern.mlp_bias),
            down=tensors.linear(f"{prefix}.mlp.Wo", modern.mlp_bias),
            ops=tensors.ops,
        ),
        dtype=tensors.dtype,
    )


def _heads(config: EncoderConfig, layer: int) -> Heads:
    modern = _modern(config)
    window = modern.window if modern.windowed[layer] else 0
    return Heads(config.num_heads, config.num_heads, config.head_dim, config.head_dim**-0.5, window)


def _norm(config: EncoderConfig, tensors: Tensors, name: str) -> LayerNorm:
    return tensors.norm(name, config.norm_eps, _modern(config).norm_bias)


def _head(config: EncoderConfig) -> HeadShape:
    """One dense layer and norm before every kind of output."""
    modern, fills = _modern(config), config.task == "fill_mask"
    return HeadShape(
        "decoder" if fills else "classifier",
        dense="head.dense",
        act=config.head_act,
        norm="head.norm",
        dense_bias=modern.head_bias,
        norm_bias=modern.norm_bias,
        out_bias=modern.decoder_bias if fills else True,
        tied=fills and config.tie_embeddings,
    )


MODERNBERT = EncoderType(_shapes, _build, _head, prefix="model.", fused={}, unused=("qa_outputs",))
