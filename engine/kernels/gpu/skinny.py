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
SIZES = (8, 16)  # tokens a kernel is compiled for; beyond them cuBLAS and the plain kernels are as fast

# qkv with rotated queries, the batch, the cache -> Element [tokens, heads * head_dim]
Attention = Callable[[torch.Tensor, Batch, LayerCache], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Ring:
    """How a kernel streams its weights: as much in flight as the memory needs to be busy."""

    stage: int  # channels
    num_stages: int

    def defines(self) -> dict[str, int]:
        return {"STAGE": self.stage, "NUM_STAGES": self.num_stages}

    def shared_bytes(self, num_in: int, size: int, normed: bool) -> int:
        """As skinny_linear.cu lays it out: sums, the whole of a normed input, each warp's stages."""
        sums = WARPS * (TILE * (size + 1) + size) * 4 + 2 * size * 4
        whole = size * (num_in + CHUNK) * 2 if normed else 0
        rows = TILE if normed else TILE + size
        stages = WARPS * self.num_stages * rows * (self.stage + CHUNK) * 2
        return -(-sums // 128) * 128 + whole + stages


# From the fastest on an H100 down.
RINGS = tuple(Ring(*sizes) for sizes in ((128, 3), (64, 4), (64, 3), (32, 4), (32, 3)))


@dataclass(frozen=True, slots=True)
class SkinnyProduct:
    """One product of a block."""

    kernels: tuple[tuple[int, Kernel], ...]  # by the most tokens that each takes, ascending
    grid: int

    @property
    def max_tokens(self) -> int:
        return max((size for size, _ in self.kernels), default=0)

    def __call__(self, num_tokens: int, *args: Argument) -> None:
        kernel = next(kernel for size, kernel in self.kernels if num_tokens <= size)
        kernel(self.grid, THREADS, *args, num_tokens)


def make_product(
    library: KernelLibrary,
    kind: str,
    weight: tuple[int, int],
    defines: dict[str, int],
    ring: Ring | None = None,
) -> SkinnyProduct:
    """kind: what skinny_linear.cu does with the product of a weight [out, in]. ring: None picks one."""
    num_out, num_in = weight
    own = {kind: 1, "IN": num_in, "OUT": num_out, **defines}
    kernels = []
    for size in SIZES:
        normed = bool(defines["NORMED"])
        fitting = ring or pick_ring(num_in, size, normed, max_shared_bytes(library.architecture))
        if fitting is not None:
            all_defines = {**own, **fitting.defines(), "TOKENS": size}
            num_bytes = fitting.shared_bytes(num_in, size, normed)
            kernels.append((size, library.get("skinny_linear.cu", "skinny_linear", all_defines, num_bytes)))
    return SkinnyProduct(tuple(kernels), min(num_out // TILE, library.num_multiprocessors))


def pick_ring(num_in: int, size: int, normed: bool, limit: int) -> Ring | None:
    """The first whose stages divide a row, and that fits in `limit` bytes."""
    for ring in RINGS:
        if num_in % ring.stage == 0 and ring.shared_bytes(num_in, size, normed) <= limit:
            return ring
    return None


@dataclass(frozen=True, slots=True)
class SkinnyKernels:
    """The products of every block, which all have the same shapes."""

    qkv: SkinnyProduct
    o: SkinnyProduct
    gate_up: SkinnyProduct
    down: SkinnyProduct
    last_down: SkinnyProduct  # of the last block: leaves its product to be added

    @property
    def max_tokens(self) -> int:
        """Of a batch; 0 where a product fits no block of this architecture."""
        products = self.qkv, self.o, self.gate_up, self.down, self.last_down
        return min(product.max_tokens for product in products)


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
    return SkinnyKernels(
        qkv=make_product(library, "QKV", (shape.width, hidden), {**shape.defines(), **normed}),
        o=make_product(library, "ADDED", (hidden, queries), plain),
        gate_up=make_product(library, "GATED", (2 * inner, hidden), normed),
        down=make_product(library, "ADDED", (hidden, inner), plain),
        last_down=make_product(library, "STORED", (hidden, inner), plain),
    )


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
        return batch.num_tokens <= self.kernels.max_tokens

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
