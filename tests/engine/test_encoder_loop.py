"""What an encoder's clients are told, how inputs are packed, and what is observed of the loop."""

import msgspec
import pytest

from engine.config import EngineConfig
from engine.loop.loop import Engine
from engine.request import Abort, Encode, SamplingParams, Submit
from tests.engine.encoder_bench import MAX_MODEL_LEN, EncoderBench, text
from tests.engine.harness import Bench, small
from tests.engine.scripted_encoder import FAULT, POISON


def test_inputs_are_packed_in_order_under_the_budget() -> None:
    bench = EncoderBench(small(max_requests=3, max_batch_tokens=10))
    lens = [4, 5, 2, 1, 1, 1, 1, 8, 3]
    for request_id, num_tokens in enumerate(lens):
        bench.submit(text(request_id, num_tokens))
    bench.run()
    assert bench.steps() == [[4, 5], [2, 1, 1], [1, 1, 8], [3]]
    for request_id, num_tokens in enumerate(lens):
        bench.check_answer(text(request_id, num_tokens))


def test_an_input_over_the_budget_goes_alone_and_in_its_turn() -> None:
    bench = EncoderBench(small(max_batch_tokens=10))
    for request_id, num_tokens in enumerate([3, 25, 3, 3]):
        bench.submit(text(request_id, num_tokens))
    bench.run()
    assert bench.steps() == [[3], [25], [3, 3]]
    bench.check_answer(text(1, 25))


def test_the_next_step_is_launched_before_the_last_one_is_read() -> None:
    bench = EncoderBench(small(max_batch_tokens=4))
    for request_id in range(5):
        bench.submit(text(request_id))
    for num_launched in range(1, 6):
        bench.engine.step()
        assert len(bench.runner.plans) == num_launched
        assert bench.engine.num_steps == len(bench.clients.answers) == num_launched - 1
        assert bench.engine.num_running + bench.engine.num_waiting == 6 - num_launched
    bench.run()
    assert bench.engine.num_steps == 5


def test_a_request_is_accepted_and_started_before_its_step_is_read() -> None:
    bench = EncoderBench(small())
    bench.submit(text(1))
    bench.clock.now += 2.0
    bench.engine.step()
    assert bench.clients.accepted == [1]
    assert [(s.id, s.num_cached, s.queued) for s in bench.clients.started] == [(1, 0, 2.0)]
    assert not bench.clients.answers


def test_segments_reach_the_model() -> None:
    bench = EncoderBench(small())
    pair = Encode(id=1, token_ids=(5, 6, 7), type_ids=(0, 1, 1))
    bench.submit(pair)
    bench.submit(text(2))
    bench.run()
    assert bench.clients.answers[1][2] == 2.0
    bench.check_answer(pair)
    bench.check_answer(text(2))


def test_each_client_gets_one_emit_a_step_with_its_own_answers() -> None:
    bench = EncoderBench(small(max_batch_tokens=64))
    for request_id in range(8):
        bench.submit(text(request_id, 2), client=request_id % 2)
    bench.run()
    told = [(client, emit.step) for client, emit in bench.clients.emits if emit.encoded]
    assert sorted(told) == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert sorted(bench.clients.answers) == list(range(8))


def test_a_failed_input_ends_alone() -> None:
    bench = EncoderBench(small(max_batch_tokens=64))
    bench.submit(Encode(id=1, token_ids=(1, POISON, 2)))
    for request_id in (2, 3):
        bench.submit(text(request_id))
    bench.run()
    assert bench.clients.failed == {1: FAULT}
    assert sorted(bench.clients.answers) == [2, 3]


def test_nothing_is_told_of_an_aborted_request_waiting_or_in_flight() -> None:
    bench = EncoderBench(small(max_batch_tokens=4))
    for request_id in range(4):
        bench.submit(text(request_id))
    bench.engine.step()
    assert bench.engine.num_running == 1
    bench.engine.abort(Abort(ids=(0, 2, 77), cause="disconnect"))
    assert bench.engine.num_running == 0 and bench.engine.num_waiting == 2
    bench.engine.abort(Abort(ids=(0, 2), cause="disconnect"))
    bench.run()
    assert sorted(bench.clients.answers) == [1, 3]
    assert bench.clients.aborted == ["disconnect"] * 2
    assert len(bench.runner.plans) == 3


def test_an_id_that_was_aborted_may_come_again() -> None:
    """A client that lost its engine's answer asks again under the same id."""
    bench = EncoderBench(small())
    bench.submit(text(1, 3))
    bench.engine.step()
    bench.engine.abort(Abort(ids=(1,), cause="disconnect"))
    bench.submit(text(1, 5))
    bench.run()
    bench.check_answer(text(1, 5))
    assert bench.steps() == [[3], [5]]


def test_a_client_that_is_gone_is_known_by_its_requests() -> None:
    bench = EncoderBench(small(max_batch_tokens=4))
    for request_id in range(4):
        bench.submit(text(request_id), client=request_id % 2)
    bench.engine.step()
    assert bench.engine.requests_of(0) == (0, 2)
    bench.engine.abort(Abort(ids=bench.engine.requests_of(0), cause="client_gone"))
    bench.run()
    assert sorted(bench.clients.answers) == [1, 3]


