"""The warpgroup kernel for packed inputs against plain float32 attention, an input at a time."""

from dataclasses import replace

import pytest
import torch

from engine.kernels.gpu.encoder_attention_sm90 import EncoderAttentionSm90, takes
from engine.kernels.gpu.encoder_shape import EncoderShape
from engine.kernels.gpu.module import KernelLibrary
from tests.emulation.library import EmulatedLibrary
from tests.kernels.gpu.packed_attention import PADS, TOLERANCE, attend, check_attention, draw_qkv

SMALL = EncoderShape(2, 64, torch.float16, window=0, scale=0.125)


@pytest.fixture(autouse=True)
def hopper(kernel_library: KernelLibrary) -> None:
    if kernel_library.architecture != "sm_90a":
        pytest.skip("needs warpgroup products")


def check(
    library: KernelLibrary,
    shape: EncoderShape,
    lens: list[int],
    generator: torch.Generator,
    num_layers: int = 1,
) -> None:
    check_attention(EncoderAttentionSm90(library, shape), shape, lens, generator, library.device, num_layers)


def few_blocks(library: KernelLibrary, num_blocks: int) -> KernelLibrary:
    """A GPU cannot be made smaller."""
    return EmulatedLibrary(num_multiprocessors=num_blocks) if library.device.type == "cpu" else library


@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("element", TOLERANCE, ids=["bf16", "fp16"])
def test_ragged_inputs(
    kernel_library: KernelLibrary, generator: torch.Generator, head_dim: int, element: torch.dtype
) -> None:
    emulated = kernel_library.device.type == "cpu"
    num_inputs, longest = (4, 260) if emulated else (70, 1500)
    lens = torch.randint(1, longest, (num_inputs,), generator=generator).tolist()
    shape = EncoderShape(3, head_dim, element, window=0, scale=head_dim**-0.5)
    check(kernel_library, shape, lens, generator)


@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("length", [1, 64, 65, 128, 129, 192, 193, 257])
def test_edges_of_tiles(
    kernel_library: KernelLibrary, generator: torch.Generator, head_dim: int, length: int
) -> None:
    check(kernel_library, replace(SMALL, num_heads=1, head_dim=head_dim), [length, 3, length], generator)


@pytest.mark.parametrize("height", [1, 2, 3])
def test_tiles_of_all_heights(kernel_library: KernelLibrary, generator: torch.Generator, height: int) -> None:
    """In units of 64 tokens: the more work a block has, the taller tiles become."""
    emulated = kernel_library.device.type == "cpu"
    library = few_blocks(kernel_library, {1: 10, 2: 6, 3: 5}[height])
    lens = [330, 64, 130] if emulated else [330, 64, 130] * {1: 1, 2: 20, 3: 70}[height]
    shape = replace(SMALL, num_heads=1)
    starts = torch.tensor([0, *lens]).cumsum(0).int().to(library.device)
    tiles = EncoderAttentionSm90(library, shape).plan(starts, sum(lens)).tiles
    assert int(tiles[:, 3].max()) == 64 * height
    check(library, shape, lens, generator)


@pytest.mark.parametrize("window", [1, 2, 30, 128, 300])
@pytest.mark.parametrize("num_blocks", [1, 60])
def test_window(
    kernel_library: KernelLibrary, generator: torch.Generator, window: int, num_blocks: int
) -> None:
    library = few_blocks(kernel_library, num_blocks)
    check(library, replace(SMALL, num_heads=1, window=window), [1, 500, 64, 40], generator)


def test_stages_are_used_again(kernel_library: KernelLibrary, generator: torch.Generator) -> None:
    for head_dim in (64, 128):
        shape = replace(SMALL, num_heads=1, head_dim=head_dim)
        check(few_blocks(kernel_library, 1), shape, [5, 9, 900, 2, 150], generator)


def test_many_short_inputs(kernel_library: KernelLibrary, generator: torch.Generator) -> None:
    """Consumers take inputs of one unit in turn."""
    check(few_blocks(kernel_library, 2), SMALL, [1 + 7 * i % 64 for i in range(13)] + [100, 128], generator)


def test_layers_share_a_plan(kernel_library: KernelLibrary, generator: torch.Generator) -> None:
    check(kernel_library, SMALL, [20, 130], generator, num_layers=3)


