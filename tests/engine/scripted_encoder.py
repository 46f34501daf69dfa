"""An encoder's runner without a model: the answer is arithmetic on the input, a step takes as long as it is told."""

import time
from dataclasses import dataclass

import numpy as np

from engine.config import EngineConfig, settle
from engine.encode_step import EncodeInput, EncodePlan, EncodeResult, Output, PendingEncode
from engine.process.load import LoadedEncoder
from engine.request import Encode, Task
from engine.startup import StartupReport

POISON = 666  # an input with this token has no answer
FAULT = "the scripted encoder does not like token 666"


def expected(token_ids: tuple[int, ...], type_ids: tuple[int, ...] = ()) -> list[float]:
    """What an input must get, whoever is in the step with it: its length, and sums of its tokens and segments."""
    weighted = sum((place + 1) * token for place, token in enumerate(token_ids))
    return [float(len(token_ids)), float(weighted % 65521), float(sum(type_ids))]


def answer_of(message: Encode) -> list[float]:
    return expected(message.token_ids, message.type_ids)


def load_scripted_encoder(
    config: EngineConfig, report: StartupReport, step_seconds: float = 0.001
) -> LoadedEncoder:
    """A runner factory; `functools.partial` sets the seconds of a step."""
    config = settle(config, "cpu")
    with report.phase("load"):
        runner = ScriptedEncoderRunner(step_seconds)
    report.memory["weights"] = 1234
    return LoadedEncoder(runner, "scripted", config.max_model_len, "float32", "script", config)


@dataclass(frozen=True, slots=True)
class TimedEncode:
    """A step whose result is there after a while."""

    runner: "ScriptedEncoderRunner"
    step: EncodeResult
    ready: float

    def result(self) -> EncodeResult:
        time.sleep(max(0.0, self.ready - time.perf_counter()))
        self.runner.num_unread -= 1
        return self.step

    def done(self) -> bool:
        return time.perf_counter() >= self.ready


class ScriptedEncoderRunner:
    """Keeps its plans for a test to look at."""

    def __init__(self, step_seconds: float = 0.0) -> None:
        self.plans: list[EncodePlan] = []
        self.num_unread = 0
        self.closed = False
        self._step_seconds = step_seconds
        self._free_at = 0.0  # steps run one after the other

    @property
    def task(self) -> Task:
        return "embed"

    def launch(self, plan: EncodePlan) -> PendingEncode:
        assert plan.inputs, "a step reads something"
        self.plans.append(plan)
        self.num_unread += 1
        self._free_at = max(self._free_at, time.perf_counter()) + self._step_seconds
        return TimedEncode(self, self._read(plan), self._free_at)

    def close(self) -> None:
        self.closed = True

    def _read(self, plan: EncodePlan) -> EncodeResult:
        poisoned = (place for place, entry in enumerate(plan.inputs) if POISON in entry.token_ids)
        return EncodeResult(
            step=plan.step,
            outputs=tuple(_answer(entry) for entry in plan.inputs),
            num_tokens=sum(len(entry.token_ids) for entry in plan.inputs),
            seconds=self._step_seconds,
            failed=dict.fromkeys(poisoned, FAULT),
        )


def _answer(entry: EncodeInput) -> Output:
    type_ids = () if entry.type_ids is None else tuple(entry.type_ids.tolist())
    return np.array(expected(tuple(entry.token_ids.tolist()), type_ids), np.float32)
