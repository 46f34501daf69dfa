"""Ten thousand queued requests, two thousand streams, clients that leave at every stage or never read: what is left after them.

    python -m benchmarks.storm --out benchmarks/results/storm_cpu.json

A table for people; the last line is one JSON document. The exit status is 1 if anything was lost, left over or wrong.
"""

import asyncio
import json
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.crowd import ask
from benchmarks.deployed import Deployed, Footprint, deployed
from benchmarks.machine import describe_machine
from benchmarks.storm_phases import (
    Outcome,
    leave_storm,
    queue_storm,
    short,
    silent_storm,
    stream_storm,
    until,
)
from benchmarks.witness import Witnesses
from server.bench.measure import run

SETTLE_SECONDS = 30.0
RESTING_TASKS = 6  # a server process that serves nobody has fewer
STALL_SECONDS = 3.0  # of the server's: a client may leave its answer unread so long
LONGEST = 64  # tokens of an answer that somebody leaves
STREAM_TOKENS = 48  # so many that none has ended before all have begun
WITNESS_TOKENS = 8


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of each."""

    queued: int = 10_000
    streams: int = 2_000
    leavers: int = 250  # at each stage
    silent: int = 500
    rows: int = 32  # but for the streams, each of which has one
    witnesses: int = 3
    workers: int = 2


_SIZES = Sizes()
Phases = list[Callable[[Deployed], Awaitable[Outcome]]]


def queue_flags(sizes: Sizes, dtype: str) -> dict[str, object]:
    """Settings that hold all clients, of which few have a row."""
    return {
        "dtype": dtype,
        "api-workers": sizes.workers,
        "max-requests": sizes.rows,
        "max-batch-tokens": max(512, sizes.rows),
        "max-model-len": 512,
        "kv-tokens": sizes.rows * 512,
        "max-queued-requests": 2 * sizes.queued,
        "stall-seconds": STALL_SECONDS,
        "step-seconds": 0,  # prompts that nobody waits for the end of may take all of a step
        "log-level": "warning",
    }


def stream_flags(sizes: Sizes, dtype: str) -> dict[str, object]:
    """A row for every client."""
    rows = sizes.streams + sizes.witnesses + 8
    more = {"max-requests": rows, "max-batch-tokens": max(512, rows), "kv-tokens": rows * 64}
    return queue_flags(sizes, dtype) | more


def in_a_storm(flags: dict[str, object], sizes: Sizes, phases: Phases) -> list[Outcome]:
    """A server of its own."""
    with (
        tempfile.TemporaryDirectory(prefix="tokenloom-storm-") as name,
        deployed(flags, Path(name) / "log") as server,
    ):
        return run(lambda: weather(server, sizes, phases))


async def weather(server: Deployed, sizes: Sizes, phases: Phases) -> list[Outcome]:
    """The phases one after the other beside witnesses, and then what is left of them."""
    await asyncio.gather(*(ask(server.place, short(2)) for _ in range(32)))
    witnesses = Witnesses(server.place, sizes.witnesses, WITNESS_TOKENS)
    await witnesses.begin()
    await until(server, lambda counts: counts.sum("num_requests_running") >= 0, "a first answer")
    before = server.footprints()
    outcomes: list[Outcome] = []
    for phase in phases:
        outcomes.append(await phase(server))
        typer.echo(f"  {outcomes[-1].phase}: {outcomes[-1].figures}", err=True)
    seen = await witnesses.end()
    figures = {"answers": float(seen.answered), "wrong": float(seen.wrong), "failed": float(seen.failed)}
    faults = [f"witnesses: {name}" for name in ("wrong", "failed") if figures[name]]
    return [*outcomes, Outcome("witnesses", figures, faults), await what_is_left(server, before)]


async def what_is_left(server: Deployed, before: dict[str, Footprint]) -> Outcome:
    """No row, no block, no descriptor and no process more or less than before."""
    began = time.perf_counter()
    leaks = await _leaks(server, before)
    while leaks and time.perf_counter() - began < SETTLE_SECONDS:
        await asyncio.sleep(0.2)
        leaks = await _leaks(server, before)
    after = server.footprints()
    figures = {"s until nothing was left": time.perf_counter() - began}
    figures |= {f"descriptors of {name}": float(after[name].descriptors) for name in after}
    figures |= {f"MiB of {name}": after[name].memory / 2**20 for name in after}
    return Outcome("left over", figures, leaks)


async def _leaks(server: Deployed, before: dict[str, Footprint]) -> list[str]:
    counts, after = await server.counts(), server.footprints()
    found = [] if counts.is_idle else ["rows, queue or blocks are not empty"]
    if restarts := counts.sum("engine_restarts_total"):
        found.append(f"the engine was started again {restarts:g} times")
    num_workers = sum(name.startswith("loom-server") for name in after)
    if (tasks := counts.sum("process_tasks")) > RESTING_TASKS * num_workers:
        found.append(f"the server processes have {tasks:g} tasks")
    if after.keys() != before.keys():
        found.append(f"processes are {sorted(after)}, were {sorted(before)}")
    for name in after.keys() & before.keys():
        # The reading itself may hold a connection of one of the server processes.
        more = after[name].descriptors - before[name].descriptors
        if more > 1:
            found.append(f"{name} has {more} descriptors more than before")
    return found


def _first(sizes: Sizes) -> Phases:
    return [
        lambda server: queue_storm(server, sizes.rows, sizes.queued),
        lambda server: leave_storm(server, sizes.leavers, LONGEST),
        lambda server: silent_storm(server, sizes.silent),
    ]


def _second(sizes: Sizes) -> Phases:
    return [lambda server: stream_storm(server, sizes.streams, STREAM_TOKENS)]


def main(
    queued: Annotated[int, typer.Option(help="Requests that wait at once.")] = _SIZES.queued,
    streams: Annotated[int, typer.Option(help="Streams that are live at once.")] = _SIZES.streams,
    leavers: Annotated[int, typer.Option(help="Clients that leave, at each stage.")] = _SIZES.leavers,
    silent: Annotated[int, typer.Option(help="Clients that never read.")] = _SIZES.silent,
    workers: Annotated[int, typer.Option(help="Server processes.")] = _SIZES.workers,
    part: Annotated[
        Literal["all", "queue", "streams"], typer.Option(help="queue: all that needs no row for each client.")
    ] = "all",
    dtype: Annotated[str, typer.Option(help="What the model computes in.")] = "bfloat16",
    out: Annotated[
        Path | None, typer.Option(help="Write the JSON document there too.", metavar="FILE")
    ] = None,
) -> None:
    """Storms over the bundled model on this machine."""
    sizes = Sizes(queued, streams, leavers, silent, workers=workers)
    outcomes: list[Outcome] = []
    if part != "streams":
        outcomes += in_a_storm(queue_flags(sizes, dtype), sizes, _first(sizes))
    if part != "queue":
        outcomes += in_a_storm(stream_flags(sizes, dtype), sizes, _second(sizes))
    Console(width=100).print(_table(outcomes))
    document = json.dumps(
        {
            "benchmark": "storm",
            "machine": describe_machine(),
            "sizes": asdict(sizes),
            "dtype": dtype,
            "phases": [asdict(outcome) for outcome in outcomes],
        }
    )
    if out is not None:
        out.write_text(document + "\n", encoding="utf-8")
    typer.echo(document)
    raise typer.Exit(1 if any(outcome.faults for outcome in outcomes) else 0)


def _table(outcomes: list[Outcome]) -> Table:
    table = Table(title="Storms", title_justify="left")
    table.add_column("phase")
    table.add_column("what")
    table.add_column("figure", justify="right")
    for outcome in outcomes:
        for name, value in outcome.figures.items():
            table.add_row(outcome.phase, name, f"{value:.1f}" if value % 1 else f"{value:.0f}")
        for fault in outcome.faults:
            table.add_row(outcome.phase, "[bold red]fault[/bold red]", fault)
    return table


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        typer.run(main)
