"""Steps that are added up before they are written are counted as if each had been written."""

import threading

from prometheus_client import CollectorRegistry

from engine.metrics.family import MetricFamily
from engine.metrics.step_tally import StepTally

NUM_STEPS = 3000


def read(registry: CollectorRegistry, name: str, **labels: str) -> float:
    value = registry.get_sample_value(f"tokenloom:{name}", {"model_name": "m", "engine": "0", **labels})
    assert value is not None, name
    return value


def test_nothing_is_lost_while_another_thread_writes() -> None:
    registry = CollectorRegistry()
    tally = StepTally(MetricFamily(registry, "m"))
    ended = threading.Event()

    def write() -> None:
        while not ended.is_set():
            tally.write()

    heartbeat = threading.Thread(target=write)
    heartbeat.start()
    for number in range(NUM_STEPS):
        tally.add(num_tokens=number % 5, num_rows=2, seconds=0.25, host_gap=0.5)
        tally.add_launch("replayed" if number % 3 else "captured", num_moves=number % 2)
    ended.set()
    heartbeat.join()
    tally.write()
    assert read(registry, "iteration_tokens_total_sum") == 2 * NUM_STEPS
    assert read(registry, "iteration_tokens_total_bucket", le="2.0") == NUM_STEPS * 3 / 5
    assert read(registry, "step_rows_sum") == 2 * NUM_STEPS
    assert read(registry, "step_time_seconds_sum") == NUM_STEPS / 4
    assert read(registry, "step_time_seconds_count") == NUM_STEPS
    assert read(registry, "step_host_gap_seconds_sum") == NUM_STEPS / 2
    assert read(registry, "step_launches_total", launch="captured") == NUM_STEPS / 3
    assert read(registry, "step_launches_total", launch="replayed") == NUM_STEPS * 2 / 3
    assert read(registry, "compaction_moves_total") == NUM_STEPS / 2


def test_a_first_step_is_written_at_once() -> None:
    registry = CollectorRegistry()
    tally = StepTally(MetricFamily(registry, "m"))
    tally.add(num_tokens=1, num_rows=1, seconds=0.001, host_gap=0.0)
    tally.add_launch("eager", num_moves=0)
    assert read(registry, "step_rows_sum") == 1
