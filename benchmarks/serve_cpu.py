"""This server and its peers, one after the other, under the same load on the same weights.

    python -m benchmarks.serve_cpu --llama-server PATH --transformers PATH --out benchmarks/results/cpu.json

A table for people; the last line is one JSON document.
"""

import json
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.hf_copy import make_folder
from benchmarks.launch import Running, StartFailed, running
from benchmarks.machine import describe_machine
from benchmarks.peers import Peer, llama_server, tokenloom, transformers_serve, vllm_cpu
from engine.checkpoint import open_checkpoint
from server.bench.measure import measure, run
from server.bench.options import Options
from server.bench.summary import Summary, summarise

PROMPT_TOKENS, OUTPUT_TOKENS = 62, 128
PORT = 8790


@dataclass(frozen=True, slots=True)
class Result:
    """One server at one concurrency; the better of its repeats."""

    server: str
    concurrency: int
    output_throughput: float  # tokens a second
    ttft_ms: float  # median
    tpot_ms: float  # median
    tokens_each: float  # tokens a request got: less than asked means that it stopped early
    failed: int
    first_token_seconds: float  # from the server's start to its first token
    memory_bytes: int


def main(
    llama_server_path: Annotated[
        Path | None, typer.Option("--llama-server", help="llama.cpp's server program.", metavar="FILE")
    ] = None,
    transformers_path: Annotated[
        Path | None,
        typer.Option(
            "--transformers", help="The transformers program of an environment with its serving extra."
        ),
    ] = None,
    vllm_path: Annotated[
        Path | None, typer.Option("--vllm", help="The vllm program of its CPU build.")
    ] = None,
    model: Annotated[Path | None, typer.Option(help="A GGUF file; without it the bundled model.")] = None,
    dtypes: Annotated[
        str, typer.Option(help="What this server and its peers compute in.")
    ] = "bfloat16,float32",
    concurrency: Annotated[str, typer.Option(help="Requests at once.")] = "1,8,32",
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each load; the fastest counts.")] = 2,
    rounds: Annotated[int, typer.Option(min=1, help="Requests in a row at each of the places.")] = 4,
    quick: Annotated[bool, typer.Option("--quick", help="One short run, this server alone.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Write the JSON document there too.", metavar="FILE")
    ] = None,
) -> None:
    """Compare servers on this machine: 62-token prompts, 128 new tokens each, streamed, greedy."""
    gguf = model or open_checkpoint("").path
    levels = [int(level) for level in concurrency.split(",")]
    with tempfile.TemporaryDirectory(prefix="tokenloom-bench-") as name:
        scratch = Path(name)
        peers = [tokenloom(dtype, gguf, PORT + place) for place, dtype in enumerate(_dtypes(dtypes, quick))]
        if not quick:
            paths = Programs(llama_server_path, transformers_path, vllm_path)
            peers += _others(paths, gguf, dtypes.split(","), max(levels), scratch)
        if quick:
            repeats = rounds = 1
        found = Found(gguf.name, out)
        _measure_all(peers, levels, repeats, rounds, scratch, found)
    Console(width=100).print(_table(found.results))
    typer.echo(found.document())
    raise typer.Exit(1 if found.failures else 0)


