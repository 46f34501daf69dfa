"""A decoder's blocks for a handful of tokens, five kernels a block.

Norm, queries, keys and values with rotation and cache | attention | output, added | norm, gate and up | down, added. Each product
reads its weights once at the rate of the memory: cuda/skinny_linear.cu for the fewest tokens, beyond those cuda/skinny_wide.cu.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from engine.batch import Batch
from engine.kernels.gpu import skinny_wide
from engine.kernels.gpu.linear import GpuLinear
from engine.kernels.gpu.module import KernelLibrary
from engine.kernels.gpu.shape import AttentionShape, element_defines
from engine.kernels.gpu.skinny_product import CHUNK, SkinnyProduct, make_product
from engine.kernels.gpu.skinny_wide import WideInput, WideInputs, WideProduct, make_wide_product
from engine.kernels.ops import BlockWeights, LayerCache, Linear

# qkv with rotated queries, the batch, the cache -> Element [tokens, heads * head_dim]
Attention = Callable[[torch.Tensor, Batch, LayerCache], torch.Tensor]


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


@dataclass(frozen=True, slots=True)
class WideKernels:
    """As SkinnyKernels, for up to skinny_wide.MAX_TOKENS tokens."""

    begin: WideInputs
    qkv: WideProduct
    o: WideProduct
    gate_up: WideProduct
    down: WideProduct
    last_down: WideProduct


def make_wide_kernels(library: KernelLibrary, block: BlockWeights, shape: AttentionShape) -> WideKernels:
    """For blocks as this one, on the library's device."""
    hidden, inner = block.attention_norm.shape[0], _inner(block)
    element = element_defines(shape.element)
    return WideKernels(
        begin=WideInputs(library, hidden, element),
        qkv=make_wide_product(library, "QKV", (shape.width, hidden), shape.defines()),
        o=make_wide_product(library, "ADDED", (hidden, shape.num_heads * shape.head_dim), element),
        gate_up=make_wide_product(library, "GATED", (2 * inner, hidden), element),
        down=make_wide_product(library, "ADDED", (hidden, inner), element),
        last_down=make_wide_product(library, "STORED", (hidden, inner), element),
    )


class SkinnyBlocks:
    """engine.kernels.ops.Blocks, for batches of up to skinny_wide.MAX_TOKENS tokens."""

    def __init__(
        self,
        library: KernelLibrary,
        blocks: Sequence[BlockWeights],
        shape: AttentionShape,
        eps: float,
        attention: Attention,
    ) -> None:
        """All blocks are such as `takes` accepts."""
        self._fewest = FewTokens(blocks, shape, eps, attention, make_kernels(library, blocks[0], shape))
        self._wide = WideTokens(blocks, shape, eps, attention, make_wide_kernels(library, blocks[0], shape))

    def takes(self, batch: Batch) -> bool:
        return batch.num_tokens <= skinny_wide.MAX_TOKENS

    def __call__(
        self, x: torch.Tensor, rope: torch.Tensor, batch: Batch, caches: list[LayerCache]
    ) -> torch.Tensor:
        few = batch.num_tokens <= self._fewest.kernels.max_tokens
        return (self._fewest if few else self._wide)(x, rope, batch, caches)


@dataclass(frozen=True, slots=True)
class FewTokens:
    """The blocks with cuda/skinny_linear.cu, which norms the residual stream itself."""

    blocks: Sequence[BlockWeights]
    shape: AttentionShape
    eps: float
    attention: Attention
    kernels: SkinnyKernels

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


@dataclass(frozen=True, slots=True)
class WideTokens:
    """The blocks with cuda/skinny_wide.cu: who adds to the residual stream prepares it for the norm that follows."""

    blocks: Sequence[BlockWeights]
    shape: AttentionShape
    eps: float
    attention: Attention
    kernels: WideKernels

    def __call__(
        self, x: torch.Tensor, rope: torch.Tensor, batch: Batch, caches: list[LayerCache]
    ) -> torch.Tensor:
        normed = self.kernels.begin(x, self.blocks[0].attention_norm, self.shape.element)
        for block, next_block, cache in zip(self.blocks, self.blocks[1:], caches, strict=False):
            gated = self._up_to_gated(block, x, normed, rope, batch, cache)
            self._add(self.kernels.down, block.down, gated, x, next_block.attention_norm, normed)
        last = self.blocks[-1]
        gated = self._up_to_gated(last, x, normed, rope, batch, caches[-1])
        delta = x.new_empty(x.shape, dtype=self.shape.element)
        self.kernels.last_down(batch.num_tokens, *_parts(last.down), gated, delta)
        return delta

    def _up_to_gated(
        self,
        block: BlockWeights,
        x: torch.Tensor,
        normed: WideInput,
        rope: torch.Tensor,
        batch: Batch,
        cache: LayerCache,
    ) -> torch.Tensor:
        """Adds the attention to x -> dtype [tokens, inner]."""
        qkv = x.new_empty(batch.num_tokens, self.shape.width, dtype=self.shape.element)
        source = normed.weighted, normed.squares, self.eps
        places = batch.positions, batch.cache_slots, cache.keys, cache.values
        self.kernels.qkv(batch.num_tokens, *_parts(block.qkv), *source, qkv, rope, *places)
        attended = self.attention(qkv, batch, cache)
        self._add(self.kernels.o, block.o, attended, x, block.mlp_norm, normed)
        gated = x.new_empty(batch.num_tokens, _inner(block), dtype=self.shape.element)
        self.kernels.gate_up(batch.num_tokens, *_parts(block.gate_up), *source, gated)
        return gated

    def _add(
        self,
        product: WideProduct,
        linear: Linear,
        source: torch.Tensor,
        x: torch.Tensor,
        norm: torch.Tensor,
        normed: WideInput,
    ) -> None:
        """x += linear(source), and what the norm after that wants."""
        product(x.shape[0], *_parts(linear), source, x, norm, normed.weighted, normed.squares)


def _parts(linear: Linear) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Weight and bias."""
    assert isinstance(linear, GpuLinear)
    return linear.weight, linear.bias


def _inner(block: BlockWeights) -> int:
    return _parts(block.down)[0].shape[1]
