"""Norms, rotation and cache writes, activation, embedding: each kernel against its plain twin; and the helpers those tests stand on."""

from collections.abc import Iterator

import pytest
import torch

from engine.batch import DeviceBatch
from engine.kernels.gpu.elementwise import embed, silu_mul
from engine.kernels.gpu.loaded import LoadedKernels
from engine.kernels.gpu.module import KernelLibrary
from engine.kernels.gpu.norm import add_rms_norm, rms_norm, rms_norm_gathered
from engine.kernels.gpu.rope import rope_and_cache
from engine.kernels.gpu.shape import AttentionShape
from engine.kernels.ops import Heads, LayerCache
from engine.kernels.reference import ReferenceOps
from tests.kernels.gpu.paged import (
    Span,
    cache_offsets,
    from_paged,
    live_batch,
    make_cache,
    make_paged_batch,
    make_qkv,
    move_batch,
    num_cache_blocks,
    random_spans,
    reference_attention,
    to_paged,
)

# One unit in the last place: float32 results that differ in theirs may round to either side.
ULP = {torch.bfloat16: 2**-7, torch.float16: 2**-10}
EPS = 1e-5
MAX_POSITIONS = 300
reference = ReferenceOps()

by_dtype = pytest.mark.parametrize("dtype", ULP, ids=["bf16", "fp16"])


@pytest.fixture(scope="module")
def kernels(kernel_library: KernelLibrary) -> LoadedKernels:
    return LoadedKernels(kernel_library)


