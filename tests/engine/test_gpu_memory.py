"""What lies on a GPU: sized by arithmetic, modest unless asked, and refused with the arithmetic."""

import time
from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.checkpoint import ModelConfig, Rope
from engine.config import EngineConfig, settle
from engine.models.llama import Llama
from engine.runner.gpu.memory import (
    MODEST_PERCENT,
    MODEST_TOKENS,
    GpuMemory,
    GpuMemoryTooSmall,
    MemoryPlan,
    fit_cache,
    make_gpu_caches,
    measure_taken,
    plan_memory,
)
from engine.runner.kv_cache import KvPlan, KvShape, KvTooSmall

GIB = 1 << 30
LLAMA_8B = ModelConfig(
    architecture="LlamaForCausalLM",
    family="llama",
    vocab_size=128256,
    hidden_size=4096,
    intermediate_size=14336,
    num_layers=32,
    num_heads=32,
    num_kv_heads=8,
    head_dim=128,
    norm_eps=1e-5,
    rope=Rope(500000.0),
    max_context=131072,
    tie_embeddings=False,
)
KV_BYTES = 2 * 32 * 8 * 128 * 2  # of a token
EMPTY_80 = GpuMemory(80 * GIB, 79 * GIB)


def plan(config: EngineConfig, memory: GpuMemory = EMPTY_80) -> MemoryPlan:
    return plan_memory(settle(config, "cuda"), LLAMA_8B, Llama.layout(LLAMA_8B), torch.bfloat16, memory)


def test_the_weights_are_what_the_model_has() -> None:
    assert plan(EngineConfig()).needs["weights"] == pytest.approx(8.03e9 * 2, rel=0.001)


def test_the_cache_is_modest_unless_asked() -> None:
    made = plan(EngineConfig())
    room = EMPTY_80.free - sum(made.needs.values())
    assert 0.95 * room * MODEST_PERCENT / 100 < made.kv_bytes <= room * MODEST_PERCENT / 100
    assert made.kv.max_model_len == LLAMA_8B.max_context
    few = plan(EngineConfig(max_requests=8))
    assert few.kv.num_tokens == 8 * MODEST_TOKENS
    assert few.kv.max_model_len == few.kv.num_tokens


def test_one_request_of_the_length_asked_for_always_fits() -> None:
    made = plan(EngineConfig(max_requests=1, max_model_len=100_001))
    assert made.kv.num_tokens == 100_016
    assert made.kv.max_model_len == 100_001


def test_what_is_asked_for_is_given() -> None:
    assert plan(EngineConfig(kv_tokens=160_000)).kv.num_tokens == 160_000
    assert plan(EngineConfig(kv_memory=10 * GIB)).kv_bytes == 10 * GIB
    assert plan(EngineConfig(kv_tokens=16_000, kv_memory=10 * GIB)).kv.num_tokens == 16_000


def test_a_gpu_filled_to_a_limit() -> None:
    """Others have a GiB of it already."""
    made = plan(EngineConfig(gpu_memory=72 * GIB))
    taken = sum(made.table.values()) + EMPTY_80.total - EMPTY_80.free
    assert 72 * GIB - 20 * GIB // 1024 < taken <= 72 * GIB
    assert plan(EngineConfig(gpu_memory=100 * GIB)).kv_bytes > made.kv_bytes


