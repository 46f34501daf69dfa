"""What clients are told, and what is observed of the loop."""

import numpy as np
import pytest

from engine.config import EngineConfig
from engine.loop.drain_meter import DrainMeter, whole_wait
from engine.request import Abort, Finish, SamplingParams, Submit
from tests.engine.counting_runner import answer
from tests.engine.harness import MAX_MODEL_LEN, Bench, ask, small


def test_each_client_gets_one_emit_a_step_with_its_own_tokens() -> None:
    bench = Bench(small(max_batch_tokens=64))
    messages = [ask(i, num_prompt=3, max_tokens=4) for i in range(4)]
    for message in messages:
        bench.submit(message, client=message.id % 2)
    bench.run()
    for message in messages:
        bench.check_answer(message)
    told = [(client, emit.step) for client, emit in bench.clients.emits if emit.ids]
    assert sorted(told) == [(client, step) for client in (0, 1) for step in (1, 2, 3, 4)]
    assert all(len(emit.finishes) == 2 for _, emit in bench.clients.emits if emit.ids)


def test_a_request_is_accepted_and_started_before_its_first_step_is_read() -> None:
    bench = Bench(small())
    bench.submit(ask(1))
    bench.clock.now += 2.0
    bench.engine.step()
    assert bench.clients.accepted == [1]
    assert [(s.id, s.num_cached, s.queued) for s in bench.clients.started] == [(1, 0, 2.0)]
    assert not bench.clients.tokens


def test_the_next_step_is_launched_before_the_last_one_is_read() -> None:
    bench = Bench(small())
    bench.submit(ask(1, num_prompt=3, max_tokens=9))
    for num_launched in range(1, 6):
        bench.engine.step()
        assert len(bench.runner.plans) == num_launched
        assert bench.engine.num_steps == num_launched - 1
        assert bench.engine.has_work


def test_an_idle_engine_does_nothing() -> None:
    bench = Bench(small())
    assert not bench.engine.has_work
    bench.engine.step()
    bench.engine.idle()
    assert not bench.runner.plans
    assert not bench.clients.emits


def test_a_cached_prefix_is_told_and_observed() -> None:
    bench = Bench(small(block_size=4))
    for request_id in (1, 2):
        bench.submit(ask(request_id, num_prompt=10, first=0))
        bench.run()
    assert [started.num_cached for started in bench.clients.started] == [0, 8]
    assert bench.clients.prefixes == [(10, 0), (10, 8)]
    assert bench.clients.tokens[1] == bench.clients.tokens[2]


def test_nothing_is_told_of_an_aborted_request() -> None:
    bench = Bench(small())
    bench.submit(ask(1, max_tokens=20))
    bench.submit(ask(2, max_tokens=20))
    for _ in range(4):
        bench.engine.step()
    got = list(bench.clients.tokens[1])
    bench.engine.abort(Abort(ids=(1, 77), cause="disconnect"))
    bench.engine.step()
    assert bench.runner.plans[-1].evict == (0,)
    assert len(bench.runner.rows) == 1
    bench.run()
    assert bench.clients.tokens[1] == got
    assert bench.clients.aborted == ["disconnect"]
    bench.check_answer(ask(2, max_tokens=20))


def test_a_client_that_is_gone_is_known_by_its_requests() -> None:
    bench = Bench(small(max_requests=1))
    for request_id in range(4):
        bench.submit(ask(request_id), client=request_id % 2)
    bench.engine.step()
    assert bench.engine.requests_of(1) == (1, 3)
    bench.engine.abort(Abort(ids=bench.engine.requests_of(1), cause="client_gone"))
    bench.run()
    assert sorted(bench.clients.finishes) == [0, 2]


