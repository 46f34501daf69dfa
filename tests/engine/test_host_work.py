"""What a step costs the host goes by what changes: counted in the interpreter's own instructions, which are the same anywhere."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import engine as package
from engine.config import EngineConfig
from engine.loop.loop import Engine
from engine.loop.observer import SilentObserver
from engine.request import Emit, SamplingParams, Submit
from tests.engine.scripted_runner import ScriptedRunner

HERE = str(Path(package.__file__).parent)
BLOCK = 8
PERIODS = 2
MANY = 256


class Counter:
    """Instructions of this package's functions, but for those of libraries and of the runner."""

    def __init__(self) -> None:
        self.count = 0

    @contextmanager
    def counting(self) -> Iterator[None]:
        before = sys.gettrace()
        sys.settrace(self._enter)
        try:
            yield
        finally:
            sys.settrace(before)

    def _enter(self, frame: FrameType, event: str, argument: object) -> "Counter | None":
        if not frame.f_code.co_filename.startswith(HERE):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return self

    def __call__(self, frame: FrameType, event: str, argument: object) -> "Counter":
        self.count += event == "opcode"
        return self


class Host:
    """An engine whose rows have a token each to compute, and come to the end of a block together."""

    def __init__(self, num_rows: int, num_waiting: int = 0) -> None:
        config = EngineConfig(
            max_requests=num_rows,
            max_batch_tokens=4096,
            block_size=BLOCK,
            kv_tokens=1 << 15,
            max_model_len=256,
            policy="priority",
        )
        runner = ScriptedRunner(config, 0.0)
        self.engine = Engine(config, runner, 256, self._publish, SilentObserver())
        self._num_asked = 0
        self._ask("busy", num_rows)
        self._step(3)
        self._ask(
            "patient", num_waiting, priority=1000
        )  # looks each step whether a row is due to it; none is
        self._step(3)

    def count_steps(self) -> list[int]:
        """The instructions of each step of some blocks, the fewest first; at a block's end rows get new ones."""
        counts = []
        for _ in range(PERIODS * BLOCK):
            counter = Counter()
            with counter.counting():
                self.engine.step()
            counts.append(counter.count)
        return sorted(counts)

    def _ask(self, owner: str, count: int, priority: int = 0) -> None:
        for number in range(self._num_asked, self._num_asked + count):
            sampling = SamplingParams(max_tokens=200)
            prompt = (number, *range(BLOCK))
            submit = Submit(id=number, prompt=prompt, sampling=sampling, owner=owner, priority=priority)
            self.engine.submit(submit, 0)
        self._num_asked += count

    def _step(self, count: int) -> None:
        for _ in range(count):
            self.engine.step()

    def _publish(self, client: int, emit: Emit) -> None:
        return


def test_a_step_in_which_nothing_changes_costs_the_same_for_any_number_of_rows() -> None:
    few, many = Host(2).count_steps(), Host(MANY).count_steps()
    assert few[0] > 100, "they were counted"
    assert many[:-PERIODS] == few[:-PERIODS]


def test_a_block_costs_the_same_beside_any_number_of_rows() -> None:
    counts = {num_rows: Host(num_rows).count_steps() for num_rows in (2, MANY)}
    for_block = {num_rows: (found[-1] - found[0]) / num_rows for num_rows, found in counts.items()}
    assert for_block[MANY] <= 1.05 * for_block[2]


def test_who_waits_costs_the_same_beside_any_number_of_rows_and_of_others() -> None:
    alone = Host(2).count_steps()[0]
    usual = [Host(rows, waiting).count_steps()[BLOCK] for rows, waiting in ((2, 1), (MANY, 1), (2, MANY))]
    assert min(usual) > 1.5 * alone, "a row is looked for each time"
    assert max(usual) <= 1.05 * min(usual)
