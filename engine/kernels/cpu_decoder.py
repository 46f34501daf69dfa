"""All blocks of a decoder as one call of the compiled kernels (engine/kernels/cpu/decoder.cpp): Python stays out of the step."""

import ctypes
from collections.abc import Sequence

import torch

from engine.batch import Batch
from engine.kernels.cpu_library import Kernel
from engine.kernels.cpu_linear import CpuLinear
from engine.kernels.ops import BlockWeights, Heads, LayerCache, Linear


def _structure(pointers: str, integers: str = "", floats: str = "") -> list[tuple[str, type]]:
    kinds = ((pointers, ctypes.c_void_p), (integers, ctypes.c_int64), (floats, ctypes.c_float))
    return [(name, kind) for names, kind in kinds for name in names.split()]


class _Shape(ctypes.Structure):
    _fields_ = _structure("", "hidden inner heads kv_heads head_dim window", "scale eps")


class _Block(ctypes.Structure):
    _fields_ = _structure(
        "attention_norm mlp_norm q_norm k_norm qkv qkv_bias o o_bias gate_up gate_up_bias down down_bias"
        " keys values"
    )


class _Step(ctypes.Structure):
    _fields_ = _structure(
        "positions cache_slots query_starts context_lens block_tables rope x delta normed qkv attended"
        " gate_up activated",
        "tokens rows max_blocks block_size",
    )


class CpuBlocks:
    """engine.kernels.ops.Blocks. Its linears are CpuLinears."""

    def __init__(
        self, blocks: Sequence[BlockWeights], heads: Heads, eps: float, dtype: torch.dtype, kernel: Kernel
    ) -> None:
        self._blocks = tuple(blocks)  # keeps what the structures point to
        self._structures = (_Block * len(self._blocks))(*map(_describe, self._blocks))
        hidden, inner = blocks[0].mlp_norm.shape[0], _packed(blocks[0].down).weight.inputs
        self._shape = _Shape(
            hidden, inner, heads.num_heads, heads.num_kv_heads, heads.head_dim, heads.window, heads.scale, eps
        )
        queries, keys = heads.num_heads * heads.head_dim, heads.num_kv_heads * heads.head_dim
        self._widths = (hidden, queries + 2 * keys, queries, 2 * inner, inner)
        self._dtype = dtype
        self._kernel = kernel
        self._caches: list[LayerCache] | None = None

    def takes(self, batch: Batch) -> bool:
        return True

    def __call__(
        self, x: torch.Tensor, rope: torch.Tensor, batch: Batch, caches: list[LayerCache]
    ) -> torch.Tensor:
        if caches is not self._caches:
            self._use(caches)
        delta = torch.empty(x.shape, dtype=self._dtype)
        scratch = [torch.empty(x.shape[0], width, dtype=self._dtype) for width in self._widths]
        parts = (
            batch.positions, batch.cache_slots, batch.query_starts, batch.context_lens, batch.block_tables,
            rope, x, delta, *scratch,
        )  # fmt: skip
        sizes = (batch.num_tokens, batch.num_rows, batch.block_tables.stride(0), caches[0].values.shape[2])
        step = _Step(*(part.data_ptr() for part in parts), *sizes)
        self._kernel(self._structures, len(self._blocks), ctypes.byref(step), ctypes.byref(self._shape))
        return delta

    def _use(self, caches: list[LayerCache]) -> None:
        for structure, cache in zip(self._structures, caches, strict=True):
            structure.keys, structure.values = cache.keys.data_ptr(), cache.values.data_ptr()
        self._caches = caches


def _describe(block: BlockWeights) -> _Block:
    q_norm, k_norm = (0, 0) if block.norms is None else (norm.data_ptr() for norm in block.norms)
    linears = map(_packed, (block.qkv, block.o, block.gate_up, block.down))
    pointers = (pointer for linear in linears for pointer in (linear.weight.pointer, linear.bias_pointer))
    return _Block(block.attention_norm.data_ptr(), block.mlp_norm.data_ptr(), q_norm, k_norm, *pointers)


def _packed(linear: Linear) -> CpuLinear:
    assert isinstance(linear, CpuLinear), "the same backend packed it"
    return linear
