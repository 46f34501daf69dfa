"""A runner without a model: tokens follow from the tokens before, a step takes as long as it is told."""

import time
from dataclasses import dataclass

import numpy as np

from engine.config import EngineConfig, settle
from engine.process.load import Loaded
from engine.request import Finish, SamplingParams
from engine.startup import StartupReport
from engine.step import Admit, Pending, Plan, StepResult

VOCAB = 1000


def next_token(tokens: list[int]) -> int:
    return (tokens[-1] * 31 + len(tokens) * 7) % VOCAB


def answer(prompt: tuple[int, ...], num_tokens: int) -> list[int]:
    """What a request for `num_tokens` tokens gets."""
    tokens = list(prompt)
    for _ in range(num_tokens):
        tokens.append(next_token(tokens))
    return tokens[len(prompt) :]


def load_scripted(config: EngineConfig, report: StartupReport, step_seconds: float = 0.001) -> Loaded:
    """A runner factory; `functools.partial` sets the seconds of a step."""
    config = settle(config, "cpu")
    with report.phase("load"):
        runner = ScriptedRunner(config, step_seconds)
    report.memory["weights"] = 1234
    return Loaded(runner, "scripted", config.max_model_len, "float32", "script", config)


@dataclass(slots=True)
class Row:
    tokens: list[int]
    num_prompt: int
    num_pending: int
    sampling: SamplingParams

    def advance(self) -> tuple[int, Finish]:
        token = next_token(self.tokens)
        self.tokens.append(token)
        self.num_pending = 1
        if token in self.sampling.stop_token_ids:
            return token, Finish.STOP
        ended = len(self.tokens) - self.num_prompt == self.sampling.max_tokens
        return token, Finish.LENGTH if ended else Finish.RUNNING


@dataclass(frozen=True, slots=True)
class Timed:
    """A step whose result is there after a while."""

    step: StepResult
    ready: float

    def result(self) -> StepResult:
        time.sleep(max(0.0, self.ready - time.perf_counter()))
        return self.step

    def done(self) -> bool:
        return time.perf_counter() >= self.ready


class ScriptedRunner:
    def __init__(self, config: EngineConfig, step_seconds: float) -> None:
        self._num_blocks = config.kv_tokens // config.block_size
        self._step_seconds = step_seconds
        self._rows: dict[int, Row] = {}
        self._free_at = 0.0  # steps run one after the other

    @property
    def num_blocks(self) -> int:
        return self._num_blocks

    def launch(self, plan: Plan) -> Pending:
        for slot in plan.evict:
            self._rows.pop(slot, None)
        for admit in plan.admit:
            self._rows[admit.slot] = self._enter(admit)
        num_tokens = sum(self._count(row, slot, plan) for slot, row in self._rows.items())
        for slot, count in plan.chunks:
            if slot in self._rows:
                self._rows[slot].num_pending -= count
        chunked = {slot for slot, _ in plan.chunks}
        due = {
            s: r
            for s, r in self._rows.items()
            if r.num_pending == 0 or (r.num_pending == 1 and s not in chunked)
        }
        made = [(slot, *row.advance()) for slot, row in due.items()]
        for slot, _, finish in made:
            if finish is not Finish.RUNNING:
                del self._rows[slot]
        self._free_at = max(self._free_at, time.perf_counter()) + self._step_seconds
        return Timed(self._result(plan.step, made, num_tokens), self._free_at)

    def close(self) -> None:
        self._rows.clear()

    def _enter(self, admit: Admit) -> Row:
        tokens = admit.token_ids.tolist()
        return Row(tokens, admit.num_prompt, len(tokens) - admit.num_cached, admit.sampling)

    def _count(self, row: Row, slot: int, plan: Plan) -> int:
        return dict(plan.chunks).get(slot, 1 if row.num_pending == 1 else 0)

    def _result(self, step: int, made: list[tuple[int, int, Finish]], num_tokens: int) -> StepResult:
        return StepResult(
            step=step,
            slots=np.array([slot for slot, _, _ in made], np.int32),
            tokens=np.array([token for _, token, _ in made], np.int32),
            finishes=np.array([finish for _, _, finish in made], np.uint8),
            num_rows=len(made),
            num_tokens=num_tokens,
            seconds=self._step_seconds,
        )
