"""A launch's arguments as the words that a kernel takes."""

import numpy as np
import pytest
import torch

from engine.kernels.gpu.module import Argument, as_bits


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        (None, 0),
        (7, 7),
        (-1, (1 << 32) - 1),
        (1.5, 0x3FC00000),
        (np.int64(-2), (1 << 64) - 2),
        (np.uint64((1 << 64) - 1), (1 << 64) - 1),
        (np.float64(1.5), 0x3FF8 << 48),
    ],
)
def test_the_lower_bits_are_the_argument(argument: Argument, expected: int) -> None:
    assert as_bits(argument) == expected


def test_a_tensor_is_its_address() -> None:
    tensor = torch.zeros(3)
    assert as_bits(tensor) == tensor.data_ptr()


def test_an_integer_of_more_than_32_bits_is_refused() -> None:
    with pytest.raises(OverflowError):
        as_bits(1 << 40)
