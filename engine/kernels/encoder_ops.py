"""The operations an encoder is built from, beside those in `ops`. `reference` has them plain and slow, `cpu` compiled.

`dtype` is the model's; the residual stream x is [tokens, hidden] in float32 or in `stream_dtype(dtype)`, norm weights are float32.
An input's tokens see each other and nobody else's: nothing is padded.
"""

from dataclasses import dataclass
from typing import Protocol

import torch

from engine.batch import EncoderBatch
from engine.checkpoint import Pooling
from engine.kernels.ops import Heads, Linear


@dataclass(frozen=True, slots=True)
class Embedded:
    """The tables whose rows, added up, begin the stream."""

    words: torch.Tensor  # dtype [vocab, size]
    positions: torch.Tensor | None  # float32 [positions, size], the row of an input's first token first
    types: torch.Tensor | None  # float32 [types, size]; a single row is every token's


@dataclass(frozen=True, slots=True)
class Relative:
    """DeBERTa's positions of one layer (arXiv 2006.03654): projected embeddings of `2 * span` relative distances."""

    keys: (
        torch.Tensor | None
    )  # dtype [2 * span, heads * head_dim]: content to position; None: the model has none
    queries: torch.Tensor | None  # dtype [2 * span, heads * head_dim]: position to content
    places: torch.Tensor  # int32 [2 * max_distance - 1]: row of `keys` for query - key + max_distance - 1


class EncoderOps(Protocol):
    """One backend."""

    def stream_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """Of the stream of a model that norms what its blocks leave."""
        ...

    def linear(self, weight: torch.Tensor, bias: torch.Tensor | None) -> Linear:
        """As Ops.linear."""
        ...

    def head(self, weight: torch.Tensor, bias: torch.Tensor | None) -> Linear:
        """x float32 [rows, in] -> logits, float32 [rows, vocab]. weight dtype [vocab, in], bias float32.

        The weight is also the table of words, and stays; on a GPU it may get its values after this call.
        """
        ...

    def linear_gelu(self, weight: torch.Tensor, bias: torch.Tensor | None, tanh: bool) -> Linear:
        """gelu(linear(x)), exact or with the tanh approximation (arXiv 1606.08415)."""
        ...

    def embed(
        self,
        tables: Embedded,
        batch: EncoderBatch,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        eps: float,
        dtype: torch.dtype,
    ) -> torch.Tensor:
        """layer_norm of the sum of each token's rows, [tokens, size] in dtype."""
        ...

    def layer_norm(
        self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, eps: float, dtype: torch.dtype
    ) -> torch.Tensor:
        """x float32 -> its layer norm in dtype (arXiv 1607.06450); x stays."""
        ...

    def add_layer_norm(
        self,
        x: torch.Tensor,
        delta: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        eps: float,
    ) -> torch.Tensor:
        """x float32 += delta in place, then layer_norm(x), in delta's dtype: a block that norms before it computes."""
        ...

    def post_layer_norm(
        self,
        x: torch.Tensor,
        delta: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        eps: float,
    ) -> torch.Tensor:
        """x becomes layer_norm(x + delta) in place; returns it in delta's dtype: a block that norms what it leaves.

        x and the result may be one tensor.
        """
        ...

    def rope(self, qkv: torch.Tensor, rope: torch.Tensor, batch: EncoderBatch, heads: Heads) -> None:
        """Rotate queries and keys in place by batch.positions. qkv and rope as in Ops.rope_and_cache."""
        ...

    def encoder_attention(self, qkv: torch.Tensor, batch: EncoderBatch, heads: Heads) -> torch.Tensor:
        """Each token over its whole input: qkv dtype [tokens, 3 * heads * head_dim] -> dtype [tokens, heads * head_dim].

        With heads.window = w a token sees those at most w // 2 tokens away, on both sides.
        """
        ...

    def disentangled_attention(
        self, qkv: torch.Tensor, relative: Relative, batch: EncoderBatch, heads: Heads
    ) -> torch.Tensor:
        """encoder_attention whose score of query i and key j is heads.scale times

        q_i . k_j + q_i . relative.keys[place(i - j)] + relative.queries[place(i - j)] . k_j,

        by head, place(d) = relative.places[d + max_distance - 1].
        """
        ...

    def gelu_mul(self, gate_up: torch.Tensor) -> torch.Tensor:
        """dtype [tokens, 2 * inner] (gate, then up) -> gelu(gate) * up [tokens, inner], exact gelu."""
        ...

    def pool(self, x: torch.Tensor, batch: EncoderBatch, kind: Pooling) -> torch.Tensor:
        """One vector an input of its tokens' vectors: x float32 or dtype [tokens, hidden] -> float32 [inputs, hidden]."""
        ...

    def normalize(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [vectors, size], each divided by its length, perhaps in place."""
        ...
