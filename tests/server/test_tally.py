"""Tokens that are added up before they are written are counted as if each had been written."""

from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.metrics import MetricWrapperBase

from engine.metrics.observations import Observations, TalliedHistogram
from server.metrics.tally import WRITE_SECONDS, Tally

BOUNDS = (0.001, 0.01, 0.1, 1.0)


def samples(metric: MetricWrapperBase) -> dict[tuple[str, str], float]:
    [family] = metric.collect()
    found = {(sample.name, str(sample.labels)): sample.value for sample in family.samples}
    return {name: value for name, value in found.items() if not name[0].endswith("_created")}


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(1, 4), st.sampled_from((0.0, 0.001, 0.005, 0.1, 0.7, 30.0)))))
def test_nothing_is_lost(arrivals: list[tuple[int, float]]) -> None:
    registry = CollectorRegistry()
    tokens = Counter("tokens", "Tokens.", registry=registry)
    tallied = TalliedHistogram("gaps", "Gaps.", buckets=BOUNDS, registry=registry)
    expected = Histogram("gaps", "Gaps.", buckets=BOUNDS, registry=None)
    tally, now = Tally(tokens, Observations(tallied, BOUNDS)), 0.0
    for count, gap in arrivals:
        now += WRITE_SECONDS / 3
        tally.add(count, count - 1, gap, now)
        for _ in range(count - 1):
            expected.observe(gap)
    tally.write(now)
    assert samples(tokens)["tokens_total", "{}"] == sum(count for count, _ in arrivals)
    found, wanted = samples(tallied), samples(expected)
    total = "gaps_sum", "{}"
    assert abs(found.pop(total) - wanted.pop(total)) < 1e-6
    assert found == wanted


def test_it_is_written_while_tokens_come() -> None:
    tokens = Counter("tokens", "Tokens.", registry=None)
    gaps = TalliedHistogram("gaps", "Gaps.", buckets=BOUNDS, registry=None)
    tally = Tally(tokens, Observations(gaps, BOUNDS))
    for step in range(100):
        tally.add(1, 1, 0.01, step * WRITE_SECONDS / 10)
    assert samples(tokens)["tokens_total", "{}"] >= 90
