"""The GPU's operations together: products, attention of any mix of rows, and a whole small model."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from engine.batch import DeviceBatch
from engine.checkpoint import Checkpoint, open_checkpoint
from engine.kernels.gpu.decode_tiles import DecodeTiles
from engine.kernels.gpu.module import KernelLibrary
from engine.kernels.gpu.ops import GpuOps
from engine.kernels.gpu.prompt_attention import prompt_tile
from engine.kernels.gpu.shape import AttentionShape, attention_shape
from engine.kernels.ops import Heads, LayerCache
from engine.kernels.reference import ReferenceOps
from engine.models.load import load_model
from engine.models.model import Model
from tests.kernels.gpu.paged import (
    Span,
    find_tiles,
    live_batch,
    make_cache,
    make_paged_batch,
    make_qkv,
    move_batch,
    num_cache_blocks,
    random_spans,
    reference_attention,
)

BLOCK_SIZE = 16
TOLERANCE = {torch.bfloat16: 2e-2, torch.float16: 3e-3}
FAMILIES: dict[str, type[Any]] = {"llama": transformers.LlamaConfig, "qwen3": transformers.Qwen3Config}
SMALL: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 96,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": 128,
}

by_dtype = pytest.mark.parametrize("dtype", TOLERANCE, ids=["bf16", "fp16"])


@pytest.fixture(scope="module", params=[False, True], ids=["balanced", "deterministic"])
def deterministic(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(scope="module")
def ops(kernel_library: KernelLibrary, deterministic: bool) -> GpuOps:
    return GpuOps(kernel_library, BLOCK_SIZE, deterministic, max_rows=16)


def check_error(got: torch.Tensor, want: torch.Tensor, limit: float) -> None:
    error = (got.cpu().float() - want.cpu().float()).norm() / want.cpu().float().norm()
    assert error < limit, f"relative error {error:.2e}"


@by_dtype
def test_products(ops: GpuOps, device: torch.device, generator: torch.Generator, dtype: torch.dtype) -> None:
    x, weight = (torch.randn(n, 64, generator=generator).to(device, dtype) for n in (5, 40))
    bias = torch.randn(40, generator=generator).to(device, dtype)
    product = x.double() @ weight.double().t()
    check_error(ops.linear(weight, None)(x), product, TOLERANCE[dtype])
    check_error(ops.linear(weight, bias)(x), product + bias, TOLERANCE[dtype])
    logits = ops.head(weight)(x)
    assert logits.dtype == torch.float32
    check_error(logits, product, 1e-5)  # the products of 16-bit numbers, not rounded again


@by_dtype
@pytest.mark.parametrize("window", [0, 20])
def test_attention(
    ops: GpuOps,
    kernel_library: KernelLibrary,
    deterministic: bool,
    generator: torch.Generator,
    dtype: torch.dtype,
    window: int,
) -> None:
    shape = AttentionShape(6, 2, 64, BLOCK_SIZE, dtype, window, 0.125)
    spans = random_spans(6, 30, 100, generator) + [Span(1, 77), Span(0, 9), Span(33, 60)]
    tile = prompt_tile(shape)
    mixed = make_paged_batch(spans, shape, generator, prompt_tile=tile, pad_rows=2, pad_tokens=11)
    tiles = DecodeTiles(kernel_library, shape, deterministic)
    check_attention(ops, tiles, mixed, shape, generator)
    spans = [Span(1, int(n)) for n in torch.randint(1, 200, (5,), generator=generator)]
    decoding = make_paged_batch(spans, shape, generator, pad_rows=3, pad_tokens=3)
    assert decoding.num_tokens == decoding.num_rows
    check_attention(ops, tiles, decoding, shape, generator)


def check_attention(
    ops: GpuOps,
    tiles: DecodeTiles,
    batch: DeviceBatch,
    shape: AttentionShape,
    generator: torch.Generator,
) -> None:
    device = tiles.found.device
    qkv, cache = make_qkv(batch, shape, generator), make_cache(batch, shape, generator)
    num_tokens = int(batch.counts[1])
    want = reference_attention(qkv, batch, cache, shape)[:num_tokens]
    heads = Heads(shape.num_heads, shape.num_kv_heads, shape.head_dim, shape.scale, shape.window)
    on_device = LayerCache(cache.keys.to(device), cache.values.to(device))
    found = find_tiles(move_batch(batch, device), tiles)
    got = ops.attention(qkv.to(device), found, on_device, heads)
    check_error(got[:num_tokens], want, TOLERANCE[shape.element])


@by_dtype
@pytest.mark.parametrize("family", FAMILIES)
@torch.inference_mode()
def test_model(
    ops: GpuOps,
    kernel_library: KernelLibrary,
    deterministic: bool,
    device: torch.device,
    generator: torch.Generator,
    dtype: torch.dtype,
    family: str,
    tmp_path: Path,
) -> None:
    checkpoint = save_model(family, tmp_path)
    model = load_model(checkpoint, ops, dtype, 128, device=device)
    twin = load_model(checkpoint, ReferenceOps(), torch.float32, 128)
    shape = attention_shape(model.heads, BLOCK_SIZE, dtype)
    spans = [Span(n, n) for n in (1, 13, 1, 40, 2)]
    batch = make_paged_batch(
        spans, shape, generator, prompt_tile=prompt_tile(shape), pad_rows=3, pad_tokens=7
    )
    found = find_tiles(move_batch(batch, device), DecodeTiles(kernel_library, shape, deterministic))
    got = model.logits(model(found, make_caches(model, batch, shape, device)))
    want = twin.logits(twin(live_batch(batch), make_plain_caches(twin, batch, shape)))
    check_error(got[: len(spans)], want, 2 * TOLERANCE[dtype])


def save_model(family: str, folder: Path) -> Checkpoint:
    """A random model with all its vectors random too, in float32."""
    model = transformers.AutoModelForCausalLM.from_config(FAMILIES[family](**SMALL)).float()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            parameter.normal_(1.0 if "norm" in key else 0.0, 0.15)
    model.save_pretrained(folder)
    return open_checkpoint(str(folder))


def make_caches(
    model: Model, batch: DeviceBatch, shape: AttentionShape, device: torch.device
) -> list[LayerCache]:
    """NaN, as the GPU has them."""
    sizes = num_cache_blocks(batch), shape.num_kv_heads, BLOCK_SIZE * shape.head_dim
    poison = torch.full(sizes, torch.nan, dtype=shape.element, device=device)
    return [LayerCache(poison.clone(), poison.clone()) for _ in range(model.config.num_layers)]


def make_plain_caches(model: Model, batch: DeviceBatch, shape: AttentionShape) -> list[LayerCache]:
    """NaN, as the reference has them."""
    poison = torch.full((num_cache_blocks(batch), shape.num_kv_heads, BLOCK_SIZE, shape.head_dim), torch.nan)
    return [
        LayerCache(poison.transpose(2, 3).contiguous(), poison.clone())
        for _ in range(model.config.num_layers)
    ]
