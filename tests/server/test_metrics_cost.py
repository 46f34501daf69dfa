"""What being watched may cost. `benchmarks/metrics_cost.py` measures it beside a model."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from benchmarks.metrics_cost import cost_by_itself

PART = 0.01  # of what it is beside
STEP_US = 1000.0  # of the shortest steps there are
TOKENS_A_SECOND = 2000
READING_US = 20_000.0


def test_metrics_cost_next_to_nothing() -> None:
    """In processor time, so that it does not matter what else the machine does."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        cost = process.submit(cost_by_itself).result()
    assert cost.step < PART * STEP_US
    assert cost.token < PART * 1e6 / TOKENS_A_SECOND
    assert cost.reading < READING_US, (
        "after thousands of requests: a reading is no longer for having served more"
    )
