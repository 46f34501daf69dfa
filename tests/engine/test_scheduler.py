"""Plans, one by one: what is computed, shared, preempted and given back, and when."""

import pytest

from engine.config import ConfigError
from engine.step import Plan
from tests.engine.harness import small
from tests.engine.scheduler_host import Host


def test_a_prompt_is_computed_in_chunks_and_a_row_with_one_pending_token_goes_unmentioned() -> None:
    host = Host(small(max_batch_tokens=8))
    host.add(1, list(range(19)))
    first = host.plan()
    slot = first.admit[0].slot
    assert first.chunks == ((slot, 8),)
    assert host.plan().chunks == ((slot, 8),)
    host.commit()
    host.commit()
    assert host.plan().chunks == ((slot, 3),)
    assert host.plan().chunks == ()


def test_a_prompt_keeps_waiting_rows_only_so_long() -> None:
    host = Host(small(max_batch_tokens=16))
    host.add(1, list(range(12)))
    assert host.plan(4).chunks == ((0, 12),), "nobody waits for a next token yet"
    host.add(2, list(range(100, 130)))
    assert host.plan(4).chunks == ((1, 4),)
    host.commit(0)
    assert host.plan(10).chunks == ((1, 10),)
    host.commit(0)
    assert host.plan().chunks == ((1, 15),)


def test_a_chunk_may_leave_the_last_prompt_token_to_the_wheel() -> None:
    host = Host(small(max_batch_tokens=8))
    host.add(1, list(range(9)), max_tokens=4)
    assert host.plan().chunks == ((0, 8),)
    assert host.plan() == Plan(step=2)


def test_rows_with_one_pending_token_come_before_chunks() -> None:
    host = Host(small(max_requests=3, max_batch_tokens=8))
    host.add(1, [1])
    host.add(2, [2])
    assert host.plan().chunks == ()
    host.add(3, list(range(20)))
    assert host.plan().chunks == ((host.scheduler.request_at(2).slot, 6),)


def test_a_row_gets_a_block_before_it_comes_to_the_end_of_the_last() -> None:
    host = Host(small(block_size=4))
    host.add(1, [1, 2, 3])
    given = [host.plan().blocks]
    for _ in range(9):
        host.commit(0)
        given.append(host.plan().blocks)
    # Of the blocks, which end at steps 3, 7 and 11, the first is too near when the row begins to wait for one.
    assert [step for step, blocks in enumerate(given, start=1) if blocks] == [3, 6, 10]


@pytest.mark.parametrize(("num_blocks", "expected"), [(16, [8, 12]), (11, [10, 11, 12])])
def test_rows_get_their_blocks_together_unless_there_are_few(num_blocks: int, expected: list[int]) -> None:
    host = Host(small(block_size=8, max_requests=4, max_batch_tokens=32), num_blocks)
    for number in range(4):
        host.add(number, [number] * (5 + number))
    given = [host.plan().blocks]
    for _ in range(11):
        host.commit(*range(4))
        given.append(host.plan().blocks)
    assert [step for step, blocks in enumerate(given, start=1) if blocks and step > 5] == expected


@pytest.mark.parametrize(("max_tokens", "num_blocks"), [(1, 0), (2, 1)])
def test_a_row_that_ends_by_its_length_gets_no_block_for_after_it(max_tokens: int, num_blocks: int) -> None:
    host = Host(small(block_size=4))
    host.add(1, [1, 2, 3, 4], max_tokens)
    host.plan()
    assert len(host.plan().blocks) == num_blocks


def test_equal_prompts_admitted_together_share_their_blocks() -> None:
    host = Host(small(block_size=4, max_batch_tokens=32))
    for request_id in range(3):
        host.add(request_id, list(range(10)))
    admits = host.plan().admit
    assert [admit.num_cached for admit in admits] == [0, 8, 8]
    assert {admit.blocks[:2] for admit in admits} == {admits[0].blocks[:2]}
    assert len({admit.blocks[2] for admit in admits}) == 3
    host.scheduler.check()


