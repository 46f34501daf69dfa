"""From tokens' vectors to inputs' on the GPU: cuda/encoder_pool.cu and cuda/l2_normalise.cu."""

import torch

from engine.checkpoint import Pooling
from engine.kernels.gpu.loaded import LoadedKernels
from engine.kernels.gpu.shape import element_defines

# encoder_pool.cu's KIND.
KINDS: tuple[Pooling, ...] = ("cls", "lasttoken", "mean", "max", "mean_sqrt_len_tokens", "weightedmean")
POOL_THREADS = 256
WIDTH = 64  # channels of a block, encoder_pool.cu's kWidth
NORMALISE_THREADS = 128
SHORTEST = 1e-12  # as torch's own normalize


def pool_tokens(kernels: LoadedKernels, x: torch.Tensor, starts: torch.Tensor, kind: Pooling) -> torch.Tensor:
    """x float32 or dtype [tokens, hidden], starts int32 [inputs + 1] -> float32 [inputs, hidden]; empty inputs have zeros."""
    num_inputs, hidden = starts.shape[0] - 1, x.shape[1]
    out = x.new_empty(num_inputs, hidden, dtype=torch.float32)
    is_float = x.dtype == torch.float32
    defines = {
        "HIDDEN": hidden,
        "KIND": KINDS.index(kind),
        "X_FLOAT": int(is_float),
        "THREADS": POOL_THREADS,
        **element_defines(torch.float16 if is_float else x.dtype),
    }
    kernel = kernels.get("encoder_pool.cu", "pool", defines)
    kernel((num_inputs, -(-hidden // WIDTH), 1), POOL_THREADS, x, starts, out)
    return out


def normalise_in_place(kernels: LoadedKernels, x: torch.Tensor) -> None:
    """x float32 [vectors, size], contiguous: each becomes as long as 1."""
    kernel = kernels.get("l2_normalise.cu", "l2_normalise", {"THREADS": NORMALISE_THREADS})
    kernel(x.shape[0], NORMALISE_THREADS, x, x.shape[1], SHORTEST)