@pytest.mark.parametrize(
    ("config", "memory", "parts"),
    [
        (
            EngineConfig(),
            GpuMemory(16 * GIB, 15 * GIB),
            ["16.00 GiB, 15.00 GiB of it free", "weights 14.96 GiB"],
        ),
        (EngineConfig(kv_tokens=600_000), EMPTY_80, ["KV cache 73.24 GiB", "lower max_model_len"]),
        (
            EngineConfig(gpu_memory=20 * GIB, kv_memory=8 * GIB),
            EMPTY_80,
            ["gpu_memory = 20.00 GiB", "raise gpu_memory"],
        ),
        (EngineConfig(gpu_memory=GIB // 2), EMPTY_80, ["gpu_memory = 0.50 GiB"]),
    ],
)
def test_the_refusal_has_the_arithmetic(config: EngineConfig, memory: GpuMemory, parts: list[str]) -> None:
    with pytest.raises(GpuMemoryTooSmall) as caught:
        plan(config, memory)
    for part in parts:
        assert part in str(caught.value)


def test_a_cache_that_holds_no_request_is_refused() -> None:
    with pytest.raises(KvTooSmall, match="max_model_len = 4096"):
        plan(EngineConfig(kv_tokens=1024, max_model_len=4096))


@given(
    free=st.integers(0, 200 * GIB),
    used=st.integers(0, 20 * GIB),
    limit=st.integers(0, 200 * GIB),
    kv_tokens=st.sampled_from([0, 1 << 12, 1 << 17, 1 << 20]),
    kv_memory=st.sampled_from([0, 1 << 28, 1 << 33]),
    max_requests=st.sampled_from([0, 1, 100, 4096]),
    max_model_len=st.sampled_from([0, 100, 20_000]),
)
def test_a_plan_fits(
    free: int, used: int, limit: int, kv_tokens: int, kv_memory: int, max_requests: int, max_model_len: int
) -> None:
    config = EngineConfig(
        kv_tokens=kv_tokens,
        kv_memory=kv_memory,
        gpu_memory=limit,
        max_requests=max_requests,
        max_model_len=max_model_len,
    )
    memory = GpuMemory(free + used, free)
    try:
        made = plan(config, memory)
    except (GpuMemoryTooSmall, KvTooSmall):
        return
    taken = sum(made.table.values())
    assert taken <= free
    assert not limit or used + taken <= limit
    assert made.kv.num_tokens >= made.kv.max_model_len >= max(1, max_model_len)


def test_a_cache_shrinks_to_what_is_left_if_nobody_asked_for_its_size() -> None:
    config = settle(EngineConfig(max_model_len=4096), "cuda")
    made = plan(config)
    later = sum(made.later.values())
    assert 0 < later < GIB
    assert fit_cache(made, config, GpuMemory(80 * GIB, later + made.kv_bytes)) == made.kv
    smaller = fit_cache(made, config, GpuMemory(80 * GIB, later + made.kv_bytes - 1))
    assert smaller == replace(made.kv, num_blocks=made.kv.num_blocks - 1)
    least = later + 4096 * KV_BYTES
    assert fit_cache(made, config, GpuMemory(80 * GIB, least)).num_tokens == 4096
    with pytest.raises(GpuMemoryTooSmall, match=r"KV cache .* GiB = "):
        fit_cache(made, config, GpuMemory(80 * GIB, least - 1))
    asked = settle(EngineConfig(kv_tokens=8192), "cuda")
    with pytest.raises(GpuMemoryTooSmall):
        fit_cache(plan(asked), asked, GpuMemory(80 * GIB, later + 8192 * KV_BYTES - 1))


def test_caches_are_zero_and_of_the_kernels_layout() -> None:
    shape = KvShape(num_layers=3, num_kv_heads=2, head_dim=64, dtype=torch.float16)
    caches = make_gpu_caches(
        KvPlan(num_blocks=5, block_size=16, max_model_len=80), shape, torch.device("cpu")
    )
    assert len(caches) == 3
    for cache in caches:
        for tensor in (cache.keys, cache.values):
            assert tensor.shape == (5, 2, 16 * 64) and tensor.dtype == torch.float16
            assert not tensor.any()
    assert sum(c.keys.nbytes + c.values.nbytes for c in caches) == 80 * shape.bytes_per_token


@pytest.mark.gpu
def test_what_a_run_takes_is_measured() -> None:
    """Other processes may take or free memory in the middle of it: once must be undisturbed."""
    device, size = torch.device("cuda", 0), 1 << 28
    kept: list[torch.Tensor] = []
    found: list[int] = []
    while not found or not size <= found[-1] < size + (64 << 20):
        assert len(found) < 20, f"of {size} bytes {found} were seen"
        time.sleep(0.05 * len(found))
        kept.clear()
        torch.cuda.empty_cache()
        found.append(measure_taken(partial(_take, kept, size, device), device))


def _take(kept: list[torch.Tensor], size: int, device: torch.device) -> None:
    kept.append(torch.empty(size, dtype=torch.uint8, device=device))
