"""What a step costs the host, by the number of rows: the loop's own work between two steps of a GPU, and how long the GPU waits for it.

    python -m benchmarks.host_cpu_gpu --out benchmarks/results/host_cpu_h100.json --plot benchmarks/results/host_cpu_h100.svg

The loop waits for the device by turning on the spot, which a clock of processor time counts as work. So the work is timed with the device
idle: it is waited for before each step, outside what is timed, and then the loop plans, launches, reads, tells the client, and waits for
nothing. Messages are encoded, as for a server process, and thrown away. After that as many steps run freely: how long they take, and how
long the device stands still between two of them, by its own clock, from the last token's write to the next step's plan. Prompts differ in
length, so that a step hands out blocks to a sixteenth of the rows. A table for people; the last line is one JSON document.
"""

import itertools
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.encoder_plot import HOW_TO_INSTALL, is_available
from benchmarks.shapes import SHAPES, write_shape
from benchmarks.step_gpu import make_config
from engine.loop.loop import Engine
from engine.loop.observer import SilentObserver
from engine.process.environment import share_cores
from engine.process.load import load_model, make_engine
from engine.request import Abort, Emit, SamplingParams, Submit
from engine.startup import StartupReport

BLOCK = 16  # tokens: a row gets a new block of keys and values once in so many steps
NUM_WARM = 2 * BLOCK
NUM_STEPS = 12 * BLOCK  # of each of the two runs
CLIENT = 0


@dataclass(frozen=True, slots=True)
class Point:
    """Microseconds of one step with so many rows, each with one token to compute."""

    rows: int
    cpu_us: float  # of the loop's thread, mean
    process_us: float  # of all the process's threads, mean
    work_us: float  # by the wall clock, median; the device is idle
    work_p99_us: float
    step_us: float  # of the device, mean of the free run
    idle_us: float  # of the device between two steps, median
    idle_share: float  # of the free run's time
    free_us: float  # by the wall clock, from step to step


