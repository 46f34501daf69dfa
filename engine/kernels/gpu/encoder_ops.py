"""An encoder's operations on a GPU: cuBLAS for the matrix products, our own kernels for the rest."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from engine.batch import EncoderBatch
from engine.checkpoint import Disentangled, Pooling
from engine.kernels.encoder_ops import Embedded, Relative
from engine.kernels.gpu import encoder_elementwise, encoder_norm, encoder_pool
from engine.kernels.gpu.disentangled_attention import DisentangledAttention, DisentangledShape
from engine.kernels.gpu.encoder_attention import EncoderAttention, EncoderShape, EncoderTiles
from engine.kernels.gpu.linear import GpuHead, GpuLinear
from engine.kernels.gpu.loaded import LoadedKernels
from engine.kernels.gpu.module import KernelLibrary
from engine.kernels.ops import Heads, Linear


@dataclass(frozen=True, slots=True)
class PlannedBatch(EncoderBatch):
    """A batch on the device, and its attention's work. Behind the last input there may be tokens of none, and empty inputs."""

    tiles: EncoderTiles


class GpuEncoderOps:
    """engine.kernels.encoder_ops.EncoderOps in bfloat16 or float16, and in float32 where a head's few rows are computed.

    Tensors are contiguous; norm weights and biases are float32; sizes are multiples of 8. Batches are planned ones.
    The first call with new shapes compiles and allocates: make it outside of a capture.
    """

    def __init__(self, library: KernelLibrary) -> None:
        self._library = library
        self._kernels = LoadedKernels(library)
        self._attention: dict[EncoderShape, EncoderAttention] = {}
        self._disentangled: dict[DisentangledShape, DisentangledAttention] = {}

    def plan(
        self, batch: EncoderBatch, heads: Heads, dtype: torch.dtype, positions: Disentangled | None = None
    ) -> PlannedBatch:
        """Launches what divides the attention of all layers whose heads have the size of these. batch lies on the device.

        positions: of the model, whose layers then call disentangled_attention where there are relative ones.
        """
        attention: EncoderAttention | DisentangledAttention
        if positions is not None and positions.relative:
            terms = positions.content_to_position, positions.position_to_content
            attention = self._disentangled_of(
                DisentangledShape(heads.num_heads, heads.head_dim, dtype, *terms)
            )
        else:
            attention = self._attention_of(heads, dtype)
        tiles = attention.plan(batch.starts, batch.num_tokens)
        return PlannedBatch(
            token_ids=batch.token_ids,
            type_ids=batch.type_ids,
            positions=batch.positions,
            starts=batch.starts,
            max_len=batch.max_len,
            tiles=tiles,
        )

    def stream_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """The model's: its sums are normed at once and do not grow, and it is half the bytes."""
        return dtype

    def linear(self, weight: torch.Tensor, bias: torch.Tensor | None) -> Linear:
        """The bias rides in the product's epilogue."""
        return GpuLinear(weight, bias)

    def linear_gelu(self, weight: torch.Tensor, bias: torch.Tensor | None, tanh: bool) -> Linear:
        return GeluLinear(GpuLinear(weight, bias), tanh, self._kernels)

    def head(self, weight: torch.Tensor, bias: torch.Tensor | None) -> Linear:
        return TiedHead(weight, bias)

    def embed(
        self,
        tables: Embedded,
        batch: EncoderBatch,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        eps: float,
        dtype: torch.dtype,
    ) -> torch.Tensor:
        return encoder_norm.embed_layer_norm(self._kernels, tables, batch, weight, bias, eps, dtype)

    def layer_norm(
        self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, eps: float, dtype: torch.dtype
    ) -> torch.Tensor:
        return encoder_norm.layer_norm(self._kernels, x, weight, bias, eps, dtype)

    def add_layer_norm(
        self,
        x: torch.Tensor,
        delta: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        eps: float,
    ) -> torch.Tensor:
        return encoder_norm.add_layer_norm(self._kernels, x, delta, weight, bias, eps)

    def post_layer_norm(
        self,
        x: torch.Tensor,
        delta: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        eps: float,
    ) -> torch.Tensor:
        return encoder_norm.post_layer_norm(self._kernels, x, delta, weight, bias, eps)

    def rope(self, qkv: torch.Tensor, rope: torch.Tensor, batch: EncoderBatch, heads: Heads) -> None:
        encoder_elementwise.rotate_in_place(self._kernels, qkv, rope, batch, heads)

    def encoder_attention(self, qkv: torch.Tensor, batch: EncoderBatch, heads: Heads) -> torch.Tensor:
        """Tokens behind the last input get nothing: what happens to lie there."""
        assert isinstance(batch, PlannedBatch)
        out = qkv.new_empty(qkv.shape[0], heads.num_heads * heads.head_dim)
        self._attention_of(heads, qkv.dtype)(qkv, batch.tiles, out)
        return out

    def disentangled_attention(
        self, qkv: torch.Tensor, relative: Relative, batch: EncoderBatch, heads: Heads
    ) -> torch.Tensor:
        """As encoder_attention; heads have no window."""
        assert isinstance(batch, PlannedBatch) and not heads.window
        terms = relative.keys is not None, relative.queries is not None
        shape = DisentangledShape(heads.num_heads, heads.head_dim, qkv.dtype, *terms)
        out = qkv.new_empty(qkv.shape[0], heads.num_heads * heads.head_dim)
        self._disentangled_of(shape)(qkv, relative, batch.tiles, heads.scale, out)
        return out

    def gelu_mul(self, gate_up: torch.Tensor) -> torch.Tensor:
        return encoder_elementwise.gelu_mul(self._kernels, gate_up)

    def pool(self, x: torch.Tensor, batch: EncoderBatch, kind: Pooling) -> torch.Tensor:
        return encoder_pool.pool_tokens(self._kernels, x, batch.starts, kind)

    def normalize(self, x: torch.Tensor) -> torch.Tensor:
        encoder_pool.normalise_in_place(self._kernels, x)
        return x

    def _attention_of(self, heads: Heads, dtype: torch.dtype) -> EncoderAttention:
        shape = EncoderShape(heads.num_heads, heads.head_dim, dtype, heads.window, heads.scale)
        if shape not in self._attention:
            self._attention[shape] = EncoderAttention(self._library, shape)
        return self._attention[shape]

    def _disentangled_of(self, shape: DisentangledShape) -> DisentangledAttention:
        if shape not in self._disentangled:
            self._disentangled[shape] = DisentangledAttention(self._library, shape)
        return self._disentangled[shape]


