"""The step on a GPU: time of a decode step by rows, then many ragged requests at once. Random weights in public shapes.

    python -m benchmarks.step_gpu --shapes llama3-8b,llama3.2-1b --out benchmarks/results/step_gpu.json

A table for people; the last line is one JSON document.
"""

import json
import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.shapes import SHAPES, kv_bytes_per_token, ragged_requests, weight_bytes, write_shape
from engine.config import EngineConfig
from engine.offline.local import LocalEngine
from engine.request import Abort, Emit, SamplingParams, Submit

READ_RATE = 3.09e12  # bytes a second, measured on an H100; the floor below is bytes over this
NUM_TIMED = 128
MAX_REQUESTS, MAX_BATCH_TOKENS = 1024, 4096
SAMPLED = {"temperature": 0.8, "top_p": 0.95, "top_k": 50}


class Counter:
    """Counts tokens, keeps none."""

    def __init__(self) -> None:
        self.num_tokens = 0

    def on_emit(self, emit: Emit) -> None:
        assert not emit.failed and not emit.rejected, (emit.failed, emit.rejected)
        self.num_tokens += len(emit.finishes)

    def abort_rest(self, cause: str) -> Abort:
        return Abort(ids=(), cause=cause)


@dataclass(frozen=True, slots=True)
class StepTime:
    shape: str
    rows: int
    prompt: int
    step_ms: float
    floor_ms: float  # weights and cached keys and values over READ_RATE
    tokens_per_second: int


@dataclass(frozen=True, slots=True)
class RaggedRun:
    shape: str
    sampling: str
    requests: int
    seconds: float
    tokens_per_second: int


def main(
    shapes: Annotated[str, typer.Option(help=f"Of {', '.join(SHAPES)}.")] = ",".join(SHAPES),
    rows: Annotated[str, typer.Option(help="Live requests of a step.")] = "1,8,32,64,128,256",
    prompt: Annotated[int, typer.Option(help="Tokens of each prompt.")] = 128,
    ragged: Annotated[int, typer.Option(help="Requests of the run that ends the benchmark; 0: none.")] = 1000,
    repeats: Annotated[int, typer.Option(help="Of each step time; the best counts.")] = 2,
    gpu_memory: Annotated[float, typer.Option(help="GiB of the GPU that may be in use in all.")] = 68.0,
    deterministic: Annotated[bool, typer.Option(help="Answers that do not depend on batch mates.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write the JSON document there too.")] = None,
) -> None:
    """Time of a decode step by rows, then many ragged requests at once, on one GPU."""
    steps: list[StepTime] = []
    runs: list[RaggedRun] = []
    started: dict[str, float] = {}
    for shape in shapes.split(","):
        began = time.perf_counter()
        engine = open_engine(shape, deterministic, int(gpu_memory * (1 << 30)))
        started[shape] = round(time.perf_counter() - began, 2)
        _run(engine, 4, 128, 16, {"temperature": 0.0})
        for number in map(int, rows.split(",")):
            steps.append(_time_step(engine, shape, number, prompt, repeats))
            print(steps[-1], flush=True)
        for name, params in (("greedy", {"temperature": 0.0}), ("sampled", SAMPLED)):
            if ragged:
                runs.append(_time_ragged(engine, shape, name, ragged, params))
                print(runs[-1], flush=True)
        engine.engine.close()
        del engine
        torch.cuda.empty_cache()
    _report(steps, runs)
    document = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "start_seconds": started,
        "steps": [asdict(step) for step in steps],
        "ragged": [asdict(run) for run in runs],
    }
    line = json.dumps(document)
    if out is not None:
        out.write_text(line + "\n")
    print(line)


def open_engine(shape: str, deterministic: bool, gpu_memory: int) -> LocalEngine:
    with tempfile.TemporaryDirectory() as folder:
        config = EngineConfig(
            model=str(write_shape(shape, Path(folder))),
            load_format="dummy",
            device="cuda",
            dtype="bfloat16",
            max_model_len=4096,
            gpu_memory=gpu_memory,
            max_requests=MAX_REQUESTS,
            max_batch_tokens=MAX_BATCH_TOKENS,
            prefix_cache=False,
            step_seconds=0,
            deterministic=deterministic,
            max_queued_requests=1 << 20,
            max_queued_tokens=1 << 30,
        )
        return LocalEngine(config)


def _run(engine: LocalEngine, num_rows: int, prompt: int, num_new: int, params: dict[str, float]) -> float:
    """Seconds from the first request's arrival to the last token."""
    rnd = random.Random(num_rows)
    prompts = [[rnd.randrange(100, 30000) for _ in range(prompt)] for _ in range(num_rows)]
    return compute(engine, [(ids, num_new) for ids in prompts], params)


def compute(
    engine: LocalEngine, requests: Sequence[tuple[list[int], int]], params: dict[str, float]
) -> float:
    messages = [
        Submit(id=i, prompt=tuple(ids), sampling=_sampling(num_new, params, i))
        for i, (ids, num_new) in enumerate(requests)
    ]
    counter = Counter()
    began = time.perf_counter()
    engine.run(messages, counter, lambda: None)
    seconds = time.perf_counter() - began
    wanted = sum(num_new for _, num_new in requests)
    assert counter.num_tokens == wanted, f"{counter.num_tokens} tokens of {wanted}"
    return seconds


def _sampling(num_new: int, params: dict[str, float], seed: int) -> SamplingParams:
    return SamplingParams(
        max_tokens=num_new,
        temperature=params["temperature"],
        top_p=params.get("top_p", 1.0),
        top_k=int(params.get("top_k", 0)),
        seed=seed,
    )


def _time_step(engine: LocalEngine, shape: str, rows: int, prompt: int, repeats: int) -> StepTime:
    greedy = {"temperature": 0.0}
    short = min(_run(engine, rows, prompt, 2, greedy) for _ in range(repeats))
    long = min(_run(engine, rows, prompt, 2 + NUM_TIMED, greedy) for _ in range(repeats))
    seconds = (long - short) / NUM_TIMED
    num_bytes = weight_bytes(shape) + rows * kv_bytes_per_token(shape) * (prompt + 2 + NUM_TIMED // 2)
    return StepTime(
        shape,
        rows,
        prompt,
        round(seconds * 1e3, 3),
        round(num_bytes / READ_RATE * 1e3, 3),
        round(rows / seconds),
    )


def _time_ragged(
    engine: LocalEngine, shape: str, name: str, number: int, params: dict[str, float]
) -> RaggedRun:
    requests = ragged_requests(number)
    seconds = compute(engine, requests, params)
    num_tokens = sum(num_new for _, num_new in requests)
    return RaggedRun(shape, name, number, round(seconds, 2), round(num_tokens / seconds))


def _report(steps: Sequence[StepTime], runs: Sequence[RaggedRun]) -> None:
    console = Console(width=110)
    table = Table("shape", "rows", "prompt", "step ms", "floor ms", "measured / floor", "tokens/s")
    for s in steps:
        ratio = f"{s.step_ms / s.floor_ms:.2f}"
        table.add_row(
            s.shape,
            str(s.rows),
            str(s.prompt),
            f"{s.step_ms}",
            f"{s.floor_ms}",
            ratio,
            f"{s.tokens_per_second}",
        )
    console.print(table)
    ragged = Table("shape", "sampling", "requests", "seconds", "output tokens/s")
    for r in runs:
        ragged.add_row(r.shape, r.sampling, str(r.requests), f"{r.seconds}", str(r.tokens_per_second))
    console.print(ragged)


if __name__ == "__main__":
    typer.run(main)
