"""RMSNorm on the GPU: cuda/norm.cu, one block a token."""

import torch

from engine.kernels.gpu.loaded import LoadedKernels, whole_warps
from engine.kernels.gpu.module import Kernel
from engine.kernels.gpu.shape import element_defines

MAX_THREADS = 512  # wider rows take several rounds of loads a thread, all in flight at once
GROUP = 4  # channels a thread takes at a time


def rms_norm(
    kernels: LoadedKernels, x: torch.Tensor, weight: torch.Tensor, eps: float, dtype: torch.dtype
) -> torch.Tensor:
    """x float32 [tokens, hidden], weight float32 [hidden] -> dtype [tokens, hidden]."""
    out = x.new_empty(x.shape, dtype=dtype)
    kernel, num_threads = _compiled(kernels, "rms_norm", out)
    kernel(out.shape[0], num_threads, x, weight, out, eps)
    return out


def add_rms_norm(
    kernels: LoadedKernels, x: torch.Tensor, delta: torch.Tensor, weight: torch.Tensor, eps: float
) -> torch.Tensor:
    """x += delta in place, then rms_norm(x), in delta's dtype. x float32, delta dtype, both [tokens, hidden]."""
    out = torch.empty_like(delta)
    kernel, num_threads = _compiled(kernels, "add_rms_norm", out)
    kernel(out.shape[0], num_threads, x, delta, weight, out, eps)
    return out


def rms_norm_gathered(
    kernels: LoadedKernels,
    x: torch.Tensor,
    delta: torch.Tensor,
    token_ids: torch.Tensor,
    weight: torch.Tensor,
    eps: float,
) -> torch.Tensor:
    """rms_norm(x + delta) of some tokens, in delta's dtype; x stays. token_ids int32 [n] -> [n, hidden]."""
    out = delta.new_empty(token_ids.shape[0], delta.shape[1])
    kernel, num_threads = _compiled(kernels, "rms_norm_gathered", out)
    kernel(out.shape[0], num_threads, x, delta, token_ids, weight, out, eps)
    return out


def _compiled(kernels: LoadedKernels, function: str, out: torch.Tensor) -> tuple[Kernel, int]:
    """The kernel and the threads of its blocks."""
    hidden = out.shape[1]
    num_threads = norm_threads(hidden)
    defines = {"HIDDEN": hidden, "THREADS": num_threads, **element_defines(out.dtype)}
    return kernels.get("norm.cu", function, defines), num_threads


def norm_threads(hidden: int) -> int:
    num_groups = hidden // GROUP
    num_items = -(-num_groups // MAX_THREADS)
    return whole_warps(-(-num_groups // num_items))
