"""The memory of a GPU: what each purpose takes, by arithmetic before anything is allocated, and what is left for keys and values."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from engine.checkpoint import ModelConfig
from engine.columns import FLOAT_COLUMNS, INT_COLUMNS
from engine.config import EngineConfig
from engine.kernels.gpu.slabs import SLAB_TOKENS
from engine.kernels.ops import LayerCache
from engine.request import MAX_STOP_IDS
from engine.runner.kv_cache import KvPlan, KvShape, plan_kv
from engine.weights import Layout

WORD = 4  # bytes of an int32 or a float32
MODEST_PERCENT = 30  # of what the weights leave: the KV cache takes no more unasked
MODEST_TOKENS = 4096  # a request, likewise
SAMPLER_BYTES = 64 << 10  # a row: what sampling keeps between its launches
ADVICE = "max_model_len, max_requests, max_batch_tokens, kv_tokens or kv_memory"
RUNTIME_BYTES = 768 << 20  # kernels, cuBLAS's workspaces, the captured graphs themselves


class GpuMemoryTooSmall(ValueError):
    """What is to lie on the GPU is more than there is room for."""


@dataclass(frozen=True, slots=True)
class GpuMemory:
    """Bytes of one device."""

    total: int
    free: int

    def usable(self, limit: int) -> int:
        """What may still be allocated, by a limit on all that is in use, others' too; 0 is no limit."""
        return min(self.free, limit - (self.total - self.free)) if limit else self.free


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """What was settled on, in bytes by purpose."""

    kv: KvPlan
    shape: KvShape
    needs: dict[str, int]  # of all but the KV cache

    @property
    def kv_bytes(self) -> int:
        return self.kv.num_tokens * self.shape.bytes_per_token

    @property
    def table(self) -> dict[str, int]:
        return self.needs | {"KV cache": self.kv_bytes}

    @property
    def later(self) -> dict[str, int]:
        """What is allocated only while requests are served: the captured steps' half, and what they ask for."""
        vocab = "penalties and biases"
        return {"captured steps": self.needs["steps"] // 2, vocab: self.needs[vocab]}


def read_memory(device: torch.device) -> GpuMemory:
    free, total = torch.cuda.mem_get_info(device)
    return GpuMemory(total, free)


def plan_memory(
    config: EngineConfig, model: ModelConfig, layout: Layout, dtype: torch.dtype, memory: GpuMemory
) -> MemoryPlan:
    """For a settled configuration, before anything is allocated. `layout` is of the model's weights.

    The KV cache has kv_tokens or kv_memory if they are given, what is left under gpu_memory if that is, else a modest share.
    Raises KvTooSmall, and GpuMemoryTooSmall with the arithmetic in it.
    """
    shape = KvShape(model.num_layers, model.num_kv_heads, model.head_dim, dtype)
    needs = count_needs(config, model, layout, dtype, config.max_model_len or model.max_context)
    room = memory.usable(config.gpu_memory) - sum(needs.values())
    wanted = _kv_bytes(config, shape, room)
    if wanted > room or room <= 0:
        raise GpuMemoryTooSmall(explain(needs | {"KV cache": max(wanted, 0)}, config, memory, ADVICE))
    kv = plan_kv(replace(config, kv_memory=wanted), shape, model.max_context)
    return MemoryPlan(kv, shape, count_needs(config, model, layout, dtype, kv.max_model_len))


def fit_cache(plan: MemoryPlan, config: EngineConfig, memory: GpuMemory) -> KvPlan:
    """The cache that fits, read when all but it is allocated and the largest step was tried: the arithmetic may have missed something.

    Smaller than planned only where its size was not asked for. Raises GpuMemoryTooSmall.
    """
    room = memory.usable(config.gpu_memory) - sum(plan.later.values())
    if plan.kv_bytes <= room:
        return plan.kv
    num_blocks = max(0, room) // (plan.kv.block_size * plan.shape.bytes_per_token)
    is_asked = bool(config.kv_tokens or config.kv_memory)
    if is_asked or num_blocks * plan.kv.block_size < plan.kv.max_model_len:
        raise GpuMemoryTooSmall(explain(plan.later | {"KV cache": plan.kv_bytes}, config, memory, ADVICE))
    return replace(plan.kv, num_blocks=num_blocks)


def measure_taken(run: Callable[[], None], device: torch.device) -> int:
    """Bytes of the device that are no longer free once `run` has run: its workspace, and what libraries kept for themselves."""
    torch.cuda.synchronize(device)
    before = read_memory(device).free
    run()
    torch.cuda.synchronize(device)
    return before - read_memory(device).free


def make_gpu_caches(plan: KvPlan, shape: KvShape, device: torch.device) -> list[LayerCache]:
    """One LayerCache a layer; both tensors dtype [blocks, kv_heads, block_size * head_dim], in the order of cuda/include/cache.cuh."""
    size = plan.num_blocks, shape.num_kv_heads, plan.block_size * shape.head_dim
    return [
        LayerCache(*(torch.zeros(size, dtype=shape.dtype, device=device) for _ in range(2)))
        for _ in range(shape.num_layers)
    ]


def count_needs(
    config: EngineConfig, model: ModelConfig, layout: Layout, dtype: torch.dtype, max_model_len: int
) -> dict[str, int]:
    """Bytes by purpose, of all but the KV cache."""
    return {
        "weights": weight_bytes(layout, dtype),
        "rotary table": max_model_len * model.head_dim * WORD,
        "rows": config.max_requests * (_row_bytes(config, max_model_len) + SAMPLER_BYTES),
        # Counts and added logits, doubled as more requests ask for them: the last doubling has old and new side by side.
        "penalties and biases": 3 * config.max_requests * model.vocab_size * WORD,
        # Twice: a captured graph's own, and that of steps which are not captured.
        "steps": 2 * _step_bytes(config, model, dtype),
        "kernels and libraries": RUNTIME_BYTES,
    }


def weight_bytes(layout: Layout, dtype: torch.dtype) -> int:
    """Vectors are counted as float32, as norms are kept."""
    return sum(
        math.prod(shape) * (dtype.itemsize if len(shape) > 1 else WORD) for shape in layout.shapes.values()
    )


def _row_bytes(config: EngineConfig, max_model_len: int) -> int:
    """Columns, the 64-bit seed, the token ids, the block table, and two words by slot."""
    num_columns = len(INT_COLUMNS) + len(FLOAT_COLUMNS) + 2 + MAX_STOP_IDS
    num_blocks = -(-max_model_len // config.block_size)
    return WORD * (num_columns + max_model_len + num_blocks + 2)


def _step_bytes(config: EngineConfig, model: ModelConfig, dtype: torch.dtype) -> int:
    """What lives at once in the largest step: a layer's widest activations, the residual stream, and the logits."""
    heads = (
        2 * model.num_heads + 2 * model.num_kv_heads
    ) * model.head_dim  # qkv, and what attention makes of it
    inner = 3 * model.intermediate_size  # gate, up, and their product
    elements = 2 * model.hidden_size + heads + inner
    residual = WORD * model.hidden_size
    ids = 16 * WORD  # positions, slots and the like
    whole = SLAB_TOKENS if config.deterministic else 1  # products are of whole slabs then
    num_tokens, num_rows = (-(-n // whole) * whole for n in (config.max_batch_tokens, config.max_requests))
    return num_tokens * (elements * dtype.itemsize + residual + ids) + num_rows * model.vocab_size * WORD


def _kv_bytes(config: EngineConfig, shape: KvShape, room: int) -> int:
    if config.kv_tokens:
        return config.kv_tokens * shape.bytes_per_token
    if config.kv_memory or config.gpu_memory:
        return config.kv_memory or room
    modest = min(room * MODEST_PERCENT // 100, config.max_requests * MODEST_TOKENS * shape.bytes_per_token)
    num_blocks = -(-config.max_model_len // config.block_size)
    return max(modest, num_blocks * config.block_size * shape.bytes_per_token)


def explain(needs: dict[str, int], config: EngineConfig, memory: GpuMemory, advice: str) -> str:
    """Why it is too small. advice: settings to lower."""
    parts = " + ".join(f"{name} {_gib(size)}" for name, size in needs.items())
    limit = f", and gpu_memory = {_gib(config.gpu_memory)}" if config.gpu_memory else ""
    return (
        f"the GPU has {_gib(memory.total)}, {_gib(memory.free)} of it free{limit}; needed are {parts} = "
        f"{_gib(sum(needs.values()))}: lower {advice}"
        + (", or raise gpu_memory" if config.gpu_memory else "")
    )


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.2f} GiB"
