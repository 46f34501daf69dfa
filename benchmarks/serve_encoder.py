"""/v1/embeddings of this server beside the libraries that do the same, on the same texts and the same machine.

    python -m benchmarks.serve_encoder MODEL --peers PYTHON --out benchmarks/results/encoder_cpu.json
    python -m benchmarks.serve_encoder MODEL --device cuda --vllm FOLDER --out benchmarks/results/encoder_serving_h100.json

On a GPU the peer is vLLM's server, of which FOLDER holds the packages, under the same loads.

A table for people; the last line is one JSON document.
"""

import asyncio
import base64
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import aiohttp
import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.launch import running
from benchmarks.machine import describe_machine, usable_cores
from benchmarks.peers import Peer, tokenloom, vllm_pooling
from server.bench.lengths import Lengths
from server.bench.prompts import WORDS

PORT = 8690
LIBRARIES = ("sentence-transformers", "onnxruntime")
# Sentences as people embed them: mostly short, a few long. Tokens, without the two special ones.
LENGTHS = Lengths("lognormal", 24.0, 180.0, sigma=0.75)
LOADS = {  # requests at once, texts a request
    "cpu": ((1, 32), (32, 1), (4, 32)),
    "cuda": ((1, 1), (32, 1), (128, 1), (1, 32), (16, 32)),
}
REPEATS = 3
MAX_REQUESTS = 500  # of a client in one run


@dataclass(frozen=True, slots=True)
class Result:
    """One way to turn all the texts into vectors; the fastest of its repeats."""

    name: str
    batch: str
    texts_per_second: float
    p50_ms: float | None = None  # of a request
    p99_ms: float | None = None


def main(
    model: Annotated[Path, typer.Argument(help="A sentence-transformers folder.")],
    peers: Annotated[
        Path | None, typer.Option(help="The Python of an environment with the libraries.", metavar="PYTHON")
    ] = None,
    vllm: Annotated[
        Path | None, typer.Option(help="Where vLLM for GPUs lies; its process alone has it on its path.")
    ] = None,
    device: Annotated[Literal["cpu", "cuda"], typer.Option(help="Where the servers compute.")] = "cpu",
    num_texts: Annotated[int, typer.Option(min=64, help="Texts of a run.")] = 1000,
    dtypes: Annotated[str, typer.Option(help="What the servers compute in.")] = "float32,bfloat16",
    out: Annotated[Path | None, typer.Option(help="Write the JSON document there too.")] = None,
) -> None:
    """Compare on this machine: texts of 3 to 182 tokens, as vectors."""
    texts = draw_texts(num_texts)
    results: list[Result] = []
    cosines: dict[str, float] = {}
    vectors: dict[str, list[list[float]]] = {}
    with tempfile.TemporaryDirectory(prefix="tokenloom-bench-") as name:
        scratch = Path(name)
        (scratch / "texts.json").write_text(json.dumps(texts), "utf-8")
        for peer in _servers(model, dtypes.split(","), device, vllm):
            vectors[peer.name], served = _serve(peer, texts, LOADS[device], scratch)
            results += served
        if peers is not None:
            for library in LIBRARIES:
                answer = _run_library(peers, library, model, scratch / "texts.json")
                results += _results(library, answer)
                cosines[library] = _least_cosine(next(iter(vectors.values())), answer["vectors"])
        first, *others = vectors
        cosines |= {name: _least_cosine(vectors[first], vectors[name]) for name in others}
    Console(width=100).print(_table(results))
    document = {
        "benchmark": "serve_encoder",
        "machine": describe_machine(),
        "device": device,
        "model": model.name,
        "texts": num_texts,
        "results": [asdict(result) for result in results],
        "least_cosine": cosines,
    }
    if out is not None:
        out.write_text(json.dumps(document) + "\n", "utf-8")
    typer.echo(json.dumps(document))


def draw_texts(count: int) -> list[str]:
    """Random words, nearly a token each."""
    rng = np.random.default_rng(0)
    lengths = (max(1, length) for length in LENGTHS.draw(rng, count))
    return [" ".join(WORDS[word] for word in rng.integers(0, len(WORDS), length)) for length in lengths]


