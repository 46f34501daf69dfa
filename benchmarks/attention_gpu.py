"""Attention kernels on a GPU, at the shape of an 8B model (32 query and 8 KV heads of 128), beside FlashAttention 3.

    python -m benchmarks.attention_gpu --peer-path FOLDER --out benchmarks/results/attention_h100.json

FOLDER holds vLLM and what it needs; without it only this product's kernels are timed. A table for people; the last line is one JSON
document.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.gpu_timer import time_us
from engine.batch import DeviceBatch
from engine.kernels.gpu.decode_attention import DecodeAttention
from engine.kernels.gpu.decode_tiles import DecodeTiles
from engine.kernels.gpu.module import CupyLibrary
from engine.kernels.gpu.prompt_attention import PromptAttention, make_prompt_attention, prompt_tile
from engine.kernels.gpu.row_shape import DECODE_TILE
from engine.kernels.gpu.shape import AttentionShape
from engine.kernels.ops import LayerCache

SHAPE = AttentionShape(32, 8, 128, 16, torch.bfloat16, 0, 128**-0.5)
READ_RATE, MATRIX_RATE = 3.09e12, 787e12  # bytes and operations a second, measured on an H100
DECODE = ((1, 1024), (1, 8192), (8, 1024), (32, 1024), (64, 2048), (128, 1024), (256, 512), (256, 2048))
PROMPT = ((32, 512), (8, 2048), (2, 8192))


@dataclass(frozen=True, slots=True)
class Result:
    case: str  # decode or prompt, rows, tokens of context
    us: float
    floor_us: float
    peer_us: float | None  # FlashAttention 3

    @property
    def rate(self) -> str:
        kind, rows, context = self.case.split(":")
        if kind == "decode":
            return f"{_decode_bytes(int(rows), int(context)) / self.us / 1e6:.2f} TB/s"
        return f"{_prompt_flops(int(rows), int(context)) / self.us / 1e6:.0f} TFLOP/s"


def main(
    peer_path: Annotated[Path | None, typer.Option(help="A folder with vLLM in it.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the JSON document there too.")] = None,
) -> None:
    """Time of decode and prompt attention, its floor, and FlashAttention 3's time on the same cases."""
    library = CupyLibrary(torch.device("cuda", torch.cuda.current_device()))
    cases = [f"decode:{rows}:{context}" for rows, context in DECODE]
    cases += [f"prompt:{rows}:{context}" for rows, context in PROMPT]
    peers = {} if peer_path is None else _time_peer(peer_path, cases)
    decode, prompt = DecodeAttention(library, SHAPE), make_prompt_attention(library, SHAPE)
    tiles = DecodeTiles(library, SHAPE)
    results = [_time_decode(decode, tiles, rows, context, peers) for rows, context in DECODE]
    results += [_time_prompt(prompt, "prompt", rows, context, peers) for rows, context in PROMPT]
    plain = PromptAttention(library, SHAPE)
    others = [_time_prompt(plain, "prompt-mma", rows, context, {}) for rows, context in PROMPT]
    _report([*results, *others])
    line = json.dumps(
        {
            "device": torch.cuda.get_device_name(),
            "results": [asdict(result) for result in (*results, *others)],
        }
    )
    if out is not None:
        out.write_text(line + "\n")
    print(line)


def _decode_bytes(rows: int, context: int) -> int:
    return 2 * rows * context * SHAPE.num_kv_heads * SHAPE.head_dim * 2


def _prompt_flops(rows: int, context: int) -> int:
    """Causal: half of the square."""
    return 4 * rows * SHAPE.num_heads * context * context * SHAPE.head_dim // 2


def _time_decode(
    kernel: DecodeAttention, tiles: DecodeTiles, rows: int, context: int, peers: dict[str, float]
) -> Result:
    case = f"decode:{rows}:{context}"
    floor = _decode_bytes(rows, context) / READ_RATE * 1e6
    batch = replace(make_batch(rows, context, 1), decode_tiles=tiles.found)
    tiles(batch)  # once a step, for all layers
    us = _time(kernel, batch)
    return Result(case, round(us, 2), round(floor, 2), peers.get(case))


