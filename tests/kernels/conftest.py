"""The compiled kernels for each kind of processor that this one can stand for."""

import ctypes

import pytest

from tests.kernels.targets import find_targets, load_kernels


@pytest.fixture(scope="session", params=find_targets())
def library(request: pytest.FixtureRequest) -> ctypes.CDLL:
    return load_kernels(request.param)
