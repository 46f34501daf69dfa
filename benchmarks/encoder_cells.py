"""Batches of BERT-base, drawn as ByteTransformer's experiment draws them (arXiv 2210.03052), and what must be computed for each."""

from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch

from engine.batch import EncoderBatch

NUM_LAYERS, NUM_HEADS, HEAD_DIM, INNER = 12, 12, 64, 3072
HIDDEN = NUM_HEADS * HEAD_DIM
NORM_EPS = 1e-12
ELEMENT = torch.float16
READ_RATE, MATRIX_RATE = 3.09e12, 787e12  # bytes and operations a second, measured on an H100
KERNEL_US = 1.0  # of one kernel in a graph, however little it does

BATCHES = (16, 8, 1)
MAX_LENS = (64, 128, 256, 512, 1024)
LEAST = 0.2  # of the longest that an input may be
SEED = 0


@dataclass(frozen=True, slots=True)
class Cell:
    """One batch. Padded, each of its inputs has max_len tokens."""

    max_len: int
    lens: tuple[int, ...]

    @property
    def name(self) -> str:
        return f"{self.batch} x {self.max_len}"

    @property
    def batch(self) -> int:
        return len(self.lens)

    @property
    def num_tokens(self) -> int:
        return sum(self.lens)

    @property
    def attention_floor_us(self) -> float:
        """One layer's attention: its products, or its queries, keys, values and results read and written once."""
        products = 4 * HIDDEN * sum(length * length for length in self.lens) / MATRIX_RATE
        return KERNEL_US + max(products, self.num_tokens * 4 * HIDDEN * 2 / READ_RATE) * 1e6

    @property
    def layers_floor_ms(self) -> float:
        """All the products of all layers; nothing else."""
        linear = 2 * self.num_tokens * (4 * HIDDEN * HIDDEN + 2 * HIDDEN * INNER)
        attention = 4 * HIDDEN * sum(length * length for length in self.lens)
        return NUM_LAYERS * (linear + attention) / MATRIX_RATE * 1e3


def draw_cell(batch: int, max_len: int) -> Cell:
    """Lengths uniform in LEAST * max_len to max_len, both included."""
    least = -(-max_len * int(LEAST * 10) // 10)
    lens = np.random.default_rng(SEED).integers(least, max_len, batch, endpoint=True)
    return Cell(max_len, tuple(lens.tolist()))


def skewed_cell(batch: int, max_len: int, mean: float) -> Cell:
    """One input of max_len; the others, spread as far as they can be, bring the mean to mean * max_len (nearly)."""
    rest = round((mean * batch - 1) * max_len / (batch - 1))
    far = min(rest - 1, max_len - rest)
    away = np.random.default_rng(SEED).integers(0, far, (batch - 1) // 2, endpoint=True)
    middle = [rest] * ((batch - 1) % 2)
    return Cell(max_len, (max_len, *(rest - away).tolist(), *(rest + away).tolist(), *middle))


def pack(lens: tuple[int, ...], device: torch.device) -> EncoderBatch:
    """Token ids are 0."""
    starts = torch.tensor([0, *accumulate(lens)], dtype=torch.int32)
    positions = torch.cat([torch.arange(length, dtype=torch.int32) for length in lens])
    zeros = torch.zeros(sum(lens), dtype=torch.int32, device=device)
    return EncoderBatch(zeros, zeros, positions.to(device), starts.to(device), max(lens))


def padded_places(cell: Cell, device: torch.device) -> torch.Tensor:
    """int64 [tokens]: where each packed token lies among the padded ones."""
    places = [torch.arange(length) + i * cell.max_len for i, length in enumerate(cell.lens)]
    return torch.cat(places).to(device)


def padding_mask(cell: Cell, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """[inputs, 1, 1, max_len], to be added to scores: far below 0 where a key is padding."""
    lens = torch.tensor(cell.lens, device=device).unsqueeze(1)
    is_padding = torch.arange(cell.max_len, device=device) >= lens
    mask = torch.zeros(is_padding.shape, dtype=dtype, device=device).masked_fill(is_padding, -1e4)
    return mask[:, None, None]
