"""This server on a GPU, and vLLM's own beside it, one after the other under the same load. Random weights in a public shape.

    python -m benchmarks.serve_gpu --shape llama3-8b --at-once 1,32,256 --peer-path FOLDER --out benchmarks/results/serve_gpu.json

Closed loops of several processes send the same 1,000 ragged requests (benchmarks/shapes.py), or the first of them where few are in
flight, as streamed completions of token ids, greedy. Before each load the server is warmed up with some of its prompts, since a graph is
captured when its size is met for the first time. Each part has a time limit, and what is measured is printed, and written, at once. A
table for people; the last line is one JSON document.
"""

import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Annotated

import httpx
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.launch import StartFailed, running
from benchmarks.machine import describe_machine
from benchmarks.peers import Peer, vllm_on_gpu
from benchmarks.ragged_load import Load, Summary, send_load
from benchmarks.shape_tokenizer import write_tokenizer
from benchmarks.shapes import SHAPES, write_shape

PORT, MODEL, MAX_MODEL_LEN = 8790, "m", 4096
GPU_MEMORY = 68 << 30  # of an 80 GB card, as the peer's share of 0.85
NUM_REQUESTS, ROUNDS = 1000, 10  # of a load at most, and at each place where there are few
LEAST_REQUESTS = 12
SUM = r"^tokenloom:{name}_sum(?:{{.*}})? (\S+)$"


@dataclass(frozen=True, slots=True)
class Result:
    """One server, so many requests at once."""

    server: str
    at_once: int
    load: Summary
    idle_share: (
        float | None
    )  # of the time of steps, how long the device stood still before them; None: not told


@dataclass(slots=True)
class Found:
    """What was measured so far."""

    shape: str
    ready_seconds: dict[str, float] = field(default_factory=dict)  # from the start to the first answer
    results: list[Result] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds."""

    start: int
    load: int


class Cut(Exception):
    """A part took too long."""


def main(
    shape: Annotated[str, typer.Option(help=f"Of {', '.join(SHAPES)}.")] = "llama3-8b",
    at_once: Annotated[str, typer.Option(help="Requests in flight.")] = "1,32,256",
    peer_path: Annotated[
        Path | None, typer.Option(help="Where vLLM lies; its process alone has it on its path.")
    ] = None,
    device: Annotated[str, typer.Option(help="cuda, or cpu for a rehearsal without the peer.")] = "cuda",
    flags: Annotated[str, typer.Option(help="More of this server's own.")] = "--api-workers 6",
    num_requests: Annotated[int, typer.Option(min=1, max=1000, help="Of a load, at most.")] = NUM_REQUESTS,
    start_seconds: Annotated[int, typer.Option(help="A server must answer within.")] = 150,
    load_seconds: Annotated[int, typer.Option(help="A load must end within.")] = 90,
    logs: Annotated[Path | None, typer.Option(help="A folder for what the servers print.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the JSON document there too.")] = None,
) -> None:
    """Tokens a second, time to the first token and time a token, over HTTP."""
    signal.signal(signal.SIGTERM, _leave)
    if logs is not None:
        logs.mkdir(parents=True, exist_ok=True)
    found, limits, levels = Found(shape), Limits(start_seconds, load_seconds), _ints(at_once)
    with tempfile.TemporaryDirectory(prefix="tokenloom-bench-") as name:
        folder = write_shape(shape, Path(name))
        write_tokenizer(shape, folder)
        peers = [own_server(folder, device, flags)]
        if peer_path is not None:
            peers.append(vllm_server(folder, peer_path))
        for peer in peers:
            log = (logs or Path(name)) / f"{peer.name}-{shape}.log"
            for _ in _measure(peer, log, levels, num_requests, limits, found):
                if out is not None:
                    out.write_text(_document(found) + "\n")
    Console(width=120).print(_table(found))
    print(_document(found))
    raise typer.Exit(1 if found.failures else 0)


def _leave(signum: int, _frame: FrameType | None) -> None:
    """No server outlives this process."""
    sys.exit(128 + signum)


def _ints(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def own_server(folder: Path, device: str, flags: str) -> Peer:
    """This server, as it is in this tree."""
    kind = ("--load-format", "dummy", "--served-model-name", MODEL, "--max-model-len", str(MAX_MODEL_LEN))
    fast = ("--dtype", "bfloat16", "--gpu-memory", str(GPU_MEMORY)) if device == "cuda" else ()
    quiet = ("--no-prefix-cache", "--no-access-log", "--port", str(PORT), "--device", device)
    command = (sys.executable, "-m", "server", "serve", str(folder), *kind, *fast, *quiet, *flags.split())
    return Peer("tokenloom", command, PORT, MODEL)


def vllm_server(folder: Path, peer_path: Path) -> Peer:
    """vLLM's OpenAI-compatible server with one front end, which was faster than four; nothing it does for observers."""
    sizes = (
        "--max-model-len",
        str(MAX_MODEL_LEN),
        "--max-num-seqs",
        "512",
        "--gpu-memory-utilization",
        "0.85",
    )
    kind = ("--served-model-name", MODEL, "--load-format", "dummy", "--dtype", "bfloat16")
    fast = ("--no-enable-prefix-caching", "--async-scheduling")
    quiet = ("--disable-log-stats", "--disable-uvicorn-access-log", "--port", str(PORT + 1))
    program, environment = vllm_on_gpu(peer_path)
    named = ("--model", str(folder))
    command = (*program, *named, *sizes, *kind, *fast, *quiet)
    return Peer("vllm", command, PORT + 1, MODEL, True, environment)


