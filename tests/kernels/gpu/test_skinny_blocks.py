"""A small model whose blocks are fused, for as many tokens as each kind of kernel takes."""

from pathlib import Path

import pytest
import torch

from engine.kernels.gpu.decode_tiles import DecodeTiles
from engine.kernels.gpu.module import KernelLibrary
from engine.kernels.gpu.ops import GpuOps
from engine.kernels.gpu.prompt_attention import prompt_tile
from engine.kernels.gpu.shape import attention_shape
from engine.kernels.gpu.skinny import SkinnyBlocks
from engine.kernels.reference import ReferenceOps
from engine.models.llama import Llama
from engine.models.load import load_model
from tests.kernels.gpu.paged import Span, find_tiles, live_batch, make_paged_batch, move_batch
from tests.kernels.gpu.test_gpu_ops import (
    BLOCK_SIZE,
    TOLERANCE,
    check_error,
    make_caches,
    make_plain_caches,
    save_model,
)

ELEMENT = torch.bfloat16
DECODING = [Span(1, 1)] * 19
BATCHES = [  # rows, pad rows, pad tokens
    ([Span(1, 1)] * 3, 1, 1),
    ([Span(n, n) for n in (1, 13, 1)], 1, 1),
    (DECODING, 5, 5),
    (DECODING + [Span(1, 1)] * 13, 0, 0),
    ([Span(n, n) for n in (1, 9, 1, 14)], 4, 7),
]


@pytest.mark.parametrize("place", range(len(BATCHES)))
@torch.inference_mode()
def test_model(kernel_library: KernelLibrary, device: torch.device, place: int, tmp_path: Path) -> None:
    spans, pad_rows, pad_tokens = BATCHES[place]
    generator = torch.Generator().manual_seed(place)
    checkpoint = save_model("llama", tmp_path)
    model = load_model(checkpoint, GpuOps(kernel_library, BLOCK_SIZE), ELEMENT, 128, device=device)
    twin = load_model(checkpoint, ReferenceOps(), torch.float32, 128)
    shape = attention_shape(model.heads, BLOCK_SIZE, ELEMENT)
    batch = make_paged_batch(
        spans, shape, generator, prompt_tile=prompt_tile(shape), pad_rows=pad_rows, pad_tokens=pad_tokens
    )
    moved = find_tiles(move_batch(batch, device), DecodeTiles(kernel_library, shape))
    assert isinstance(model, Llama) and isinstance(model.fused, SkinnyBlocks) and model.fused.takes(moved)
    got = model.logits(model(moved, make_caches(model, batch, shape, device)))
    want = twin.logits(twin(live_batch(batch), make_plain_caches(twin, batch, shape)))
    check_error(got[: len(spans)], want, 2 * TOLERANCE[ELEMENT])
