"""A decoder's blocks for a handful of tokens, five kernels a block.

Norm, queries, keys and values with rotation and cache | attention | output, added | norm, gate and up | down, added. Each product
reads its weights once at the rate of the memory: cuda/skinny_linear.cu.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from engine.batch import Batch
from engine.kernels.gpu.decode_attention import max_shared_bytes
from engine.kernels.gpu.linear import GpuLinear
from engine.kernels.gpu.module import Argument, Kernel, KernelLibrary
from engine.kernels.gpu.shape import AttentionShape, element_defines
from engine.kernels.ops import BlockWeights, LayerCache, Linear

WARPS, THREADS = 8, 256
TILE = 16  # rows of a weight that one mma takes
CHUNK = 32  # channels that a weight's rows are a multiple of
SIZES = (8, 16)  # tokens a kernel is compiled for
MAX_TOKENS = SIZES[-1]  # beyond it, cuBLAS and the plain kernels are as fast

# qkv with rotated queries, the batch, the cache -> Element [tokens, heads * head_dim]
Attention = Callable[[torch.Tensor, Batch, LayerCache], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Ring:
    """How a kernel streams its weights: as much in flight as the memory needs to be busy."""

    stage: int  # channels
    num_stages: int
    blocks: int = 1  # a multiprocessor

    def defines(self) -> dict[str, int]:
        return {"STAGE": self.stage, "NUM_STAGES": self.num_stages}

    def shared_bytes(self, size: int) -> int:
        """As skinny_linear.cu lays it out: sums, then each warp's stages."""
        sums = WARPS * (TILE * (size + 1) + size) * 4
        return -(-sums // 128) * 128 + WARPS * self.num_stages * TILE * (self.stage + CHUNK) * 2


@dataclass(frozen=True, slots=True)
class SkinnyProduct:
    """One product of a block, for up to SIZES[-1] tokens."""

    kernels: tuple[Kernel, ...]  # one for each of SIZES
    grid: int

    def __call__(self, num_tokens: int, *args: Argument) -> None:
        kernel = next(kernel for kernel, size in zip(self.kernels, SIZES, strict=True) if num_tokens <= size)
        kernel(self.grid, THREADS, *args, num_tokens)


def make_product(
    library: KernelLibrary,
    kind: str,
    weight: tuple[int, int],
    ring: Ring,
    defines: dict[str, int],
) -> SkinnyProduct:
    """kind: what skinny_linear.cu does with the product of a weight [out, in]."""
    num_out, num_in = weight
    own = {kind: 1, "IN": num_in, "OUT": num_out, **ring.defines(), **defines}
    kernels = tuple(
        library.get("skinny_linear.cu", "skinny_linear", {**own, "TOKENS": size}, ring.shared_bytes(size))
        for size in SIZES
    )
    return SkinnyProduct(kernels, min(num_out // TILE, ring.blocks * library.num_multiprocessors))


@dataclass(frozen=True, slots=True)
class SkinnyKernels:
    """The products of every block, which all have the same shapes."""

    qkv: SkinnyProduct
    o: SkinnyProduct
    gate_up: SkinnyProduct
    down: SkinnyProduct
    last_down: SkinnyProduct  # of the last block: leaves its product to be added


def takes(block: BlockWeights, shape: AttentionShape) -> bool:
    """Whether the kernels can compute such blocks: bfloat16, whose range holds a stream that is not normed yet."""
    sizes = shape.num_heads * shape.head_dim, block.attention_norm.shape[0], _inner(block), shape.head_dim
    return (
        shape.element == torch.bfloat16 and block.norms is None and all(size % CHUNK == 0 for size in sizes)
    )


def make_kernels(library: KernelLibrary, block: BlockWeights, shape: AttentionShape) -> SkinnyKernels:
    """For blocks as this one, on the library's device."""
    hidden, inner = block.attention_norm.shape[0], _inner(block)
    queries = shape.num_heads * shape.head_dim
    element = element_defines(shape.element)
    plain, normed = {"NORMED": 0, **element}, {"NORMED": 1, **element}
    rope, target = {**shape.defines(), **normed}, library.architecture
    return SkinnyKernels(
        qkv=make_product(library, "QKV", (shape.width, hidden), ring_of(hidden, target), rope),
        o=make_product(library, "ADDED", (hidden, queries), ring_of(queries, target), plain),
        gate_up=make_product(library, "GATED", (2 * inner, hidden), ring_of(hidden, target), normed),
        down=make_product(library, "ADDED", (hidden, inner), ring_of(inner, target), plain),
        last_down=make_product(library, "STORED", (hidden, inner), ring_of(inner, target), plain),
    )


def ring_of(num_in: int, architecture: str) -> Ring:
    """The one that was fastest on an H100 of those whose stages divide a row, and that fit."""
    rings = (Ring(4 * CHUNK, 3), Ring(2 * CHUNK, 4), Ring(2 * CHUNK, 3), Ring(CHUNK, 4))
    limit = max_shared_bytes(architecture)
    fitting = (r for r in rings if num_in % r.stage == 0 and r.shared_bytes(SIZES[-1]) <= limit)
    return next(fitting)


class SkinnyBlocks:
    """engine.kernels.ops.Blocks, for batches of up to max_tokens tokens."""

    def __init__(
        self,
        library: KernelLibrary,
        blocks: Sequence[BlockWeights],
        shape: AttentionShape,
        eps: float,
        attention: Attention,
    ) -> None:
        """All blocks are such as `takes` accepts."""
        self.blocks = blocks
        self.shape = shape
        self.eps = eps
        self.attention = attention
        self.kernels = make_kernels(library, blocks[0], shape)

    def takes(self, batch: Batch) -> bool:
        return batch.num_tokens <= MAX_TOKENS

    def __call__(
        self, x: torch.Tensor, rope: torch.Tensor, batch: Batch, caches: list[LayerCache]
    ) -> torch.Tensor:
        delta = x.new_empty(x.shape, dtype=self.shape.element)
        for place, (block, cache) in enumerate(zip(self.blocks, caches, strict=True)):
            self._attend(block, x, rope, batch, cache)
            self._feed_forward(block, x, delta if place == len(self.blocks) - 1 else None)
        return delta

    def _attend(
        self, block: BlockWeights, x: torch.Tensor, rope: torch.Tensor, batch: Batch, cache: LayerCache
    ) -> None:
        qkv = x.new_empty(batch.num_tokens, self.shape.width, dtype=self.shape.element)
        weight, bias = _parts(block.qkv)
        self.kernels.qkv(
            batch.num_tokens, weight, bias, x, block.attention_norm, self.eps, qkv, rope,
            batch.positions, batch.cache_slots, cache.keys, cache.values,
        )  # fmt: skip
        attended = self.attention(qkv, batch, cache)
        self.kernels.o(batch.num_tokens, *_parts(block.o), attended, x)

    def _feed_forward(self, block: BlockWeights, x: torch.Tensor, delta: torch.Tensor | None) -> None:
        num_tokens = x.shape[0]
        gated = x.new_empty(num_tokens, _inner(block), dtype=self.shape.element)
        weight, bias = _parts(block.gate_up)
        self.kernels.gate_up(num_tokens, weight, bias, x, block.mlp_norm, self.eps, gated)
        weight, bias = _parts(block.down)
        if delta is None:
            self.kernels.down(num_tokens, weight, bias, gated, x)
        else:
            self.kernels.last_down(num_tokens, weight, bias, gated, None, 0.0, delta)


def _parts(linear: Linear) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Weight and bias."""
    assert isinstance(linear, GpuLinear)
    return linear.weight, linear.bias


def _inner(block: BlockWeights) -> int:
    return _parts(block.down)[0].shape[1]
