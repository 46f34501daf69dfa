"""An encoder's operations on a CPU, in our own compiled kernels; the matrix products are the decoders'."""

import ctypes

import torch
import torch.nn.functional as F

from engine.batch import EncoderBatch
from engine.checkpoint import Pooling
from engine.kernels.cpu_library import FLOAT, INT, POINTER, bind_kernels
from engine.kernels.cpu_linear import CpuLinear, Packer
from engine.kernels.cpu_ops import LANES, check_multiples
from engine.kernels.encoder_gather import pool_tokens, sum_rows
from engine.kernels.encoder_ops import Embedded, Relative
from engine.kernels.ops import Heads, Linear


class CpuEncoderOps:
    """engine.kernels.encoder_ops.EncoderOps over engine/kernels/cpu/*.cpp. Tensors are contiguous; norm weights are float32."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._kernels = bind_kernels(library, _SIGNATURES)
        self._pack = Packer(library)

    def stream_dtype(self, dtype: torch.dtype) -> torch.dtype:
        return torch.float32

    def linear(self, weight: torch.Tensor, bias: torch.Tensor | None) -> Linear:
        return self._product("linear", weight, bias)

    def head(self, weight: torch.Tensor, bias: torch.Tensor | None) -> Linear:
        return self.linear(weight.float(), bias)

    def linear_gelu(self, weight: torch.Tensor, bias: torch.Tensor | None, tanh: bool) -> Linear:
        return self._product("linear_gelu_tanh" if tanh else "linear_gelu", weight, bias)

    def _product(self, name: str, weight: torch.Tensor, bias: torch.Tensor | None) -> CpuLinear:
        return CpuLinear(self._pack(weight), bias, self._kernels[name, weight.dtype])

    def embed(
        self,
        tables: Embedded,
        batch: EncoderBatch,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        eps: float,
        dtype: torch.dtype,
    ) -> torch.Tensor:
        return self.layer_norm(sum_rows(tables, batch), weight, bias, eps, dtype)

    def layer_norm(
        self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, eps: float, dtype: torch.dtype
    ) -> torch.Tensor:
        out = torch.empty(x.shape, dtype=dtype)
        self._norm("layer_norm", x, None, weight, bias, out, eps)
        return out

    def add_layer_norm(
        self,
        x: torch.Tensor,
        delta: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        eps: float,
    ) -> torch.Tensor:
        out = torch.empty_like(delta)
        self._norm("layer_norm", x, delta, weight, bias, out, eps)
        return out

    def post_layer_norm(
        self,
        x: torch.Tensor,
        delta: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        eps: float,
    ) -> torch.Tensor:
        out = torch.empty_like(delta)
        self._norm("post_layer_norm", x, delta, weight, bias, out, eps)
        return out

    def _norm(
        self,
        name: str,
        x: torch.Tensor,
        delta: torch.Tensor | None,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        out: torch.Tensor,
        eps: float,
    ) -> None:
        assert x.shape[1] % LANES == 0
        self._kernels[name, out.dtype](
            x.data_ptr(), _pointer(delta), weight.data_ptr(), _pointer(bias), out.data_ptr(), *x.shape, eps
        )

    def rope(self, qkv: torch.Tensor, rope: torch.Tensor, batch: EncoderBatch, heads: Heads) -> None:
        _check(qkv, heads)
        self._kernels["encoder_rope", qkv.dtype](
            qkv.data_ptr(), rope.data_ptr(), batch.positions.data_ptr(),
            qkv.shape[0], heads.num_heads, heads.head_dim,
        )  # fmt: skip

    def encoder_attention(self, qkv: torch.Tensor, batch: EncoderBatch, heads: Heads) -> torch.Tensor:
        _check(qkv, heads)
        out = qkv.new_empty(qkv.shape[0], heads.num_heads * heads.head_dim)
        self._kernels["encoder_attention", qkv.dtype](
            qkv.data_ptr(), batch.starts.data_ptr(), out.data_ptr(), batch.num_inputs,
            heads.num_heads, heads.head_dim, heads.window, heads.scale,
        )  # fmt: skip
        return out

    def disentangled_attention(
        self, qkv: torch.Tensor, relative: Relative, batch: EncoderBatch, heads: Heads
    ) -> torch.Tensor:
        _check(qkv, heads)
        assert batch.max_len <= relative.places.shape[0] // 2 + 1, "the places reach over the longest input"
        out = qkv.new_empty(qkv.shape[0], heads.num_heads * heads.head_dim)
        self._kernels["disentangled_attention", qkv.dtype](
            qkv.data_ptr(), _pointer(relative.keys), _pointer(relative.queries), relative.places.data_ptr(),
            batch.starts.data_ptr(), out.data_ptr(), batch.num_inputs, heads.num_heads, heads.head_dim,
            relative.places.shape[0] // 2, heads.window, heads.scale,
        )  # fmt: skip
        return out

    def gelu_mul(self, gate_up: torch.Tensor) -> torch.Tensor:
        tokens, width = gate_up.shape
        assert width % (2 * LANES) == 0
        out = gate_up.new_empty(tokens, width // 2)
        self._kernels["gelu_mul", gate_up.dtype](gate_up.data_ptr(), out.data_ptr(), tokens, width // 2)
        return out

    def pool(self, x: torch.Tensor, batch: EncoderBatch, kind: Pooling) -> torch.Tensor:
        return pool_tokens(x, batch, kind)

    def normalize(self, x: torch.Tensor) -> torch.Tensor:
        return F.normalize(x, dim=-1)


def check_encoder_shapes(head_dim: int, hidden_size: int, inner_size: int) -> None:
    """Raises Unsupported, naming the first size that is no multiple of LANES."""
    check_multiples({"head_dim": head_dim, "hidden_size": hidden_size, "intermediate_size": inner_size})


def _pointer(tensor: torch.Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _check(qkv: torch.Tensor, heads: Heads) -> None:
    assert heads.num_kv_heads == heads.num_heads, "an encoder's heads all have keys of their own"
    assert heads.head_dim % LANES == 0
    assert qkv.shape[1] == 3 * heads.num_heads * heads.head_dim


_SIGNATURES: dict[str, list[type]] = {
    "linear": [POINTER] * 4 + [INT] * 3,
    "linear_gelu": [POINTER] * 4 + [INT] * 3,
    "linear_gelu_tanh": [POINTER] * 4 + [INT] * 3,
    "layer_norm": [POINTER] * 5 + [INT] * 2 + [FLOAT],
    "post_layer_norm": [POINTER] * 5 + [INT] * 2 + [FLOAT],
    "encoder_rope": [POINTER] * 3 + [INT] * 3,
    "encoder_attention": [POINTER] * 3 + [INT] * 4 + [FLOAT],
    "disentangled_attention": [POINTER] * 6 + [INT] * 5 + [FLOAT],
    "gelu_mul": [POINTER] * 2 + [INT] * 2,
}
