"""What closing the holes of finished rows is worth, as Flover measured it (arXiv 2305.13484): 32 requests, lengths uniform in [128, U].

    python -m benchmarks.compaction_gpu --out benchmarks/results/compaction_h100.json

Prompts of 8 tokens, all requests at once. Four ways: to the last (every row computes until the last one ends), no compaction (the rows
that compute are a window, as in Flover: it shrinks when a row at its edge ends, and a row that ended within computes on), compaction of
contiguous keys and values (the rows' ranges move whenever rows end), and this engine's own (rows move, keys and values stay where block
tables find them). The first two and the last are whole runs of this engine, in which a row that computes on is a longer request; the third
is the last and its moves, made one after the other in one graph on buffers of the true size. A table for people; the last line is one JSON
document.
"""

import json
import random
from collections.abc import Callable, Sequence
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
from engine.kernels.gpu.module import CupyLibrary, KernelLibrary
from engine.kernels.reorder import plan_moves
from engine.offline.local import LocalEngine

NUM_ROWS, PROMPT, SHORTEST = 32, 8, 128
GREEDY = {"temperature": 0.0}


@dataclass(frozen=True, slots=True)
class Result:
    longest: int  # U
    to_the_last_s: float
    window_s: float  # no compaction
    contiguous_s: float
    indirect_s: float  # this engine
    moves_ms: float  # of all the contiguous ranges
    moved_gb: float  # read and written by them
    gain: float  # no compaction over this engine's own


@dataclass(frozen=True, slots=True)
class Closing:
    """Some requests end: which of the rows then live, at what context."""

    finished: torch.Tensor  # bool [rows]
    context: int


def main(
    shape: Annotated[str, typer.Option(help=f"Of {', '.join(SHAPES)}.")] = "llama3.2-1b",
    longest: Annotated[str, typer.Option(help="Upper bounds of the lengths.")] = "256,512,1024,2048",
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each kind; the best counts.")] = 2,
    out: Annotated[Path | None, typer.Option(help="Write the JSON document there too.")] = None,
) -> None:
    """Seconds of 32 requests of uniformly distributed lengths, in four ways."""
    library = CupyLibrary(torch.device("cuda", torch.cuda.current_device()))
    engine = open_engine(shape, False, 40 << 30)
    run(engine, range(NUM_ROWS + 2, 2, -1))  # graphs of every number of rows
    results = []
    for bound in map(int, longest.split(",")):
        results.append(measure(engine, library, shape, bound, repeats))
        print(results[-1], flush=True)
    engine.engine.close()
    Console(width=120).print(_table(results))
    line = json.dumps(
        {"device": torch.cuda.get_device_name(), "shape": shape, "results": [asdict(r) for r in results]}
    )
    if out is not None:
        out.write_text(line + "\n")
    print(line)


def measure(engine: LocalEngine, library: KernelLibrary, shape: str, longest: int, repeats: int) -> Result:
    rnd = random.Random(longest)
    lengths = [rnd.randint(SHORTEST, longest) for _ in range(NUM_ROWS)]
    kinds = lengths, window_lengths(lengths), [max(lengths)] * NUM_ROWS
    indirect, window, to_the_last = (min(run(engine, kind) for _ in range(repeats)) for kind in kinds)
    closings = plan_closings(lengths)
    moves_ms, moved = time_moves(library, shape, closings, time_graph)
    return Result(
        longest,
        round(to_the_last, 3),
        round(window, 3),
        round(indirect + moves_ms * 1e-3, 3),
        round(indirect, 3),
        round(moves_ms, 3),
        round(moved / 1e9, 3),
        round(window / indirect, 3),
    )


def window_lengths(lengths: Sequence[int]) -> list[int]:
    """How long each row computes if the rows that compute are a window: until all on one side of it have ended."""
    return [min(max(lengths[: row + 1]), max(lengths[row:])) for row in range(len(lengths))]


def run(engine: LocalEngine, lengths: Sequence[int]) -> float:
    """Seconds."""
    rnd = random.Random(1)
    requests = [([rnd.randrange(100, 30000) for _ in range(PROMPT)], length) for length in lengths]
    return compute(engine, requests, GREEDY)


def plan_closings(lengths: Sequence[int]) -> list[Closing]:
    """All but the last, after which nothing is left to move."""
    rows, closings = list(lengths), []
    for end in sorted(set(lengths))[:-1]:
        finished = torch.tensor([length <= end for length in rows])
        closings.append(Closing(finished, PROMPT + end))
        moves = plan_moves(finished)
        for source, target in zip(moves.sources.tolist(), moves.destinations.tolist(), strict=True):
            rows[target] = rows[source]
        rows = rows[: moves.num_live]
    return closings


def time_moves(
    library: KernelLibrary,
    shape: str,
    closings: Sequence[Closing],
    timer: Callable[[Callable[[], None]], float],
) -> tuple[float, int]:
    """Milliseconds of moving the ranges at each of the closings, and bytes read and written."""
    config = {key: value for key, value in SHAPES[shape].items() if isinstance(value, int)}
    width, num_buffers = config["num_key_value_heads"] * config["head_dim"], 2 * config["num_hidden_layers"]
    size = NUM_ROWS, closings[-1].context, width
    buffers = [torch.zeros(size, device=library.device, dtype=torch.bfloat16) for _ in range(num_buffers)]
    reorder = KvReorder(library, buffers)
    launches = [_arguments(closing, library.device) for closing in closings]

    def move_all() -> None:
        for num_rows, finished, lens in launches:
            reorder(num_rows, finished, lens)

    num_tokens = sum(len(plan_moves(c.finished).sources) * c.context for c in closings)
    return timer(move_all), 2 * num_tokens * width * 2 * num_buffers


def _arguments(closing: Closing, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Number of rows, flags and lengths, as the kernel takes them."""
    num_rows = len(closing.finished)
    lens = torch.full((num_rows,), closing.context, dtype=torch.int32, device=device)
    return torch.tensor([num_rows], dtype=torch.int32, device=device), closing.finished.int().to(device), lens


def time_graph(launch: Callable[[], None]) -> float:
    """Milliseconds on the device of what is launched, the best of three."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    with torch.cuda.stream(stream):
        launch()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        graph.capture_begin()
        launch()
        graph.capture_end()
        times = []
        for _ in range(3):
            begin, end = make_event(), make_event()
            begin.record(stream)
            graph.replay()
            end.record(stream)
            end.synchronize()
            times.append(float(begin.elapsed_time(end)))
    return min(times)


def _table(results: Sequence[Result]) -> Table:
    names = "to the last s", "no compaction s", "contiguous s", "indirect s", "all moves ms", "gain"
    table = Table("lengths", *names)
    for r in results:
        times = r.to_the_last_s, r.window_s, r.contiguous_s, r.indirect_s, r.moves_ms, r.gain
        table.add_row(f"{SHORTEST} to {r.longest}", *map(str, times))
    return table


if __name__ == "__main__":
    typer.run(main)
