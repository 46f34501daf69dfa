"""Packed batches for the kernels of an encoder's attention, and what these have to make of them."""

from typing import Protocol

import torch

from engine.kernels.encoder_reference import ReferenceEncoderOps
from engine.kernels.gpu.encoder_shape import EncoderShape, EncoderTiles
from engine.kernels.ops import Heads
from tests.kernels.encoder_inputs import pack

TOLERANCE = {torch.bfloat16: 2e-2, torch.float16: 3e-3}
PADS = 3  # tokens behind the last input


class Attention(Protocol):
    """The kernels of one shape."""

    def plan(self, starts: torch.Tensor, num_tokens: int) -> EncoderTiles: ...

    def __call__(self, qkv: torch.Tensor, tiles: EncoderTiles, out: torch.Tensor) -> None: ...


def draw_qkv(shape: EncoderShape, num_tokens: int, generator: torch.Generator) -> torch.Tensor:
    """On the CPU, NaN in the pads."""
    qkv = torch.full((num_tokens + PADS, 3 * shape.num_heads * shape.head_dim), torch.nan)
    qkv[:num_tokens] = torch.randn(qkv[:num_tokens].shape, generator=generator)
    return qkv.to(shape.element)


def attend(
    attention: Attention, shape: EncoderShape, qkv: torch.Tensor, lens: list[int], device: torch.device
) -> torch.Tensor:
    """The results, on the CPU; NaN where nothing was written."""
    starts = torch.tensor([0, *lens]).cumsum(0).int().to(device)
    out = torch.full((len(qkv), shape.num_heads * shape.head_dim), torch.nan, dtype=shape.element)
    out = out.to(device)
    attention(qkv.to(device), attention.plan(starts, len(qkv)), out)
    return out.cpu()


def check_attention(
    attention: Attention,
    shape: EncoderShape,
    lens: list[int],
    generator: torch.Generator,
    device: torch.device,
    num_layers: int = 1,
) -> None:
    """Against plain float32 attention, an input at a time; a plan serves several layers."""
    batch = pack(lens)
    heads = Heads(shape.num_heads, shape.num_heads, shape.head_dim, shape.scale, shape.window)
    tiles = attention.plan(batch.starts.to(device), batch.num_tokens + PADS)
    for _ in range(num_layers):
        qkv = draw_qkv(shape, batch.num_tokens, generator)
        expected = ReferenceEncoderOps().encoder_attention(qkv[:-PADS].float(), batch, heads)
        out = torch.full((len(qkv), heads.num_heads * heads.head_dim), torch.nan, dtype=shape.element)
        out = out.to(device)
        attention(qkv.to(device), tiles, out)
        got = out.cpu().float()
        torch.testing.assert_close(got[:-PADS], expected, atol=TOLERANCE[shape.element], rtol=2e-2)
        assert got[-PADS:].isnan().all()
