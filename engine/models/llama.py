"""The Llama family of decoders.

Llama (arXiv 2302.13971), Mistral (2310.06825), Qwen2 (2407.10671) and Qwen3 (2505.09388).
"""

import torch

from engine.batch import Batch
from engine.checkpoint import ModelConfig
from engine.kernels.ops import BlockWeights, Heads, LayerCache, Linear, Ops
from engine.layers.decoder import PlainBlocks
from engine.layers.rope import rope_table
from engine.weights import Layout, Shape, Weights

FUSED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}


class Llama:
    """The decoder. The residual stream is float32; the layers compute in the dtype of the weights."""

    def __init__(self, config: ModelConfig, weights: Weights, ops: Ops, max_positions: int) -> None:
        """Takes every tensor of `layout(config)` out of weights."""
        self.config, self.dtype, self.ops, self.heads = config, weights.dtype, ops, _heads(config)
        self.embedding = weights.take_matrix("model.embed_tokens.weight")
        blocks = [_block(config, weights, ops, layer) for layer in range(config.num_layers)]
        self.fused = ops.fuse(blocks, self.heads, config.norm_eps)
        self.plain = PlainBlocks(blocks, self.heads, config.norm_eps, ops)
        self.norm = weights.take("model.norm.weight", torch.float32)
        head = self.embedding if config.tie_embeddings else weights.take_matrix("lm_head.weight")
        self.head = ops.head(head)
        # On a CPU a tied head is packed beside the embedding.
        is_packed = config.tie_embeddings and weights.device.type == "cpu"
        self.num_bytes = weights.num_bytes + (head.nbytes if is_packed else 0)
        self.rope = rope_table(config.rope, config.head_dim, max_positions).to(weights.device)

    @staticmethod
    def layout(config: ModelConfig) -> Layout:
        """The tensors of a checkpoint of this family."""
        shapes: dict[str, Shape] = {"model.embed_tokens.weight": (config.vocab_size, config.hidden_size)}
        for layer in range(config.num_layers):
            shapes |= {f"model.layers.{layer}.{name}": shape for name, shape in _block_shapes(config).items()}
        shapes["model.norm.weight"] = (config.hidden_size,)
        if config.tie_embeddings:
            return Layout(shapes, FUSED, ignored=("lm_head.weight",))
        return Layout(shapes | {"lm_head.weight": (config.vocab_size, config.hidden_size)}, FUSED)

    def __call__(self, batch: Batch, caches: list[LayerCache]) -> torch.Tensor:
        """Compute every token, writing its keys and values -> dtype [logits, hidden] of logit_ids' tokens."""
        x = self.ops.embed(self.embedding, batch.token_ids)
        blocks = self.fused if self.fused is not None and self.fused.takes(batch) else self.plain
        delta = blocks(x, self.rope, batch, caches)
        return self.ops.last_norm(x, delta, batch.logit_ids, self.norm, self.config.norm_eps)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """dtype [n, hidden] -> float32 [n, vocab]."""
        return self.head(hidden)


def _heads(config: ModelConfig) -> Heads:
    scale = config.head_dim**-0.5
    return Heads(config.num_heads, config.num_kv_heads, config.head_dim, scale, config.sliding_window)


def _block(config: ModelConfig, weights: Weights, ops: Ops, layer: int) -> BlockWeights:
    prefix = f"model.layers.{layer}"
    attention = f"{prefix}.self_attn"
    return BlockWeights(
        attention_norm=weights.take(f"{prefix}.input_layernorm.weight", torch.float32),
        qkv=_linear(weights, ops, f"{attention}.qkv_proj", config.qkv_bias),
        norms=_head_norms(weights, attention) if config.qk_norm else None,
        o=_linear(weights, ops, f"{attention}.o_proj", config.o_bias),
        mlp_norm=weights.take(f"{prefix}.post_attention_layernorm.weight", torch.float32),
        gate_up=_linear(weights, ops, f"{prefix}.mlp.gate_up_proj", config.mlp_bias),
        down=_linear(weights, ops, f"{prefix}.mlp.down_proj", config.mlp_bias),
        dtype=weights.dtype,
    )


def _head_norms(weights: Weights, prefix: str) -> tuple[torch.Tensor, torch.Tensor]:
    query_norm = weights.take(f"{prefix}.q_norm.weight", torch.float32)
    return query_norm, weights.take(f"{prefix}.k_norm.weight", torch.float32)


def _linear(weights: Weights, ops: Ops, name: str, bias: bool) -> Linear:
    return ops.linear(weights.take_matrix(f"{name}.weight"), weights.take(f"{name}.bias") if bias else None)


def _block_shapes(config: ModelConfig) -> dict[str, Shape]:
    """The tensors of one block."""
    hidden, inner = config.hidden_size, config.intermediate_size
    queries, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    projections = {
        "self_attn.q_proj": (queries, hidden, config.qkv_bias),
        "self_attn.k_proj": (keys, hidden, config.qkv_bias),
        "self_attn.v_proj": (keys, hidden, config.qkv_bias),
        "self_attn.o_proj": (hidden, queries, config.o_bias),
        "mlp.gate_proj": (inner, hidden, config.mlp_bias),
        "mlp.up_proj": (inner, hidden, config.mlp_bias),
        "mlp.down_proj": (hidden, inner, config.mlp_bias),
    }
    shapes: dict[str, Shape] = {f"{name}.weight": (out, size) for name, (out, size, _) in projections.items()}
    shapes |= {f"{name}.bias": (out,) for name, (out, _, bias) in projections.items() if bias}
    shapes |= {f"{name}.weight": (hidden,) for name in ("input_layernorm", "post_attention_layernorm")}
    if config.qk_norm:
        shapes |= {f"self_attn.{name}.weight": (config.head_dim,) for name in ("q_norm", "k_norm")}
    return shapes
