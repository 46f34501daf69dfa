"""What the owner of one key notices of the flood that another one sends.

    python -m benchmarks.fairness --out benchmarks/results/fairness_cpu.json

A quiet key's requests come as a Poisson process: alone, beside a flood of another key's, beside another key's long prompts,
and, to compare, beside the same flood with no key told from the other. Tables for people; the last line is one JSON document.
"""

import asyncio
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.launch import running
from benchmarks.machine import describe_machine
from benchmarks.peers import Peer, tokenloom
from engine.checkpoint import open_checkpoint
from server.auth.key import digest_of
from server.bench.load import Run
from server.bench.measure import measure, run
from server.bench.options import Options
from server.bench.summary import Spread, Summary, summarise

QUIET, FLOOD = "tl-quiet", "tl-flood"
PORT = 8840
Flood = Callable[[str], Options]  # by the server's address


@dataclass(frozen=True, slots=True)
class Load:
    """The flood's size, and the quiet key's pace."""

    num_flood: int
    flood_tokens: int  # of an answer
    num_quiet: int
    rate: float  # a second
    long_prompt: int

    def quiet(self, url: str) -> Options:
        return Options(
            url=url,
            num_requests=self.num_quiet,
            num_warmups=0,
            rate=self.rate,
            prompt_tokens="62",
            max_tokens="32",
            headers=_sent(QUIET),
            seed=1,
        )

    def flood(self, url: str) -> Options:
        return Options(
            url=url,
            num_requests=self.num_flood,
            num_warmups=0,
            concurrency=self.num_flood,
            prompt_tokens="uniform:16:256",
            max_tokens=str(self.flood_tokens),
            headers=_sent(FLOOD),
            seed=2,
        )

    def long_prompts(self, url: str) -> Options:
        """Always four of them."""
        flood = replace(self.flood(url), concurrency=4, prompt_tokens=str(self.long_prompt), seed=3)
        return replace(flood, max_tokens="1")

    def same_key(self, url: str) -> Options:
        return replace(self.flood(url), headers=_sent(QUIET))


@dataclass(frozen=True, slots=True)
class Result:
    """The quiet key's requests in one setting. Milliseconds."""

    beside: str
    completed: int
    failed: int
    ttft_median: float
    ttft_p99: float
    itl_median: float
    itl_p99: float
    flood_completed: int  # in the same time


def main(
    num_flood: Annotated[int, typer.Option("--flood", min=1, help="Requests of the flood.")] = 500,
    flood_tokens: Annotated[int, typer.Option(min=1, help="Tokens of each answer of the flood.")] = 128,
    num_quiet: Annotated[int, typer.Option("--quiet", min=2, help="Requests of the quiet key.")] = 40,
    rate: Annotated[float, typer.Option(min=0.01, help="Requests a second of the quiet key.")] = 1.0,
    long_prompt: Annotated[int, typer.Option(min=1, help="Tokens of a long prompt.")] = 7900,
    rows: Annotated[int, typer.Option(min=1, help="Rows of the server.")] = 32,
    step_seconds: Annotated[float, typer.Option(min=0, help="The server's setting of that name.")] = 0.25,
    out: Annotated[
        Path | None, typer.Option(help="Write the JSON document there too.", metavar="FILE")
    ] = None,
) -> None:
    """Measure this server, with the bundled model, under its default settings but for the rows."""
    load = Load(num_flood, flood_tokens, num_quiet, rate, long_prompt)
    floods: dict[str, Flood | None] = {
        "nothing": None,
        "a flood": load.flood,
        "long prompts": load.long_prompts,
        "a flood with its own key": load.same_key,
    }
    results = []
    for name, flood in floods.items():
        with _served(rows, step_seconds) as server:
            results.append(_measure(name, load.quiet(server.url), flood and flood(server.url)))
        typer.echo(f"beside {name}: {results[-1]}", err=True)
    Console(width=120).print(_table(results))
    document = json.dumps(
        {
            "benchmark": "fairness",
            "machine": describe_machine(),
            "rows": rows,
            "step_seconds": step_seconds,
            "load": asdict(load),
            "results": [asdict(result) for result in results],
        }
    )
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(document + "\n", encoding="utf-8")
    typer.echo(document)
    raise typer.Exit(1 if any(result.failed for result in results) else 0)


@contextmanager
def _served(rows: int, step_seconds: float) -> Iterator[Peer]:
    """A server that knows two keys; a new one each time, so that nothing is cached."""
    with tempfile.TemporaryDirectory(prefix="tokenloom-bench-") as name:
        keys = Path(name, "keys.toml")
        names = {"quiet": QUIET, "flood": FLOOD}
        keys.write_text("".join(_entry(owner, key) for owner, key in names.items()), encoding="utf-8")
        peer = tokenloom("auto", open_checkpoint("").path, PORT)
        flags = ("--key-file", str(keys), "--max-requests", str(rows), "--step-seconds", str(step_seconds))
        peer = replace(peer, command=(*peer.command, *flags), key=QUIET)
        with running(peer, Path(name, "log")):
            yield peer


def _entry(owner: str, key: str) -> str:
    return f'[[key]]\nname = "{owner}"\nsha256 = "{digest_of(key.encode()).hex()}"\n'


def _sent(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def _measure(name: str, quiet: Options, flood: Options | None) -> Result:
    done, flooded = run(lambda: _both(quiet, flood))
    summary = summarise(done, {})
    return Result(
        beside=name,
        completed=summary.completed,
        failed=summary.failed,
        ttft_median=_rounded(summary.ttft_ms).median,
        ttft_p99=_rounded(summary.ttft_ms).p99,
        itl_median=_rounded(summary.itl_ms).median,
        itl_p99=_rounded(summary.itl_ms).p99,
        flood_completed=flooded.completed if flooded else 0,
    )


async def _both(quiet: Options, flood: Options | None) -> tuple[Run, Summary | None]:
    """The flood begins first, and ends when the quiet key's requests are answered."""
    if flood is None:
        return await measure(quiet, lambda record: None), None
    flooding = asyncio.create_task(measure(flood, lambda record: None))
    await asyncio.sleep(3.0)  # until it has every row
    done = await measure(quiet, lambda record: None)
    flooding.cancel()
    return done, summarise(await flooding, {})


def _rounded(spread: Spread | None) -> Spread:
    if spread is None:
        raise ValueError("none of the quiet key's requests was answered")
    return Spread(*(round(value, 1) for value in (spread.mean, spread.median, spread.p90, spread.p99)))


def _table(results: list[Result]) -> Table:
    table = Table(title="a quiet key's requests, milliseconds", title_justify="left")
    table.add_column("beside", no_wrap=True)
    heads = "answered", "TTFT median", "TTFT p99", "between tokens, median", "p99", "flood answered"
    for head in heads:
        table.add_column(head, justify="right")
    for result in results:
        times = result.ttft_median, result.ttft_p99, result.itl_median, result.itl_p99
        cells = [f"{time:.0f}" for time in times]
        table.add_row(result.beside, str(result.completed), *cells, str(result.flood_completed))
    return table


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        typer.run(main)
