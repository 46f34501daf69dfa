"""What is left of a server's capacity when more is asked of it than it has, and whether those it sends away are served later.

    python -m benchmarks.overload --out benchmarks/results/overload_cpu.json

First the capacity: as many clients as there are rows, each asking again once it is answered. Then strangers who come by a
Poisson process, at one and three times that rate. A 429 is obeyed: the client comes back after Retry-After, or (the last load)
never does. Goodput is tokens a second of the answers that met both objectives. The loads take turns, because a shared machine
is not as fast at one minute as at the next. The last line is one JSON document.
"""

import asyncio
import json
import random
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.crowd import Told, ask, post
from benchmarks.deployed import Deployed, deployed
from benchmarks.machine import describe_machine
from server.bench.measure import run

PROMPT_TOKENS, OUTPUT_TOKENS = 32, 24
QUEUE_PART = 0.7  # of the time to a first token: what the server may let a request wait for its turn
MAX_RETRIES = 4
SETTLING = 0.15  # of a load's time, at its begin, that does not count: its queue grows first


@dataclass(frozen=True, slots=True)
class Objectives:
    """Seconds."""

    first_token: float
    between_tokens: float  # a request's mean

    def are_met(self, told: Told) -> bool:
        return (
            told.is_whole
            and told.first - told.asked <= self.first_token
            and _between_tokens(told) <= self.between_tokens
        )


@dataclass(slots=True)
class Visit:
    """One client's attempts, the last of which counts."""

    told: list[Told] = field(default_factory=list)

    @property
    def last(self) -> Told:
        return self.told[-1]

    @property
    def is_served(self) -> bool:
        return self.last.is_whole

    @property
    def num_retries(self) -> int:
        return len(self.told) - 1


@dataclass(frozen=True, slots=True)
class Load:
    """Clients came from `began` to `ended`, by perf_counter."""

    name: str
    visits: list[Visit]
    began: float
    ended: float

    @property
    def settled(self) -> float:
        """From then on it counts what answers end."""
        return self.began + SETTLING * (self.ended - self.began)

    @property
    def counted(self) -> list[Visit]:
        return [one for one in self.visits if one.is_served and self.settled <= one.last.last <= self.ended]


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one load."""

    load: str
    offered: float  # requests a second
    throughput: float  # tokens a second
    goodput: float
    first_token_p50: float
    first_token_p99: float
    between_tokens_p99: float
    refused: float  # part of the clients that were sent away at least once
    served_at_once: float  # parts of all clients
    served_on_first_retry: float  # parts of those that were sent away and came back
    served_on_second_retry: float
    served_later: float
    retry_after_p50: float
    retry_after_max: float
    failed: int  # neither served nor refused


async def visit(server: Deployed, rng: random.Random, obeys: bool) -> Visit:
    ids = [rng.randrange(1000, 40_000) for _ in range(PROMPT_TOKENS)]
    wanted = {"prompt": ids, "max_tokens": OUTPUT_TOKENS, "ignore_eos": True}
    request = post(wanted | {"temperature": 0, "stream": True})
    result = Visit()
    for _ in range(MAX_RETRIES + 1 if obeys else 1):
        result.told.append(await ask(server.place, request))
        if result.last.status != 429:
            break
        if len(result.told) <= MAX_RETRIES and obeys:
            await asyncio.sleep(result.last.retry_after)
    return result


async def closed_load(server: Deployed, num_clients: int, seconds: float) -> Load:
    began = time.perf_counter()
    visits: list[Visit] = []

    async def client(index: int) -> None:
        rng = random.Random(index)
        while time.perf_counter() - began < seconds:
            visits.append(await visit(server, rng, obeys=False))

    await asyncio.gather(*(client(index) for index in range(num_clients)))
    return Load("capacity, closed loop", visits, began, began + seconds)


async def open_load(server: Deployed, rate: float, seconds: float, obeys: bool, name: str) -> Load:
    """Of strangers."""
    rng = random.Random(round(rate * 1000) + obeys)
    began = time.perf_counter()
    tasks: list[asyncio.Task[Visit]] = []
    due = began
    while (due := due + rng.expovariate(rate)) < began + seconds:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(visit(server, rng, obeys)))
    return Load(name, await asyncio.gather(*tasks), began, began + seconds)


async def measure(
    server: Deployed, rows: int, seconds: float, rounds: int, objectives: Objectives
) -> list[Figures]:
    """Of each load, over all rounds."""
    warm_up = await closed_load(server, rows, seconds)
    capacity = _figures([warm_up], objectives).throughput / OUTPUT_TOKENS
    turns = []
    for number in range(rounds):
        turns.append([await closed_load(server, rows, seconds)])
        for times, obeys in ((1, True), (3, True), (3, False)):
            name = f"{times} x, " + ("clients obey" if obeys else "nobody comes back")
            turns[-1].append(await open_load(server, capacity * times, seconds, obeys, name))
        typer.echo(f"  round {number + 1} of {rounds} is over", err=True)
    return [_figures(loads, objectives) for loads in zip(*turns, strict=True)]


def _figures(loads: Sequence[Load], objectives: Objectives) -> Figures:
    """The same load's, of every round."""
    visits = [one for load in loads for one in load.visits]
    served = [one for one in visits if one.is_served]
    sent_away = [one for one in visits if any(told.status == 429 for told in one.told)]
    back = [one for one in sent_away if one.num_retries]
    first = [one.last.first - one.last.asked for one in served]
    waits = [told.retry_after for one in sent_away for told in one.told if told.status == 429]
    counted = [one for load in loads for one in load.counted]
    good = [one for one in counted if objectives.are_met(one.last)]
    by_retries = [sum(one.is_served and one.num_retries == count for one in back) for count in (1, 2)]
    seconds = sum(load.ended - load.settled for load in loads)
    return Figures(
        load=loads[0].name,
        offered=len(visits) / sum(load.ended - load.began for load in loads),
        throughput=len(counted) * OUTPUT_TOKENS / seconds,
        goodput=len(good) * OUTPUT_TOKENS / seconds,
        first_token_p50=_quantile(first, 0.5),
        first_token_p99=_quantile(first, 0.99),
        between_tokens_p99=_quantile([_between_tokens(one.last) for one in served], 0.99),
        refused=len(sent_away) / len(visits),
        served_at_once=sum(not one.num_retries for one in served) / len(visits),
        served_on_first_retry=by_retries[0] / max(1, len(back)),
        served_on_second_retry=by_retries[1] / max(1, len(back)),
        served_later=sum(one.is_served and one.num_retries > 2 for one in back) / max(1, len(back)),
        retry_after_p50=_quantile(waits, 0.5),
        retry_after_max=max(waits, default=0),
        failed=sum(
            one.last.status not in (200, 429) or one.last.status == 200 and not one.is_served
            for one in visits
        ),
    )


