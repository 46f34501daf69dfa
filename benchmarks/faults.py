"""What faults cost: each is injected into a server at rest and under load.

    python -m benchmarks.faults --out benchmarks/results/faults_cpu.json

A table for people; the last line is one JSON document. Needs the checkout, whose tests bring the server that can be broken.
"""

import asyncio
import json
import signal
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import aiohttp
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.fault_clients import COMPLETIONS, Case, Ending, Load, Watch, ask, connect
from benchmarks.machine import describe_machine
from tests.e2e.deployment import Deployment
from tests.e2e.faulty_server import DEVICE_FAULT, NO_MEMORY, POISON, faulty_command
from tests.e2e.poisoned_model import UNREADABLE, write_poisoned
from tests.e2e.small_disk import WITHIN, fill, may_mount

WORDS = (
    "The sky is",
    "Water boils at",
    "Once upon a time",
    "The capital of France is",
    "A fox",
    "Two and two",
)
ASKED = {"temperature": 0, "ignore_eos": True, "return_token_ids": True}
MAX_SECONDS = 300.0  # for one fault
SERVER = {"api_workers": 2, "drain_seconds": 60.0}
# In float32 an answer does not depend on who is beside it.
ENGINE_SETTINGS = {
    "dtype": "float32",
    "max_requests": 16,
    "kv_tokens": 16384,
}


@dataclass(frozen=True, slots=True)
class Result:
    """One fault, once. Seconds from the injection; None: it does not show, or there is nothing to recover from."""

    fault: str
    state: str  # idle or loaded
    asked: str  # what became of the request that is the fault, or of the first one after it
    endings: Mapping[Ending, int]  # of the others' requests
    noticed: float | None
    recovered: float | None

    @property
    def lost(self) -> str:
        cut, broken = self.endings.get("error event", 0), self.endings.get("broken", 0)
        parts = [f"{cut} cut short with an error"] * bool(cut) + [f"{broken} connections"] * bool(broken)
        return ", ".join(parts) or "nothing"


@dataclass(frozen=True, slots=True)
class Bench:
    """A server to be broken."""

    deployment: Deployment
    session: aiohttp.ClientSession
    cases: tuple[Case, ...]
    num_clients: int


Inject = Callable[[Bench], Awaitable[str]]


def killing(process: str, signum: int) -> Inject:
    async def inject(bench: Bench) -> str:
        bench.deployment.child(process).send_signal(signum)
        return ""

    return inject


def asking(prompt: object) -> Inject:
    """The fault is a request."""

    async def inject(bench: Bench) -> str:
        async with bench.session.post(
            COMPLETIONS, json={**bench.cases[0].body, "prompt": prompt}
        ) as response:
            return f"status {response.status}"

    return inject


async def fill_disk(bench: Bench) -> str:
    place = bench.deployment
    await asyncio.to_thread(fill, place.process.pid, place.directory)
    return ""


async def replace_server(bench: Bench) -> str:
    """Until its successor is there."""
    first = bench.deployment.child("loom-server-0")
    first.kill()
    while (child := bench.deployment.find("loom-server-0")) is None or child == first:
        await asyncio.sleep(0.02)
    return ""


ENGINE = "loom-engine"
FAULTS: dict[str, Inject] = {
    "logits not finite": asking([1, 2, POISON, 3]),
    "engine SIGKILL": killing(ENGINE, signal.SIGKILL),
    "engine SIGSTOP": killing(ENGINE, signal.SIGSTOP),
    "device fault in a step": killing(ENGINE, DEVICE_FAULT),
    "no memory in a step": killing(ENGINE, NO_MEMORY),
    "server process SIGKILL": replace_server,
}
ON_DISK: dict[str, Inject] = {"disk full": fill_disk, "engine SIGKILL, disk full": FAULTS["engine SIGKILL"]}
IN_TOKENIZER: dict[str, Inject] = {"tokenizer panics": asking(UNREADABLE)}


DEADLY = (*(fault for fault in FAULTS if fault != "logits not finite"), "engine SIGKILL, disk full")


