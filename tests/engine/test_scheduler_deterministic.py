"""Where deterministic, what is computed of a request at once depends on nothing but the request."""

from collections import defaultdict
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import PIECE_TOKENS, ConfigError, EngineConfig, settle
from engine.request import Abort, SamplingParams, Submit
from tests.engine.counting_runner import VOCAB, CountingRunner
from tests.engine.harness import Bench
from tests.engine.scheduler_host import Host

MAX_MODEL_LEN = 3 * PIECE_TOKENS + 40
LENGTHS = [1, 2, PIECE_TOKENS - 1, PIECE_TOKENS, PIECE_TOKENS + 1, 2 * PIECE_TOKENS + 1, MAX_MODEL_LEN - 1]
Piece = tuple[int, int]  # first token, how many


@dataclass(frozen=True, slots=True)
class Visit:
    """A request, the engine step it comes at, and the step at which it is aborted, if ever."""

    message: Submit
    at: int
    abort_at: int | None


def expected_pieces(num_prompt: int) -> list[Piece]:
    """Of several tokens: a last one alone is computed as an answer's are."""
    starts = range(0, num_prompt, PIECE_TOKENS)
    pieces = [(start, min(PIECE_TOKENS, num_prompt - start)) for start in starts]
    return [piece for piece in pieces if piece[1] > 1]


def found_pieces(runner: CountingRunner) -> dict[int, list[Piece]]:
    """By request, which is known by its first token."""
    found: dict[int, list[Piece]] = defaultdict(list)
    owners: dict[int, int] = {}
    for plan in runner.plans:
        for admit in plan.admit:
            assert admit.num_cached == 0
            owners[admit.slot] = int(admit.token_ids[0])
            assert owners[admit.slot] not in found, "admitted twice"
            found[owners[admit.slot]] = []
        assert len({slot for slot, _ in plan.chunks}) == len(plan.chunks)
        for slot, num_tokens in plan.chunks:
            pieces = found[owners[slot]]
            pieces.append((sum(piece[1] for piece in pieces), num_tokens))
    return found


@st.composite
def visits(draw: st.DrawFn) -> list[Visit]:
    """The prompt's first token is the request's id."""
    found = []
    for request_id in range(draw(st.integers(1, 7))):
        num_prompt = draw(st.one_of(st.sampled_from(LENGTHS), st.integers(1, MAX_MODEL_LEN - 1)))
        prompt = (request_id, *((i * i + 3 * request_id) % VOCAB for i in range(1, num_prompt)))
        message = Submit(
            id=request_id,
            prompt=prompt,
            sampling=SamplingParams(max_tokens=draw(st.integers(1, 30))),
            priority=draw(st.integers(-1, 1)),
            arrived=1.0 + draw(st.integers(0, 5)),
        )
        at = draw(st.integers(0, 12))
        abort_at = draw(st.one_of(st.none(), st.none(), st.integers(at, at + 12)))
        found.append(Visit(message, at, abort_at))
    return found


