"""How long the device waits for the host, on a clock that only the device and the test move."""

import pytest

from engine.step import Pending, Plan, StepResult
from tests.engine.counting_runner import CountingRunner
from tests.engine.harness import Bench, Clock, ask, small


class SlowPending:
    """A step that takes its seconds on the clock when it is waited for, not before `end`."""

    def __init__(self, pending: Pending, clock: Clock, end: float) -> None:
        self._pending = pending
        self._clock = clock
        self._end = end

    def result(self) -> StepResult:
        self._clock.now = max(self._clock.now, self._end)
        return self._pending.result()

    def done(self) -> bool:
        return self._clock.now >= self._end


class SlowRunner:
    """A CountingRunner whose steps take the seconds they say, one after the other."""

    def __init__(self, runner: CountingRunner, clock: Clock) -> None:
        self._runner = runner
        self._clock = clock
        self._free_at = 0.0

    @property
    def num_blocks(self) -> int:
        return self._runner.num_blocks

    def launch(self, plan: Plan) -> Pending:
        pending = self._runner.launch(plan)
        self._free_at = max(self._free_at, self._clock.now) + self._runner.results[-1].seconds
        return SlowPending(pending, self._clock, self._free_at)

    def close(self) -> None:
        self._runner.close()


def test_the_host_gap_is_the_time_the_device_waits() -> None:
    bench = Bench(small())
    bench.use(SlowRunner(bench.runner, bench.clock))
    bench.submit(ask(1, max_tokens=12))
    for host_seconds in (0.0, 0.0, 0.0, 0.004, 0.016, 0.0, 0.0):
        bench.clock.now += host_seconds
        bench.engine.step()
    bench.run()
    gaps = [gap for _, _, _, gap in bench.clients.steps]
    assert gaps[4] == pytest.approx(0.006)
    assert sum(gaps) == pytest.approx(gaps[4])
    bench.clock.now += 50.0
    bench.submit(ask(2))
    bench.run()
    assert max(gap for _, _, _, gap in bench.clients.steps) == gaps[4], "a rest is no gap"
