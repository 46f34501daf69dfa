"""Blocks of a GGUF file's quantised tensors, taken apart but not widened.

The formats: https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h. `gguf` itself only widens them, and is the judge of what is
found here (tests/engine/test_gguf_blocks.py).
"""

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import torch
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import Q4_K

from engine.quantised import EIGHT_BLOCK, Quantised

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Parts = tuple[
    npt.NDArray[np.uint8] | npt.NDArray[np.int8], Floats, Floats | None
]  # of each block: quants, scales, leasts


def take_apart(rows: Bytes, kind: GGMLQuantizationType) -> Quantised | None:
    """Bytes [rows, bytes a row] -> [rows, inputs]; None for a format that is only widened."""
    take = _FORMATS.get(kind)
    if take is None:
        return None
    blocks = rows.reshape(-1, GGML_QUANT_SIZES[kind][1])
    quants, scales, leasts = (
        None if part is None else torch.from_numpy(np.ascontiguousarray(part).reshape(len(rows), -1))
        for part in take(blocks)
    )
    assert quants is not None and scales is not None
    return Quantised(quants, scales, leasts)


def _q4_0(blocks: Bytes) -> Parts:
    scales = _halves(blocks[:, :2])
    return _nibbles(blocks[:, 2:], 16), scales, -8 * scales


def _q4_1(blocks: Bytes) -> Parts:
    return _nibbles(blocks[:, 4:], 16), _halves(blocks[:, :2]), _halves(blocks[:, 2:4])


def _q8_0(blocks: Bytes) -> Parts:
    quants = np.ascontiguousarray(blocks[:, 2:]).view(np.int8)
    return quants, np.repeat(_halves(blocks[:, :2]), quants.shape[1] // EIGHT_BLOCK, 1), None


def _q4_k(blocks: Bytes) -> Parts:
    scales, leasts = Q4_K.get_scale_min(np.ascontiguousarray(blocks[:, 4:16]))
    return (
        _nibbles(blocks[:, 16:], 32),
        _halves(blocks[:, :2]) * scales.astype(np.float32),
        -_halves(blocks[:, 2:4]) * leasts.astype(np.float32),
    )


def _q6_k(blocks: Bytes) -> Parts:
    low = _nibbles(blocks[:, :128], 64)
    high = blocks[:, 128:192].reshape(-1, 2, 1, 32) >> np.array([[0], [2], [4], [6]], np.uint8) & np.uint8(3)
    quants = (low | high.reshape(low.shape) << 4).astype(np.int8) - np.int8(32)
    scales = np.ascontiguousarray(blocks[:, 192:208]).view(np.int8).astype(np.float32)
    return quants, _halves(blocks[:, 208:]) * scales, None


def _halves(pairs: Bytes) -> Floats:
    """A float16 in two bytes each."""
    return np.ascontiguousarray(pairs).view(np.float16).astype(np.float32)


def _nibbles(packed: Bytes, width: int) -> Bytes:
    """Of each `width` bytes the lower halves, then the upper ones."""
    groups = packed.reshape(len(packed), -1, 1, width)
    return (groups >> np.array([[0], [4]], np.uint8) & np.uint8(15)).reshape(len(packed), -1)


_FORMATS: Mapping[GGMLQuantizationType, Callable[[Bytes], Parts]] = {
    GGMLQuantizationType.Q4_0: _q4_0,
    GGMLQuantizationType.Q4_1: _q4_1,
    GGMLQuantizationType.Q8_0: _q8_0,
    GGMLQuantizationType.Q4_K: _q4_k,
    GGMLQuantizationType.Q6_K: _q6_k,
}