@pytest.mark.parametrize(("num_tokens", "num_cached"), [(3, 0), (4, 0), (5, 4), (8, 4), (9, 8)])
def test_a_hit_never_covers_the_last_token(num_tokens: int, num_cached: int) -> None:
    host = Host(small(block_size=4, max_batch_tokens=32))
    host.add(1, list(range(12)))
    host.add(2, list(range(num_tokens)))
    assert host.plan().admit[1].num_cached == num_cached


def test_no_hit_across_salts_nor_for_prompt_logprobs_nor_without_the_cache() -> None:
    host = Host(small(block_size=4, max_batch_tokens=64))
    host.add(1, list(range(9)))
    host.add(2, list(range(9)), salt="other")
    host.add(3, list(range(9)), prompt_logprobs=0)
    assert [admit.num_cached for admit in host.plan().admit] == [0, 0, 0]
    plain = Host(small(block_size=4, max_batch_tokens=64, prefix_cache=False))
    plain.add(1, list(range(9)))
    plain.add(2, list(range(9)))
    assert [admit.num_cached for admit in plain.plan().admit] == [0, 0]


def test_an_answer_is_found_by_the_conversation_that_continues_it() -> None:
    host = Host(small(block_size=4, max_batch_tokens=32))
    host.add(1, [1, 2, 3], max_tokens=6)
    for step in range(6):
        host.plan()
        host.commit(0, finished=(0,) if step == 5 else ())
    host.add(2, [1, 2, 3, 7, 7, 7, 7, 7, 7, 7])
    assert host.plan().admit[0].num_cached == 8


def test_what_a_failed_request_computed_is_not_found() -> None:
    host = Host(small(block_size=4, max_batch_tokens=32))
    host.add(1, list(range(9)))
    host.plan()
    host.commit(failed=(0,))
    host.add(2, list(range(9)))
    assert host.plan().admit[0].num_cached == 0


def test_the_newest_row_is_preempted_and_loses_its_block_of_the_same_plan() -> None:
    host = Host(small(block_size=4, max_requests=4, max_batch_tokens=32), num_blocks=10)
    host.add(2, list(range(20, 37)))
    newest = host.add(9, list(range(7)))
    host.plan()
    host.commit(0, 1)
    host.add(1, list(range(10, 18)))
    host.plan()
    host.commit(0, 1, 2)
    host.add(3, [1])
    plan = host.plan()  # the newest comes to a block's end before the oldest does, and takes the last block
    assert newest.slot == 1
    assert plan.evict == (1,)
    assert [slot for slot, _ in plan.blocks] == [2]
    assert plan.admit == (), "nobody is admitted by a plan that had to preempt"
    assert [host.scheduler.take_preemptions() for _ in range(2)] == [1, 0]
    host.scheduler.check()


def test_a_preempted_request_returns_with_the_token_that_was_in_flight() -> None:
    host = Host(small(block_size=4, max_requests=2, max_batch_tokens=64, prefix_cache=False), num_blocks=10)
    host.add(1, list(range(20)), max_tokens=3)
    late = host.add(2, list(range(16)), max_tokens=9)
    host.plan()
    plan = host.plan()  # step 1 is in flight, and both rows are at the end of a block
    assert plan.evict == (late.slot,)
    host.commit(0, 1)
    assert late.token_ids.tolist() == [*range(16), 7]
    assert host.plan().admit == (), "there is no room yet"
    host.commit(0)
    host.commit(0, finished=(0,))
    admit = host.plan().admit[0]
    assert admit.token_ids.tolist() == [*range(16), 7]
    assert admit.num_prompt == 16
    assert admit.sampling == late.sampling


