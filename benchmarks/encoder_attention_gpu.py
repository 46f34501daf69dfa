"""An encoder's attention alone: this product's kernel over packed inputs, torch's over padded ones, FlashAttention 3 over packed ones.

All but "split" begin with the projections of a layer, side by side, and end with what the next product reads.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.encoder_cells import (
    ELEMENT,
    HEAD_DIM,
    HIDDEN,
    NUM_HEADS,
    Cell,
    pack,
    padded_places,
    padding_mask,
)
from benchmarks.encoder_layers import SCALE, attend_unfused, sdpa_attention, split_heads, unfused_attention
from benchmarks.gpu_timer import time_us
from engine.kernels.gpu.encoder_attention import EncoderAttention, EncoderShape
from engine.kernels.gpu.module import KernelLibrary

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class AttentionTime:
    """Microseconds of one layer."""

    batch: int
    max_len: int
    tokens: int
    floor_us: float
    ours_us: float
    plan_us: float  # of what is done once a batch, for all layers
    unfused_us: float
    split_us: float  # unfused, where queries, keys and values already lie apart, heads first, and the result stays so
    sdpa_us: float
    fa3_us: float | None
    difference: float  # the largest between our results and SDPA's, of projections of the size of 1


class AttentionBench:
    """One kernel for all cells."""

    def __init__(self, library: KernelLibrary) -> None:
        shape = EncoderShape(NUM_HEADS, HEAD_DIM, ELEMENT, window=0, scale=SCALE)
        self._attend = EncoderAttention(library, shape)
        self._device = library.device

    def measure(self, cell: Cell, fa3_us: float | None) -> AttentionTime:
        padded = torch.randn(len(cell.lens), cell.max_len, 3 * HIDDEN, device=self._device, dtype=ELEMENT)
        places = padded_places(cell, self._device)
        qkv = padded.flatten(0, 1).index_select(0, places)
        starts = pack(cell.lens, self._device).starts
        tiles, out = self._attend.plan(starts, cell.num_tokens), qkv.new_empty(cell.num_tokens, HIDDEN)
        mask = padding_mask(cell, ELEMENT, self._device)
        q, k, v = (part.contiguous() for part in split_heads(padded))
        self._attend(qkv, tiles, out)
        expected = sdpa_attention(padded, mask).flatten(0, 1).index_select(0, places)
        difference = float(
            (out.float() - expected.float()).abs().max()
        )  # waits: what follows is on other streams
        return AttentionTime(
            batch=cell.batch,
            max_len=cell.max_len,
            tokens=cell.num_tokens,
            floor_us=round(cell.attention_floor_us, 2),
            ours_us=round(time_us(lambda: self._attend(qkv, tiles, out)), 2),
            plan_us=round(time_us(lambda: self._attend.plan(starts, cell.num_tokens)), 2),
            unfused_us=round(time_us(lambda: unfused_attention(padded, mask)), 2),
            split_us=round(time_us(lambda: attend_unfused(q, k, v, mask)), 2),
            sdpa_us=round(time_us(lambda: sdpa_attention(padded, mask)), 2),
            fa3_us=fa3_us,
            difference=round(difference, 5),
        )


def time_fa3(path: Path, cells: Sequence[Cell]) -> dict[tuple[int, ...], float]:
    """Microseconds by the lengths of a batch; none where the peer does not run."""
    cases = json.dumps([cell.lens for cell in cells]), json.dumps([NUM_HEADS, HEAD_DIM])
    command = [sys.executable, "-m", "benchmarks.encoder_attention_peer", *cases]
    environment = os.environ | {"PYTHONPATH": str(path)}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        print(f"the peer failed:\n{done.stderr[-2000:]}", file=sys.stderr)
    lines = (json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"lens"'))
    return {tuple(line["lens"]): float(line["us"]) for line in lines}
