"""How steps were launched, and the rows they moved, are told to whoever watches the loop."""

from dataclasses import dataclass, replace

import torch

from engine.request import SamplingParams
from engine.runner.gpu.buckets import Bucket
from engine.runner.gpu.graphs import EagerSteps
from engine.runner.rows import RowBuffers
from engine.step import Admit, Launch, Pending, Plan, StepResult
from tests.engine.counting_runner import CountingRunner
from tests.engine.harness import Bench, ask, small


@dataclass
class Told:
    """A step whose result says more than the runner did."""

    pending: Pending
    launch: Launch
    num_moves: int

    def result(self) -> StepResult:
        return replace(self.pending.result(), launch=self.launch, num_moves=self.num_moves)

    def done(self) -> bool:
        return self.pending.done()


class TellingRunner:
    """As a GPU's: the first step is captured, the others are replayed."""

    def __init__(self, runner: CountingRunner) -> None:
        self._runner = runner

    @property
    def num_blocks(self) -> int:
        return self._runner.num_blocks

    def launch(self, plan: Plan) -> Pending:
        launch: Launch = "captured" if plan.step == 1 else "replayed"
        return Told(self._runner.launch(plan), launch, plan.step % 3)

    def close(self) -> None:
        self._runner.close()


def test_each_step_is_told_once() -> None:
    bench = Bench(small(max_batch_tokens=64))
    bench.use(TellingRunner(bench.runner))
    bench.submit(ask(1, num_prompt=3, max_tokens=5))
    bench.run()
    told = [("captured", 1), ("replayed", 2), ("replayed", 0), ("replayed", 1), ("replayed", 2)]
    assert bench.clients.launches[:5] == told
    assert len(bench.clients.launches) == len(bench.clients.steps) == bench.engine.num_steps


def test_steps_kernel_by_kernel_say_so() -> None:
    def num_rows(bucket: Bucket) -> int:
        return bucket.num_rows

    steps = EagerSteps(num_rows)
    bucket = Bucket(4, 2)
    assert (steps.launch_of(bucket), steps.run(bucket)) == ("eager", 2)


def test_rows_say_how_many_moved() -> None:
    """One for each live row at or behind the number of live rows."""
    rows = RowBuffers(8, 16, 4, 32, torch.device("cpu"))
    for slot in range(6):
        tokens = torch.arange(3, dtype=torch.int32).numpy()
        rows.admit(Admit(slot, tokens, 3, 0, (slot,), SamplingParams()))
    none, first, behind = torch.zeros(6), torch.tensor([1, 1, 0, 0, 0, 0]), torch.tensor([0, 0, 0, 1])
    assert rows.compact(none.bool()) == 0
    assert rows.compact(first.bool()) == 2
    assert rows.compact(behind.bool()) == 0
    assert rows.num_rows == 3
