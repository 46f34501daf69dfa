"""Quantised blocks taken apart, against what the format's own library makes of them."""

import gguf
import numpy as np
import pytest
import torch
from gguf.constants import GGML_QUANT_SIZES
from gguf.constants import GGMLQuantizationType as Type
from gguf.quants import dequantize
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.weights.gguf_blocks import take_apart

# Where a block has the upper bytes of its float16 scales: without one bit each they are finite.
SCALES = {Type.Q4_0: (1,), Type.Q4_1: (1, 3), Type.Q8_0: (1,), Type.Q4_K: (1, 3), Type.Q6_K: (209,)}


@pytest.mark.parametrize("kind", SCALES)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1 << 32))
def test_they_are_the_library_s_numbers(kind: Type, seed: int) -> None:
    block_size, block_bytes = GGML_QUANT_SIZES[kind]
    raw = np.random.default_rng(seed).integers(0, 256, (5, 512 // block_size * block_bytes), dtype=np.uint8)
    for place in SCALES[kind]:
        raw.reshape(-1, block_bytes)[:, place] &= 0xBF
    found = take_apart(raw, kind)
    assert found is not None and found.shape == (5, 512)
    assert torch.equal(found.dense(), torch.from_numpy(dequantize(raw, kind)))


def test_rows_of_them() -> None:
    raw = gguf.quants.quantize(np.random.default_rng(1).normal(size=(9, 64)).astype(np.float32), Type.Q8_0)
    found, ids = take_apart(raw, Type.Q8_0), torch.tensor([3, 0, 3])
    assert found is not None
    assert torch.equal(found.rows(ids).dense(), found.dense()[ids])


@pytest.mark.parametrize("kind", [Type.F16, Type.Q5_1, Type.IQ4_XS])
def test_other_formats_are_only_widened(kind: Type) -> None:
    assert take_apart(np.zeros((1, GGML_QUANT_SIZES[kind][1]), np.uint8), kind) is None