async def measure(bench: Bench, fault: str, inject: Inject, is_loaded: bool) -> Result:
    load, watch = Load(bench.session, bench.cases), Watch(bench.session)
    if is_loaded:
        await load.begin(bench.num_clients)
    watch.begin()
    asked = await inject(bench) or await ask(bench.session, bench.cases[0])
    if fault.startswith("server"):  # no /health shows it: who asks next waits for the successor
        watch.recovered = watch.seconds
    elif fault in DEADLY:
        await watch.until_recovered()
    if is_loaded:
        await load.more(bench.num_clients)
    endings = await load.end()
    watch.end()
    if await ask(bench.session, bench.cases[0]) != "right":
        raise RuntimeError(f"after {fault} the server is not what it was")
    state = "loaded" if is_loaded else "idle"
    return Result(
        fault,
        state,
        asked,
        endings,
        watch.noticed,
        watch.recovered,
    )


async def open_bench(deployment: Deployment, session: aiohttp.ClientSession, num_clients: int) -> Bench:
    cases = [
        await Case({**ASKED, "prompt": words, "max_tokens": 16 + 8 * place}).settle(session)
        for place, words in enumerate(WORDS)
    ]
    return Bench(deployment, session, tuple(cases), num_clients)


async def run_all(deployment: Deployment, faults: Mapping[str, Inject], num_clients: int) -> list[Result]:
    async with connect(deployment.url) as session:
        bench = await open_bench(deployment, session, num_clients)
        results = []
        for fault, inject in faults.items():
            for is_loaded in (False, True):
                async with asyncio.timeout(MAX_SECONDS):
                    results.append(await measure(bench, fault, inject, is_loaded))
        return results


async def end_under_load(deployment: Deployment, num_signals: int, num_clients: int) -> Result:
    """What SIGTERM does to running requests, and a second one. `recovered` is when the server was gone."""
    async with connect(deployment.url) as session:
        bench = await open_bench(deployment, session, num_clients)
        load, watch = Load(session, bench.cases), Watch(session, "/health/ready")
        await load.begin(num_clients)
        load.is_over = True  # whoever has their answer asks no more
        watch.begin()
        deployment.process.terminate()
        await watch.until_noticed()
        for _ in range(num_signals - 1):
            deployment.process.terminate()
        endings = await load.end()
        status = await asyncio.to_thread(deployment.wait, 90.0)
        watch.end()
    fault = "SIGTERM" if num_signals == 1 else "SIGTERM twice"
    return Result(
        fault,
        "loaded",
        f"exit status {status}",
        endings,
        watch.noticed,
        watch.seconds,
    )


def run_deployments(num_clients: int) -> list[Result]:
    """Those faults that a model's files bring, the others, and those on a small disk."""
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="tokenloom-faults-") as name:
        folder = Path(name)
        write_poisoned(folder)
        poisoned = ["server", "serve", str(folder), "--port", "0", "--dtype", "float32"]
        command = faulty_command(SERVER, ENGINE_SETTINGS)
        with closing(Deployment(folder, poisoned)) as small:
            results += asyncio.run(run_all(small, IN_TOKENIZER, num_clients))
        with closing(Deployment(folder, command)) as whole:
            results += asyncio.run(run_all(whole, FAULTS, num_clients))
            results.append(asyncio.run(end_under_load(whole, 1, num_clients)))
        if may_mount():
            with closing(Deployment(folder, command, WITHIN)) as on_disk:
                results += asyncio.run(run_all(on_disk, ON_DISK, num_clients))
                results.append(asyncio.run(end_under_load(on_disk, 2, num_clients)))
    return results


def make_table(results: list[Result]) -> Table:
    table = Table("fault", "state", "who asked then", "the others", "lost", "noticed s", "ready again s")
    for one in results:
        others = ", ".join(f"{count} {ending}" for ending, count in sorted(one.endings.items()))
        times = ("-" if value is None else f"{value:.2f}" for value in (one.noticed, one.recovered))
        table.add_row(one.fault, one.state, one.asked, others, one.lost, *times)
    return table


def main(
    num_clients: Annotated[
        int, typer.Option(min=1, help="Under load: clients that ask again and again.")
    ] = 6,
    out: Annotated[Path | None, typer.Option(help="Write the JSON document there too.")] = None,
) -> None:
    """Inject each fault into a server at rest and under load."""
    results = run_deployments(num_clients)
    Console(width=150).print(make_table(results))
    document = {
        "benchmark": "faults",
        "machine": describe_machine(),
        "num_clients": num_clients,
        "results": [asdict(one) | {"endings": dict(one.endings), "lost": one.lost} for one in results],
    }
    text = json.dumps(document)
    if out is not None:
        out.write_text(text + "\n", "utf-8")
    print(text)


if __name__ == "__main__":
    typer.run(main)
