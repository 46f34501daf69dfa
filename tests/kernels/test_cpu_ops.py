"""The compiled CPU kernels against their plain twins, on random ragged batches over poisoned caches."""

import pytest
import torch

from engine.batch import Batch
from engine.kernels.cpu_ops import CpuOps
from engine.kernels.ops import BlockWeights, Heads, LayerCache, Linear
from engine.kernels.reference import ReferenceOps
from engine.layers.decoder import PlainBlocks
from tests.kernels.targets import find_targets_with_tiles, load_kernels

TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 2e-2}
BLOCK = 16
reference = ReferenceOps()


@pytest.fixture(scope="module", params=find_targets_with_tiles())
def ops(request: pytest.FixtureRequest) -> CpuOps:
    return CpuOps(load_kernels(request.param))


def close(got: torch.Tensor, want: torch.Tensor, dtype: torch.dtype) -> None:
    error = (got.float() - want.float()).norm() / want.float().norm()
    assert error < TOLERANCE[dtype], f"relative error {error:.2e}"


def ragged_batch(spans: list[tuple[int, int]], generator: torch.Generator) -> Batch:
    """Rows of (tokens this step, context after it), with blocks dealt out in random order."""
    widest = max(-(-context // BLOCK) for _, context in spans) + 1
    blocks = torch.randperm(len(spans) * widest, generator=generator).int()
    tables = blocks.view(len(spans), widest)
    positions = [torch.arange(context - n, context) for n, context in spans]
    slots = [tables[row][p // BLOCK] * BLOCK + p % BLOCK for row, p in enumerate(positions)]
    starts = torch.tensor([0] + [n for n, _ in spans]).cumsum(0)
    contexts = torch.tensor([context for _, context in spans])
    num_tokens = int(starts[-1])
    return Batch(
        token_ids=torch.zeros(num_tokens, dtype=torch.int32),
        positions=torch.cat(positions).int(),
        cache_slots=torch.cat(slots).int(),
        query_starts=starts.int(),
        context_lens=contexts.int(),
        block_tables=tables,
        logit_ids=(starts[1:] - 1).int(),
    )


def filled_cache(batch: Batch, heads: Heads, dtype: torch.dtype, generator: torch.Generator) -> LayerCache:
    """Random keys and values at the rows' contexts, NaN everywhere else: what must not be read."""
    num_blocks = batch.block_tables.numel()
    keys = torch.full((num_blocks, heads.num_kv_heads, heads.head_dim, BLOCK), torch.nan, dtype=dtype)
    values = torch.full((num_blocks, heads.num_kv_heads, BLOCK, heads.head_dim), torch.nan, dtype=dtype)
    for table, context in zip(batch.block_tables, batch.context_lens.tolist(), strict=True):
        for at in range(context):
            block = table[at // BLOCK]
            keys[block, :, :, at % BLOCK] = torch.randn(keys.shape[1:3], generator=generator).to(dtype)
            values[block, :, at % BLOCK] = torch.randn(keys.shape[1:3], generator=generator).to(dtype)
    return LayerCache(keys, values)


SPANS = [
    [(1, 1)],
    [(1, 200)],
    [(1, 129), (1, 128), (1, 17), (0, 40), (1, 16)],
    [(62, 62), (1, 33), (7, 300), (31, 31)],
    [(150, 150), (1, 5)],
]
GEOMETRY = [
    Heads(9, 3, 64, 0.125),
    Heads(4, 4, 96, 0.1),
    Heads(8, 1, 128, 0.09),
    Heads(14, 2, 64, 0.125, window=50),
    Heads(26, 1, 16, 0.25),
    Heads(2, 1, 256, 0.0625),
]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("heads", GEOMETRY)
@pytest.mark.parametrize("spans", SPANS)
def test_attention(ops: CpuOps, dtype: torch.dtype, heads: Heads, spans: list[tuple[int, int]]) -> None:
    generator = torch.Generator().manual_seed(len(spans))
    batch = ragged_batch(spans, generator)
    cache = filled_cache(batch, heads, dtype, generator)
    width = (heads.num_heads + 2 * heads.num_kv_heads) * heads.head_dim
    qkv = torch.randn(batch.num_tokens, width, generator=generator).to(dtype)
    close(ops.attention(qkv, batch, cache, heads), reference.attention(qkv, batch, cache, heads), dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("with_norms", [False, True])
def test_rope_and_cache(ops: CpuOps, dtype: torch.dtype, with_norms: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    heads = Heads(6, 2, 48, 0.1)
    batch = ragged_batch([(5, 5), (1, 37), (20, 70)], generator)
    qkv = torch.randn(batch.num_tokens, 10 * 48, generator=generator).to(dtype)
    rope = torch.randn(80, 48, generator=generator)
    norms = (
        (torch.randn(48, generator=generator), torch.randn(48, generator=generator)) if with_norms else None
    )
    caches = [
        LayerCache(torch.zeros(99, 2, 48, BLOCK, dtype=dtype), torch.zeros(99, 2, BLOCK, 48, dtype=dtype))
        for _ in range(2)
    ]
    got, want = qkv.clone(), qkv.clone()
    ops.rope_and_cache(got, rope, batch, caches[0], heads, norms, 1e-5)
    reference.rope_and_cache(want, rope, batch, caches[1], heads, norms, 1e-5)
    close(got[:, : 6 * 48], want[:, : 6 * 48], dtype)
    close(caches[0].keys, caches[1].keys, dtype)
    assert torch.equal(caches[0].values, caches[1].values)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("tokens", [1, 3, 40])
def test_norms_and_activation(ops: CpuOps, dtype: torch.dtype, tokens: int) -> None:
    generator = torch.Generator().manual_seed(tokens)
    x, weight = torch.randn(tokens, 576, generator=generator), torch.randn(576, generator=generator)
    delta = torch.randn(tokens, 576, generator=generator).to(dtype)
    close(ops.rms_norm(x, weight, 1e-5, dtype), reference.rms_norm(x, weight, 1e-5, dtype), dtype)
    summed, wanted = x.clone(), x.clone()
    close(
        ops.add_rms_norm(summed, delta, weight, 1e-5),
        reference.add_rms_norm(wanted, delta, weight, 1e-5),
        dtype,
    )
    assert torch.allclose(summed, wanted)
    gate_up = (torch.randn(tokens, 2 * 160, generator=generator) * 30).to(dtype)
    close(ops.silu_mul(gate_up), reference.silu_mul(gate_up), dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("tokens", [1, 2, 5, 12, 16, 17, 33, 64, 70, 128])
@pytest.mark.parametrize("shape", [(96, 64), (70, 33), (16, 160), (257, 576), (1100, 1536)])
def test_linear(ops: CpuOps, dtype: torch.dtype, tokens: int, shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(tokens)
    x = torch.randn(tokens, shape[1], generator=generator).to(dtype)
    weight, bias = (
        torch.randn(shape, generator=generator).to(dtype),
        torch.randn(shape[0], generator=generator).to(dtype),
    )
    for b in (None, bias):
        close(ops.linear(weight, b)(x), reference.linear(weight, b)(x), dtype)
    logits = ops.head(weight)(x)
    assert logits.dtype == torch.float32
    close(logits, reference.head(weight.float())(x.float()), torch.float32)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("has_norms", [False, True])
def test_fused_blocks_are_their_operations(ops: CpuOps, dtype: torch.dtype, has_norms: bool) -> None:
    """Bit for bit: the same kernels in the same order, over two steps of a batch."""
    heads, hidden, inner = Heads(6, 2, 32, 0.18), 64, 96
    generator = torch.Generator().manual_seed(11)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    def linear(outputs: int, inputs: int, bias: bool) -> Linear:
        return ops.linear(draw(outputs, inputs).to(dtype) / 8, draw(outputs).to(dtype) if bias else None)

    def block() -> BlockWeights:
        norms = (draw(32), draw(32)) if has_norms else None
        qkv, o = linear(320, hidden, not has_norms), linear(hidden, 192, has_norms)
        gate_up, down = linear(2 * inner, hidden, False), linear(hidden, inner, False)
        return BlockWeights(draw(hidden), qkv, norms, o, draw(hidden), gate_up, down, dtype)

    blocks = [block() for _ in range(3)]
    batch = ragged_batch([(5, 5), (1, 40), (0, 3), (18, 33)], generator)
    rope, x = torch.rand(64, 32, generator=generator), draw(batch.num_tokens, hidden)
    fused, plain = ops.fuse(blocks, heads, 1e-5), PlainBlocks(blocks, heads, 1e-5, ops)
    caches = [filled_cache(batch, heads, dtype, generator) for _ in blocks]
    other_caches = [LayerCache(cache.keys.clone(), cache.values.clone()) for cache in caches]
    for _ in range(2):
        x, other_x = x.clone(), x.clone()
        assert torch.equal(fused(x, rope, batch, caches), plain(other_x, rope, batch, other_caches))
        assert torch.equal(x, other_x)
