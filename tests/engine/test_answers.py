"""Chunks, blocks, preemptions, batch mates, order, the prefix cache and aborts do not change an answer."""

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import EngineConfig
from engine.request import Abort, SamplingParams, Submit
from tests.engine.counting_runner import VOCAB, answer
from tests.engine.harness import MAX_MODEL_LEN, Bench


@dataclass(frozen=True)
class Visit:
    """A request, the engine step it comes at, and how many steps later it is aborted, if ever."""

    message: Submit
    at: int
    abort_after: int | None
    client: int


@st.composite
def visits(draw: st.DrawFn) -> list[Visit]:
    found = []
    for request_id in range(draw(st.integers(1, 9))):
        beginning = draw(st.sampled_from([(), tuple(range(1, 10)), (1, 2, 3, 4, 5, 0, 0, 0), (3,) * 20]))
        rest = draw(st.lists(st.integers(0, VOCAB - 1), max_size=15))
        prompt = (*beginning, *rest) or (0,)
        sampling = SamplingParams(
            max_tokens=draw(st.integers(1, 30)),
            stop_token_ids=tuple(draw(st.lists(st.integers(0, VOCAB - 1), max_size=6))),
            prompt_logprobs=draw(st.sampled_from([None, None, 0])),
        )
        message = Submit(
            id=request_id,
            prompt=prompt,
            sampling=sampling,
            priority=draw(st.integers(-2, 2)),
            cache_salt=draw(st.sampled_from(["", "other"])),
            arrived=1.0 + draw(st.integers(0, 5)),
            owner=draw(st.sampled_from("abc")),
        )
        abort_after = draw(st.one_of(st.none(), st.none(), st.integers(0, 25)))
        found.append(Visit(message, draw(st.integers(0, 30)), abort_after, draw(st.integers(0, 2))))
    return found


@st.composite
def benches(draw: st.DrawFn) -> Bench:
    block_size = draw(st.sampled_from([1, 2, 4, 8]))
    max_requests = draw(st.integers(1, 6))
    config = EngineConfig(
        max_requests=max_requests,
        max_batch_tokens=max_requests + draw(st.integers(0, 20)),
        block_size=block_size,
        prefix_cache=draw(st.booleans()),
        policy=draw(st.sampled_from(["fcfs", "priority"])),
        priority_seconds=1.0,
    )
    return Bench(config, -(-MAX_MODEL_LEN // block_size) + draw(st.integers(0, 8)))


def drive(bench: Bench, visits: list[Visit]) -> None:
    """Bring the visits to the engine at their steps, and run until nothing is left to do."""
    arrivals = {visit.message.id: visit.at for visit in visits}
    aborts = {v.message.id: v.at + v.abort_after for v in visits if v.abort_after is not None}
    for step in range(2000):
        for visit in visits:
            if arrivals[visit.message.id] == step:
                bench.submit(visit.message, visit.client)
        leaving = tuple(request_id for request_id, at in aborts.items() if at == step)
        bench.engine.abort(Abort(ids=leaving, cause="disconnect"))
        bench.engine.step()
        bench.clock.now += 0.01
        if not bench.engine.has_work and step > max([*arrivals.values(), *aborts.values()]):
            break
    bench.run(max_steps=0)


@settings(max_examples=100, deadline=None)
@given(benches(), visits())
def test_an_answer_depends_on_nothing_but_its_request(bench: Bench, visits: list[Visit]) -> None:
    drive(bench, visits)
    for visit in visits:
        message = visit.message
        if visit.abort_after is None:
            bench.check_answer(message)
        else:
            expected, _ = answer(message.prompt, message.sampling, MAX_MODEL_LEN)
            got = bench.clients.tokens.get(message.id, [])
            assert got == expected[: len(got)]
        if visit.abort_after is None and message.sampling.prompt_logprobs is not None:
            reported = bench.clients.prompt_logprobs.get(message.id, [])
            assert tuple(entry.token_id for entry in reported) == message.prompt[1:]
    assert len(bench.clients.started) == len({entry.id for entry in bench.clients.started})


def test_a_crowd_in_a_small_cache_is_preempted_and_answered() -> None:
    config = EngineConfig(max_requests=8, max_batch_tokens=16, block_size=4)
    bench = Bench(config, num_blocks=14)
    crowd = [
        Submit(
            id=i,
            prompt=tuple((i % 3 + k) % VOCAB for k in range(3 + i % 9)),
            sampling=SamplingParams(max_tokens=4 + i % 25, stop_token_ids=(i % VOCAB,)),
            arrived=1.0 + i,
        )
        for i in range(60)
    ]
    drive(bench, [Visit(message, message.id // 2, None, message.id % 3) for message in crowd])
    assert bench.clients.num_preempted > 20
    assert _ends_late(bench), "no preempted row's last token came with the step in flight"
    for message in crowd:
        bench.check_answer(message)


def _ends_late(bench: Bench) -> list[int]:
    """Rows that were evicted by a plan made while the step that ended them was in flight."""
    results = zip(bench.runner.plans[1:], bench.runner.results, strict=False)
    return [
        slot for plan, result in results for slot in plan.evict if slot in result.slots[result.finishes != 0]
    ]
