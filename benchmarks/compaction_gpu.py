"""What closing the holes of finished rows is worth, as Flover measured it (arXiv 2305.13484): 32 requests, lengths uniform in [128, U].

    python -m benchmarks.compaction_gpu --out benchmarks/results/compaction_gpu.json

Three ways: no compaction (a row that ended computes on until the last one ends), compaction of contiguous keys and values (the rows'
ranges move), and this engine's own (rows move, keys and values stay where block tables find them). The first and the third are whole runs;
the second is the third and its moves, made one by one on buffers of the true size. A table for people; the last line is one JSON document.
"""

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.gpu_timer import make_event
from benchmarks.shapes import SHAPES
from benchmarks.step_gpu import compute, open_engine
from engine.kernels.gpu.contiguous import KvReorder
from engine.kernels.gpu.module import CupyLibrary
from engine.kernels.reorder import plan_moves
from engine.offline.local import LocalEngine

NUM_ROWS, PROMPT, SHORTEST = 32, 8, 128


@dataclass(frozen=True, slots=True)
class Result:
    longest: int  # U
    kept_s: float  # no compaction
    contiguous_s: float
    indirect_s: float  # this engine
    moves_ms: float  # of all the contiguous ranges


def main(
    shape: Annotated[str, typer.Option(help=f"Of {', '.join(SHAPES)}.")] = "llama3.2-1b",
    out: Annotated[Path | None, typer.Option(help="Write the JSON document there too.")] = None,
) -> None:
    """Seconds of 32 requests of uniformly distributed lengths, in three ways."""
    engine = open_engine(shape, False, 40 << 30)
    results = [_measure(engine, shape, longest) for longest in (256, 512, 1024, 2048)]
    engine.engine.close()
    table = Table("lengths", "no compaction s", "contiguous s", "indirect s", "all moves ms")
    for r in results:
        row = (
            f"{SHORTEST} to {r.longest}",
            f"{r.kept_s}",
            f"{r.contiguous_s}",
            f"{r.indirect_s}",
            f"{r.moves_ms}",
        )
        table.add_row(*row)
    Console(width=100).print(table)
    line = json.dumps(
        {"device": torch.cuda.get_device_name(), "shape": shape, "results": [asdict(r) for r in results]}
    )
    if out is not None:
        out.write_text(line + "\n")
    print(line)


def _measure(engine: LocalEngine, shape: str, longest: int) -> Result:
    rnd = random.Random(longest)
    lengths = [rnd.randint(SHORTEST, longest) for _ in range(NUM_ROWS)]
    indirect = _run(engine, lengths)
    kept = _run(engine, [max(lengths)] * NUM_ROWS)
    moves = _time_moves(shape, lengths)
    return Result(
        longest, round(kept, 3), round(indirect + moves, 3), round(indirect, 3), round(moves * 1e3, 3)
    )


def _run(engine: LocalEngine, lengths: Sequence[int]) -> float:
    """Seconds; the better of two, of which the first may capture graphs."""
    rnd = random.Random(1)
    requests = [([rnd.randrange(100, 30000) for _ in range(PROMPT)], length) for length in lengths]
    return min(compute(engine, requests, {"temperature": 0.0}) for _ in range(2))


def _time_moves(shape: str, lengths: Sequence[int]) -> float:
    """Seconds of moving the ranges whenever some of the requests end."""
    config = {key: value for key, value in SHAPES[shape].items() if isinstance(value, int)}
    width, max_len = config["num_key_value_heads"] * config["head_dim"], PROMPT + max(lengths)
    buffers = [
        torch.randn(NUM_ROWS, max_len, width, device="cuda", dtype=torch.bfloat16)
        for _ in range(2 * config["num_hidden_layers"])
    ]
    reorder = KvReorder(CupyLibrary(torch.device("cuda", torch.cuda.current_device())), buffers)
    rows, total = list(lengths), 0.0
    for end in sorted(set(lengths))[:-1]:
        finished = torch.tensor([length <= end for length in rows])
        total += _time_move(reorder, finished, PROMPT + end)
        moves = plan_moves(finished)
        for source, target in zip(moves.sources.tolist(), moves.destinations.tolist(), strict=True):
            rows[target] = rows[source]
        rows = rows[: moves.num_live]
    return total


def _time_move(reorder: KvReorder, finished: torch.Tensor, context: int) -> float:
    """Seconds; the better of two."""
    num_rows = torch.tensor([len(finished)], dtype=torch.int32, device="cuda")
    flags = finished.int().cuda()
    lens = torch.full((len(finished),), context, dtype=torch.int32, device="cuda")
    times = []
    for _ in range(2):
        begin, end = make_event(), make_event()
        torch.cuda._sleep(1_000_000)  # type: ignore[no-untyped-call]
        begin.record()
        reorder(num_rows, flags, lens)
        end.record()
        end.synchronize()
        times.append(float(begin.elapsed_time(end)) * 1e-3)
    return min(times)


if __name__ == "__main__":
    typer.run(main)