def _time_prompt(kernel: object, kind: str, rows: int, context: int, peers: dict[str, float]) -> Result:
    floor = _prompt_flops(rows, context) / MATRIX_RATE * 1e6
    us = _time(kernel, make_batch(rows, context, context))
    return Result(
        f"{kind}:{rows}:{context}", round(us, 2), round(floor, 2), peers.get(f"prompt:{rows}:{context}")
    )


def _time(kernel: object, batch: DeviceBatch) -> float:
    assert callable(kernel)
    qkv = torch.randn(batch.num_tokens, SHAPE.width, device="cuda", dtype=SHAPE.element)
    num_blocks = int(batch.block_tables.max()) + 1
    size = num_blocks, SHAPE.num_kv_heads, SHAPE.block_size * SHAPE.head_dim
    cache = LayerCache(*(torch.randn(size, device="cuda", dtype=SHAPE.element) for _ in range(2)))
    out = torch.empty(batch.num_tokens, SHAPE.num_heads * SHAPE.head_dim, device="cuda", dtype=SHAPE.element)
    return time_us(lambda: kernel(qkv, batch, cache, out))


def make_batch(rows: int, context: int, num_tokens: int) -> DeviceBatch:
    """Every row computes the last num_tokens of a context of this length; its blocks lie anywhere."""
    blocks = context // SHAPE.block_size
    tables = torch.randperm(rows * blocks, device="cuda").int().view(rows, blocks)
    positions = torch.arange(context - num_tokens, context, device="cuda").repeat(rows)
    row_ids = torch.arange(rows, device="cuda").repeat_interleave(num_tokens)
    cache_slots = (
        tables[row_ids, positions // SHAPE.block_size] * SHAPE.block_size + positions % SHAPE.block_size
    )
    decode, prompt = (
        (context // DECODE_TILE, 0) if num_tokens == 1 else (0, -(-num_tokens // prompt_tile(SHAPE)))
    )
    counts = [rows, rows * num_tokens, rows * decode, rows * prompt]
    return DeviceBatch(
        token_ids=torch.zeros(rows * num_tokens, dtype=torch.int32, device="cuda"),
        positions=positions.int(),
        cache_slots=cache_slots.int(),
        query_starts=_starts(rows, num_tokens),
        context_lens=torch.full((rows,), context, dtype=torch.int32, device="cuda"),
        block_tables=tables,
        logit_ids=_starts(rows, num_tokens)[1:] - 1,
        counts=torch.tensor(counts, dtype=torch.int32, device="cuda"),
        row_slots=torch.arange(rows, dtype=torch.int32, device="cuda"),
        token_rows=row_ids.int(),
        decode_starts=_starts(rows, decode),
        prompt_starts=_starts(rows, prompt),
        decode_tiles=torch.empty(0, dtype=torch.int32, device="cuda"),
    )


def _starts(rows: int, each: int) -> torch.Tensor:
    return torch.arange(rows + 1, dtype=torch.int32, device="cuda") * each


def _time_peer(path: Path, cases: Sequence[str]) -> dict[str, float]:
    """Microseconds by case; none where the peer does not run."""
    program = Path(__file__).with_name("attention_peer.py")
    environment = os.environ | {"PYTHONPATH": str(path)}
    command = [sys.executable, str(program), *cases]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        print(f"the peer failed:\n{done.stderr[-2000:]}", file=sys.stderr)
    lines = (json.loads(line) for line in done.stdout.splitlines() if line.startswith("{"))
    return {line["case"]: float(line["us"]) for line in lines}


def _report(results: Sequence[Result]) -> None:
    table = Table("rows x context", "us", "floor us", "measured / floor", "rate", "FA3 us", "FA3 / ours")
    for r in results:
        kind, rows, context = r.case.split(":")
        peer = ("", "") if r.peer_us is None else (f"{r.peer_us}", f"{r.peer_us / r.us:.2f}")
        ratio = f"{r.us / r.floor_us:.2f}"
        table.add_row(f"{kind} {rows} x {context}", f"{r.us}", f"{r.floor_us}", ratio, r.rate, *peer)
    Console(width=120).print(table)


if __name__ == "__main__":
    typer.run(main)
