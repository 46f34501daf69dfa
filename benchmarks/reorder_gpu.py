"""Closing the holes of finished rows on a GPU: the ordinary state of 256 rows, and ranges of contiguous keys and values.

    python -m benchmarks.reorder_gpu --out benchmarks/results/reorder_h100.json

A launch of a few microseconds is shorter than what two events see between them, so that many lie in one graph. A reorder clears the flags
it finds: before each a kernel puts the state back, and a graph of that kernel alone is taken off. What is left is one kernel, and the
step from a kernel to the next. A table for people; the last line is one JSON document.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.gpu_timer import time_us
from engine.kernels.gpu.contiguous import KvReorder
from engine.kernels.gpu.module import CupyLibrary, KernelLibrary
from engine.kernels.gpu.row_shape import StepShape
from engine.kernels.reorder import plan_moves
from engine.runner.gpu.rows import DeviceRows
from engine.runner.gpu.state import DeviceState

COPY_RATE = 3.03e12  # bytes read and written a second, measured on an H100
NUM_ROWS = 256
SHARES = (0.0, 0.004, 0.01, 0.1, 0.5, 0.9)  # of the rows that ended
NUM_RANGES, WIDTH = 64, 1024  # requests, and elements of a token's keys in a layer: 8 heads of 128
Timer = Callable[[Callable[[], object]], float]  # microseconds of one call


@dataclass(frozen=True, slots=True)
class Result:
    case: str
    us: float
    moved_mb: float  # read and written
    of_copy_rate: float


def main(
    out: Annotated[Path | None, typer.Option(help="Write the JSON document there too.")] = None,
) -> None:
    """Microseconds of a reorder, and its share of the rate of plain copies."""
    library = CupyLibrary(torch.device("cuda", torch.cuda.current_device()))
    results = [measure_rows(library, share, time_us) for share in SHARES]
    results += [measure_ranges(library, length, time_us) for length in (128, 1024, 4096)]
    table = Table("case", "us", "MB read and written", "of the rate of copies")
    for r in results:
        table.add_row(r.case, f"{r.us}", f"{r.moved_mb}", f"{r.of_copy_rate:.0%}")
    Console(width=110).print(table)
    line = json.dumps({"device": torch.cuda.get_device_name(), "results": [asdict(r) for r in results]})
    if out is not None:
        out.write_text(line + "\n")
    print(line)


def measure_rows(library: KernelLibrary, share: float, timer: Timer) -> Result:
    """The state of requests of up to 4096 tokens, of which this share ended."""
    rows = DeviceRows(NUM_ROWS, 4096, 256, 1024, library.device)
    state = DeviceState(library, rows, 2048, StepShape(16, 0, 32))
    finished = _draw(share, NUM_ROWS)
    put_back = make_reset(rows, finished)
    put_back()
    state.kernels.reorder()
    moves = plan_moves(finished)
    assert int(rows.num_rows) == moves.num_live, "the holes were not closed"

    def both() -> None:
        put_back()
        state.kernels.reorder()

    us = timer(both) - timer(put_back)
    moved = 2 * len(moves.sources) * sum(x.nbytes for x in _row_arrays(rows)) // NUM_ROWS
    return _result(f"{NUM_ROWS} rows of state, {len(finished[finished])} ended", us, moved)


def make_reset(rows: DeviceRows, finished: torch.Tensor) -> Callable[[], None]:
    """One kernel after which all rows are live, and these have ended: finished bool [rows]."""
    ids = torch.arange(NUM_ROWS)
    wanted = torch.tensor([NUM_ROWS]), torch.tensor([finished.any()]), finished, ids, ids
    state = rows.num_rows, rows.any_finished, rows.finished, rows.slots, rows.row_of_slot
    sources = [x.to(rows.device, torch.int32) for x in wanted]
    return lambda: torch._foreach_copy_(list(state), sources)  # pyright: ignore[reportPrivateImportUsage]


def _row_arrays(rows: DeviceRows) -> tuple[torch.Tensor, ...]:
    return rows.ints, rows.floats, rows.seed, rows.stop_ids


def measure_ranges(library: KernelLibrary, length: int, timer: Timer) -> Result:
    """8B's keys and values, more than the cache holds, half of the requests ended."""
    shape = NUM_RANGES, length, WIDTH
    buffers = [
        torch.zeros(shape, device=library.device, dtype=torch.bfloat16) for _ in range(max(8, 8192 // length))
    ]
    reorder = KvReorder(library, buffers)
    finished = _draw(0.5, NUM_RANGES)
    flags = finished.int().to(library.device)
    lens = torch.full((NUM_RANGES,), length, dtype=torch.int32, device=library.device)
    live = torch.full((1,), NUM_RANGES, dtype=torch.int32, device=library.device)
    us = timer(lambda: reorder(live, flags, lens))
    moved = 2 * len(plan_moves(finished).sources) * length * WIDTH * 2 * len(buffers)
    return _result(f"{NUM_RANGES} ranges of {length} tokens in {len(buffers)} buffers, half ended", us, moved)


def _draw(share: float, num_rows: int) -> torch.Tensor:
    """bool [rows]; of a share above 0 at least one row."""
    order = torch.randperm(num_rows, generator=torch.Generator().manual_seed(1))
    finished = torch.zeros(num_rows, dtype=torch.bool)
    finished[order[: max(int(share * num_rows), int(share > 0))]] = True
    return finished


def _result(case: str, us: float, moved: int) -> Result:
    return Result(case, round(us, 2), round(moved / 1e6, 3), round(moved / us / 1e-6 / COPY_RATE, 3))


if __name__ == "__main__":
    typer.run(main)
