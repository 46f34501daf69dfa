"""Any arrivals, budgets and aborts: every input is answered once, in the order of the keys, and nothing is lost."""

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import EngineConfig
from engine.request import Abort, Encode
from tests.engine.encoder_bench import MAX_MODEL_LEN, EncoderBench, text


@dataclass(frozen=True)
class Visit:
    """An input, the engine step it comes at, and how many steps later it is aborted, if ever."""

    message: Encode
    at: int
    abort_after: int | None
    client: int


@st.composite
def visits(draw: st.DrawFn) -> list[Visit]:
    found = []
    for request_id in range(draw(st.integers(1, 25))):
        message = text(
            request_id,
            draw(st.integers(1, MAX_MODEL_LEN)),
            priority=draw(st.integers(-2, 2)),
            arrived=float(draw(st.integers(1, 4))),
        )
        abort_after = draw(st.sampled_from([None, None, None, 0, 1, 2]))
        found.append(Visit(message, draw(st.integers(0, 8)), abort_after, draw(st.integers(0, 2))))
    return found


@settings(max_examples=150, deadline=None)
@given(visits(), st.integers(1, 6), st.integers(6, 60), st.sampled_from(["fcfs", "priority"]))
def test_every_input_is_answered_once_and_none_is_lost(
    plan: list[Visit], max_requests: int, max_batch_tokens: int, policy: str
) -> None:
    config = EngineConfig(
        max_requests=max_requests,
        max_batch_tokens=max_batch_tokens,
        policy="priority" if policy == "priority" else "fcfs",
        max_queued_requests=1,
    )
    bench = EncoderBench(config)
    gone: set[int] = set()
    for now in range(12):
        for visit in plan:
            if visit.at == now:
                bench.submit(visit.message, visit.client)
        aborts = {v.message.id for v in plan if v.abort_after is not None and v.at + v.abort_after == now}
        gone |= aborts - bench.clients.answers.keys()
        bench.engine.abort(Abort(ids=tuple(aborts), cause="timeout"))
        bench.engine.step()
    bench.run()
    _check_told(bench, plan, gone)
    _check_packed(bench, max_requests, max_batch_tokens)


def _check_told(bench: EncoderBench, plan: list[Visit], gone: set[int]) -> None:
    clients = bench.clients
    rejected = {entry.id for entry in clients.rejected}
    assert set(clients.accepted) | rejected == {visit.message.id for visit in plan}
    assert not set(clients.accepted) & rejected
    for visit in plan:
        message = visit.message
        if message.id in clients.answers:
            bench.check_answer(message)
    assert clients.answers.keys() == set(clients.accepted) - gone


def _check_packed(bench: EncoderBench, max_requests: int, max_batch_tokens: int) -> None:
    for lens in bench.steps():
        assert len(lens) <= max_requests
        assert sum(lens) <= max_batch_tokens or len(lens) == 1


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 20), st.integers(-3, 3), st.integers(1, 50)), max_size=30),
    st.integers(1, 30),
    st.booleans(),
)
def test_those_that_wait_together_start_in_the_order_of_their_keys(
    entries: list[tuple[int, int, int]], max_batch_tokens: int, by_priority: bool
) -> None:
    bench = EncoderBench(
        EngineConfig(
            max_requests=max_batch_tokens,
            max_batch_tokens=max_batch_tokens,
            policy="priority" if by_priority else "fcfs",
            priority_seconds=10.0,
        )
    )
    keys = {}
    for request_id, (num_tokens, priority, arrived) in enumerate(entries):
        bench.submit(text(request_id, num_tokens, priority, float(arrived)))
        keys[request_id] = (arrived + (10 * priority if by_priority else 0), request_id)
    bench.run()
    assert [started.id for started in bench.clients.started] == sorted(keys, key=lambda id: keys[id])
