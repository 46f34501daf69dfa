"""The attention of packed inputs for any architecture against plain float32 attention, an input at a time."""

from dataclasses import replace

import pytest
import torch

from engine.kernels.gpu.encoder_attention import EncoderAttention
from engine.kernels.gpu.encoder_attention_mma import EncoderAttentionMma
from engine.kernels.gpu.encoder_shape import EncoderShape, EncoderTiles
from engine.kernels.gpu.module import KernelLibrary
from tests.emulation.library import EmulatedLibrary
from tests.kernels.gpu.packed_attention import TOLERANCE, check_attention

SMALL = EncoderShape(2, 64, torch.float16, window=0, scale=0.125)


def check(
    library: KernelLibrary,
    shape: EncoderShape,
    lens: list[int],
    generator: torch.Generator,
    num_layers: int = 1,
) -> None:
    check_attention(EncoderAttentionMma(library, shape), shape, lens, generator, library.device, num_layers)


def random_lens(library: KernelLibrary, generator: torch.Generator) -> list[int]:
    emulated = library.device.type == "cpu"
    num_inputs, longest = (4, 150) if emulated else (70, 1500)
    return torch.randint(1, longest, (num_inputs,), generator=generator).tolist()


@pytest.mark.parametrize("head_dim", [32, 64, 96, 128])
@pytest.mark.parametrize("element", TOLERANCE, ids=["bf16", "fp16"])
def test_ragged_inputs(
    kernel_library: KernelLibrary, generator: torch.Generator, head_dim: int, element: torch.dtype
) -> None:
    shape = EncoderShape(3, head_dim, element, window=0, scale=head_dim**-0.5)
    check(kernel_library, shape, random_lens(kernel_library, generator), generator)


@pytest.mark.parametrize("length", [1, 2, 63, 64, 65, 128, 129, 200])
def test_edges_of_tiles(kernel_library: KernelLibrary, generator: torch.Generator, length: int) -> None:
    check(kernel_library, SMALL, [length, 3, length], generator)


@pytest.mark.parametrize("window", [1, 2, 30, 64, 128])
def test_window(kernel_library: KernelLibrary, generator: torch.Generator, window: int) -> None:
    check(kernel_library, replace(SMALL, window=window), [1, 250, 64, 40], generator)


def test_a_long_input_among_short_ones(kernel_library: KernelLibrary, generator: torch.Generator) -> None:
    check(kernel_library, replace(SMALL, num_heads=1), [5, 9, 700, 2], generator)


def test_many_inputs(kernel_library: KernelLibrary, generator: torch.Generator) -> None:
    check(kernel_library, replace(SMALL, num_heads=1, head_dim=32), [1 + i % 5 for i in range(40)], generator)


def test_layers_share_a_plan(kernel_library: KernelLibrary, generator: torch.Generator) -> None:
    check(kernel_library, SMALL, [20, 130], generator, num_layers=3)


@pytest.mark.parametrize("scale", [3.0, 30.0])
def test_great_scores(kernel_library: KernelLibrary, generator: torch.Generator, scale: float) -> None:
    check(kernel_library, replace(SMALL, scale=scale), [37, 200], generator)


def planned(library: KernelLibrary, lens: list[int]) -> EncoderTiles:
    starts = torch.tensor([0, *lens]).cumsum(0).int().to(library.device)
    return EncoderAttentionMma(library, SMALL).plan(starts, sum(lens))


@pytest.mark.parametrize("num_inputs", [1, 40, 3000])
def test_plan_has_every_tile_once(
    kernel_library: KernelLibrary, generator: torch.Generator, num_inputs: int
) -> None:
    lens = torch.randint(0, 700, (num_inputs,), generator=generator).tolist()
    tiles = planned(kernel_library, lens)
    starts = [sum(lens[:i]) for i in range(num_inputs)]
    wanted = [
        (start, length, first)
        for start, length in zip(starts, lens, strict=True)
        for first in range(0, length, 128)
    ]
    num_tiles = int(tiles.num_tiles)
    assert sorted(map(tuple, tiles.tiles[:num_tiles, :3].tolist())) == sorted(wanted)


def test_plan_begins_with_the_longest(kernel_library: KernelLibrary, generator: torch.Generator) -> None:
    lens = [*torch.randint(1, 8000, (30,), generator=generator).tolist(), 20000, 9000]
    tiles = planned(kernel_library, lens)
    steps = [min(-(-length // 64), 128) for length in tiles.tiles[: int(tiles.num_tiles), 1].tolist()]
    assert steps == sorted(steps, reverse=True)


def test_batches_without_inputs(kernel_library: KernelLibrary) -> None:
    assert int(planned(kernel_library, [0, 0]).num_tiles) == 0


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90a"])
@pytest.mark.parametrize("head_dim", [32, 64])
def test_the_kernel_of_an_architecture(generator: torch.Generator, architecture: str, head_dim: int) -> None:
    library, shape = EmulatedLibrary(architecture=architecture), replace(SMALL, head_dim=head_dim)
    check_attention(EncoderAttention(library, shape), shape, [70, 9], generator, library.device)


def test_unfit_shapes_are_refused(kernel_library: KernelLibrary) -> None:
    with pytest.raises(ValueError, match="heads of 256"):
        EncoderAttention(kernel_library, replace(SMALL, head_dim=256))
    with pytest.raises(ValueError, match="float32"):
        EncoderAttention(kernel_library, replace(SMALL, element=torch.float32))