def _servers(model: Path, dtypes: list[str], device: str, vllm: Path | None) -> Iterator[Peer]:
    for dtype in dtypes:
        yield replace(tokenloom(dtype, model, PORT, device), probe="embeddings")
        if vllm is not None:
            yield vllm_pooling(vllm, model, dtype, PORT + 1)


def _serve(
    peer: Peer, texts: list[str], loads: Sequence[tuple[int, int]], scratch: Path
) -> tuple[list[list[float]], list[Result]]:
    """The vectors of the first texts, and a server's speed under each load."""
    served: list[Result] = []
    with running(peer, scratch / f"{peer.name}.log") as server:
        typer.echo(f"{peer.name}: ready after {server.first_token_seconds:.1f} s", err=True)
        for load in loads:
            served.append(_measure(peer, texts, *load))
            typer.echo(f"  {served[-1].batch}: {served[-1].texts_per_second} texts/s", err=True)
        vectors = asyncio.run(_embed_some(peer.url, texts[:64]))
    return vectors, served


def _measure(peer: Peer, texts: list[str], num_clients: int, size: int) -> Result:
    """Few texts where one request waits for the other."""
    texts = texts[: max(64, MAX_REQUESTS * num_clients * size)]
    runs = [asyncio.run(load(peer.url, texts, num_clients, size)) for _ in range(REPEATS)]
    seconds, latencies = min(runs, key=lambda run: run[0])
    p50, p99 = (round(float(value) * 1e3, 1) for value in np.percentile(latencies, (50, 99)))
    batch = f"{size} a request, {num_clients} at once"
    return Result(peer.name, batch, round(len(texts) / seconds, 1), p50, p99)


async def load(url: str, texts: list[str], num_clients: int, size: int) -> tuple[float, list[float]]:
    """Seconds for all texts, cut into requests of `size` that `num_clients` make one after the other; seconds of each request."""
    parts = iter([texts[at : at + size] for at in range(0, len(texts), size)])
    latencies: list[float] = []

    async def client(session: aiohttp.ClientSession) -> None:
        for part in parts:
            began = time.perf_counter()
            await embed(session, part)
            latencies.append(time.perf_counter() - began)

    async with aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=num_clients)) as session:
        began = time.perf_counter()
        await asyncio.gather(*(client(session) for _ in range(num_clients)))
        return time.perf_counter() - began, latencies


async def embed(session: aiohttp.ClientSession, texts: list[str]) -> bytes:
    """The body of the answer, with the vectors as OpenAI's own client asks for them."""
    async with session.post("/v1/embeddings", json={"input": texts, "encoding_format": "base64"}) as response:
        response.raise_for_status()
        return await response.read()


async def _embed_some(url: str, texts: list[str]) -> list[list[float]]:
    async with aiohttp.ClientSession(url) as session:
        entries = json.loads(await embed(session, texts))["data"]
    return [np.frombuffer(base64.b64decode(entry["embedding"]), "<f4").tolist() for entry in entries]


def _run_library(python: Path, library: str, model: Path, texts: Path) -> dict[str, Any]:
    """Its own process: nothing of this server's shares the cores with it."""
    command = [str(python), "-m", "benchmarks.encoder_peers", library, str(model), str(texts)]
    environment = {"OMP_NUM_THREADS": str(usable_cores()), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{library}: {done.stderr[-2000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _results(library: str, answer: dict[str, Any]) -> list[Result]:
    speeds = answer["texts_per_second"].items()
    return [Result(library, f"{size} a batch, no HTTP", round(speed, 1)) for size, speed in speeds]


def _least_cosine(vectors: list[list[float]], others: list[list[float]]) -> float:
    """Over the texts that both turned into vectors, all of length 1."""
    return min(float(np.dot(mine, other)) for mine, other in zip(vectors, others, strict=False))


def _table(results: list[Result]) -> Table:
    table = Table(title="texts of 3 to 182 tokens", title_justify="left")
    table.add_column("by", no_wrap=True)
    table.add_column("how")
    for name in ("texts/s", "p50 ms", "p99 ms"):
        table.add_column(name, justify="right")
    for result in results:
        shown = ("" if value is None else f"{value:.0f}" for value in (result.p50_ms, result.p99_ms))
        table.add_row(result.name, result.batch, f"{result.texts_per_second:.0f}", *shown)
    return table


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        typer.run(main)