def test_over_the_queue_a_request_is_rejected_with_the_measured_wait() -> None:
    """A place in the queue is one of 8 inputs."""
    config = small(max_batch_tokens=4, max_queued_requests=1, max_queued_tokens=4)
    bench = EncoderBench(config)
    for request_id in range(8):
        bench.submit(text(request_id))
    bench.submit(text(8))
    for _ in range(3):
        bench.engine.step()
        bench.clock.now += 2.0
    assert [(entry.id, entry.reason) for entry in bench.clients.rejected] == [(8, "queue_requests")]
    assert bench.clients.rejected[0].retry_after == 1.0, "nothing was measured yet"
    bench.submit(text(9, 20))
    bench.engine.step()
    assert (bench.clients.rejected[1].id, bench.clients.rejected[1].reason) == (9, "queue_tokens")
    assert bench.clients.rejected[1].retry_after > 1.0
    assert bench.clients.refused == ["queue_requests", "queue_tokens"]
    bench.run()
    assert sorted(bench.clients.answers) == list(range(8))


def test_two_batches_of_2048_inputs_find_a_place() -> None:
    """With a key: of the queue its owner leaves a part to others."""
    usual = EngineConfig()
    bench = EncoderBench(
        small(
            max_queued_requests=usual.max_queued_requests,
            max_queued_tokens=usual.max_queued_tokens,
        )
    )
    ids = tuple(range(2 * 2048))
    for request_id in ids:
        bench.submit(msgspec.structs.replace(text(request_id, MAX_MODEL_LEN), owner="a key"))
    bench.engine.step()
    assert not bench.clients.rejected
    bench.engine.abort(Abort(ids=ids, cause="client_gone"))
    bench.run()


def test_draining_rejects_the_new_and_finishes_the_old() -> None:
    bench = EncoderBench(small(max_batch_tokens=4))
    bench.submit(text(1))
    bench.submit(text(2))
    bench.engine.step()
    bench.engine.drain()
    bench.submit(text(3))
    bench.run()
    assert sorted(bench.clients.answers) == [1, 2]
    assert [(entry.id, entry.reason) for entry in bench.clients.rejected] == [(3, "draining")]


@pytest.mark.parametrize("num_tokens", [0, MAX_MODEL_LEN + 1])
def test_what_the_model_cannot_read_fails_by_name(num_tokens: int) -> None:
    bench = EncoderBench(small())
    bench.submit(text(1, num_tokens))
    bench.submit(Encode(id=2, token_ids=(1, 2, 3), type_ids=(0, 1)))
    bench.submit(text(3, MAX_MODEL_LEN))
    bench.run()
    assert bench.clients.failed == {
        1: f"input has {num_tokens} tokens, accepted are 1 to {MAX_MODEL_LEN}",
        2: "type_ids has 2 ids, accepted are none or 3, one a token",
    }
    assert bench.clients.accepted == [3]
    bench.check_answer(text(3, MAX_MODEL_LEN))


def test_a_prompt_sent_to_an_encoder_fails_and_the_engine_goes_on() -> None:
    bench = EncoderBench(small())
    bench.engine.submit(Submit(id=1, prompt=(1, 2), sampling=SamplingParams()), 0)
    bench.submit(text(2))
    bench.run()
    assert bench.clients.failed == {1: "the model's task is embed, it generates no text"}
    bench.check_answer(text(2))


def test_an_input_sent_to_a_decoder_fails_and_the_engine_goes_on() -> None:
    bench = Bench(small())
    assert isinstance(bench.engine, Engine)
    bench.engine.submit(text(1), 0)
    message = Submit(id=2, prompt=(1, 2, 3), sampling=SamplingParams(max_tokens=3))
    bench.submit(message)
    bench.run()
    assert bench.clients.failed == {1: "the model generates text, it encodes no inputs"}
    bench.check_answer(message)


@pytest.mark.parametrize("policy", ["fcfs", "priority"])
def test_a_steady_stream_of_the_favoured_starves_nobody(policy: str) -> None:
    config = EngineConfig(
        max_requests=1,
        max_batch_tokens=8,
        policy="priority" if policy == "priority" else "fcfs",
        priority_seconds=5.0,
    )
    bench = EncoderBench(config)
    bench.submit(text(0, 1, priority=3, arrived=100.0))
    for second in range(60):
        bench.submit(text(second + 1, 1, arrived=100.0 + second))
        if second % 2:
            bench.engine.step()
    bench.run()
    order = [started.id for started in bench.clients.started]
    assert order.index(0) == (15 if policy == "priority" else 0), "three levels of five seconds"


def test_inputs_and_tokens_of_each_step_are_observed() -> None:
    bench = EncoderBench(small(max_batch_tokens=10))
    for request_id, num_tokens in enumerate([4, 5, 9]):
        bench.submit(text(request_id, num_tokens))
    bench.run()
    assert [(tokens, inputs) for tokens, inputs, _, _ in bench.clients.steps] == [(9, 2), (9, 1)]


def test_an_idle_engine_does_nothing() -> None:
    bench = EncoderBench(small())
    bench.engine.step()
    bench.check_empty()
    assert not bench.runner.plans and not bench.clients.emits
    assert bench.engine.kv_usage == 0.0


def test_closing_waits_for_the_step_in_flight() -> None:
    bench = EncoderBench(small())
    bench.submit(text(1))
    bench.engine.step()
    bench.engine.close()
    assert bench.runner.num_unread == 0
    assert bench.runner.closed
