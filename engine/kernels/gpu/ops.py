"""The operations on a GPU: cuBLAS for the matrix products, our own kernels for the rest."""

from collections.abc import Sequence
from functools import partial
from typing import Protocol

import torch

from engine.batch import Batch, DeviceBatch
from engine.kernels.gpu import elementwise, norm, skinny
from engine.kernels.gpu.decode_attention import DecodeAttention
from engine.kernels.gpu.linear import GpuHead, GpuLinear
from engine.kernels.gpu.loaded import LoadedKernels
from engine.kernels.gpu.module import KernelLibrary
from engine.kernels.gpu.prompt_attention import make_prompt_attention
from engine.kernels.gpu.rope import rope_and_cache
from engine.kernels.gpu.shape import AttentionShape, attention_shape
from engine.kernels.gpu.skinny import SkinnyBlocks
from engine.kernels.gpu.slabs import SlabHead, SlabLinear, Zeros
from engine.kernels.ops import BlockWeights, Heads, LayerCache, Linear
from engine.quantised import Matrix, as_dense


class PagedAttention(Protocol):
    """The attention of some of a batch's rows; the tokens of others are left alone."""

    def __call__(
        self, qkv: torch.Tensor, batch: DeviceBatch, cache: LayerCache, out: torch.Tensor
    ) -> None: ...


class GpuOps:
    """engine.kernels.ops.Ops in bfloat16 or float16. Tensors are contiguous and as long as the bucket; norm weights are float32.

    The first call with new shapes compiles and allocates: make it outside of a capture.
    """

    def __init__(
        self, library: KernelLibrary, block_size: int, deterministic: bool = False, max_rows: int = 0
    ) -> None:
        """block_size: of the cache. deterministic: a row's result does not depend on the others of its batch, of at most max_rows."""
        self._library = library
        self._block_size = block_size
        self._deterministic, self._max_rows = deterministic, max_rows
        self._kernels = LoadedKernels(library)
        self._zeros = Zeros()
        self._attention: dict[AttentionShape, tuple[PagedAttention, PagedAttention]] = {}

    def takes_quantised(self, dtype: torch.dtype) -> bool:
        return False

    def linear(self, weight: Matrix, bias: torch.Tensor | None) -> Linear:
        dense = as_dense(weight)
        if self._deterministic:
            return SlabLinear(dense, bias, self._zeros.for_weight(dense))
        return GpuLinear(dense, bias)

    def head(self, weight: Matrix) -> Linear:
        dense = as_dense(weight)
        if self._deterministic:
            return SlabHead(dense, self._zeros.for_weight(dense))
        return GpuHead(dense)

    def embed(self, weight: Matrix, token_ids: torch.Tensor) -> torch.Tensor:
        return elementwise.embed(self._kernels, as_dense(weight), token_ids)

    def rms_norm(self, x: torch.Tensor, weight: torch.Tensor, eps: float, dtype: torch.dtype) -> torch.Tensor:
        return norm.rms_norm(self._kernels, x, weight, eps, dtype)

    def add_rms_norm(
        self, x: torch.Tensor, delta: torch.Tensor, weight: torch.Tensor, eps: float
    ) -> torch.Tensor:
        return norm.add_rms_norm(self._kernels, x, delta, weight, eps)

    def last_norm(
        self, x: torch.Tensor, delta: torch.Tensor, logit_ids: torch.Tensor, weight: torch.Tensor, eps: float
    ) -> torch.Tensor:
        return norm.rms_norm_gathered(self._kernels, x, delta, logit_ids, weight, eps)

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
        shape = attention_shape(heads, self._block_size, qkv.dtype)
        rope_and_cache(self._kernels, qkv, rope, batch, cache, shape, norms, eps)

    def attention(self, qkv: torch.Tensor, batch: Batch, cache: LayerCache, heads: Heads) -> torch.Tensor:
        """Takes a DeviceBatch. Rows with one token are the decode kernel's, the others the prompt kernel's."""
        assert isinstance(batch, DeviceBatch)
        shape = attention_shape(heads, self._block_size, qkv.dtype)
        if shape not in self._attention:
            self._attention[shape] = self._make_attention(shape)
        decode, prompt = self._attention[shape]
        out = qkv.new_empty(qkv.shape[0], heads.num_heads * heads.head_dim)
        decode(qkv, batch, cache, out)
        if batch.num_tokens != batch.num_rows:  # a bucket with a token a row is for decoding alone
            prompt(qkv, batch, cache, out)
        return out

    def silu_mul(self, gate_up: torch.Tensor) -> torch.Tensor:
        return elementwise.silu_mul(self._kernels, gate_up)

    def fuse(self, blocks: Sequence[BlockWeights], heads: Heads, eps: float) -> SkinnyBlocks | None:
        """For batches of a handful of tokens, where the blocks' shapes suit that."""
        shape = attention_shape(heads, self._block_size, blocks[0].dtype)
        if self._deterministic or not skinny.takes(blocks[0], shape):
            return None
        return SkinnyBlocks(self._library, blocks, shape, eps, partial(self.attention, heads=heads))

    def _make_attention(self, shape: AttentionShape) -> tuple[PagedAttention, PagedAttention]:
        decode = DecodeAttention(self._library, shape, self._deterministic, self._max_rows)
        return decode, make_prompt_attention(self._library, shape)
