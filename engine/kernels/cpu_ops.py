"""The operations on a CPU, in our own compiled kernels: the matrix products too, on AMX where there is that."""

import ctypes
from collections.abc import Sequence

import torch

from engine.batch import Batch
from engine.kernels.cpu_decoder import CpuBlocks
from engine.kernels.cpu_library import FLOAT, INT, POINTER, bind_kernels
from engine.kernels.cpu_linear import CpuHead, CpuLinear, Packer
from engine.kernels.ops import Blocks, BlockWeights, Heads, LayerCache, Linear
from engine.quantised import Matrix, Quantised

LANES = 16  # head_dim, hidden size and block_size are multiples of it


class Unsupported(Exception):
    """A shape the compiled kernels do not take."""


class CpuOps:
    """engine.kernels.ops.Ops over engine/kernels/cpu/*.cpp. Tensors are contiguous; norm weights are float32."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._kernels = bind_kernels(library, _SIGNATURES)
        self._pack = Packer(library)
        self._has_tiles = bool(library.has_tiles())

    def takes_quantised(self, dtype: torch.dtype) -> bool:
        """Not on tiles: they multiply faster than vectors widen."""
        return not (self._has_tiles and dtype == torch.bfloat16)

    def linear(self, weight: Matrix, bias: torch.Tensor | None) -> Linear:
        return CpuLinear(self._pack(weight), bias, self._kernels["linear", weight.dtype])

    def head(self, weight: Matrix) -> Linear:
        return CpuHead(self._pack(weight), self._kernels["head", weight.dtype])

    def embed(self, weight: Matrix, token_ids: torch.Tensor) -> torch.Tensor:
        if isinstance(weight, Quantised):
            return weight.rows(token_ids).dense().float()
        return weight.index_select(0, token_ids).float()

    def rms_norm(self, x: torch.Tensor, weight: torch.Tensor, eps: float, dtype: torch.dtype) -> torch.Tensor:
        out = torch.empty(x.shape, dtype=dtype)
        self._kernels["rms_norm", dtype](x.data_ptr(), 0, weight.data_ptr(), out.data_ptr(), *x.shape, eps)
        return out

    def add_rms_norm(
        self, x: torch.Tensor, delta: torch.Tensor, weight: torch.Tensor, eps: float
    ) -> torch.Tensor:
        out = torch.empty_like(delta)
        kernel = self._kernels["rms_norm", delta.dtype]
        kernel(x.data_ptr(), delta.data_ptr(), weight.data_ptr(), out.data_ptr(), *x.shape, eps)
        return out

    def last_norm(
        self, x: torch.Tensor, delta: torch.Tensor, logit_ids: torch.Tensor, weight: torch.Tensor, eps: float
    ) -> torch.Tensor:
        wanted, last = (t.index_select(0, logit_ids) for t in (x, delta))
        return self.add_rms_norm(wanted, last, weight, eps)

    def rope_and_cache(
        self,
        qkv: torch.Tensor,
        rope: torch.Tensor,
        batch: Batch,
        cache: LayerCache,
        heads: Heads,
        norms: tuple[torch.Tensor, torch.Tensor] | None,
        eps: float,
    ) -> None:
        q_norm, k_norm = (norms[0].data_ptr(), norms[1].data_ptr()) if norms is not None else (0, 0)
        self._kernels["rope_and_cache", qkv.dtype](
            qkv.data_ptr(), rope.data_ptr(), batch.positions.data_ptr(), batch.cache_slots.data_ptr(),
            cache.keys.data_ptr(), cache.values.data_ptr(), q_norm, k_norm, eps,
            qkv.shape[0], heads.num_heads, heads.num_kv_heads, heads.head_dim, cache.values.shape[2],
        )  # fmt: skip

    def attention(self, qkv: torch.Tensor, batch: Batch, cache: LayerCache, heads: Heads) -> torch.Tensor:
        out = qkv.new_empty(qkv.shape[0], heads.num_heads * heads.head_dim)
        self._kernels["attention", qkv.dtype](
            qkv.data_ptr(), cache.keys.data_ptr(), cache.values.data_ptr(), batch.query_starts.data_ptr(),
            batch.context_lens.data_ptr(), batch.block_tables.data_ptr(), out.data_ptr(), batch.num_rows,
            heads.num_heads, heads.num_kv_heads, heads.head_dim, cache.values.shape[2],
            batch.block_tables.stride(0), heads.window, heads.scale,
        )  # fmt: skip
        return out

    def silu_mul(self, gate_up: torch.Tensor) -> torch.Tensor:
        tokens, width = gate_up.shape
        out = gate_up.new_empty(tokens, width // 2)
        self._kernels["silu_mul", gate_up.dtype](gate_up.data_ptr(), out.data_ptr(), tokens, width // 2)
        return out

    def fuse(self, blocks: Sequence[BlockWeights], heads: Heads, eps: float) -> Blocks:
        dtype = blocks[0].dtype
        return CpuBlocks(blocks, heads, eps, dtype, self._kernels["decoder", dtype])


def check_shapes(head_dim: int, hidden_size: int, inner_size: int, block_size: int) -> None:
    """Raises Unsupported, naming the first size that is no multiple of LANES."""
    sizes = {
        "head_dim": head_dim,
        "hidden_size": hidden_size,
        "intermediate_size": inner_size,
        "block_size": block_size,
    }
    check_multiples(sizes)


def check_multiples(sizes: dict[str, int]) -> None:
    """Sizes by name; raises Unsupported, naming the first that is no multiple of LANES."""
    for name, size in sizes.items():
        if size % LANES:
            raise Unsupported(f"{name} is {size}; the compiled kernels take multiples of {LANES}")


_SIGNATURES: dict[str, list[type]] = {
    "linear": [POINTER] * 4 + [INT] * 3,
    "head": [POINTER] * 3 + [INT] * 3,
    "rms_norm": [POINTER] * 4 + [INT] * 2 + [FLOAT],
    "rope_and_cache": [POINTER] * 8 + [FLOAT] + [INT] * 5,
    "attention": [POINTER] * 7 + [INT] * 7 + [FLOAT],
    "silu_mul": [POINTER] * 2 + [INT] * 2,
    "decoder": [POINTER, INT, POINTER, POINTER],
}
