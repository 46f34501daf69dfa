"""How a call's requests are spread over its steps."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from engine.config import EngineConfig
from engine.offline.turns import FEWEST_TOKENS, even_tokens, longest_first
from engine.request import Submit
from tests.engine.harness import Bench, ask


def test_the_longest_answers_begin_and_equal_ones_stay_in_their_order() -> None:
    submits = [ask(i, 3, max_tokens) for i, max_tokens in enumerate((5, 9, 5, 9, 7))]
    assert [one.id for one in longest_first(submits)] == [1, 3, 4, 0, 2]
    assert [one.id for one in longest_first(submits[::2])] == [4, 0, 2]


def test_so_many_tokens_that_all_end_with_the_longest() -> None:
    assert even_tokens([ask(i, 700, 100) for i in range(90)]) == 90 * 800 // 100
    assert even_tokens([ask(0, 100, 100)]) == FEWEST_TOKENS
    assert even_tokens([]) == FEWEST_TOKENS


def compute(submits: Sequence[Submit], step_tokens: int) -> list[int]:
    """The tokens of each step."""
    bench = Bench(EngineConfig(max_requests=64, max_batch_tokens=256, step_seconds=0), num_blocks=512)
    for one in submits:
        bench.submit(one)
    while bench.engine.has_work:
        bench.engine.step(step_tokens)
    for one in submits:
        bench.check_answer(one)
    bench.check_empty()
    return [step[0] for step in bench.clients.steps]


@given(
    st.lists(st.tuples(st.integers(1, 18), st.integers(1, 20)), min_size=1, max_size=40),
    st.integers(1, 256),
)
def test_a_step_has_no_more_than_it_may(lengths: list[tuple[int, int]], step_tokens: int) -> None:
    submits = [ask(i, *pair) for i, pair in enumerate(lengths)]
    assert max(compute(submits, step_tokens)) <= step_tokens


def test_long_answers_do_not_end_alone() -> None:
    submits = [ask(i, 18, 4) for i in range(60)] + [ask(60 + i, 18, 20) for i in range(4)]
    as_they_came = compute(submits, 80)
    in_turn = compute(longest_first(submits), 80)
    assert len(in_turn) <= 20 + 3 < len(as_they_came)
