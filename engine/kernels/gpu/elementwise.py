"""The embedding and the activation on the GPU: cuda/embed.cu and cuda/activation.cu."""

import torch

from engine.kernels.gpu.loaded import LoadedKernels
from engine.kernels.gpu.shape import element_defines

THREADS = 256


def embed(kernels: LoadedKernels, weight: torch.Tensor, token_ids: torch.Tensor) -> torch.Tensor:
    """weight dtype [vocab, hidden], token_ids int32 [tokens] -> float32 [tokens, hidden]."""
    num_tokens, hidden = token_ids.shape[0], weight.shape[1]
    x = weight.new_empty(num_tokens, hidden, dtype=torch.float32)
    defines = {"HIDDEN": hidden, "THREADS": THREADS, **element_defines(weight.dtype)}
    kernel = kernels.get("embed.cu", "embed", defines)
    kernel((num_tokens, _parts(hidden, 4), 1), THREADS, weight, token_ids, x)
    return x


def silu_mul(kernels: LoadedKernels, gate_up: torch.Tensor) -> torch.Tensor:
    """dtype [tokens, 2 * inner] (gate, then up) -> silu(gate) * up [tokens, inner]."""
    num_tokens, inner = gate_up.shape[0], gate_up.shape[1] // 2
    out = gate_up.new_empty(num_tokens, inner)
    defines = {"INNER": inner, "THREADS": THREADS, **element_defines(gate_up.dtype)}
    kernel = kernels.get("activation.cu", "silu_mul", defines)
    kernel((num_tokens, _parts(inner, 8), 1), THREADS, gate_up, out)
    return out


def _parts(num_channels: int, per_thread: int) -> int:
    """Blocks a token."""
    return -(-num_channels // (per_thread * THREADS))
