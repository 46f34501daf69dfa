"""The step on a GPU: time of a decode step by rows, then many ragged requests at once. Random weights in public shapes.

    python -m benchmarks.step_gpu --shapes llama3-8b,llama3.2-1b --prompts 128,1024 --out benchmarks/results/step_gpu.json
    python -m benchmarks.step_gpu --shapes llama3.2-1b --modes fast,deterministic

A step's time is what 128 more tokens take: the difference of two whole runs of the same prompts, over 128. It is the mean over contexts
from 2 to 130 tokens beyond the prompt, whose middle is in the table. A table for people; the last line is one JSON document.
"""

import gc
import json
import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.shapes import SHAPES, kv_bytes_per_token, ragged_requests, weight_bytes, write_shape
from engine.config import EngineConfig
from engine.offline.local import LocalEngine
from engine.offline.turns import even_tokens, longest_first
from engine.request import Abort, Emit, SamplingParams, Submit

READ_RATE = 3.09e12  # bytes a second, measured on an H100; the floor below is bytes over this
NUM_TIMED = 128
NUM_FIRST = 2  # tokens of the shorter run
MAX_PROMPT_TOKENS = 1 << 16  # of all rows; more are left out
MAX_REQUESTS, MAX_BATCH_TOKENS = 1024, 4096
MODES = ("fast", "deterministic")
AT_ONCE, IN_TURN = BEGINS = "at once", "in turn"
SAMPLED = {"temperature": 0.8, "top_p": 0.95, "top_k": 50}
SAMPLINGS = {"greedy": {"temperature": 0.0}, "sampled": SAMPLED}


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
    mode: str
    rows: int
    prompt: int
    context: int  # tokens of a row, in the middle of what is timed
    step_ms: float
    floor_ms: float  # weights and cached keys and values over READ_RATE
    tokens_per_second: int


@dataclass(frozen=True, slots=True)
class RaggedRun:
    shape: str
    mode: str
    sampling: str
    begin: str  # at once: each as soon as it can; in turn: the longest answers first, evenly, as LLM.generate does
    requests: int
    seconds: float
    tokens_per_second: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is measured of each engine."""

    rows: Sequence[int]
    prompts: Sequence[int]
    ragged: int
    samplings: Sequence[str]
    begins: Sequence[str]
    repeats: int


@dataclass(frozen=True, slots=True)
class Found:
    steps: list[StepTime] = field(default_factory=list)
    runs: list[RaggedRun] = field(default_factory=list)
    start_seconds: dict[str, float] = field(default_factory=dict)  # by shape and mode


def main(
    shapes: Annotated[str, typer.Option(help=f"Of {', '.join(SHAPES)}.")] = ",".join(SHAPES),
    rows: Annotated[str, typer.Option(help="Live requests of a step.")] = "1,8,32,64,128,256",
    prompts: Annotated[
        str, typer.Option(help=f"Tokens of each prompt; with {MAX_PROMPT_TOKENS} in all at most.")
    ] = "128",
    ragged: Annotated[int, typer.Option(help="Requests of the run that ends the benchmark; 0: none.")] = 1000,
    samplings: Annotated[str, typer.Option(help="Of that run.")] = ",".join(SAMPLINGS),
    begins: Annotated[
        str, typer.Option(help=f"Of {', '.join(BEGINS)}: how that run begins its requests.")
    ] = IN_TURN,
    repeats: Annotated[int, typer.Option(min=1, help="Of each time; the best counts.")] = 2,
    gpu_memory: Annotated[float, typer.Option(help="GiB of the GPU that may be in use in all.")] = 68.0,
    modes: Annotated[
        str, typer.Option(help=f"Of {', '.join(MODES)}: answers that do not depend on batch mates.")
    ] = "fast",
    out: Annotated[Path | None, typer.Option(help="Write the JSON document there too.")] = None,
) -> None:
    """Time of a decode step by rows, then many ragged requests at once, on one GPU."""
    wanted = Wanted(
        _ints(rows), _ints(prompts), ragged, samplings.split(","), _check_begins(begins.split(",")), repeats
    )
    found = Found()
    for shape in shapes.split(","):
        for mode in modes.split(","):
            began = time.perf_counter()
            engine = open_engine(shape, _is_deterministic(mode), int(gpu_memory * (1 << 30)))
            found.start_seconds[f"{shape} {mode}"] = round(time.perf_counter() - began, 2)
            _measure(engine, shape, mode, wanted, found)
            engine.engine.close()
            del engine
            gc.collect()  # the engine and what it publishes through hold each other
            torch.cuda.empty_cache()
            if out is not None:
                out.write_text(_document(found) + "\n")
    _report(found)
    print(_document(found))


def _ints(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _check_begins(names: list[str]) -> list[str]:
    for name in names:
        if name not in BEGINS:
            raise typer.BadParameter(f"{name!r}; accepted: {', '.join(BEGINS)}", param_hint="--begins")
    return names


def _is_deterministic(mode: str) -> bool:
    if mode not in MODES:
        raise typer.BadParameter(f"{mode!r}; accepted: {', '.join(MODES)}", param_hint="--modes")
    return mode == "deterministic"


def _measure(engine: LocalEngine, shape: str, mode: str, wanted: Wanted, found: Found) -> None:
    """Adds to what was found, and says it at once."""
    _run(engine, 4, 128, 16, SAMPLINGS["greedy"])
    for prompt in wanted.prompts:
        for rows in wanted.rows:
            if rows * prompt <= MAX_PROMPT_TOKENS:
                found.steps.append(_time_step(engine, shape, mode, rows, prompt, wanted.repeats))
                print(found.steps[-1], flush=True)
    for begin, sampling in product(wanted.begins, wanted.samplings) if wanted.ragged else ():
        found.runs.append(_time_ragged(engine, shape, mode, sampling, begin, wanted))
        print(found.runs[-1], flush=True)


def _document(found: Found) -> str:
    document = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "start_seconds": found.start_seconds,
        "steps": [asdict(step) for step in found.steps],
        "ragged": [asdict(run) for run in found.runs],
    }
    return json.dumps(document)


def open_engine(shape: str, deterministic: bool, gpu_memory: int) -> LocalEngine:
    """gpu_memory: bytes that may be in use in all."""
    with tempfile.TemporaryDirectory() as folder:
        return LocalEngine(make_config(write_shape(shape, Path(folder)), deterministic, gpu_memory))


def make_config(model: Path, deterministic: bool, gpu_memory: int) -> EngineConfig:
    return EngineConfig(
        model=str(model),
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


def _run(engine: LocalEngine, num_rows: int, prompt: int, num_new: int, params: dict[str, float]) -> float:
    """Seconds from the first request's arrival to the last token."""
    rnd = random.Random(num_rows)
    prompts = [[rnd.randrange(100, 30000) for _ in range(prompt)] for _ in range(num_rows)]
    return compute(engine, [(ids, num_new) for ids in prompts], params)


