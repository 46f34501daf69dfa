"""The operations a model is built from. `reference` has them plain and slow, `cpu` compiled; a GPU's come beside them.

All write into the tensors they are given (`out`, the cache); shapes are in engine.batch's words. `dtype` is the model's
(bfloat16 or float32), the residual stream is always float32.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from engine.batch import Batch
from engine.quantised import Matrix


@dataclass(frozen=True, slots=True)
class LayerCache:
    """One layer's keys and values, paged."""

    keys: torch.Tensor  # dtype [blocks, kv_heads, head_dim, block_size], transposed so that one load takes one channel of a whole block
    values: torch.Tensor  # dtype [blocks, kv_heads, block_size, head_dim]


@dataclass(frozen=True, slots=True)
class Heads:
    """The geometry of one attention layer."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    scale: float
    window: int = 0  # a token sees at most this many tokens, itself included; 0: all before it


class Linear(Protocol):
    """y = x w^T + b with the weight laid out as the backend likes it."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor: ...


@dataclass(frozen=True, slots=True)
class BlockWeights:
    """One block of a decoder: attention, then a gated feed-forward layer (SwiGLU), each on the normed residual stream."""

    attention_norm: torch.Tensor  # float32 [hidden]
    qkv: Linear  # hidden -> (heads + 2 kv_heads) * head_dim
    norms: tuple[torch.Tensor, torch.Tensor] | None  # float32 [head_dim] of queries and of keys
    o: Linear  # heads * head_dim -> hidden
    mlp_norm: torch.Tensor  # float32 [hidden]
    gate_up: Linear  # hidden -> 2 * inner
    down: Linear  # inner -> hidden
    dtype: torch.dtype  # of the linears


class Blocks(Protocol):
    """The blocks of a decoder, one after the other."""

    def takes(self, batch: Batch) -> bool:
        """Whether they compute such a batch; the operations one by one compute any."""
        ...

    def __call__(
        self, x: torch.Tensor, rope: torch.Tensor, batch: Batch, caches: list[LayerCache]
    ) -> torch.Tensor:
        """Adds to x, float32 [tokens, hidden], in place; returns what the last block leaves to be added, dtype."""
        ...


class Ops(Protocol):
    """One backend."""

    def takes_quantised(self, dtype: torch.dtype) -> bool:
        """Whether weights that are quantised in their file are best left so to compute in dtype; where not, it widens them."""
        ...

    def linear(self, weight: Matrix, bias: torch.Tensor | None) -> Linear:
        """Pack a weight [out, in] for x [tokens, in] -> [tokens, out], in x's dtype. The weight may be freed afterwards."""
        ...

    def head(self, weight: Matrix) -> Linear:
        """Pack a weight [vocab, in] for x [tokens, in] -> logits, float32 [tokens, vocab]. The weight may be freed afterwards."""
        ...

    def embed(self, weight: Matrix, token_ids: torch.Tensor) -> torch.Tensor:
        """float32 [tokens, hidden]: the residual stream begins."""
        ...

    def rms_norm(self, x: torch.Tensor, weight: torch.Tensor, eps: float, dtype: torch.dtype) -> torch.Tensor:
        """x float32 [tokens, hidden], weight [hidden] -> dtype [tokens, hidden] (arXiv 1910.07467)."""
        ...

    def add_rms_norm(
        self, x: torch.Tensor, delta: torch.Tensor, weight: torch.Tensor, eps: float
    ) -> torch.Tensor:
        """x += delta in place, then rms_norm(x), in delta's dtype. x float32, delta dtype, both [tokens, hidden]."""
        ...

    def last_norm(
        self, x: torch.Tensor, delta: torch.Tensor, logit_ids: torch.Tensor, weight: torch.Tensor, eps: float
    ) -> torch.Tensor:
        """rms_norm(x + delta) of the tokens logit_ids [logits], in delta's dtype [logits, hidden]."""
        ...

    def rope_and_cache(
        self,
        qkv: torch.Tensor,
        rope: torch.Tensor,
        batch: Batch,
        cache: LayerCache,
        heads: Heads,
        norms: tuple[torch.Tensor, torch.Tensor] | None,
        eps: float,
    ) -> None:
        """Rotate the queries in place and write rotated keys, and values, into the cache.

        qkv dtype [tokens, (heads + 2 kv_heads) * head_dim]; rope float32 [positions, head_dim]: cosines, then sines, of the
        half-split form (RoFormer, arXiv 2104.09864, in GPT-NeoX's layout). norms: RMSNorm weights [head_dim] of each query and
        key head before the rotation (Qwen3).
        """
        ...

    def attention(self, qkv: torch.Tensor, batch: Batch, cache: LayerCache, heads: Heads) -> torch.Tensor:
        """Causal attention of the packed queries in qkv over their rows' cached context -> dtype [tokens, heads * head_dim]."""
        ...

    def silu_mul(self, gate_up: torch.Tensor) -> torch.Tensor:
        """dtype [tokens, 2 * inner] (gate, then up) -> silu(gate) * up [tokens, inner]."""
        ...

    def fuse(self, blocks: Sequence[BlockWeights], heads: Heads, eps: float) -> Blocks | None:
        """All blocks together, for the batches that they take; None where the backend has only the others."""
        ...