def _measure(
    peer: Peer, log: Path, levels: Sequence[int], num_requests: int, limits: Limits, found: Found
) -> Iterator[None]:
    """Yields whenever there is something new; the next part is tried even if one fails."""
    with ExitStack() as stack:
        try:
            with limited(limits.start, f"the start of {peer.name}"):
                server = stack.enter_context(running(peer, log))
        except (StartFailed, Cut) as error:
            _fail(found, error)
            yield
            return
        found.ready_seconds[peer.name] = round(server.first_token_seconds, 1)
        print(f"{peer.name} {found.shape} ready after {found.ready_seconds[peer.name]} s", flush=True)
        for level in levels:
            load = Load(peer.port, MODEL, level, min(num_requests, max(LEAST_REQUESTS, ROUNDS * level)))
            try:
                with limited(limits.load, f"{level} at once, {peer.name}"):
                    found.results.append(_send(peer, load))
                print(found.results[-1], flush=True)
            except (Cut, EOFError, httpx.HTTPError) as error:
                _fail(found, error)
            yield


def _send(peer: Peer, load: Load) -> Result:
    before = _read_sums(peer)
    summary = send_load(load)
    busy, idle = (after - earlier for after, earlier in zip(_read_sums(peer), before, strict=True))
    share = round(idle / (busy + idle), 4) if busy else None
    return Result(peer.name, load.at_once, summary, share)


def _read_sums(peer: Peer) -> tuple[float, float]:
    """Seconds of steps and of the gaps before them, since the server's start; 0 of a server that does not tell them."""
    text = httpx.get(f"{peer.url}/metrics").text
    names = "step_time_seconds", "step_host_gap_seconds"
    found = (re.findall(SUM.format(name=name), text, re.MULTILINE) for name in names)
    busy, idle = (sum(map(float, values)) for values in found)
    return busy, idle


def _fail(found: Found, error: Exception) -> None:
    found.failures.append(f"{error}")
    print(f"failed: {error}", flush=True)


@contextmanager
def limited(seconds: int, what: str) -> Iterator[None]:
    """Raises Cut in the middle of what takes longer."""

    def cut(_signum: int, _frame: FrameType | None) -> None:
        raise Cut(f"{what} took longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, cut)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _table(found: Found) -> Table:
    names = "at once", "requests", "failed", "tok/s", "TTFT ms", "p99", "TPOT ms", "p99", "idle"
    table = Table("server", *names, title=found.shape, title_justify="left")
    for r in found.results:
        times = r.load.ttft_ms, r.load.ttft_p99_ms, r.load.tpot_ms, r.load.tpot_p99_ms
        idle = "" if r.idle_share is None else f"{r.idle_share:.1%}"
        counts = r.at_once, r.load.num_requests, r.load.failed, round(r.load.tokens_per_second)
        table.add_row(r.server, *map(str, (*counts, *times)), idle)
    return table


def _document(found: Found) -> str:
    return json.dumps(
        {
            "benchmark": "serve_gpu",
            "machine": describe_machine() | {"gpus": _gpus()},
            **asdict(found),
        }
    )


def _gpus() -> list[str]:
    """Asked of the driver's own program: a context of this process would take memory there."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, "--query-gpu=name", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        typer.run(main)