def test_over_the_queue_a_request_is_rejected_with_the_measured_wait() -> None:
    bench = Bench(small(max_requests=1, max_batch_tokens=4, max_queued_requests=3))
    for request_id in range(3):
        bench.submit(ask(request_id, num_prompt=4, max_tokens=10))
    for _ in range(40):
        bench.engine.step()
        bench.clock.now += 1.0
    drained = 4 * (len(bench.clients.started) - 1)
    assert drained > 0
    while bench.engine.num_waiting < 3:
        bench.submit(ask(100 + bench.engine.num_waiting, num_prompt=4))
    bench.submit(ask(9))
    bench.engine.step()
    rejected = bench.clients.rejected[0]
    assert (rejected.id, rejected.reason) == (9, "queue_requests")
    assert rejected.retry_after == int(rejected.retry_after) >= 1
    assert bench.clients.refused == ["queue_requests"]
    bench.run()
    assert 9 not in bench.clients.tokens


def test_the_wait_is_the_queue_over_its_drain() -> None:
    meter = DrainMeter()
    assert meter.seconds(1000) == 0, "nothing was measured yet"
    meter.observe(0, 1.0)
    assert meter.seconds(1) == 1, "as long as nothing has left"
    meter.observe(100, 1.0)
    assert meter.seconds(1000) == pytest.approx(20, rel=0.05)
    for _ in range(1000):
        meter.observe(10, 1.0)
    assert meter.seconds(1000) == pytest.approx(100), "what was measured long ago no longer counts"


def test_clients_are_told_whole_seconds_within_bounds() -> None:
    assert [whole_wait(seconds) for seconds in (0, 0.2, 1.0, 1.1, 599.5, 1e9)] == [1, 1, 1, 2, 600, 600]


def test_draining_rejects_the_new_and_finishes_the_old() -> None:
    bench = Bench(small(max_requests=1))
    old = [ask(1), ask(2)]
    for message in old:
        bench.submit(message)
    bench.engine.step()
    bench.engine.drain()
    bench.submit(ask(3))
    bench.run()
    for message in old:
        bench.check_answer(message)
    assert [(entry.id, entry.reason) for entry in bench.clients.rejected] == [(3, "draining")]


def test_a_failed_row_ends_alone() -> None:
    message = ask(1, max_tokens=12)
    tokens, _ = answer(message.prompt, message.sampling, MAX_MODEL_LEN)
    failing = tokens[5]
    bench = Bench(small(), failing_token=failing)
    others = [ask(i, max_tokens=12) for i in range(2, 6)]
    for other in (message, *others):
        bench.submit(other)
    bench.run()
    assert bench.clients.failed[1] == f"drew {failing}"
    assert bench.clients.tokens[1] == tokens[:5]
    assert 1 not in bench.clients.finishes
    fine = [o for o in others if failing not in answer(o.prompt, o.sampling, MAX_MODEL_LEN)[0]]
    assert fine, "the prompts are chosen so that some do not draw the failing token"
    for other in fine:
        bench.check_answer(other)


@pytest.mark.parametrize("num_prompt", [0, MAX_MODEL_LEN, MAX_MODEL_LEN + 9])
def test_what_no_row_can_hold_fails_by_name(num_prompt: int) -> None:
    bench = Bench(small())
    bench.submit(ask(1, num_prompt=num_prompt))
    bench.submit(ask(2, max_tokens=0))
    bench.submit(ask(3))
    sampling = SamplingParams(stop_token_ids=tuple(range(65)))
    bench.submit(Submit(id=4, prompt=(1, 2), sampling=sampling))
    bench.run()
    assert bench.clients.failed == {
        1: f"prompt has {num_prompt} tokens, accepted are 1 to {MAX_MODEL_LEN - 1}",
        2: "max_tokens is 0, accepted is 1 and more",
        4: "stop_token_ids has 65 ids, accepted are at most 64",
    }
    assert bench.clients.accepted == [3]
    bench.check_answer(ask(3))


def test_the_context_bounds_the_answer() -> None:
    bench = Bench(small(), num_blocks=10)
    bench.submit(ask(1, num_prompt=MAX_MODEL_LEN - 1, max_tokens=9))
    bench.submit(ask(2, num_prompt=MAX_MODEL_LEN - 3, max_tokens=9))
    bench.run()
    assert [len(bench.clients.tokens[i]) for i in (1, 2)] == [1, 3]
    assert set(bench.clients.finishes.values()) == {Finish.LENGTH}