def test_a_preempted_request_that_ended_in_the_step_in_flight_does_not_return() -> None:
    host = Host(small(block_size=4, max_requests=2, max_batch_tokens=64, prefix_cache=False), num_blocks=10)
    host.add(1, list(range(20)))
    late = host.add(2, list(range(16)))
    host.plan()
    slot = late.slot
    assert slot is not None
    assert host.plan().evict == (slot,)
    host.commit(0, 1, finished=(slot,))
    assert host.scheduler.num_waiting == 0
    assert host.scheduler.requests_of(0) == (1,)
    host.scheduler.check()


def test_a_slot_is_given_again_only_when_no_result_can_name_it() -> None:
    host = Host(small(max_requests=1))
    host.add(1, [1, 2])
    host.plan()
    host.scheduler.abort(1)
    host.add(2, [3, 4])
    plan = host.plan()  # step 1 is in flight and will name the slot
    assert (plan.evict, plan.admit) == ((0,), ())
    host.commit(0)
    assert host.plan().admit[0].slot == 0


def test_an_aborted_row_frees_its_blocks_for_the_same_plan() -> None:
    host = Host(small(max_requests=2, block_size=4, max_batch_tokens=40), num_blocks=10)
    host.add(1, list(range(39)))
    host.plan()
    host.add(2, list(range(50, 85)))
    assert host.scheduler.abort(1) is not None
    plan = host.plan()
    assert plan.evict == (0,)
    assert len(plan.admit[0].blocks) == 9


def test_aborts_at_every_stage_leave_nothing_behind() -> None:
    host = Host(small(max_requests=2, block_size=4))
    for request_id in (1, 2, 3):
        host.add(request_id, list(range(10)))
    host.plan()
    assert host.scheduler.abort(3) is not None, "waiting"
    assert host.scheduler.abort(1) is not None, "its prompt unfinished or not"
    assert host.scheduler.abort(1) is None
    host.plan()
    host.commit()
    assert host.scheduler.abort(2) is not None
    assert host.scheduler.has_work
    assert host.plan().evict == (1,)
    host.commit()
    host.commit()
    assert host.scheduler.plan() is None
    assert not host.scheduler.has_work
    assert host.scheduler.kv_usage == 0
    host.scheduler.check()


def test_nobody_overtakes_a_big_request_at_the_head() -> None:
    host = Host(small(max_requests=4, block_size=4, max_batch_tokens=32), num_blocks=10)
    host.add(1, list(range(20)))
    host.plan()
    host.add(2, list(range(36)))
    host.add(3, [1])
    host.commit(0)
    assert host.plan().admit == ()
    host.commit(0, finished=(0,))
    assert len(host.plan().admit[0].token_ids) == 36


def test_a_number_of_rows_costs_the_host_one_look_a_block() -> None:
    host = Host(small(max_requests=64, max_batch_tokens=64, block_size=8, prefix_cache=False), num_blocks=400)
    for request_id in range(64):
        host.add(request_id, [request_id], max_tokens=30)
    host.plan()
    host.commit(*range(64))
    changes = []
    for _ in range(16):
        changes.append(len(host.plan().blocks))
        host.commit(*range(64))
    assert sorted(changes) == [0] * 14 + [64] * 2


def test_settings_that_do_not_fit_together_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"max_requests = 9 is not accepted; .* max_batch_tokens \(8\)"):
        Host(small(max_requests=9, max_batch_tokens=8))
    with pytest.raises(
        ConfigError, match=r"max_model_len = 40 is not accepted; .* 36 tokens of the KV cache"
    ):
        Host(small(block_size=4), num_blocks=9)


def test_an_id_that_is_live_is_refused() -> None:
    host = Host(small())
    host.add(1, [1])
    with pytest.raises(ValueError, match="request id 1"):
        host.add(1, [2])


def test_a_lost_slot_is_noticed() -> None:
    host = Host(small())
    host.scheduler._free_slots.pop()
    with pytest.raises(RuntimeError, match="slots are not accounted for"):
        host.scheduler.check()
