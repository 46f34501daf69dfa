"""The GPU's sampler as a function of logits and columns that may lie anywhere, and logits for it."""

from dataclasses import fields

import torch

from engine.columns import Columns
from engine.kernels.gpu.module import KernelLibrary
from engine.kernels.gpu.sampler import GpuSampler

UNTOUCHED = -77
KINDS = ["spread", "spread", "narrow", "ties", "masked", "huge", "tiny", "equal", "sorted"]


class SampleOnDevice:
    """engine.sampler.sampler.Sample on the GPU's kernels. Keeps its samplers, and so finds what a launch leaves behind."""

    def __init__(self, library: KernelLibrary) -> None:
        self._library = library
        self._samplers: dict[tuple[int, int], GpuSampler] = {}

    def __call__(self, logits: torch.Tensor, columns: Columns) -> torch.Tensor:
        """int32 [rows], on the CPU."""
        everywhere = torch.ones(logits.shape[0], dtype=torch.int32)
        return self.sample_some(logits, columns, everywhere, logits.shape[0])

    def sample_some(
        self, logits: torch.Tensor, columns: Columns, samples: torch.Tensor, num_rows: int
    ) -> torch.Tensor:
        """The rows below num_rows whose samples are not 0; the others keep UNTOUCHED."""
        device = self._library.device
        there = move(columns, device)
        codes = torch.full((logits.shape[0],), UNTOUCHED, dtype=torch.int32, device=device)
        counts = torch.tensor([num_rows, 0, 0, 0], dtype=torch.int32, device=device)
        pools = torch.tensor([there.history.data_ptr(), there.bias.data_ptr()], device=device)
        sampler = self._sampler(*logits.shape)
        sampler(logits.to(device).contiguous(), there, samples.to(device), counts, pools, codes)
        return codes.cpu()

    def _sampler(self, num_rows: int, vocab: int) -> GpuSampler:
        most = 1 << (num_rows - 1).bit_length()
        if (most, vocab) not in self._samplers:
            self._samplers[most, vocab] = GpuSampler(self._library, vocab, most)
        return self._samplers[most, vocab]


def move(columns: Columns, device: torch.device) -> Columns:
    moved = (getattr(columns, field.name).to(device).contiguous() for field in fields(columns))
    return Columns(*moved)


def make_logits(kind: str, num_rows: int, vocab: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(num_rows, vocab, generator=generator)
    match kind:
        case "narrow":
            return logits * 0.01
        case "ties":
            return (logits * 2).round() / 2
        case "masked":
            return (logits * 4).masked_fill(torch.rand(logits.shape, generator=generator) < 0.7, -torch.inf)
        case "huge":
            return logits * 1e38
        case "tiny":
            return logits * 1e-38
        case "equal":
            return torch.full_like(logits, -3.0)
        case "sorted":
            return (logits * 4).sort(1).values
        case _:
            return logits * 4