def test_logprobs_come_at_their_tokens_places_and_prompt_logprobs_once() -> None:
    bench = Bench(small(max_requests=6, max_batch_tokens=16), num_blocks=12)
    asked: dict[int, SamplingParams] = {}
    for request_id in range(12):
        logprobs = request_id % 3 if request_id % 2 else None
        prompt_logprobs = 1 if request_id % 3 == 0 else None
        sampling = SamplingParams(max_tokens=15, logprobs=logprobs, prompt_logprobs=prompt_logprobs)
        asked[request_id] = sampling
        message = Submit(id=request_id, prompt=ask(request_id).prompt, sampling=sampling, arrived=1.0)
        bench.submit(message, client=request_id % 3)
    bench.run()
    assert bench.clients.num_preempted > 0
    for request_id, sampling in asked.items():
        entries = bench.clients.logprobs.get(request_id, [])
        expected = [] if sampling.logprobs is None else bench.clients.tokens[request_id]
        assert [entry.token_id for entry in entries] == expected
        assert all(len(entry.top_ids) == len(entry.top_logprobs) == sampling.logprobs for entry in entries)
        prompt = ask(request_id).prompt if sampling.prompt_logprobs else ()
        told = bench.clients.prompt_logprobs.get(request_id, [])
        assert tuple(entry.token_id for entry in told) == prompt[1:]


@pytest.mark.parametrize("policy", ["fcfs", "priority"])
def test_a_steady_stream_of_the_favoured_starves_nobody(policy: str) -> None:
    favoured = EngineConfig(
        max_requests=1,
        max_batch_tokens=8,
        block_size=4,
        policy="priority" if policy == "priority" else "fcfs",
        priority_seconds=5.0,
    )
    bench = Bench(favoured)
    bench.submit(Submit(id=0, prompt=(1,), sampling=SamplingParams(max_tokens=3), priority=3, arrived=100.0))
    for second in range(60):
        sampling = SamplingParams(max_tokens=3)
        bench.submit(
            Submit(id=second + 1, prompt=(1,), sampling=sampling, priority=0, arrived=100.0 + second)
        )
        for _ in range(3):
            bench.engine.step()
    bench.run()
    order = [started.id for started in bench.clients.started]
    assert order.index(0) == (15 if policy == "priority" else 0), "three levels of five seconds"


def test_rows_and_tokens_of_each_step_are_observed() -> None:
    bench = Bench(small(max_batch_tokens=8))
    bench.submit(ask(1, num_prompt=10, max_tokens=2))
    bench.run()
    assert [(tokens, rows) for tokens, rows, _, _ in bench.clients.steps] == [(8, 1), (2, 1), (1, 1), (0, 0)]


def test_closing_waits_for_the_step_in_flight() -> None:
    bench = Bench(small())
    bench.submit(ask(1))
    bench.engine.step()
    bench.engine.close()
    assert bench.runner.num_unread == 0
    assert bench.runner.closed


def test_a_thousand_requests_from_anywhere_leave_nothing_behind() -> None:
    rng = np.random.default_rng(7)
    bench = Bench(EngineConfig(max_requests=16, max_batch_tokens=48, block_size=4), num_blocks=60)
    messages = [ask(i, int(rng.integers(1, 30)), int(rng.integers(1, 20)), i % 5) for i in range(1000)]
    aborted: set[int] = set()
    for message in messages:
        bench.submit(message, client=message.id % 4)
        if rng.random() < 0.3:
            aborted.add(int(rng.integers(0, message.id + 1)))
            bench.engine.abort(Abort(ids=tuple(aborted), cause="timeout"))
        for _ in range(rng.integers(0, 4)):
            bench.engine.step()
    bench.run()
    assert bench.clients.num_preempted > 0
    for message in messages:
        if message.id not in aborted:
            bench.check_answer(message)
