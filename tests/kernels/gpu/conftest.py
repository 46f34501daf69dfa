"""Every test of a GPU's kernel runs twice: on the emulator, and on a GPU where there is one."""

import pytest
import torch

from engine.kernels.gpu.module import CupyLibrary, KernelLibrary
from tests.emulation.library import EmulatedLibrary


@pytest.fixture(scope="session", params=["emulated", pytest.param("cuda", marks=pytest.mark.gpu)])
def kernel_library(request: pytest.FixtureRequest) -> KernelLibrary:
    if request.param == "emulated":
        return EmulatedLibrary()
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    return CupyLibrary(torch.device("cuda", torch.cuda.current_device()))


@pytest.fixture(scope="session")
def device(kernel_library: KernelLibrary) -> torch.device:
    return kernel_library.device


@pytest.fixture
def generator() -> torch.Generator:
    made = torch.Generator()
    print(f"seed {made.seed()}")  # shown where a test fails
    return made