@dataclass(frozen=True, slots=True)
class GeluLinear:
    """gelu(linear(x)). In half precision on a GPU the activation rides in the product's epilogue, where cuBLAS has its tanh form alone.

    That one is 5e-4 away from the exact at most, which is what float16 rounds the numbers around 1 by.
    """

    linear: GpuLinear
    tanh: bool
    kernels: LoadedKernels

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        weight, bias = self.linear.weight, self.linear.bias
        if x.dtype == torch.float32:
            return F.gelu(self.linear(x), approximate="tanh" if self.tanh else "none")
        if x.is_cuda and bias is not None:
            fused: torch.Tensor = torch.ops.aten._addmm_activation(bias, x, weight.t(), use_gelu=True)
            return fused
        y = self.linear(x)
        encoder_elementwise.gelu_in_place(self.kernels, y, self.tanh)
        return y


@dataclass(frozen=True, slots=True)
class TiedHead:
    """x float32 [rows, in] -> logits, float32 [rows, vocab]; the products are of numbers in the weight's dtype."""

    weight: torch.Tensor  # dtype [vocab, in]
    bias: torch.Tensor | None  # float32 [vocab]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        logits = GpuHead(self.weight)(x.to(self.weight.dtype))
        return logits if self.bias is None else logits.add_(self.bias)