class Watcher(SilentObserver):
    """What the loop says of its steps."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, int, float, float]] = []  # tokens, rows, seconds, seconds before it

    def on_step(self, num_tokens: int, num_rows: int, seconds: float, host_gap: float) -> None:
        self.steps.append((num_tokens, num_rows, seconds, host_gap))


class Bench:
    """An engine, and a clock for its steps."""

    def __init__(self, engine: Engine, watcher: Watcher, wait: Callable[[], None]) -> None:
        """wait: until the device has nothing to do."""
        self.engine = engine
        self._watcher = watcher
        self._wait = wait
        self._ids = itertools.count()

    def measure(self, num_rows: int) -> Point:
        messages = [self._ask(place) for place in range(num_rows)]
        for message in messages:
            self.engine.submit(message, CLIENT)
        self._settle(num_rows)
        works = self._time_works()
        self._settle(num_rows)
        began, first = time.perf_counter(), len(self._watcher.steps)
        for _ in range(NUM_STEPS):
            self.engine.step()
        free = time.perf_counter() - began
        steps = self._watcher.steps[first:]
        assert all(step[:2] == (num_rows, num_rows) for step in steps), "a request ended too early"
        self.engine.abort(Abort(ids=tuple(message.id for message in messages), cause="shutdown"))
        while self.engine.has_work:
            self.engine.step()
        return _point(num_rows, works, steps, free)

    def _ask(self, place: int) -> Submit:
        rnd, num_tokens = random.Random(place), BLOCK + place % BLOCK
        prompt = tuple(rnd.randrange(100, 30000) for _ in range(num_tokens))
        sampling = SamplingParams(max_tokens=2048, temperature=0.0)
        return Submit(id=next(self._ids), prompt=prompt, sampling=sampling)

    def _settle(self, num_rows: int) -> None:
        """Until some steps had all the rows, and nothing but a token of each."""
        first = len(self._watcher.steps)
        while [step[:2] for step in self._watcher.steps[first:]][-NUM_WARM:] != [(num_rows,) * 2] * NUM_WARM:
            self.engine.step()

    def _time_works(self) -> list[tuple[float, float, float]]:
        """Seconds of each step: of this thread, of all threads, by the wall clock."""
        works = []
        for _ in range(NUM_STEPS):
            self._wait()
            before = time.thread_time(), time.process_time(), time.perf_counter()
            self.engine.step()
            after = time.thread_time(), time.process_time(), time.perf_counter()
            works.append((after[0] - before[0], after[1] - before[1], after[2] - before[2]))
        return works


def _point(
    num_rows: int,
    works: Sequence[tuple[float, float, float]],
    steps: Sequence[tuple[int, int, float, float]],
    free: float,
) -> Point:
    thread, process, wall = zip(*works, strict=True)
    idle = [gap for *_, gap in steps]
    values = (
        statistics.fmean(thread) * 1e6,
        statistics.fmean(process) * 1e6,
        statistics.median(wall) * 1e6,
        sorted(wall)[len(wall) * 99 // 100] * 1e6,
        statistics.fmean(seconds for _, _, seconds, _ in steps) * 1e6,
        statistics.median(idle) * 1e6,
        sum(idle) / free,
        free / len(steps) * 1e6,
    )
    return Point(num_rows, *(round(value, 4 if value < 1 else 1) for value in values))


def open_bench(shape: str, gpu_memory: int) -> Bench:
    share_cores()
    watcher, encode = Watcher(), msgspec.msgpack.Encoder().encode

    def publish(_client: int, emit: Emit) -> None:
        encode(emit)

    with tempfile.TemporaryDirectory() as folder:
        config = make_config(write_shape(shape, Path(folder)), False, gpu_memory)
        engine = make_engine(load_model(config, StartupReport()), publish, watcher)
    assert isinstance(engine, Engine)
    return Bench(engine, watcher, torch.cuda.synchronize)


def main(
    shape: Annotated[str, typer.Option(help=f"Of {', '.join(SHAPES)}.")] = "llama3.2-1b",
    rows: Annotated[str, typer.Option(help="Live requests of a step.")] = "1,2,4,8,16,32,64,128,256,512",
    gpu_memory: Annotated[float, typer.Option(help="GiB of the GPU that may be in use in all.")] = 68.0,
    plot: Annotated[Path | None, typer.Option(help="Draw the picture there: .svg, .png, .pdf.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the JSON document there too.")] = None,
) -> None:
    """Processor time of the host for a step, by the number of rows, and what the GPU waits for it."""
    if plot is not None and not is_available():
        raise typer.BadParameter(HOW_TO_INSTALL, param_hint="--plot")
    bench = open_bench(shape, int(gpu_memory * (1 << 30)))
    points: list[Point] = []
    for num_rows in map(int, rows.split(",")):
        points.append(bench.measure(num_rows))
        print(points[-1], flush=True)
    bench.engine.close()
    Console(width=120).print(_table(points))
    document = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "shape": shape,
        "steps": NUM_STEPS,
        "points": [asdict(point) for point in points],
    }
    line = json.dumps(document)
    if out is not None:
        out.write_text(line + "\n")
    print(line)
    if plot is not None:
        _draw(points, f"{shape}, {torch.cuda.get_device_name()}", plot)


def _table(points: Sequence[Point]) -> Table:
    names = "cpu us", "process us", "work us", "p99", "step us", "idle us", "idle", "from step to step us"
    table = Table("rows", *names)
    for p in points:
        host = p.cpu_us, p.process_us, p.work_us, p.work_p99_us
        device = p.step_us, p.idle_us, f"{p.idle_share:.1%}", p.free_us
        table.add_row(*map(str, (p.rows, *host, *device)))
    return table


def _draw(points: Sequence[Point], title: str, path: Path) -> None:
    """In the format of the path's suffix. Errors: ValueError for an unknown one."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    rows = [p.rows for p in points]
    axes.plot(rows, [p.step_us for p in points], marker="o", label="the device, a step")
    axes.plot(rows, [p.cpu_us for p in points], marker="o", label="the host's thread, a step")
    axes.plot(rows, [p.idle_us for p in points], marker="o", label="the device, still between steps")
    axes.set_xscale("log", base=2)
    axes.set_xticks(rows, [str(number) for number in rows])
    axes.set_yscale("log")
    axes.set_xlabel("rows, each with one token a step")
    axes.set_ylabel("microseconds")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path)


if __name__ == "__main__":
    typer.run(main)
