"""An encoder's activations and rotation on the GPU: cuda/encoder_gelu.cu and cuda/encoder_rope.cu."""

import torch

from engine.batch import EncoderBatch
from engine.kernels.gpu.loaded import LoadedKernels
from engine.kernels.gpu.module import Kernel
from engine.kernels.gpu.shape import element_defines
from engine.kernels.ops import Heads

THREADS = 256
LANES = 8  # channels in 16 bytes
ITEMS = 2  # times 16 bytes that a thread loads at once
THREAD_HEADS = 4  # encoder_rope.cu's kThreadHeads


def gelu_in_place(kernels: LoadedKernels, x: torch.Tensor, tanh: bool) -> None:
    """x dtype [tokens, inner], contiguous."""
    num_groups = x.numel() // LANES
    kernel = _gelu_kernel(kernels, "gelu", x.shape[1], x.dtype, tanh)
    kernel(_num_blocks(num_groups), THREADS, x, num_groups)


def gelu_mul(kernels: LoadedKernels, gate_up: torch.Tensor) -> torch.Tensor:
    """dtype [tokens, 2 * inner] (gate, then up) -> gelu(gate) * up [tokens, inner], exact gelu."""
    num_tokens, inner = gate_up.shape[0], gate_up.shape[1] // 2
    out = gate_up.new_empty(num_tokens, inner)
    num_groups = out.numel() // LANES
    kernel = _gelu_kernel(kernels, "gelu_mul", inner, gate_up.dtype, tanh=False)
    kernel(_num_blocks(num_groups), THREADS, gate_up, out, num_groups)
    return out


def rotate_in_place(
    kernels: LoadedKernels, qkv: torch.Tensor, rope: torch.Tensor, batch: EncoderBatch, heads: Heads
) -> None:
    """As EncoderOps.rope."""
    num_tokens = qkv.shape[0]
    defines = {
        "NUM_HEADS": heads.num_heads,
        "HEAD_DIM": heads.head_dim,
        "THREADS": THREADS,
        **element_defines(qkv.dtype),
    }
    kernel = kernels.get("encoder_rope.cu", "encoder_rope", defines)
    num_teams = -(-2 * heads.num_heads // THREAD_HEADS)
    num_threads = num_tokens * num_teams * (heads.head_dim // (2 * LANES))
    kernel(-(-num_threads // THREADS), THREADS, qkv, rope, batch.positions, num_tokens)


def _gelu_kernel(kernels: LoadedKernels, function: str, inner: int, dtype: torch.dtype, tanh: bool) -> Kernel:
    defines = {"INNER": inner, "TANH": int(tanh), "ITEMS": ITEMS, "THREADS": THREADS}
    return kernels.get("encoder_gelu.cu", function, {**defines, **element_defines(dtype)})


def _num_blocks(num_groups: int) -> int:
    return -(-num_groups // (ITEMS * THREADS))
