"""Closing the holes of finished rows on a GPU: the ordinary state of 256 rows, large rows, and ranges of contiguous keys and values.

    python -m benchmarks.reorder_gpu --out benchmarks/results/reorder_gpu.json

A table for people; the last line is one JSON document.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.gpu_timer import make_event
from engine.kernels.gpu.contiguous import KvReorder
from engine.kernels.gpu.module import CupyLibrary, KernelLibrary
from engine.kernels.gpu.row_shape import StepShape
from engine.kernels.reorder import plan_moves
from engine.runner.gpu.rows import DeviceRows
from engine.runner.gpu.state import DeviceState

COPY_RATE = 3.03e12  # bytes read and written a second, measured on an H100
NUM_RUNS = 15
NUM_ROWS = 256


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
    results = [_rows(library, share) for share in (0.0, 0.01, 0.1, 0.5)]
    results += [_contiguous(library, length) for length in (128, 1024, 4096)]
    table = Table("case", "us", "MB read and written", "of the rate of copies")
    for r in results:
        table.add_row(r.case, f"{r.us}", f"{r.moved_mb}", f"{r.of_copy_rate:.0%}")
    Console(width=100).print(table)
    line = json.dumps({"device": torch.cuda.get_device_name(), "results": [asdict(r) for r in results]})
    if out is not None:
        out.write_text(line + "\n")
    print(line)


def _rows(library: KernelLibrary, share: float) -> Result:
    """The state of requests of up to 4096 tokens, of which this share ended."""
    rows = DeviceRows(NUM_ROWS, 4096, 256, 1024, library.device)
    state = DeviceState(library, rows, 2048, StepShape(16, 0, 32))
    finished = _draw(share)
    moved = 2 * len(plan_moves(finished).sources) * sum(x.nbytes for x in _row_arrays(rows)) // NUM_ROWS
    times = []
    for _ in range(NUM_RUNS):
        rows.num_rows.fill_(NUM_ROWS)
        rows.slots.copy_(torch.arange(NUM_ROWS))
        rows.finished.copy_(finished)
        rows.any_finished.fill_(int(finished.any()))
        times.append(_time(state.kernels.reorder))
    return _result(f"{NUM_ROWS} rows of state, {share:.0%} ended", times, moved)


def _row_arrays(rows: DeviceRows) -> tuple[torch.Tensor, ...]:
    return rows.ints, rows.floats, rows.seed, rows.stop_ids


def _contiguous(library: KernelLibrary, length: int) -> Result:
    """64 rows of 8B's keys and values in 4 layers' buffers, half of them ended."""
    num_rows, width = 64, 1024
    buffers = [torch.randn(num_rows, length, width, device="cuda", dtype=torch.bfloat16) for _ in range(8)]
    reorder = KvReorder(library, buffers)
    finished = _draw(0.5, num_rows).int().cuda()
    lens = torch.full((num_rows,), length, dtype=torch.int32, device="cuda")
    live = torch.full((1,), num_rows, dtype=torch.int32, device="cuda")
    num_moves = len(plan_moves(finished.cpu().bool()).sources)
    times = [_time(lambda: reorder(live, finished, lens)) for _ in range(NUM_RUNS)]
    case = f"{num_rows} contiguous ranges of {length} tokens, 8 buffers, half ended"
    return _result(case, times, 2 * num_moves * length * width * 2 * len(buffers))


def _draw(share: float, num_rows: int = NUM_ROWS) -> torch.Tensor:
    """bool [rows]; of a share above 0 at least one row."""
    order = torch.randperm(num_rows, generator=torch.Generator().manual_seed(1))
    finished = torch.zeros(num_rows, dtype=torch.bool)
    finished[order[: max(int(share * num_rows), int(share > 0))]] = True
    return finished


def _time(launch: Callable[[], None]) -> float:
    """Microseconds of one launch in a graph, behind work that hides the host's part."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    with torch.cuda.stream(stream):
        begin, end = make_event(), make_event()
        torch.cuda._sleep(2_000_000)  # type: ignore[no-untyped-call]
        begin.record(stream)
        launch()
        end.record(stream)
        end.synchronize()
    return float(begin.elapsed_time(end)) * 1e3


def _result(case: str, times: Sequence[float], moved: int) -> Result:
    us = sorted(times)[len(times) // 2]
    return Result(case, round(us, 2), round(moved / 1e6, 3), round(moved / us / 1e-6 / COPY_RATE, 3))


if __name__ == "__main__":
    typer.run(main)
