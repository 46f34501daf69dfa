"""What being watched costs: the time of a token that goes into metrics, and throughput with and without a reading every second.

    python -m benchmarks.metrics_cost --out benchmarks/results/metrics_cpu.json

The last line is one JSON document.
"""

import asyncio
import itertools
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, stdev
from typing import Annotated

import psutil
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.crowd import ask, get
from benchmarks.deployed import Deployed, deployed
from benchmarks.machine import describe_machine
from benchmarks.storm_phases import short
from engine.process.environment import share_metrics
from engine.request import SamplingParams
from server.bench.measure import run

NUM_CALLS = 100_000
NUM_READINGS = 50
OUTPUT_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Cost:
    """By itself: microseconds of a processor."""

    token: float
    request: float
    reading: float
    step: float  # in the engine


@dataclass(frozen=True, slots=True)
class Load:
    """What a server did in one round."""

    scraped: bool
    throughput: float  # tokens a second
    server_seconds: float  # of a processor, all server processes', a token


def cost_by_itself() -> Cost:
    """In files that all processes could read, as in a server. In a process of its own."""
    with tempfile.TemporaryDirectory(prefix="tokenloom-metrics-") as name:
        share_metrics(Path(name))  # before what follows brings in prometheus_client
        from engine.metrics.metrics import EngineMetrics
        from server.metrics.metrics import ServerMetrics

        metrics = ServerMetrics("model", Path(name))
        timer = metrics.track(8, SamplingParams(max_tokens=NUM_CALLS), 1)
        began = time.process_time()
        for _ in range(NUM_CALLS):
            timer.on_tokens(1)
        per_token = (time.process_time() - began) / NUM_CALLS
        began = time.process_time()
        for _ in range(NUM_CALLS // 100):
            timer = metrics.track(8, SamplingParams(), 1)
            timer.on_started(0.01, 0)
            timer.on_tokens(1)
            timer.on_tokens(1)
            timer.finish("length")
            metrics.http_response("POST", "/v1/completions", 200, 0.5)
        per_request = (time.process_time() - began) / (NUM_CALLS // 100)
        engine = EngineMetrics("model")
        began = time.process_time()
        for _ in range(NUM_CALLS):
            engine.on_step(num_tokens=256, num_rows=256, seconds=0.0024, host_gap=0.00001)
            engine.on_launch("replayed", num_moves=3)
        per_step = (time.process_time() - began) / NUM_CALLS
        metrics.render()  # what the keys mean is worked out once
        began = time.process_time()
        for _ in range(NUM_READINGS):
            metrics.render()
        per_reading = (time.process_time() - began) / NUM_READINGS
    return Cost(per_token * 1e6, per_request * 1e6, per_reading * 1e6, per_step * 1e6)


async def measure(server: Deployed, streams: int, seconds: float, rounds: int) -> list[Load]:
    await _load(server, streams, seconds / 4, scraped=False)  # warms up
    return [
        await _load(server, streams, seconds, scraped) for _ in range(rounds) for scraped in (False, True)
    ]


async def _load(server: Deployed, streams: int, seconds: float, scraped: bool) -> Load:
    """Streams one after the other at each of so many places."""
    began, busy = time.perf_counter(), _busy_seconds(server)
    tokens_before = (await server.counts()).sum("generation_tokens_total")

    async def client() -> None:
        while time.perf_counter() - began < seconds:
            await ask(server.place, short(OUTPUT_TOKENS))

    scraper = asyncio.create_task(_scrape(server, seconds if scraped else 0.0))
    await asyncio.gather(*(client() for _ in range(streams)))
    took = time.perf_counter() - began
    await scraper
    num_tokens = (await server.counts()).sum("generation_tokens_total") - tokens_before
    return Load(scraped, num_tokens / took, (_busy_seconds(server) - busy) / num_tokens)


async def _scrape(server: Deployed, seconds: float) -> None:
    for _ in itertools.repeat(None, round(seconds)):
        await ask(server.place, get("/metrics"))
        await asyncio.sleep(1.0)


def _busy_seconds(server: Deployed) -> float:
    """Of the server processes so far."""
    workers = [child for child in server.process.children() if child.name().startswith("loom-server")]
    return sum(_cpu_seconds(worker) for worker in workers)


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def main(
    streams: Annotated[int, typer.Option(help="Streams at once.", min=1)] = 64,
    seconds: Annotated[float, typer.Option(help="How long a round lasts.", min=1)] = 20.0,
    rounds: Annotated[int, typer.Option(help="Of each, one with scrapes after one without.", min=2)] = 4,
    workers: Annotated[int, typer.Option(help="Server processes.", min=1)] = 2,
    out: Annotated[
        Path | None, typer.Option(help="Write the JSON document there too.", metavar="FILE")
    ] = None,
) -> None:
    """The cost of the metrics on this machine, beside the bundled model."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        cost = process.submit(cost_by_itself).result()
    flags: dict[str, object] = {"max-requests": streams, "max-model-len": 512, "kv-tokens": streams * 512}
    flags |= {"api-workers": workers, "log-level": "warning"}
    with (
        tempfile.TemporaryDirectory(prefix="tokenloom-metrics-") as name,
        deployed(flags, Path(name) / "log") as server,
    ):
        loads = run(lambda: measure(server, streams, seconds, rounds))
    figures = _figures(cost, loads)
    Console(width=100).print(_table(figures))
    document = json.dumps(
        {
            "benchmark": "metrics_cost",
            "machine": describe_machine(),
            "streams": streams,
            "workers": workers,
            "cost": asdict(cost),
            "figures": figures,
            "rounds": [asdict(load) for load in loads],
        }
    )
    if out is not None:
        out.write_text(document + "\n", encoding="utf-8")
    typer.echo(document)


def _figures(cost: Cost, loads: Sequence[Load]) -> dict[str, float]:
    quiet, scraped = ([load.throughput for load in loads if load.scraped is kind] for kind in (False, True))
    server_token = mean(load.server_seconds for load in loads) * 1e6
    return {
        "us of a token in metrics": cost.token,
        "us of a token in the server processes": server_token,
        "us of a request in metrics": cost.request,
        "us of a reading": cost.reading,
        "us of a step in metrics": cost.step,
        "% of the time between tokens": 100 * cost.token * mean(quiet) / 1e6,
        "% of a second in one reading": cost.reading / 1e4,
        "tokens a second, not scraped": mean(quiet),
        "tokens a second, scraped every second": mean(scraped),
        "standard deviation of a round": stdev(quiet),
    }


def _table(figures: Mapping[str, float]) -> Table:
    table = Table(title="Cost of the metrics", title_justify="left")
    table.add_column("what")
    table.add_column("figure", justify="right")
    for label, value in figures.items():
        table.add_row(label, f"{value:.3g}")
    return table


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        typer.run(main)
