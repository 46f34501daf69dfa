"""Rotary embedding and the writes to the cache on the GPU: cuda/rope.cu, one block a token."""

import torch

from engine.batch import Batch
from engine.kernels.gpu.loaded import LoadedKernels, whole_warps
from engine.kernels.gpu.shape import AttentionShape
from engine.kernels.ops import LayerCache

MAX_THREADS = 1024
PASSES = 2  # heads a thread takes one after the other: it reads its angles once for all of them


def rope_and_cache(
    kernels: LoadedKernels,
    qkv: torch.Tensor,
    rope: torch.Tensor,
    batch: Batch,
    cache: LayerCache,
    shape: AttentionShape,
    norms: tuple[torch.Tensor, torch.Tensor] | None,
    eps: float,
) -> None:
    """As engine.kernels.ops.Ops has it; pads, whose cache slot is -1, are left alone."""
    num_threads = rope_threads(shape)
    defines = {**shape.defines(), "QK_NORM": int(norms is not None), "THREADS": num_threads}
    kernel = kernels.get("rope.cu", "rope_and_cache", defines)
    q_norm, k_norm = norms or (None, None)
    kernel(
        qkv.shape[0], num_threads, qkv, rope, batch.positions, batch.cache_slots,
        cache.keys, cache.values, q_norm, k_norm, eps,
    )  # fmt: skip


def rope_threads(shape: AttentionShape) -> int:
    """As rope.cu cuts a head: a team of threads, a power of two, has 16 channels each."""
    num_active = shape.head_dim // 16
    team = 1 << max(num_active - 1, 1).bit_length()
    num_heads = shape.num_heads + 2 * shape.num_kv_heads
    return min(whole_warps(-(-num_heads // PASSES) * team), MAX_THREADS)
