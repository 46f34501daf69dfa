"""DeBERTa's attention alone: this product's kernel over packed inputs, plain torch over padded ones, in the shape of deberta-v3-base.

    python -m benchmarks.disentangled_attention_gpu

A line a batch: microseconds of a layer and of the plan that is made once for all layers, how long the products alone would take, and the
largest difference to plain float32 attention. One JSON line last.
"""

import json
from dataclasses import asdict, dataclass

import torch

from benchmarks.encoder_cells import (
    ELEMENT,
    HEAD_DIM,
    HIDDEN,
    KERNEL_US,
    MATRIX_RATE,
    NUM_HEADS,
    Cell,
    draw_cell,
    pack,
    padded_places,
)
from benchmarks.gpu_timer import time_us
from engine.batch import EncoderBatch
from engine.kernels.encoder_ops import Relative
from engine.kernels.encoder_reference import ReferenceEncoderOps
from engine.kernels.gpu.disentangled_attention import DisentangledAttention, DisentangledShape
from engine.kernels.gpu.module import CupyLibrary, KernelLibrary
from engine.kernels.ops import Heads

SPAN, MAX_DISTANCE, MAX_LEN = 256, 512, 512
SCALE = (3 * HEAD_DIM) ** -0.5
SIZES = ((16, 64), (16, 128), (16, 256), (16, 512), (1, 64), (1, 512))


@dataclass(frozen=True, slots=True)
class DisentangledTime:
    """Microseconds of one layer."""

    batch: int
    max_len: int
    tokens: int
    floor_us: float
    ours_us: float
    plan_us: float
    padded_us: float
    difference: float  # of projections of the size of 1


def floor_us(cell: Cell) -> float:
    """Scores and weights by values, and two products with positions of which a fifth is not needed."""
    num_scores = sum(length * length for length in cell.lens)
    return KERNEL_US + (2 + 2 * 1.25) * 2 * HIDDEN * num_scores / MATRIX_RATE * 1e6


def make_places() -> torch.Tensor:
    """As the model's: distances beyond half the span share rows by their logarithm."""
    distances = torch.arange(1 - MAX_LEN, MAX_LEN)
    half = SPAN // 2
    far = (distances.abs().clamp(min=half) / half).log() / torch.tensor((MAX_DISTANCE - 1) / half).log()
    shared = ((far * (half - 1)).ceil() + half) * distances.sign()
    return (torch.where(distances.abs() <= half, distances, shared).long() + SPAN).int()


def padded_attention(qkv: torch.Tensor, relative: Relative, index: torch.Tensor) -> torch.Tensor:
    """qkv [inputs, longest, 3 * HIDDEN], index int64 [heads, longest, longest] of places: heads first, as transformers computes it.

    Pads are seen.
    """
    assert relative.keys is not None and relative.queries is not None
    shape = *qkv.shape[:2], NUM_HEADS, HEAD_DIM
    q, k, v = (part.reshape(shape).transpose(1, 2) for part in qkv.chunk(3, -1))
    keys, queries = (
        table.view(-1, NUM_HEADS, HEAD_DIM).transpose(0, 1) for table in (relative.keys, relative.queries)
    )
    every = index.expand(len(qkv), -1, -1, -1)
    scores = q @ k.mT + (q @ keys.mT).gather(-1, every) + (k @ queries.mT).gather(-1, every.mT).mT
    out: torch.Tensor = (scores * SCALE).softmax(-1) @ v
    return out.transpose(1, 2).flatten(2)


class DisentangledBench:
    """One kernel and one layer's positions for all cells."""

    def __init__(self, library: KernelLibrary) -> None:
        self._attend = DisentangledAttention(
            library, DisentangledShape(NUM_HEADS, HEAD_DIM, ELEMENT, True, True)
        )
        self._device = library.device
        tables = torch.randn(2, 2 * SPAN, HIDDEN, device=self._device, dtype=ELEMENT)
        self._relative = Relative(tables[0], tables[1], make_places().to(self._device))

    def measure(self, cell: Cell) -> DisentangledTime:
        qkv = torch.randn(cell.num_tokens, 3 * HIDDEN, device=self._device, dtype=ELEMENT)
        batch = pack(cell.lens, self._device)
        tiles, out = self._attend.plan(batch.starts, cell.num_tokens), qkv.new_empty(cell.num_tokens, HIDDEN)
        work = qkv, self._relative, tiles, SCALE, out
        self._attend(*work)
        difference = float((out.cpu().float() - self._expected(qkv, batch)).abs().max())
        padded = qkv.new_zeros(cell.batch * cell.max_len, 3 * HIDDEN)
        padded[padded_places(cell, self._device)] = qkv
        padded = padded.view(cell.batch, cell.max_len, -1)
        tokens = torch.arange(cell.max_len, device=self._device)
        index = self._relative.places[tokens[:, None] - tokens + MAX_LEN - 1].long().expand(NUM_HEADS, -1, -1)
        return DisentangledTime(
            batch=cell.batch,
            max_len=cell.max_len,
            tokens=cell.num_tokens,
            floor_us=round(floor_us(cell), 2),
            ours_us=round(time_us(lambda: self._attend(*work)), 2),
            plan_us=round(time_us(lambda: self._attend.plan(batch.starts, cell.num_tokens)), 2),
            padded_us=round(time_us(lambda: padded_attention(padded, self._relative, index)), 2),
            difference=round(difference, 5),
        )

    def _expected(self, qkv: torch.Tensor, batch: EncoderBatch) -> torch.Tensor:
        """On the CPU."""
        assert self._relative.keys is not None and self._relative.queries is not None
        relative = Relative(
            self._relative.keys.cpu(), self._relative.queries.cpu(), self._relative.places.cpu()
        )
        nothing = torch.empty(0)
        on_host = EncoderBatch(nothing, nothing, nothing, batch.starts.cpu(), batch.max_len)
        heads = Heads(NUM_HEADS, NUM_HEADS, HEAD_DIM, SCALE)
        return ReferenceEncoderOps().disentangled_attention(qkv.cpu().float(), relative, on_host, heads)


def main() -> None:
    library = CupyLibrary(torch.device("cuda", torch.cuda.current_device()))
    bench, times = DisentangledBench(library), []
    for size in SIZES:
        times.append(bench.measure(draw_cell(*size)))
        print(times[-1], flush=True)
    print(json.dumps([asdict(time) for time in times]))


if __name__ == "__main__":
    main()
