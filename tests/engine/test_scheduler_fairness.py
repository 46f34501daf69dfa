"""What several owners get of the rows, the blocks and the steps, and what a quiet one notices of a flood."""

from collections import Counter, defaultdict
from dataclasses import replace

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import PIECE_TOKENS, EngineConfig, settle
from engine.loop.pace import PLANNED
from engine.request import Submit
from engine.step import Pending, Plan
from tests.engine.counting_runner import CountingRunner, Done
from tests.engine.encoder_bench import EncoderBench, text
from tests.engine.harness import Bench, ask, small

LONG = 2048


def ask_as(owner: str, request_id: int, num_prompt: int = 2, max_tokens: int = 30) -> Submit:
    return msgspec.structs.replace(ask(request_id, num_prompt, max_tokens), owner=owner)


class Owned:
    """A bench, and whose requests are where."""

    def __init__(self, config: EngineConfig, num_blocks: int = 64, max_model_len: int = 40) -> None:
        self.bench = Bench(config, num_blocks, max_model_len)
        self.messages: list[Submit] = []

    def submit(self, owner: str, *, count: int = 1, num_prompt: int = 2, max_tokens: int = 30) -> list[int]:
        first = len(self.messages)
        for request_id in range(first, first + count):
            self.messages.append(ask_as(owner, request_id, num_prompt, max_tokens))
            self.bench.submit(self.messages[-1])
        return list(range(first, first + count))

    def step(self, count: int = 1) -> None:
        for _ in range(count):
            self.bench.engine.step()
            self.bench.engine._scheduler.check()

    @property
    def rows(self) -> Counter[str]:
        return Counter(row.request.owner for row in self.bench.engine._scheduler._rows)

    def finish(self) -> None:
        """Everybody gets the answer they would have got alone."""
        self.bench.run(10_000)
        for message in self.messages:
            self.bench.check_answer(message)

    def token_steps(self) -> dict[int, list[int]]:
        """By request, the steps that made its tokens."""
        steps: dict[int, list[int]] = defaultdict(list)
        for _, emit in self.bench.clients.emits:
            for request_id in np.frombuffer(emit.ids, "<i8").tolist():
                steps[request_id].append(emit.step)
        return steps


def test_an_owner_without_a_row_gets_one_two_steps_later_from_the_owner_with_most() -> None:
    owned = Owned(small(max_requests=4, max_batch_tokens=16))
    owned.submit("a", count=3)
    owned.submit("b")
    owned.submit("a", count=5)
    owned.step(4)
    assert owned.rows == {"a": 3, "b": 1}
    owned.submit("c")
    owned.step(2)
    evicting, admitting = owned.bench.runner.plans[-2:]
    assert (len(evicting.evict), evicting.admit) == (1, ())
    assert len(admitting.admit) == 1
    assert owned.rows == {"a": 2, "b": 1, "c": 1}
    owned.finish()


def test_rows_are_taken_until_the_owners_are_level_and_no_further() -> None:
    owned = Owned(small(max_requests=6, max_batch_tokens=16))
    owned.submit("a", count=6)
    owned.step(3)
    owned.submit("b", count=12)
    owned.step(8)
    assert owned.rows == {"a": 3, "b": 3}
    assert owned.bench.clients.num_preempted == 3
    owned.finish()


def test_an_owner_that_was_given_more_takes_no_row() -> None:
    owned = Owned(small(max_requests=4, max_batch_tokens=16))
    owned.submit("a", count=8)
    owned.submit("b")
    owned.step(3)
    owned.bench.engine._scheduler._shares.charge("b", 1000)
    owned.submit("b")
    owned.step(8)
    assert owned.bench.clients.num_preempted == 0
    owned.finish()


def test_too_few_blocks_are_taken_from_the_owner_that_has_most() -> None:
    owned = Owned(small(max_requests=8, max_batch_tokens=64, prefix_cache=False), num_blocks=11)
    owned.submit("a", count=4, num_prompt=6)
    owned.step(2)
    [quiet] = owned.submit("b", num_prompt=14, max_tokens=3)
    owned.step(5)
    assert owned.bench.clients.num_preempted > 0
    assert quiet in {started.id for started in owned.bench.clients.started}
    owned.finish()


def test_a_row_that_grows_takes_its_block_from_the_owner_that_has_most() -> None:
    owned = Owned(small(max_requests=8, max_batch_tokens=64, prefix_cache=False), num_blocks=14)
    owned.submit("a", count=2, num_prompt=14)
    owned.step(2)
    [quiet] = owned.submit("b", num_prompt=3, max_tokens=20)
    owned.finish()
    assert owned.bench.clients.num_preempted > 0
    steps = owned.token_steps()[quiet]
    assert steps == list(range(steps[0], steps[0] + 20)), "its row is newer, and was not the one that went"


