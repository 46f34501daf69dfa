"""Products with quantised weights: bit for bit those with the dense float32 weights that they stand for."""

from dataclasses import replace

import pytest
import torch

from engine.kernels.cpu_ops import CpuOps
from engine.quantised import EIGHT_BLOCK, FOUR_BLOCK, Quantised
from tests.kernels.targets import find_targets_with_tiles, has_tiles, load_kernels


@pytest.fixture(scope="module", params=find_targets_with_tiles())
def target(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def ops(target: str) -> CpuOps:
    return CpuOps(load_kernels(target))


def draw(bits: int, shape: tuple[int, int], dtype: torch.dtype, generator: torch.Generator) -> Quantised:
    """Scales and leasts as a file has them, of float16's precision."""

    def halves(size: int) -> torch.Tensor:
        return (torch.randn(shape[0], shape[1] // size, generator=generator) / 16).half().float()

    if bits == 4:
        quants = torch.randint(0, 16, shape, generator=generator, dtype=torch.uint8)
        return Quantised(quants, halves(FOUR_BLOCK), halves(FOUR_BLOCK), dtype)
    quants = torch.randint(-128, 128, shape, generator=generator, dtype=torch.int8)
    return Quantised(quants, halves(EIGHT_BLOCK) / 8, None, dtype)


SHAPES = [(96, 64), (70, 32), (1100, 512)]
TOKENS = (1, 2, 3, 4, 5, 16, 31, 33, 70, 129)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("shape", SHAPES)
def test_float32(ops: CpuOps, bits: int, shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(bits)
    weight = draw(bits, shape, torch.float32, generator)
    bias = torch.randn(shape[0], generator=generator)
    for tokens in TOKENS:
        x = torch.randn(tokens, shape[1], generator=generator)
        assert torch.equal(ops.linear(weight, bias)(x), ops.linear(weight.dense(), bias)(x))
        assert torch.equal(ops.head(weight)(x), ops.head(weight.dense())(x))


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("shape", SHAPES)
def test_bfloat16(ops: CpuOps, bits: int, shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(bits)
    weight = draw(bits, shape, torch.bfloat16, generator)
    bias = torch.randn(shape[0], generator=generator).bfloat16()
    for tokens in TOKENS:
        x = torch.randn(tokens, shape[1], generator=generator).bfloat16()
        exact = replace(weight, dtype=torch.float32).dense()
        wanted = ops.linear(exact, bias.float())(x.float()).bfloat16()
        logits = ops.head(exact)(x.float())
        assert torch.equal(ops.linear(weight, bias)(x), wanted)
        assert torch.equal(ops.head(weight)(x), logits)


def test_tiles_get_dense_weights(ops: CpuOps, target: str) -> None:
    assert ops.takes_quantised(torch.float32)
    assert ops.takes_quantised(torch.bfloat16) != has_tiles(target)


@pytest.mark.parametrize("bits", [4, 8])
def test_embed(ops: CpuOps, bits: int) -> None:
    weight = draw(bits, (50, 64), torch.bfloat16, torch.Generator().manual_seed(bits))
    ids = torch.tensor([7, 49, 0, 7], dtype=torch.int32)
    assert torch.equal(ops.embed(weight, ids), ops.embed(weight.dense(), ids))
