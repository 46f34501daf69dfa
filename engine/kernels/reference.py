"""The operations in plain float32 torch: the judge of every kernel, and the way to compute where no compiler is at hand."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from engine.batch import Batch
from engine.kernels.ops import BlockWeights, Heads, LayerCache, Linear
from engine.quantised import Matrix, Quantised, as_dense


class ReferenceOps:
    """engine.kernels.ops.Ops, one torch expression after the other."""

    def takes_quantised(self, dtype: torch.dtype) -> bool:
        return False

    def linear(self, weight: Matrix, bias: torch.Tensor | None) -> Linear:
        dense = as_dense(weight)
        return lambda x: F.linear(x, dense, bias)

    def head(self, weight: Matrix) -> Linear:
        dense = as_dense(weight)
        return lambda x: F.linear(x, dense).float()

    def embed(self, weight: Matrix, token_ids: torch.Tensor) -> torch.Tensor:
        rows = weight.rows(token_ids) if isinstance(weight, Quantised) else weight.index_select(0, token_ids)
        return as_dense(rows).float()

    def rms_norm(self, x: torch.Tensor, weight: torch.Tensor, eps: float, dtype: torch.dtype) -> torch.Tensor:
        return _rms_norm(x, weight, eps).to(dtype)

    def add_rms_norm(
        self, x: torch.Tensor, delta: torch.Tensor, weight: torch.Tensor, eps: float
    ) -> torch.Tensor:
        x += delta.float()
        return _rms_norm(x, weight, eps).to(delta.dtype)

    def last_norm(
        self, x: torch.Tensor, delta: torch.Tensor, logit_ids: torch.Tensor, weight: torch.Tensor, eps: float
    ) -> torch.Tensor:
        wanted, last = (t.index_select(0, logit_ids) for t in (x, delta))
        return self.add_rms_norm(wanted, last, weight, eps)

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
        q, k, v = split_heads(qkv, heads)
        queries, keys = q.float(), k.float()
        if norms is not None:
            queries, keys = _rms_norm(queries, norms[0], eps), _rms_norm(keys, norms[1], eps)
        table = rope.index_select(0, batch.positions).unsqueeze(1)  # [tokens, 1, head_dim]
        q.copy_(rotate(queries, table))
        block_size = cache.values.shape[2]
        blocks, places = batch.cache_slots // block_size, batch.cache_slots % block_size
        cache.keys[blocks, :, :, places] = rotate(keys, table).to(cache.keys.dtype)
        cache.values[blocks, :, places] = v

    def attention(self, qkv: torch.Tensor, batch: Batch, cache: LayerCache, heads: Heads) -> torch.Tensor:
        q = split_heads(qkv, heads)[0].float()
        out = qkv.new_empty(q.shape)
        starts, contexts = batch.query_starts.tolist(), batch.context_lens.tolist()
        for row, context in enumerate(contexts):
            tokens = slice(starts[row], starts[row + 1])
            if tokens.start < tokens.stop:
                keys, values = _context(cache, batch.block_tables[row], context)
                out[tokens] = _attend(q[tokens], keys, values, heads).to(out.dtype)
        return out.flatten(1)

    def silu_mul(self, gate_up: torch.Tensor) -> torch.Tensor:
        gate, up = gate_up.float().chunk(2, dim=-1)
        return (F.silu(gate) * up).to(gate_up.dtype)

    def fuse(self, blocks: Sequence[BlockWeights], heads: Heads, eps: float) -> None:
        return None


def split_heads(qkv: torch.Tensor, heads: Heads) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Views of qkv: queries [tokens, heads, head_dim], keys and values [tokens, kv_heads, head_dim]."""
    packed = qkv.view(qkv.shape[0], heads.num_heads + 2 * heads.num_kv_heads, heads.head_dim)
    q, k, v = torch.split(packed, [heads.num_heads, heads.num_kv_heads, heads.num_kv_heads], dim=1)
    return q, k, v


def _rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight.float()


def rotate(x: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """x [tokens, heads, head_dim] by the angles whose cosines and sines are table [tokens, 1, head_dim]."""
    cos, sin = table.chunk(2, dim=-1)
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


def _context(cache: LayerCache, table: torch.Tensor, context: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The first `context` keys and values of a row, float32 [kv_heads, context, head_dim]."""
    num_blocks = -(-context // cache.values.shape[2])
    keys = cache.keys[table[:num_blocks]].permute(1, 0, 3, 2).flatten(1, 2)
    values = cache.values[table[:num_blocks]].transpose(0, 1).flatten(1, 2)
    return keys[:, :context].float(), values[:, :context].float()


def _attend(q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, heads: Heads) -> torch.Tensor:
    """q [tokens, heads, head_dim]: the last tokens of the context."""
    num_tokens, context = q.shape[0], keys.shape[1]
    ages = torch.arange(context - num_tokens, context).unsqueeze(1) - torch.arange(
        context
    )  # [tokens, context]
    seen = ages >= 0
    if heads.window:
        seen &= ages < heads.window
    group = heads.num_heads // heads.num_kv_heads
    scores = torch.einsum("thd,hcd->htc", q, keys.repeat_interleave(group, 0)) * heads.scale
    weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
    return torch.einsum("htc,hcd->thd", weights, values.repeat_interleave(group, 0))
