"""Tensors of a GGUF file, dequantised a stretch of rows at a time."""

import math
import re
from collections.abc import Iterator
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize

from engine.checkpoint import CheckpointError, ModelConfig
from engine.checkpoint.gguf import GgufFile, GgufTensor
from engine.checkpoint.gguf_model import ROPE_FACTORS
from engine.quantised import Quantised
from engine.weights.gguf_blocks import take_apart
from engine.weights.source import Piece, Shape

_OUTSIDE = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_INSIDE = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_BLOCK = re.compile(r"blk\.(\d+)\.(\w+)\.(weight|bias)")
# Elements dequantised at once. They stay in the processor's cache, and are too few for torch to wake its
# threads for the copy, which takes longer than the copy when the machine is busy.
_STRETCH = (1 << 15) - 1


class GgufSource:
    """engine.weights.source.FileSource of one file."""

    def __init__(self, file: GgufFile, config: ModelConfig, permuted: bool) -> None:
        """permuted: query and key rows are interleaved. Errors: CheckpointError for a file cut short."""
        self._path = file.path
        self._tensors = {_name(n): t for n, t in file.tensors.items() if n != ROPE_FACTORS}
        self._heads = {"q_proj": config.num_heads, "k_proj": config.num_kv_heads} if permuted else {}
        self._data = np.memmap(file.path, mode="c")  # copy on write: torch takes no read-only arrays
        self._ranges = {name: self._range(tensor) for name, tensor in self._tensors.items()}
        self._check_apart()
        self.shapes: dict[str, Shape] = {name: tensor.shape for name, tensor in self._tensors.items()}

    def label(self, name: str) -> str:
        own = self._tensors[name].name if name in self._tensors else _own_name(name)
        return f"tensor {own} ({name}) in {self._path}"

    def num_bytes(self, name: str) -> int:
        found = self._ranges[name]
        return found[1] - found[0]

    def read(self, name: str, out: torch.Tensor) -> None:
        self._dequantise(name, self._rows(name), out)

    def quantised(self, name: str) -> Quantised | None:
        """A matrix as it lies in the file; None where it is not quantised, or in a way that is only widened."""
        return take_apart(self._rows(name), GGMLQuantizationType(self._tensors[name].type))

    def pieces(self, name: str, max_bytes: int) -> Iterator[Piece]:
        """Whole rows, of float32: the device rounds them."""
        rows, shape = self._rows(name), self._tensors[name].shape
        width = math.prod(shape[1:])
        step = max(1, max_bytes // (width * torch.float32.itemsize))
        for start in range(0, shape[0], step):
            part = rows[start : start + step]
            read = partial(self._dequantise_flat, name, part)
            yield Piece(start * width, len(part) * width, torch.float32, read)

    def _rows(self, name: str) -> npt.NDArray[np.uint8]:
        """Bytes [rows, bytes a row], in the order of a folder of safetensors."""
        rows = self._data[slice(*self._ranges[name])].reshape(self._tensors[name].shape[0], -1)
        num_heads = self._heads.get(name.split(".")[-2])
        return rows if num_heads is None else _half_split(rows, num_heads)

    def _dequantise_flat(self, name: str, rows: npt.NDArray[np.uint8], out: torch.Tensor) -> None:
        self._dequantise(name, rows, out.view(len(rows), -1))

    def _dequantise(self, name: str, rows: npt.NDArray[np.uint8], out: torch.Tensor) -> None:
        """rows: bytes of as many rows as out has."""
        kind = GGMLQuantizationType(self._tensors[name].type)
        step = max(1, _STRETCH * len(rows) // out.numel())
        for start in range(0, len(rows), step):
            piece = out[start : start + step]
            try:
                floats = _widen(rows[start : start + step], kind)
            except NotImplementedError as error:
                raise CheckpointError(f"{self.label(name)} has the unsupported type {kind.name}") from error
            piece.copy_(floats.view(piece.shape))

    def _range(self, tensor: GgufTensor) -> tuple[int, int]:
        try:
            block_size, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType(tensor.type)]
        except ValueError as error:
            raise CheckpointError(
                f"{self._path}: tensor {tensor.name} has the unknown type {tensor.type}"
            ) from error
        if block_size > 1 and len(tensor.shape) == 1:
            raise CheckpointError(
                f"{self._path}: the vector {tensor.name} is quantised; accepted: F32, F16 or BF16"
            )
        if tensor.shape[-1] % block_size or 0 in tensor.shape:
            raise CheckpointError(
                f"{self._path}: tensor {tensor.name} has the impossible shape {list(tensor.shape)}"
            )
        end = tensor.start + math.prod(tensor.shape) // block_size * block_bytes
        if end > self._data.size:
            raise CheckpointError(
                f"{self._path}: cut short; tensor {tensor.name} ends at byte {end} of {self._data.size}"
            )
        return tensor.start, end

    def _check_apart(self) -> None:
        last_end, last = 0, ""
        for (start, end), tensor in sorted((self._ranges[name], t.name) for name, t in self._tensors.items()):
            if start < last_end:
                raise CheckpointError(
                    f"{self._path}: the tensors {last} and {tensor} overlap at byte {start}"
                )
            last_end, last = end, tensor


def _widen(rows: npt.NDArray[np.uint8], kind: GGMLQuantizationType) -> torch.Tensor:
    """float32. What can be taken apart is widened by torch, in half the time. Raises NotImplementedError."""
    found = take_apart(rows, kind)
    return torch.from_numpy(dequantize(rows, kind)) if found is None else found.dense()


def _name(own: str) -> str:
    """The tensor's name in a folder of safetensors; its own where it has none there."""
    block = _BLOCK.fullmatch(own)
    if block and block[2] in _INSIDE:
        return f"model.layers.{block[1]}.{_INSIDE[block[2]]}.{block[3]}"
    module, _, kind = own.rpartition(".")
    return f"{_OUTSIDE[module]}.{kind}" if module in _OUTSIDE else own


def _own_name(name: str) -> str:
    """The inverse of _name."""
    module, _, kind = name.rpartition(".")
    layer = re.fullmatch(r"model\.layers\.(\d+)\.(.+)", module)
    if layer:
        return f"blk.{layer[1]}.{next(k for k, v in _INSIDE.items() if v == layer[2])}.{kind}"
    return f"{next(k for k, v in _OUTSIDE.items() if v == module)}.{kind}"


def _half_split(rows: npt.NDArray[np.uint8], num_heads: int) -> npt.NDArray[np.uint8]:
    """Rows of each head from pairs side by side to pairs half a head apart, the two layouts of rope."""
    pairs = rows.reshape(num_heads, -1, 2, rows.shape[1])
    return pairs.swapaxes(1, 2).reshape(rows.shape)
