"""A server under a mixed load for a while: does its memory grow, do descriptors or tasks stay behind?

    python -m benchmarks.soak --minutes 20 --out benchmarks/results/soak_cpu.json

Streams, whole answers, bad requests, clients that leave; the memory of every process is sampled, and its slope is the line of
least squares through what comes after the first minutes. The last line is one JSON document.
"""

import asyncio
import json
import random
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.crowd import Told, ask, ask_and_leave, post
from benchmarks.deployed import Deployed, Footprint, deployed
from benchmarks.machine import describe_machine
from benchmarks.witness import Testimony, Witnesses
from server.bench.measure import run

SAMPLE_SECONDS = 10.0
BAD = (
    {"prompt": "Hello", "max_tokens": -1},
    {"prompt": [[1, 2], [999_999_999]]},
    {"prompt": "Hello", "model": "another"},
    {"messages": "none"},
)


@dataclass(frozen=True, slots=True)
class Sample:
    """At one moment. `tasks` is of all server processes, as they last said."""

    at: float  # seconds since the begin
    footprints: dict[str, Footprint]
    tasks: float


@dataclass(frozen=True, slots=True)
class Trend:
    """One process's memory, after the first minutes."""

    process: str
    first_mib: float
    last_mib: float
    mib_an_hour: float
    error: float  # of the slope, one standard deviation
    descriptors_least: int
    descriptors_most: int


@dataclass(slots=True)
class Soak:
    """What was seen."""

    samples: list[Sample] = field(default_factory=list)
    endings: Counter[str] = field(default_factory=Counter[str])
    witnesses: Testimony = field(default_factory=lambda: Testimony(0, 0, 0))


async def soak(server: Deployed, seconds: float, rate: float) -> Soak:
    """Clients come by a Poisson process."""
    rng, seen = random.Random(0), Soak()
    witnesses = Witnesses(server.place, 1, 8)
    await witnesses.begin()
    began = time.perf_counter()
    sampling = asyncio.create_task(_sample(server, seen, began))
    visits: set[asyncio.Task[None]] = set()
    while time.perf_counter() - began < seconds:
        await asyncio.sleep(rng.expovariate(rate))
        visit = asyncio.create_task(_visit(server, rng, seen))
        visits.add(visit)
        visit.add_done_callback(visits.discard)
    await asyncio.gather(*visits)
    seen.witnesses = await witnesses.end()
    sampling.cancel()
    await asyncio.gather(sampling, return_exceptions=True)
    return seen


async def _sample(server: Deployed, seen: Soak, began: float) -> None:
    while True:
        tasks = (await server.counts()).sum("process_tasks")
        seen.samples.append(Sample(time.perf_counter() - began, server.footprints(), tasks))
        await asyncio.sleep(SAMPLE_SECONDS)


async def _visit(server: Deployed, rng: random.Random, seen: Soak) -> None:
    fate = rng.random()
    ids = [rng.randrange(1000, 40_000) for _ in range(rng.choice((4, 16, 64, 200)))]
    wanted = {"prompt": ids, "max_tokens": rng.randint(1, 32), "stream": rng.random() < 0.7}
    if fate < 0.1:
        told = await ask(server.place, post(rng.choice(BAD)))
    elif fate < 0.2:
        told = await ask_and_leave(server.place, post(wanted), rng.uniform(0, 2))
    elif fate < 0.3:
        told = await ask(server.place, post(wanted | {"stream": True}), leaves_at_event=rng.randint(1, 8))
    elif fate < 0.35:
        whole = post(wanted)
        told = await ask_and_leave(server.place, whole[: rng.randrange(1, len(whole))], rng.uniform(0, 1))
    else:
        more = rng.choice(({}, {"logprobs": 5}, {"n": 3}, {"stop": ["the"]}, {"ignore_eos": True}))
        told = await ask(server.place, post(wanted | more))
    seen.endings[_ending(told)] += 1


def _ending(told: Told) -> str:
    return "left" if told.has_left else f"status {told.status}"