def _between_tokens(told: Told) -> float:
    return (told.last - told.first) / max(1, OUTPUT_TOKENS - 1)


def _quantile(values: list[float] | list[int], part: float) -> float:
    return float(np.quantile(values, part)) if values else 0.0


def main(
    rows: Annotated[int, typer.Option(help="Requests that are live at once.", min=1)] = 16,
    seconds: Annotated[float, typer.Option(help="How long each load lasts.", min=1)] = 30.0,
    rounds: Annotated[int, typer.Option(help="How often each load has its turn.", min=1)] = 4,
    first_token: Annotated[
        float, typer.Option(help="Seconds that the first token of a good answer may take.")
    ] = 6.0,
    between_tokens: Annotated[
        float, typer.Option(help="Seconds between the tokens of a good answer, on average.")
    ] = 0.5,
    dtype: Annotated[str, typer.Option(help="What the model computes in.")] = "bfloat16",
    bounded: Annotated[
        bool, typer.Option(help="Refuse who would wait too long; else only the queue's size bounds it.")
    ] = True,
    out: Annotated[
        Path | None, typer.Option(help="Write the JSON document there too.", metavar="FILE")
    ] = None,
) -> None:
    """Overload of the bundled model on this machine."""
    objectives = Objectives(first_token, between_tokens)
    flags = {
        "dtype": dtype,
        "api-workers": 2,
        "max-requests": rows,
        "max-model-len": 512,
        "max-queue-seconds": QUEUE_PART * first_token if bounded else 0,
        "log-level": "warning",
    }
    with (
        tempfile.TemporaryDirectory(prefix="tokenloom-overload-") as name,
        deployed(flags, Path(name) / "log") as server,
    ):
        figures = run(lambda: measure(server, rows, seconds, rounds, objectives))
    Console(width=140).print(_table(figures))
    peak = max(one.goodput for one in figures)
    lost = {one.load: 1 - one.goodput / peak for one in figures}
    document = {
        "benchmark": "overload",
        "machine": describe_machine(),
        "dtype": dtype,
        "rows": rows,
        "seconds": seconds,
        "rounds": rounds,
        "bounded": bounded,
        "objectives": asdict(objectives),
        "prompt_tokens": PROMPT_TOKENS,
        "output_tokens": OUTPUT_TOKENS,
        "loads": [asdict(one) for one in figures],
        "goodput_lost": lost,
    }
    if out is not None:
        out.write_text(json.dumps(document) + "\n", encoding="utf-8")
    typer.echo(json.dumps(document))
    raise typer.Exit(1 if any(one.failed for one in figures) else 0)


def _table(figures: list[Figures]) -> Table:
    table = Table(title="Overload", title_justify="left")
    table.add_column("what")
    for one in figures:
        table.add_column(one.load, justify="right")
    rows = [asdict(one) for one in figures]
    for name in list(rows[0])[1:]:
        table.add_row(name.replace("_", " "), *(f"{row[name]:.3g}" for row in rows))
    return table


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        typer.run(main)