@st.composite
def benches(draw: st.DrawFn) -> Bench:
    block_size = draw(st.sampled_from([16, 32, 256]))
    max_requests = draw(st.integers(1, 5))
    wanted = EngineConfig(
        max_requests=max_requests,
        max_batch_tokens=max_requests + PIECE_TOKENS + draw(st.integers(0, 2 * PIECE_TOKENS)),
        block_size=block_size,
        policy=draw(st.sampled_from(["fcfs", "priority"])),
        priority_seconds=1.0,
        step_seconds=draw(st.sampled_from([0.0, 0.011])),
        deterministic=True,
    )
    num_blocks = -(-MAX_MODEL_LEN // block_size) + draw(st.integers(0, 120))
    return Bench(settle(wanted, "cuda"), num_blocks, MAX_MODEL_LEN)


def drive(bench: Bench, visits: list[Visit]) -> None:
    """Bring the visits to the engine at their steps, and run until nothing is left to do."""
    for step in range(2000):
        for visit in visits:
            if visit.at == step:
                bench.submit(visit.message)
        leaving = tuple(visit.message.id for visit in visits if visit.abort_at == step)
        bench.engine.abort(Abort(ids=leaving, cause="disconnect"))
        bench.engine.step()
        bench.clock.now += 0.01
        if not bench.engine.has_work and step > 24:
            break
    bench.run(max_steps=0)


@settings(max_examples=60, deadline=None)
@given(benches(), visits())
def test_a_request_is_computed_in_the_same_pieces_whoever_is_beside_it(
    bench: Bench, visits: list[Visit]
) -> None:
    drive(bench, visits)
    found = found_pieces(bench.runner)
    for visit in visits:
        expected = expected_pieces(len(visit.message.prompt))
        if visit.abort_at is None:
            assert found[visit.message.id] == expected
            bench.check_answer(visit.message)
        else:
            pieces = found.get(visit.message.id, [])
            assert pieces == expected[: len(pieces)]


@settings(max_examples=40, deadline=None)
@given(benches(), visits())
def test_a_row_has_all_its_blocks_from_the_start(bench: Bench, visits: list[Visit]) -> None:
    drive(bench, visits)
    totals = {
        visit.message.id: min(len(visit.message.prompt) + visit.message.sampling.max_tokens, MAX_MODEL_LEN)
        for visit in visits
    }
    for plan in bench.runner.plans:
        assert plan.blocks == ()
        for admit in plan.admit:
            total = totals[int(admit.token_ids[0])]
            assert len(admit.blocks) == -(-(total - 1) // bench.config.block_size)
    assert bench.clients.num_preempted == 0


def deterministic(max_requests: int, max_batch_tokens: int) -> EngineConfig:
    wanted = EngineConfig(
        max_requests=max_requests, max_batch_tokens=max_batch_tokens, block_size=16, deterministic=True
    )
    return settle(wanted, "cuda")


def test_a_piece_that_does_not_fit_waits_whole_and_a_smaller_one_goes_before_it() -> None:
    host = Host(deterministic(3, PIECE_TOKENS + 20), num_blocks=300, max_model_len=MAX_MODEL_LEN)
    host.add(1, [1] * (PIECE_TOKENS + 600))
    host.add(2, [2] * 18)
    host.add(3, [3] * 30)
    assert host.plan().chunks == ((0, PIECE_TOKENS), (1, 18))
    assert host.plan().chunks == ((0, PIECE_TOKENS),), "30 tokens have no room, and nothing is cut for them"
    host.commit(1)
    host.commit(1)
    assert host.plan().chunks == ((0, 88), (2, 30))


def test_rows_that_wait_do_not_cut_a_piece() -> None:
    host = Host(deterministic(3, 2 * PIECE_TOKENS + 3), num_blocks=300, max_model_len=MAX_MODEL_LEN)
    host.add(1, [1])
    host.plan()
    host.add(2, [2] * 700)
    host.add(3, [3] * 700)
    assert host.plan(64).chunks == ((1, PIECE_TOKENS),)
    host.commit(0)
    assert host.plan(600).chunks == ((1, 188),)
    host.commit(0)
    assert host.plan(PIECE_TOKENS + 188).chunks == ((2, PIECE_TOKENS),)


def test_a_request_waits_until_there_is_room_for_its_whole_answer() -> None:
    host = Host(deterministic(4, PIECE_TOKENS + 4), num_blocks=100, max_model_len=MAX_MODEL_LEN)
    host.add(1, [1] * 10, max_tokens=900)
    assert len(host.plan().admit[0].blocks) == 57
    host.add(2, [2] * 10, max_tokens=900)
    host.add(3, [3] * 10, max_tokens=5)
    assert host.plan().admit == (), "nobody overtakes the one that waits"
    host.commit(0)
    host.commit(0, finished=(0,))
    assert [len(admit.blocks) for admit in host.plan().admit] == [57, 1]
    host.scheduler.check()


def test_steps_without_room_for_a_piece_are_refused_by_name() -> None:
    config = EngineConfig(
        max_requests=8, max_batch_tokens=PIECE_TOKENS + 7, prefix_cache=False, deterministic=True
    )
    with pytest.raises(ConfigError, match=rf"max_batch_tokens = {PIECE_TOKENS + 7} is not accepted"):
        Host(config, num_blocks=300, max_model_len=MAX_MODEL_LEN)
