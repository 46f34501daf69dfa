"""Greedy answers of the bundled model, token for token those of transformers in float32, whatever else goes on in the engine."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.checkpoint import open_checkpoint
from engine.config import EngineConfig, settle
from engine.kernels import build
from engine.kernels.cpu_ops import CpuOps
from engine.loop.loop import Engine
from engine.loop.observer import SilentObserver
from engine.models.load import load_model
from engine.models.model import Model
from engine.request import Abort, Emit, SamplingParams, Submit
from engine.runner.kv_cache import KvShape, make_caches, plan_kv
from engine.runner.rows import RowBuffers
from engine.runner.runner import CpuRunner, make_step_thread
from engine.sampler.sampler import make_sampler

REFERENCES = Path(__file__).parents[1] / "data" / "smollm2_refs.json"
NUM_TOKENS = 10  # of each answer, where many engines are tried
SURE = 0.15  # logits further apart than this are not swapped by bfloat16


@dataclass(frozen=True, slots=True)
class Case:
    prompt: tuple[int, ...]
    answer: list[int]
    margins: list[float]  # from each answer's logit to the next best, in float32


@dataclass(frozen=True, slots=True)
class Bundled:
    """The bundled model, loaded once."""

    model: Model
    cases: list[Case]
    thread: ThreadPoolExecutor  # that loaded it, and computes every step

    def engine(self, config: EngineConfig, answers: "Answers") -> Engine:
        shape = KvShape(
            self.model.config.num_layers,
            self.model.heads.num_kv_heads,
            self.model.heads.head_dim,
            self.model.dtype,
        )
        config = settle(config, "cpu")
        kv = plan_kv(config, shape, self.model.config.max_context)
        max_blocks = -(-kv.max_model_len // kv.block_size)
        rows = RowBuffers(
            config.max_requests,
            kv.max_model_len,
            max_blocks,
            self.model.config.vocab_size,
            torch.device("cpu"),
        )
        sampler = make_sampler(build.load(), 2)
        runner = CpuRunner(self.model, make_caches(kv, shape), kv, rows, sampler, self.thread)
        return Engine(config, runner, kv.max_model_len, answers.take, SilentObserver())


@dataclass(slots=True)
class Answers:
    """What the engine published, by request."""

    tokens: dict[int, list[int]] = field(default_factory=dict)
    cached: dict[int, int] = field(default_factory=dict)

    def take(self, client: int, emit: Emit) -> None:
        assert not emit.failed and not emit.rejected
        for started in emit.started:
            self.cached[started.id] = started.num_cached
        pairs = zip(
            np.frombuffer(emit.ids, "<i8").tolist(), np.frombuffer(emit.tokens, "<i4").tolist(), strict=True
        )
        for request_id, token in pairs:
            self.tokens.setdefault(request_id, []).append(token)


def read_cases() -> list[Case]:
    items: list[dict[str, Any]] = json.loads(REFERENCES.read_text())["items"]
    return [
        Case(tuple(item["prompt_ids"]), item["output_ids"], item["top1_top2_logit_margin"]) for item in items
    ]


@contextmanager
def load_bundled(dtype: torch.dtype) -> Iterator[Bundled]:
    cases = read_cases()
    with make_step_thread(2) as thread:
        ops = CpuOps(build.load())
        model = thread.submit(load_model, open_checkpoint(""), ops, dtype, 2048).result()
        yield Bundled(model, cases, thread)


@pytest.fixture(scope="module")
def bundled() -> Iterator[Bundled]:
    with load_bundled(torch.float32) as loaded:
        yield loaded


def submit(engine: Engine, request_id: int, case: Case, max_tokens: int) -> None:
    params = SamplingParams(max_tokens=max_tokens, temperature=0, stop_token_ids=(2,))
    engine.submit(
        Submit(id=request_id, prompt=case.prompt, sampling=params, owner="ab"[request_id % 2]), client=0
    )


def finish(engine: Engine) -> None:
    while engine.has_work:
        engine.step()
    engine.idle()


def test_all_at_once(bundled: Bundled) -> None:
    answers = Answers()
    engine = bundled.engine(EngineConfig(kv_tokens=4096, max_model_len=1024), answers)
    for i, case in enumerate(bundled.cases):
        submit(engine, i, case, 64)
    finish(engine)
    assert answers.tokens == {i: case.answer for i, case in enumerate(bundled.cases)}


def test_one_after_the_other(bundled: Bundled) -> None:
    answers = Answers()
    engine = bundled.engine(EngineConfig(kv_tokens=1024, max_model_len=1024), answers)
    cases = bundled.cases[:6]
    for i, case in enumerate(cases):
        submit(engine, i, case, NUM_TOKENS)
        while engine.has_work:
            engine.step()
    finish(engine)
    assert answers.tokens == {i: case.answer[:NUM_TOKENS] for i, case in enumerate(cases)}


def test_prefix_hits(bundled: Bundled) -> None:
    """The same prompts twice: the second time most of each is found in the cache, and nothing changes."""
    answers = Answers()
    engine = bundled.engine(EngineConfig(kv_tokens=4096, max_model_len=1024), answers)
    for turn in range(2):
        for i, case in enumerate(bundled.cases):
            submit(engine, 100 * turn + i, case, NUM_TOKENS)
        while engine.has_work:
            engine.step()
    finish(engine)
    for i, case in enumerate(bundled.cases):
        assert answers.tokens[i] == answers.tokens[100 + i] == case.answer[:NUM_TOKENS]
        assert answers.cached[100 + i] == (len(case.prompt) - 1) // 16 * 16


def test_bfloat16_differs_only_where_it_is_close() -> None:
    answers = Answers()
    with load_bundled(torch.bfloat16) as bundled:
        engine = bundled.engine(EngineConfig(kv_tokens=4096, max_model_len=1024), answers)
        for i, case in enumerate(bundled.cases):
            submit(engine, i, case, 64)
        finish(engine)
    for i, case in enumerate(bundled.cases):
        pairs = zip(answers.tokens[i], case.answer, strict=False)
        first = next((place for place, (got, want) in enumerate(pairs) if got != want), None)
        assert first is None or case.margins[first] < SURE


@given(data=st.data())
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_goes_on(bundled: Bundled, data: st.DataObject) -> None:
    """Any chunk size, rows, memory (preemption), order and time of arrival, and mates that leave early."""
    draw = data.draw
    short = [i for i, case in enumerate(bundled.cases) if len(case.prompt) < 120]
    order = draw(st.permutations(short), label="order")
    max_requests = draw(st.integers(1, 12), label="rows")
    config = EngineConfig(
        max_requests=max_requests,
        max_batch_tokens=max_requests + draw(st.integers(0, 100), label="budget"),
        kv_tokens=16 * draw(st.integers(12, 40), label="blocks"),
        max_model_len=160,
        prefix_cache=draw(st.booleans(), label="prefix cache"),
    )
    answers = Answers()
    engine = bundled.engine(config, answers)
    leavers = draw(st.sets(st.sampled_from(order), max_size=3), label="leavers")
    for i in order:
        submit(engine, i, bundled.cases[i], NUM_TOKENS)
        for _ in range(draw(st.integers(0, 3), label="steps")):
            engine.step()
    engine.abort(Abort(ids=tuple(leavers), cause="disconnect"))
    finish(engine)
    for i in order:
        want = bundled.cases[i].answer[:NUM_TOKENS]
        assert answers.tokens.get(i, []) == (want[: len(answers.tokens.get(i, []))] if i in leavers else want)