@pytest.fixture(autouse=True)
def poisoned_outputs() -> Iterator[None]:
    """New tensors hold NaN until something is written."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def close(got: torch.Tensor, want: torch.Tensor, atol: float = 1e-6) -> None:
    """Equal to a unit in the last place, NaN where the other is."""
    torch.testing.assert_close(got.cpu(), want.cpu(), rtol=ULP[got.dtype], atol=atol, equal_nan=True)


def normal(generator: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=generator)


def num_tokens_of(device: torch.device) -> list[int]:
    """Fewer under emulation."""
    return [1, 3] if device.type == "cpu" else [1, 3, 257, 2048]


def test_new_tensors_are_poisoned(device: torch.device) -> None:
    assert torch.empty(9, device=device).isnan().all()
    assert torch.empty(9, device=device).new_empty(9, dtype=torch.bfloat16).isnan().all()


@by_dtype
@pytest.mark.parametrize("hidden", [64, 576, 2056, 4104])
def test_norms(
    kernels: LoadedKernels, device: torch.device, generator: torch.Generator, dtype: torch.dtype, hidden: int
) -> None:
    weight = normal(generator, hidden)
    for num_tokens in num_tokens_of(device):
        x = normal(generator, num_tokens, hidden) * 3
        delta = normal(generator, num_tokens, hidden).to(dtype)
        token_ids = torch.randint(0, num_tokens, (num_tokens // 2 + 1,), generator=generator).int()
        got, on_device = x.clone().to(device), weight.to(device)
        close(rms_norm(kernels, got, on_device, EPS, dtype), reference.rms_norm(x, weight, EPS, dtype))
        gathered = rms_norm_gathered(kernels, got, delta.to(device), token_ids.to(device), on_device, EPS)
        close(gathered, reference.last_norm(x, delta, token_ids, weight, EPS))
        assert torch.equal(got.cpu(), x)
        added = add_rms_norm(kernels, got, delta.to(device), on_device, EPS)
        close(added, reference.add_rms_norm(x, delta, weight, EPS))
        assert torch.equal(got.cpu(), x)


@by_dtype
@pytest.mark.parametrize("inner", [8, 520, 2056])
def test_silu_mul(
    kernels: LoadedKernels, device: torch.device, generator: torch.Generator, dtype: torch.dtype, inner: int
) -> None:
    for num_tokens in num_tokens_of(device):
        gate_up = (normal(generator, num_tokens, 2 * inner) * 30).to(dtype)
        gate_up[0, :3] = torch.tensor([-200.0, 0.0, 200.0])
        close(silu_mul(kernels, gate_up.to(device)), reference.silu_mul(gate_up))


@by_dtype
@pytest.mark.parametrize("hidden", [8, 576, 1032])
def test_embed(
    kernels: LoadedKernels, device: torch.device, generator: torch.Generator, dtype: torch.dtype, hidden: int
) -> None:
    weight = normal(generator, 50, hidden).to(dtype)
    for num_tokens in num_tokens_of(device):
        token_ids = torch.randint(0, 50, (num_tokens,), generator=generator).int()
        got = embed(kernels, weight.to(device), token_ids.to(device))
        assert torch.equal(got.cpu(), reference.embed(weight, token_ids))


SHAPES = [  # heads, KV heads, head size, block size
    (9, 3, 64, 16),
    (4, 1, 128, 32),
    (3, 3, 96, 48),
    (2, 1, 32, 16),
    (5, 1, 256, 16),
]


@by_dtype
@pytest.mark.parametrize("sizes", SHAPES)
@pytest.mark.parametrize("with_norms", [False, True], ids=["plain", "normed"])
def test_rope_and_cache(
    kernels: LoadedKernels,
    device: torch.device,
    generator: torch.Generator,
    dtype: torch.dtype,
    sizes: tuple[int, int, int, int],
    with_norms: bool,
) -> None:
    shape = AttentionShape(*sizes, dtype, 0, 1.0)
    rope = normal(generator, MAX_POSITIONS, shape.head_dim)
    weights = normal(generator, 2, shape.head_dim)
    norms = (weights[0], weights[1]) if with_norms else None
    rows, most = (4, 5) if device.type == "cpu" else (60, 90)
    spans = random_spans(rows, most, MAX_POSITIONS, generator) + [Span(1, MAX_POSITIONS)]
    batch = make_paged_batch(spans, shape, generator, pad_rows=2, pad_tokens=3)
    num_tokens = int(batch.counts[1])
    qkv = normal(generator, batch.num_tokens, shape.width).to(dtype)
    keys, values = poisoned_caches(batch, shape)
    want, got = qkv.clone(), qkv.to(device)
    plain = LayerCache(keys.transpose(2, 3).contiguous(), values.clone())
    heads = Heads(shape.num_heads, shape.num_kv_heads, shape.head_dim, 1.0)
    reference.rope_and_cache(want[:num_tokens], rope, live_batch(batch), plain, heads, norms, EPS)

    cache = LayerCache(to_paged(keys).to(device), to_paged(values).to(device))
    on_device = (weights[0].to(device), weights[1].to(device)) if with_norms else None
    rope_and_cache(kernels, got, rope.to(device), move_batch(batch, device), cache, shape, on_device, EPS)
    close(got, want, atol=2e-5)
    close(from_paged(cache.keys, shape.block_size), plain.keys.transpose(2, 3), atol=2e-5)
    got_values = from_paged(cache.values, shape.block_size).cpu()
    torch.testing.assert_close(got_values, plain.values, rtol=0, atol=0, equal_nan=True)


def poisoned_caches(batch: DeviceBatch, shape: AttentionShape) -> tuple[torch.Tensor, torch.Tensor]:
    """NaN [blocks, kv_heads, block_size, head_dim] keys and values."""
    sizes = (num_cache_blocks(batch), shape.num_kv_heads, shape.block_size, shape.head_dim)
    return torch.full(sizes, torch.nan, dtype=shape.element), torch.full(
        sizes, torch.nan, dtype=shape.element
    )


@pytest.mark.parametrize("sizes", SHAPES)
@pytest.mark.parametrize("window", [0, 9])
def test_paged_twin_is_the_plain_one(
    generator: torch.Generator, sizes: tuple[int, int, int, int], window: int
) -> None:
    shape = AttentionShape(*sizes, torch.bfloat16, window, 0.1)
    spans = random_spans(9, 20, 60, generator) + [Span(3, 60)]
    batch = make_paged_batch(spans, shape, generator, pad_rows=3, pad_tokens=5)
    cache, qkv = make_cache(batch, shape, generator), make_qkv(batch, shape, generator)
    num_tokens = int(batch.counts[1])
    got = reference_attention(qkv, batch, cache, shape)
    assert got[num_tokens:].isnan().all()

    keys, values = (from_paged(paged, shape.block_size) for paged in (cache.keys, cache.values))
    plain = LayerCache(keys.transpose(2, 3).contiguous(), values)
    heads = Heads(shape.num_heads, shape.num_kv_heads, shape.head_dim, shape.scale, window)
    close(reference.attention(qkv[:num_tokens], live_batch(batch), plain, heads), got[:num_tokens].bfloat16())


@pytest.mark.parametrize("head_dim", [32, 64, 96, 128, 256])
def test_a_cache_block_holds_every_element_once(head_dim: int) -> None:
    offsets = cache_offsets(32, head_dim)
    assert torch.equal(offsets.flatten().sort().values, torch.arange(32 * head_dim))
    chunks = offsets.view(32, -1, 8)
    assert torch.equal(chunks, chunks[..., :1] + torch.arange(8))  # 16 bytes stay together
