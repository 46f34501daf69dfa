"""An encoder's operations in plain float32 torch: the judge of every kernel, and the way to compute where no compiler is at hand."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F

from engine.batch import EncoderBatch
from engine.checkpoint import Pooling
from engine.kernels.encoder_gather import pool_tokens, sum_rows
from engine.kernels.encoder_ops import Embedded, Relative
from engine.kernels.ops import Heads, Linear
from engine.kernels.reference import rotate, split_heads


class ReferenceEncoderOps:
    """engine.kernels.encoder_ops.EncoderOps, one torch expression after the other, attention an input at a time."""

    def stream_dtype(self, dtype: torch.dtype) -> torch.dtype:
        return torch.float32

    def linear(self, weight: torch.Tensor, bias: torch.Tensor | None) -> Linear:
        return lambda x: F.linear(x, weight, bias)

    def head(self, weight: torch.Tensor, bias: torch.Tensor | None) -> Linear:
        return self.linear(weight.float(), bias)

    def linear_gelu(self, weight: torch.Tensor, bias: torch.Tensor | None, tanh: bool) -> Linear:
        form = "tanh" if tanh else "none"
        return lambda x: F.gelu(F.linear(x, weight, bias).float(), approximate=form).to(x.dtype)

    def embed(
        self,
        tables: Embedded,
        batch: EncoderBatch,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        eps: float,
        dtype: torch.dtype,
    ) -> torch.Tensor:
        return self.layer_norm(sum_rows(tables, batch), weight, bias, eps, dtype)

    def layer_norm(
        self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, eps: float, dtype: torch.dtype
    ) -> torch.Tensor:
        return F.layer_norm(x, weight.shape, weight, bias, eps).to(dtype)

    def add_layer_norm(
        self,
        x: torch.Tensor,
        delta: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        eps: float,
    ) -> torch.Tensor:
        x += delta.float()
        return self.layer_norm(x, weight, bias, eps, delta.dtype)

    def post_layer_norm(
        self,
        x: torch.Tensor,
        delta: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        eps: float,
    ) -> torch.Tensor:
        x.copy_(F.layer_norm(x + delta.float(), weight.shape, weight, bias, eps))
        return x.to(delta.dtype, copy=True)

    def rope(self, qkv: torch.Tensor, rope: torch.Tensor, batch: EncoderBatch, heads: Heads) -> None:
        table = rope.index_select(0, batch.positions).unsqueeze(1)  # [tokens, 1, head_dim]
        for part in split_heads(qkv, heads)[:2]:
            part.copy_(rotate(part.float(), table))

    def encoder_attention(self, qkv: torch.Tensor, batch: EncoderBatch, heads: Heads) -> torch.Tensor:
        out = qkv.new_empty(qkv.shape[0], heads.num_heads * heads.head_dim)
        for tokens in _inputs(batch):
            q, k, v = _heads_first(qkv[tokens], heads)
            out[tokens] = _attend(q @ k.mT, v, heads).to(out.dtype)
        return out

    def disentangled_attention(
        self, qkv: torch.Tensor, relative: Relative, batch: EncoderBatch, heads: Heads
    ) -> torch.Tensor:
        out = qkv.new_empty(qkv.shape[0], heads.num_heads * heads.head_dim)
        for tokens in _inputs(batch):
            q, k, v = _heads_first(qkv[tokens], heads)
            scores = q @ k.mT + _relative_scores(q, k, relative, heads)
            out[tokens] = _attend(scores, v, heads).to(out.dtype)
        return out

    def gelu_mul(self, gate_up: torch.Tensor) -> torch.Tensor:
        gate, up = gate_up.float().chunk(2, dim=-1)
        return (F.gelu(gate) * up).to(gate_up.dtype)

    def pool(self, x: torch.Tensor, batch: EncoderBatch, kind: Pooling) -> torch.Tensor:
        return pool_tokens(x, batch, kind)

    def normalize(self, x: torch.Tensor) -> torch.Tensor:
        return F.normalize(x, dim=-1)


def _inputs(batch: EncoderBatch) -> Iterator[slice]:
    starts = batch.starts.tolist()
    return (slice(start, stop) for start, stop in zip(starts, starts[1:], strict=False) if start < stop)


def _heads_first(qkv: torch.Tensor, heads: Heads) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries, keys and values of one input, float32 [heads, tokens, head_dim]."""
    q, k, v = split_heads(qkv, heads)
    return q.float().transpose(0, 1), k.float().transpose(0, 1), v.float().transpose(0, 1)


def _relative_scores(q: torch.Tensor, k: torch.Tensor, relative: Relative, heads: Heads) -> torch.Tensor:
    """What the distances add to q . k, [heads, tokens, tokens]."""
    num_heads, num_tokens, _ = q.shape
    tokens = torch.arange(num_tokens)
    middle = relative.places.shape[0] // 2  # distance 0
    places = relative.places[tokens.unsqueeze(1) - tokens + middle].long().expand(num_heads, -1, -1)
    scores = q.new_zeros(num_heads, num_tokens, num_tokens)
    if relative.keys is not None:
        scores += (q @ _table(relative.keys, heads).mT).gather(2, places)
    if relative.queries is not None:
        scores += (_table(relative.queries, heads) @ k.mT).gather(1, places)
    return scores


def _table(rows: torch.Tensor, heads: Heads) -> torch.Tensor:
    """[2 * span, heads * head_dim] as float32 [heads, 2 * span, head_dim]."""
    return rows.float().view(-1, heads.num_heads, heads.head_dim).transpose(0, 1)


def _attend(scores: torch.Tensor, v: torch.Tensor, heads: Heads) -> torch.Tensor:
    """scores [heads, tokens, tokens] before scaling, v [heads, tokens, head_dim] -> [tokens, heads * head_dim]."""
    scores = scores * heads.scale
    if heads.window:
        tokens = torch.arange(scores.shape[-1])
        far = (tokens.unsqueeze(1) - tokens).abs() > heads.window // 2
        scores = scores.masked_fill(far, -torch.inf)
    return (scores.softmax(-1) @ v).transpose(0, 1).flatten(1)