@dataclass(slots=True)
class Found:
    """What was measured so far, and written at once, so that a run that is cut off is not lost."""

    model: str
    out: Path | None
    results: list[Result] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)  # why a server could not be measured

    def add(self, result: Result) -> None:
        self.results.append(result)
        first = f"first after {result.ttft_ms:.0f} ms"
        typer.echo(f"  {result.concurrency} at once: {result.output_throughput} tok/s, {first}", err=True)
        self._write()

    def fail(self, failure: str) -> None:
        self.failures.append(failure)
        typer.echo(f"error: {failure}", err=True)
        self._write()

    def document(self) -> str:
        return json.dumps(
            {
                "benchmark": "serve_cpu",
                "machine": describe_machine(),
                "model": self.model,
                "prompt_tokens": PROMPT_TOKENS,
                "output_tokens": OUTPUT_TOKENS,
                "results": [asdict(result) for result in self.results],
                "failures": self.failures,
            }
        )

    def _write(self) -> None:
        if self.out is not None:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            self.out.write_text(self.document() + "\n", encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Programs:
    """Where the peers are; None for those that are not to be measured."""

    llama_server: Path | None
    transformers: Path | None
    vllm: Path | None


def _dtypes(dtypes: str, quick: bool) -> list[str]:
    return ["auto"] if quick else dtypes.split(",")


def _others(paths: Programs, gguf: Path, dtypes: list[str], num_slots: int, scratch: Path) -> Iterator[Peer]:
    """The peers whose programs were given."""
    port = PORT + 10
    if paths.llama_server is not None:
        yield llama_server(paths.llama_server, gguf, port, num_slots)
    folder = scratch / "model"
    if paths.transformers is not None or paths.vllm is not None:
        make_folder(gguf, folder)
    for place, dtype in enumerate(dtypes):
        if paths.transformers is not None:
            yield transformers_serve(paths.transformers, folder, dtype, port + 10 + place, scratch)
        if paths.vllm is not None:
            yield vllm_cpu(paths.vllm, folder, dtype, port + 20 + place, num_slots)


def _measure_all(
    peers: list[Peer], levels: list[int], repeats: int, rounds: int, scratch: Path, found: Found
) -> None:
    """A server that cannot be measured leaves the others to be."""
    for place, peer in enumerate(peers):
        typer.echo(f"{peer.name} ...", err=True)
        try:
            for result in _measure_peer(peer, levels, repeats, rounds, scratch / f"{place}.log"):
                found.add(result)
        except StartFailed as error:
            found.fail(str(error))


def _measure_peer(peer: Peer, levels: list[int], repeats: int, rounds: int, log: Path) -> Iterator[Result]:
    with running(peer, log) as server:
        for level in levels:
            summaries = [_load(peer, level, rounds, seed) for seed in range(repeats)]
            yield _result(peer, level, max(summaries, key=lambda summary: summary.output_throughput), server)


def _load(peer: Peer, level: int, rounds: int, seed: int) -> Summary:
    """`rounds` requests one after the other at each of `level` places."""
    options = Options(
        url=peer.url,
        model=peer.model,
        num_requests=level * rounds,
        num_warmups=max(2, min(level, 4)),
        concurrency=level,
        prompt_tokens=str(PROMPT_TOKENS),
        max_tokens=str(OUTPUT_TOKENS),
        ignore_eos=peer.ignores_eos,
        new_connections=True,  # some servers close a connection after a stream
        seed=seed * 1000 + level,  # no prompt is one that a prefix cache has seen
    )
    return summarise(run(lambda: measure(options, lambda record: None)), {})


def _result(peer: Peer, level: int, summary: Summary, server: Running) -> Result:
    return Result(
        server=peer.name,
        concurrency=level,
        output_throughput=round(summary.output_throughput, 1),
        ttft_ms=round(summary.ttft_ms.median, 1) if summary.ttft_ms else 0.0,
        tpot_ms=round(summary.tpot_ms.median, 2) if summary.tpot_ms else 0.0,
        tokens_each=round(summary.output_tokens / max(1, summary.completed), 1),
        failed=summary.failed,
        first_token_seconds=round(server.first_token_seconds, 2),
        memory_bytes=server.memory(),
    )


def _table(results: list[Result]) -> Table:
    table = Table(
        title=f"{PROMPT_TOKENS}-token prompts, {OUTPUT_TOKENS} new tokens, streamed", title_justify="left"
    )
    table.add_column("server", no_wrap=True)
    for name in (
        "at once",
        "tok/s",
        "TTFT ms",
        "TPOT ms",
        "tokens each",
        "failed",
        "start s",
        "MiB",
    ):
        table.add_column(name, justify="right")
    for result in results:
        table.add_row(
            result.server,
            str(result.concurrency),
            f"{result.output_throughput:.0f}",
            f"{result.ttft_ms:.0f}",
            f"{result.tpot_ms:.1f}",
            f"{result.tokens_each:.0f}",
            str(result.failed),
            f"{result.first_token_seconds:.1f}",
            f"{result.memory_bytes / (1 << 20):.0f}",
        )
    return table


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        typer.run(main)
