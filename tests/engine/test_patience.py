"""How long the next plan waits for what may still come."""

import pytest

from engine.loop.pace import Pace
from engine.loop.patience import HOST_SECONDS, PART, find_patience
from tests.engine.encoder_bench import EncoderBench, text
from tests.engine.harness import Bench, ask, small
from tests.engine.scripted_encoder import ScriptedEncoderRunner

STEP_SECONDS = 0.01  # of a CountingRunner


def test_a_long_step_leaves_time_and_a_short_one_none() -> None:
    assert find_patience(0.2) == pytest.approx(0.2 * PART - HOST_SECONDS)
    assert find_patience(HOST_SECONDS) == find_patience(0.0) == 0.0


def test_a_step_is_expected_to_take_what_such_steps_took() -> None:
    pace = Pace(0.25)
    assert pace.expect(100) == 0.0
    pace.observe(0, 0.05)
    pace.observe(100, 0.25)
    assert pace.expect(0) == pytest.approx(0.05)
    assert pace.expect(50) == pytest.approx(0.15)


def test_a_plan_waits_only_for_a_step_under_way_whose_kind_is_known() -> None:
    bench = Bench(small())
    assert bench.engine.patience == 0.0
    bench.submit(ask(1, num_prompt=3, max_tokens=6))
    for _ in range(2):  # the prompt, and a first step without one
        bench.engine.step()
        assert bench.engine.patience == 0.0
    for _ in range(3):
        bench.engine.step()
        assert bench.engine.patience == pytest.approx(STEP_SECONDS * PART - HOST_SECONDS)
    bench.run()
    assert bench.engine.patience == 0.0


def test_a_prompt_after_rows_that_took_less_is_expected_to_take_no_more_than_they() -> None:
    bench = Bench(small(max_batch_tokens=64))
    bench.submit(ask(1, num_prompt=30, max_tokens=8))
    for _ in range(4):
        bench.engine.step()
    bench.submit(ask(2, num_prompt=30, max_tokens=2))
    bench.engine.step()
    assert bench.engine.patience <= STEP_SECONDS * PART
    bench.run()


def test_inputs_of_an_encoder_wait_by_their_tokens() -> None:
    bench = EncoderBench(small(max_batch_tokens=4), runner=ScriptedEncoderRunner(0.02))
    for request_id, num_tokens in enumerate((4, 4, 2)):
        bench.submit(text(request_id, num_tokens))
    assert bench.engine.patience == 0.0
    for part in (0.0, 1.0, 0.5):
        bench.engine.step()
        assert bench.engine.patience == pytest.approx(find_patience(part * 0.02))
    bench.run()
    assert bench.engine.patience == 0.0