def trends(samples: list[Sample], left_out: float) -> list[Trend]:
    """Of each process that was there from the first sample on."""
    counted = [sample for sample in samples if sample.at >= left_out]
    return [_trend(name, counted) for name in sorted(counted[0].footprints)]


def _trend(name: str, samples: list[Sample]) -> Trend:
    held = [(sample.at / 3600, sample.footprints[name]) for sample in samples if name in sample.footprints]
    hours = np.array([at for at, _ in held])
    mib = np.array([footprint.memory / 2**20 for _, footprint in held])
    (slope, offset), residuals = np.polyfit(hours, mib, 1), hours - hours.mean()
    scatter = np.sum((mib - slope * hours - offset) ** 2) / max(1, len(mib) - 2)
    descriptors = [footprint.descriptors for _, footprint in held]
    return Trend(
        process=name,
        first_mib=float(mib[0]),
        last_mib=float(mib[-1]),
        mib_an_hour=float(slope),
        error=float(np.sqrt(scatter / np.sum(residuals**2))),
        descriptors_least=min(descriptors),
        descriptors_most=max(descriptors),
    )


def _memory(samples: list[Sample]) -> dict[str, list[float]]:
    """MiB of each process, and the seconds at which they were read."""
    series = {"seconds": [round(sample.at, 1) for sample in samples]}
    for name in sorted(samples[0].footprints):
        held = [sample.footprints[name].memory if name in sample.footprints else 0 for sample in samples]
        series[name] = [round(size / 2**20, 1) for size in held]
    return series


def main(
    minutes: Annotated[float, typer.Option(help="How long.", min=0.5)] = 20.0,
    rate: Annotated[float, typer.Option(help="Requests a second.", min=0.01)] = 1.5,
    left_out: Annotated[float, typer.Option(help="Minutes at the begin that do not count.", min=0)] = 4.0,
    threads: Annotated[int, typer.Option(help="Of the engine; 0: one a core.")] = 1,
    dtype: Annotated[str, typer.Option(help="What the model computes in.")] = "bfloat16",
    out: Annotated[
        Path | None, typer.Option(help="Write the JSON document there too.", metavar="FILE")
    ] = None,
) -> None:
    """Soak the bundled model on this machine."""
    flags = {
        "dtype": dtype,
        "api-workers": 2,
        "threads": threads,
        "max-requests": 16,
        "max-model-len": 512,
        "kv-tokens": 16 * 512,
        "log-level": "warning",
    }
    with (
        tempfile.TemporaryDirectory(prefix="tokenloom-soak-") as name,
        deployed(flags, Path(name) / "log") as server,
    ):
        seen = run(lambda: soak(server, minutes * 60, rate))
    found = trends(seen.samples, left_out * 60)
    Console(width=100).print(_table(found))
    tasks = [sample.tasks for sample in seen.samples]
    document = {
        "benchmark": "soak",
        "machine": describe_machine(),
        "dtype": dtype,
        "minutes": minutes,
        "left_out_minutes": left_out,
        "rate": rate,
        "endings": dict(seen.endings),
        "witnesses": asdict(seen.witnesses),
        "processes": [asdict(trend) for trend in found],
        "memory": _memory(seen.samples),
        "mib_an_hour": sum(trend.mib_an_hour for trend in found),
        "tasks_of_server_processes": {"first": tasks[0], "most": max(tasks), "last": tasks[-1]},
    }
    if out is not None:
        out.write_text(json.dumps(document) + "\n", encoding="utf-8")
    typer.echo(json.dumps(document))
    raise typer.Exit(1 if seen.witnesses.wrong or seen.endings["status 500"] else 0)


def _table(found: list[Trend]) -> Table:
    table = Table(title="Soak", title_justify="left")
    table.add_column("process")
    for name in ("first MiB", "last MiB", "MiB/hour", "+-", "descriptors"):
        table.add_column(name, justify="right")
    for trend in found:
        numbers = (trend.first_mib, trend.last_mib, trend.mib_an_hour, trend.error)
        span = f"{trend.descriptors_least} to {trend.descriptors_most}"
        table.add_row(trend.process, *(f"{number:.1f}" for number in numbers), span)
    return table


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        typer.run(main)
