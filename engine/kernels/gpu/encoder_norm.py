"""An encoder's layer norms on the GPU: cuda/encoder_norm.cu and cuda/encoder_embed.cu."""

import torch

from engine.batch import EncoderBatch
from engine.kernels.encoder_ops import Embedded
from engine.kernels.gpu.loaded import WARP, LoadedKernels
from engine.kernels.gpu.module import Kernel
from engine.kernels.gpu.shape import element_defines

WARP_CHANNELS = 1024  # that a warp's registers hold with ease
WARP_TOKENS = 2  # that a warp norms at once; a token of several warps has a block of its own
BLOCK_WARPS = 2


def embed_layer_norm(
    kernels: LoadedKernels,
    tables: Embedded,
    batch: EncoderBatch,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    eps: float,
    dtype: torch.dtype,
) -> torch.Tensor:
    """As EncoderOps.embed; dtype is float32 or the table of words' own."""
    num_tokens, size = batch.num_tokens, tables.words.shape[1]
    out = tables.words.new_empty(num_tokens, size, dtype=dtype)
    defines = _defines(size, tables.words.dtype, dtype)
    kernel = kernels.get("encoder_embed.cu", "embed_layer_norm", defines)
    num_types = 0 if tables.types is None else tables.types.shape[0]
    kernel(
        *_launch_shape(num_tokens, size, 1), tables.words, tables.positions, tables.types,
        batch.token_ids, batch.positions, batch.type_ids, weight, bias, out, num_tokens, num_types, eps,
    )  # fmt: skip
    return out


def layer_norm(
    kernels: LoadedKernels,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    eps: float,
    dtype: torch.dtype,
) -> torch.Tensor:
    """x float32 [tokens, hidden] -> its norm in dtype."""
    out = torch.empty_like(x, dtype=dtype)
    element = torch.float16 if dtype == torch.float32 else dtype
    kernel = _compiled(kernels, "layer_norm", x.shape[1], element, dtype)
    kernel(*_launch_shape(x.shape[0], x.shape[1], WARP_TOKENS), x, weight, bias, out, x.shape[0], eps)
    return out


def add_layer_norm(
    kernels: LoadedKernels,
    x: torch.Tensor,
    delta: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    eps: float,
) -> torch.Tensor:
    """x float32 += delta in place -> its norm in delta's dtype."""
    assert x.dtype == torch.float32
    out = torch.empty_like(delta)
    kernel = _compiled(kernels, "add_layer_norm", x.shape[1], delta.dtype, delta.dtype)
    kernel(*_launch_shape(x.shape[0], x.shape[1], WARP_TOKENS), x, delta, weight, bias, out, x.shape[0], eps)
    return out


def post_layer_norm(
    kernels: LoadedKernels,
    x: torch.Tensor,
    delta: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    eps: float,
) -> torch.Tensor:
    """x becomes the norm of x + delta, in place; both have delta's dtype."""
    assert x.dtype == delta.dtype
    kernel = _compiled(kernels, "post_layer_norm", x.shape[1], x.dtype, x.dtype)
    kernel(*_launch_shape(x.shape[0], x.shape[1], WARP_TOKENS), x, delta, weight, bias, x.shape[0], eps)
    return x


def _compiled(
    kernels: LoadedKernels, function: str, hidden: int, element: torch.dtype, out: torch.dtype
) -> Kernel:
    return kernels.get("encoder_norm.cu", function, _defines(hidden, element, out))


def _defines(hidden: int, element: torch.dtype, out: torch.dtype) -> dict[str, int]:
    return {
        "HIDDEN": hidden,
        "TOKEN_WARPS": _token_warps(hidden),
        "WARP_TOKENS": WARP_TOKENS,
        "BLOCK_WARPS": BLOCK_WARPS,
        "OUT_FLOAT": int(out == torch.float32),
        **element_defines(element),
    }


def _token_warps(hidden: int) -> int:
    return -(-hidden // WARP_CHANNELS)


def _launch_shape(num_tokens: int, hidden: int, warp_tokens: int) -> tuple[int, int]:
    """Blocks, and the threads of one."""
    num_warps = _token_warps(hidden)
    if num_warps > 1:
        return num_tokens, num_warps * WARP
    return -(-num_tokens // (BLOCK_WARPS * warp_tokens)), BLOCK_WARPS * WARP
