"""How long a step may keep rows waiting, learned from steps."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.loop.pace import FEWEST, PLANNED, WORTH_A_STEP, Pace


def test_nothing_is_limited_before_a_prompt_was_timed_or_without_a_limit() -> None:
    pace = Pace(0.25)
    assert pace.max_chunk_tokens is None
    pace.observe(0, 0.05)
    assert pace.max_chunk_tokens is None
    unlimited = Pace(0)
    unlimited.observe(512, 1.0)
    assert unlimited.max_chunk_tokens is None


@given(
    plain=st.floats(0.001, 0.1),
    token=st.floats(1e-4, 1e-3),
    sizes=st.lists(st.sampled_from([0, 100, 512]), min_size=40, max_size=60),
)
def test_a_step_of_the_allowed_size_takes_as_long_as_is_planned(
    plain: float, token: float, sizes: list[int]
) -> None:
    """A machine whose steps take `plain` and `token` for each token of a chunk."""
    pace = Pace(0.25)
    for size in [0, 512, *sizes]:
        pace.observe(size, plain + size * token)
    allowed = pace.max_chunk_tokens
    assert allowed is not None
    assert abs(plain + allowed * token - PLANNED * 0.25) < 2 * token


def test_a_machine_that_grows_slower_is_followed_at_once_and_one_that_grows_faster_in_time() -> None:
    pace = Pace(0.25 / PLANNED)
    pace.observe(0, 0.05)
    pace.observe(200, 0.25)
    for seconds, num_steps, allowed in ((0.45, 1, 100), (0.25, 1, 111), (0.25, 30, 200)):
        for _ in range(num_steps):
            pace.observe(200, seconds)
        assert pace.max_chunk_tokens == pytest.approx(allowed, abs=1)


def test_a_step_that_is_too_long_without_prompts_still_reads_some() -> None:
    pace = Pace(0.25)
    pace.observe(0, 0.5)
    pace.observe(64, 0.6)
    assert pace.max_chunk_tokens == WORTH_A_STEP


def read_beside(rows_seconds: float, seconds: Callable[[int], float]) -> tuple[int, float]:
    """What the pace comes to where a step's rows take so long and a chunk `seconds` more: a chunk's tokens, the step's seconds."""
    pace = Pace(0.25)
    pace.observe(0, rows_seconds)
    num_tokens = 512
    for _ in range(60):
        pace.observe(num_tokens, rows_seconds + seconds(num_tokens))
        allowed = pace.max_chunk_tokens
        assert allowed is not None
        num_tokens = allowed
    return num_tokens, rows_seconds + seconds(num_tokens)


def test_behind_a_long_context_pieces_are_smaller_and_a_step_no_longer() -> None:
    num_tokens, seconds = read_beside(0.05, lambda num_tokens: 0.006 * num_tokens)
    assert FEWEST < num_tokens < WORTH_A_STEP
    assert 0.95 * PLANNED * 0.25 < seconds <= PLANNED * 0.25


@pytest.mark.parametrize("rows_seconds", [0.2, 0.24, 0.3, 1.0])
def test_where_rows_leave_no_time_prompts_are_read_for_as_long_as_the_rows_take(rows_seconds: float) -> None:
    num_tokens, seconds = read_beside(rows_seconds, lambda num_tokens: 0.006 * num_tokens)
    assert num_tokens == min(WORTH_A_STEP, int(rows_seconds / 0.006))
    assert seconds <= 2 * rows_seconds


def test_a_piece_has_a_least_size() -> None:
    """Else a chunk whose begin takes time of its own would be cut to nothing."""
    num_tokens, _ = read_beside(0.24, lambda num_tokens: 0.25 + 0.001 * num_tokens)
    assert num_tokens == FEWEST