def compute(
    engine: LocalEngine,
    requests: Sequence[tuple[list[int], int]],
    params: dict[str, float],
    begin: str = AT_ONCE,
) -> float:
    """Seconds."""
    messages = [
        Submit(id=i, prompt=tuple(ids), sampling=_sampling(num_new, params, i))
        for i, (ids, num_new) in enumerate(requests)
    ]
    counter = Counter()
    began = time.perf_counter()
    if begin == AT_ONCE:
        engine.run(messages, counter, lambda: None)
    else:
        engine.run(longest_first(messages), counter, lambda: None, even_tokens(messages))
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


def _time_step(engine: LocalEngine, shape: str, mode: str, rows: int, prompt: int, repeats: int) -> StepTime:
    greedy = SAMPLINGS["greedy"]
    short = min(_run(engine, rows, prompt, NUM_FIRST, greedy) for _ in range(repeats))
    long = min(_run(engine, rows, prompt, NUM_FIRST + NUM_TIMED, greedy) for _ in range(repeats))
    seconds = (long - short) / NUM_TIMED
    context = prompt + NUM_FIRST + NUM_TIMED // 2
    num_bytes = weight_bytes(shape) + rows * kv_bytes_per_token(shape) * context
    return StepTime(
        shape,
        mode,
        rows,
        prompt,
        context,
        round(seconds * 1e3, 3),
        round(num_bytes / READ_RATE * 1e3, 3),
        round(rows / seconds),
    )


def _time_ragged(
    engine: LocalEngine, shape: str, mode: str, sampling: str, begin: str, wanted: Wanted
) -> RaggedRun:
    requests = ragged_requests(wanted.ragged)
    seconds = min(compute(engine, requests, SAMPLINGS[sampling], begin) for _ in range(wanted.repeats))
    num_tokens = sum(num_new for _, num_new in requests)
    rate = round(num_tokens / seconds)
    return RaggedRun(shape, mode, sampling, begin, wanted.ragged, round(seconds, 2), rate)


def _report(found: Found) -> None:
    console = Console(width=120)
    table = Table("shape", "mode", "rows", "context", "step ms", "floor ms", "measured / floor", "tokens/s")
    for s in found.steps:
        ratio = f"{s.step_ms / s.floor_ms:.2f}"
        sizes, times = (s.shape, s.mode, s.rows, s.context), (s.step_ms, s.floor_ms, ratio)
        table.add_row(*map(str, (*sizes, *times, s.tokens_per_second)))
    console.print(table)
    ragged = Table("shape", "mode", "sampling", "begun", "requests", "seconds", "output tokens/s")
    for r in found.runs:
        numbers = map(str, (r.requests, r.seconds, r.tokens_per_second))
        ragged.add_row(r.shape, r.mode, r.sampling, r.begin, *numbers)
    console.print(ragged)


if __name__ == "__main__":
    typer.run(main)