def test_empty_inputs(kernel_library: KernelLibrary, generator: torch.Generator) -> None:
    check(kernel_library, SMALL, [0, 20, 0, 70, 0], generator)
    attention, nothing = EncoderAttentionSm90(kernel_library, SMALL), draw_qkv(SMALL, 0, generator)
    assert attend(attention, SMALL, nothing, [0, 0], kernel_library.device).isnan().all()


@pytest.mark.parametrize("scale", [3.0, 30.0])
def test_great_scores(kernel_library: KernelLibrary, generator: torch.Generator, scale: float) -> None:
    check(kernel_library, replace(SMALL, num_heads=1, scale=scale), [37, 300], generator)


def test_scores_that_keep_rising(kernel_library: KernelLibrary, generator: torch.Generator) -> None:
    """Later tiles of keys, which come first in the input, outweigh all before them: bases rise every time."""
    qkv = draw_qkv(replace(SMALL, num_heads=1), 500, generator).float()
    qkv[:500, 64:128] = torch.sign(qkv[:500, :64].sum(0)) * torch.linspace(40, 0, 500).unsqueeze(1)
    qkv[:500, :64] = torch.sign(qkv[:500, :64].sum(0))
    shape = replace(SMALL, num_heads=1)
    attention = EncoderAttentionSm90(kernel_library, shape)
    got = attend(attention, shape, qkv.to(shape.element), [500], kernel_library.device)
    rounded = qkv.to(shape.element).float()[:500]
    q, k, v = rounded[:, :64], rounded[:, 64:128], rounded[:, 128:]
    expected = torch.softmax(q @ k.T * shape.scale, 1) @ v
    torch.testing.assert_close(got[:500].float(), expected, atol=3e-3, rtol=2e-2)


@pytest.mark.parametrize("window", [0, 100])
def test_results_do_not_depend_on_the_batch(
    kernel_library: KernelLibrary, generator: torch.Generator, window: int
) -> None:
    """Neither on the inputs beside an input nor on how tall tiles are."""
    shape = replace(SMALL, num_heads=1, window=window)
    attention = EncoderAttentionSm90(few_blocks(kernel_library, 4), shape)
    others = 200 if kernel_library.device.type == "cpu" else 60_000
    qkv = draw_qkv(shape, 330 + others, generator)
    alone = torch.cat((qkv[:330], qkv[-PADS:]))
    together = attend(attention, shape, qkv, [330, *[100] * (others // 100)], kernel_library.device)
    assert torch.equal(together[:330], attend(attention, shape, alone, [330], kernel_library.device)[:330])


def test_no_number_of_an_input_reaches_another(
    kernel_library: KernelLibrary, generator: torch.Generator
) -> None:
    shape = replace(SMALL, num_heads=1)
    qkv = draw_qkv(shape, 250, generator)
    qkv[100:170] = torch.nan
    got = attend(
        EncoderAttentionSm90(kernel_library, shape), shape, qkv, [100, 70, 80], kernel_library.device
    )
    assert got[100:170].isnan().all() and not got[:100].isnan().any() and not got[170:250].isnan().any()


@pytest.mark.parametrize("num_blocks", [1, 5, 40])
def test_plan_has_every_row_once(
    kernel_library: KernelLibrary, generator: torch.Generator, num_blocks: int
) -> None:
    library = few_blocks(kernel_library, num_blocks)
    lens = torch.randint(0, 700, (20,), generator=generator).tolist()
    starts = torch.tensor([0, *lens]).cumsum(0).int()
    tiles = EncoderAttentionSm90(library, SMALL).plan(starts.to(library.device), sum(lens))
    num_tiles = int(tiles.num_tiles)
    rows = torch.zeros(sum(lens), dtype=torch.int32)
    for start, num_tokens, first, num_rows in tiles.tiles[:num_tiles].tolist():
        assert starts[lens.index(num_tokens)] <= start and 0 < num_rows <= 192 and first % 64 == 0
        rows[start + first : start + first + num_rows] += 1
    assert rows.eq(1).all()
    assert not tiles.tiles[num_tiles:].any()
    steps = [-(-num_tokens // 64) for num_tokens in tiles.tiles[:num_tiles, 1].tolist()]
    assert steps == sorted(steps, reverse=True)


def test_which_shapes_it_takes(kernel_library: KernelLibrary) -> None:
    assert takes(kernel_library, SMALL) and takes(kernel_library, replace(SMALL, head_dim=128))
    assert not takes(kernel_library, replace(SMALL, head_dim=32))
    with pytest.raises(ValueError, match="heads of 96"):
        EncoderAttentionSm90(kernel_library, replace(SMALL, head_dim=96))