def test_a_prompt_is_read_in_turns_with_those_of_other_owners() -> None:
    owned = Owned(small(max_requests=4, max_batch_tokens=64, block_size=16), 600, LONG + 40)
    owned.submit("a", count=2, num_prompt=LONG)
    owned.step(5)
    [short] = owned.submit("b", num_prompt=20)
    [middle] = owned.submit("c", num_prompt=300)
    asked = owned.bench.engine.num_steps
    owned.step(15)
    first = {request_id: steps[0] - asked for request_id, steps in owned.token_steps().items()}
    assert first.keys() == {short, middle}, "a's prompt alone takes 32 steps"
    assert first[short] <= 3
    assert first[middle] <= 2 * -(-300 // 60) + 2
    owned.finish()


class TimedRunner(CountingRunner):
    """A step takes a millisecond, and a tenth of one for each token."""

    def launch(self, plan: Plan) -> Pending:
        done = super().launch(plan)
        assert isinstance(done, Done)
        seconds = 0.001 + 1e-4 * done.step_result.num_tokens
        self.results[-1] = replace(done.step_result, seconds=seconds)
        return Done(self, self.results[-1])


def test_a_long_prompt_keeps_rows_of_others_waiting_only_so_long() -> None:
    """Whatever else a step holds, it holds every row's next token, and no more of a prompt than it has time for."""
    config = replace(small(max_requests=8, max_batch_tokens=512, block_size=16), step_seconds=0.02)
    owned = Owned(config, 600, LONG + 90)
    owned.bench.runner = TimedRunner(600, 16, 8, 512, LONG + 90)
    owned.bench.use(owned.bench.runner)
    owned.submit("a", num_prompt=500, max_tokens=1)
    owned.step(3)
    rows = owned.submit("b", count=6, num_prompt=1, max_tokens=80)
    owned.step(4)
    [long] = owned.submit("a", num_prompt=LONG, max_tokens=2)
    owned.finish()
    steps, results = owned.token_steps(), owned.bench.runner.results
    beside = [result.seconds for result in results if steps[rows[0]][0] < result.step < steps[long][0]]
    assert len(beside) > LONG // 200
    assert 0.9 * PLANNED * 0.02 < max(beside) < 0.02
    assert all(steps[row] == list(range(steps[row][0], steps[row][0] + 80)) for row in rows)


def test_a_step_is_short_for_those_who_come_while_a_prompt_is_read_alone() -> None:
    for owner, num_tokens in (("", 32), ("a", 8)):
        owned = Owned(small(max_batch_tokens=32))
        owned.submit(owner, num_prompt=38, max_tokens=1)
        plan = owned.bench.engine._scheduler.plan(8)
        assert plan is not None
        assert plan.num_chunk_tokens == num_tokens


@settings(max_examples=25, deadline=None)
@given(st.integers(8, 60), st.integers(0, 12), st.integers(2, 6), st.integers(1, 30), st.booleans())
def test_a_flood_costs_a_quiet_owner_a_few_steps(
    num_flood: int, arrives: int, num_rows: int, num_prompt: int, long_prompts: bool
) -> None:
    config = replace(small(num_rows, num_rows + 32, 4), policy="priority")
    owned = Owned(config, num_blocks=12 * num_rows)
    owned.submit("flood", count=num_flood, num_prompt=38 if long_prompts else 3, max_tokens=37)
    owned.step(arrives)
    [quiet] = owned.submit("quiet", num_prompt=num_prompt, max_tokens=8)
    asked = owned.bench.engine.num_steps
    owned.finish()
    steps = owned.token_steps()[quiet]
    assert steps[0] - asked <= 6
    assert steps == list(range(steps[0], steps[0] + len(steps))), "once it has a row it keeps it"


def test_where_deterministic_no_row_is_taken_away() -> None:
    wanted = EngineConfig(max_requests=4, max_batch_tokens=4 + PIECE_TOKENS, deterministic=True)
    owned = Owned(settle(wanted, "cuda"), 300)
    owned.submit("a", count=8)
    owned.step(3)
    owned.submit("b")
    owned.finish()
    assert owned.bench.clients.num_preempted == 0
    order = [started.id for started in owned.bench.clients.started]
    assert order.index(8) == 4, "it has the next row there is"


def test_a_flood_is_refused_and_the_quiet_owner_is_not() -> None:
    owned = Owned(small(max_requests=1, max_batch_tokens=8, max_queued_requests=500, max_queued_tokens=400))
    flood = owned.submit("flood", count=120, num_prompt=4, max_tokens=1)
    quiet = owned.submit("quiet", count=3, num_prompt=4, max_tokens=1)
    owned.step()
    refused = {entry.id: entry.reason for entry in owned.bench.clients.rejected}
    assert refused == dict.fromkeys(flood[87:], "queue_tokens"), "7 / 8 of 400 tokens are 4 tokens of 87"
    owned.bench.run()
    assert owned.bench.clients.tokens.keys() == {*flood[:87], *quiet}


def test_an_owner_is_charged_for_what_is_computed_and_not_for_what_is_found_in_the_cache() -> None:
    owned = Owned(small(max_requests=2, max_batch_tokens=64))
    shares = owned.bench.engine._scheduler._shares
    shares.claim("other")  # so that what is given is written down
    prompts = [owned.submit("a", num_prompt=33, max_tokens=1)[0], owned.submit("b", max_tokens=10)[0]]
    again = msgspec.structs.replace(ask_as("a", 9, max_tokens=3), prompt=owned.messages[prompts[0]].prompt)
    while len(owned.bench.clients.finishes) < 2:
        owned.bench.engine.step()
    assert (shares.work("a") // 1, shares.work("b") // 1) == (33, 2 + 9)
    owned.bench.submit(again)
    while 9 not in owned.bench.clients.finishes:
        owned.bench.engine.step()
    assert owned.bench.clients.started[-1].num_cached == 32
    assert shares.work("a") // 1 == 33 + 1 + 2
    shares.release("other")
    owned.finish()


def test_an_encoder_reads_a_quiet_owners_input_in_the_next_step() -> None:
    bench = EncoderBench(small(max_batch_tokens=8))
    for request_id in range(20):
        bench.submit(msgspec.structs.replace(text(request_id, 4), owner="flood"))
    bench.engine.step()
    bench.submit(msgspec.structs.replace(text(99, 4), owner="quiet"))
    bench.engine.step()
    assert [started.id for started in bench.clients.started][2:] == [99, 2]
    bench.run()
