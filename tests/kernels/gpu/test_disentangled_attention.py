"""Disentangled attention of packed inputs against plain float32 attention, an input at a time."""

from dataclasses import replace

import pytest
import torch

from engine.kernels.encoder_ops import Relative
from engine.kernels.encoder_reference import ReferenceEncoderOps
from engine.kernels.gpu.disentangled_attention import DisentangledAttention, DisentangledShape
from engine.kernels.gpu.module import KernelLibrary
from engine.kernels.ops import Heads
from tests.kernels.encoder_inputs import pack, random_relative
from tests.kernels.gpu.packed_attention import PADS, TOLERANCE

SMALL = DisentangledShape(2, 64, torch.float16, True, True)
SCALE = 192**-0.5
MAX_LEN, SPAN = 300, 40


def make_relative(shape: DisentangledShape, max_len: int, span: int, generator: torch.Generator) -> Relative:
    """float32, of numbers that the element holds."""
    heads = Heads(shape.num_heads, shape.num_heads, shape.head_dim, SCALE)
    terms = "k" * shape.content_to_position + "q" * shape.position_to_content
    return random_relative(heads, shape.element, max_len, span, terms, generator)


def moved(relative: Relative, device: torch.device) -> Relative:
    keys, queries = (
        None if table is None else table.to(device) for table in (relative.keys, relative.queries)
    )
    return Relative(keys, queries, relative.places.to(device))


def check(
    library: KernelLibrary,
    shape: DisentangledShape,
    lens: list[int],
    generator: torch.Generator,
    max_len: int = MAX_LEN,
    span: int = SPAN,
    num_layers: int = 1,
    scale: float = SCALE,
) -> None:
    batch = pack(lens)
    heads = Heads(shape.num_heads, shape.num_heads, shape.head_dim, scale)
    attention = DisentangledAttention(library, shape)
    num_tokens = batch.num_tokens + PADS
    tiles = attention.plan(batch.starts.to(library.device), num_tokens)
    for _ in range(num_layers):
        relative = make_relative(shape, max_len, span, generator)
        qkv = torch.full((num_tokens, 3 * shape.num_heads * shape.head_dim), torch.nan)
        qkv[:-PADS] = torch.randn(qkv[:-PADS].shape, generator=generator)
        qkv = qkv.to(shape.element)
        expected = ReferenceEncoderOps().disentangled_attention(qkv[:-PADS].float(), relative, batch, heads)
        out = torch.full((num_tokens, heads.num_heads * heads.head_dim), torch.nan, dtype=shape.element)
        out = out.to(library.device)
        attention(qkv.to(library.device), moved(relative, library.device), tiles, scale, out)
        got = out.cpu().float()
        torch.testing.assert_close(got[:-PADS], expected, atol=TOLERANCE[shape.element], rtol=2e-2)
        assert got[-PADS:].isnan().all()


def random_lens(library: KernelLibrary, generator: torch.Generator) -> list[int]:
    emulated = library.device.type == "cpu"
    num_inputs, longest = (4, 150) if emulated else (70, MAX_LEN)
    return torch.randint(1, longest, (num_inputs,), generator=generator).tolist()


@pytest.mark.parametrize("head_dim", [32, 64])
@pytest.mark.parametrize("element", TOLERANCE, ids=["bf16", "fp16"])
def test_ragged_inputs(
    kernel_library: KernelLibrary, generator: torch.Generator, head_dim: int, element: torch.dtype
) -> None:
    shape = replace(SMALL, num_heads=3, head_dim=head_dim, element=element)
    check(kernel_library, shape, random_lens(kernel_library, generator), generator)


@pytest.mark.parametrize(("keys", "queries"), [(True, False), (False, True), (False, False)])
def test_terms(kernel_library: KernelLibrary, generator: torch.Generator, keys: bool, queries: bool) -> None:
    shape = replace(SMALL, content_to_position=keys, position_to_content=queries)
    check(kernel_library, shape, [170, 9], generator)


@pytest.mark.parametrize("length", [1, 2, 31, 32, 33, 63, 64, 65, 128, 129, 193, 257])
def test_edges_of_tiles(kernel_library: KernelLibrary, generator: torch.Generator, length: int) -> None:
    check(kernel_library, SMALL, [length, 3, length], generator)


@pytest.mark.parametrize("span", [2, 13, 300])
def test_spans(kernel_library: KernelLibrary, generator: torch.Generator, span: int) -> None:
    """Few rows for all distances, an odd number, and a row for each."""
    check(kernel_library, replace(SMALL, num_heads=1), [140, 21], generator, span=span)


def test_inputs_as_long_as_places_reach(kernel_library: KernelLibrary, generator: torch.Generator) -> None:
    check(kernel_library, replace(SMALL, num_heads=1), [200, 1, 200], generator, max_len=200)


def test_a_long_input_among_short_ones(kernel_library: KernelLibrary, generator: torch.Generator) -> None:
    """Around the rings more than twice."""
    check(kernel_library, replace(SMALL, num_heads=1), [5, 9, 700, 2], generator, max_len=1000, span=100)


def test_layers_share_a_plan(kernel_library: KernelLibrary, generator: torch.Generator) -> None:
    check(kernel_library, SMALL, [20, 130], generator, num_layers=3)


def test_great_scores(kernel_library: KernelLibrary, generator: torch.Generator) -> None:
    check(kernel_library, SMALL, [37, 200], generator, scale=3.0)


def test_an_input_is_blind_to_the_others(kernel_library: KernelLibrary, generator: torch.Generator) -> None:
    """Not-a-numbers in one input leave the others' results as they are, to the bit."""
    lens, device = [70, 3, 140, 5], kernel_library.device
    attention = DisentangledAttention(kernel_library, SMALL)
    tiles = attention.plan(pack(lens).starts.to(device), sum(lens))
    relative = moved(make_relative(SMALL, MAX_LEN, SPAN, generator), device)
    qkv = torch.randn(sum(lens), 3 * 2 * 64, generator=generator).to(SMALL.element)
    before, after = (torch.empty(sum(lens), 2 * 64, dtype=SMALL.element, device=device) for _ in range(2))
    attention(qkv.to(device), relative, tiles, SCALE, before)
    qkv[70:73] = torch.nan
    attention(qkv.to(device), relative, tiles, SCALE, after)
    assert torch.equal(before[:70], after[:70]) and torch.equal(before[73:], after[73:])
    assert after[70:73].isnan().all()


def test_plan_has_every_tile_once(kernel_library: KernelLibrary, generator: torch.Generator) -> None:
    lens = torch.randint(0, 700, (40,), generator=generator).tolist()
    starts = torch.tensor([0, *lens]).cumsum(0).int()
    attention = DisentangledAttention(kernel_library, SMALL)
    tiles = attention.plan(starts.to(kernel_library.device), sum(lens))
    wanted = [
        (start, length, first, min(length - first, 128))
        for start, length in zip(starts.tolist(), lens, strict=False)
        for first in range(0, length, 128)
    ]
    assert sorted(map(tuple, tiles.tiles[: int(tiles.num_tiles)].tolist())) == sorted(wanted)


def test_unfit_shapes_are_refused(kernel_library: KernelLibrary) -> None:
    with pytest.raises(ValueError, match="heads of 128"):
        DisentangledAttention(kernel_library, replace(SMALL, head_dim=128))
    with pytest.raises(ValueError, match="float32"):
        DisentangledAttention(kernel_library, replace(SMALL, element=torch.float32))
