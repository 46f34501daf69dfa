"""When an engine is given up: silence, and work that does not go on."""

import pytest

from engine.request import LoadPhase, Status
from server.process.vigil import LOADING_SECONDS, SILENT_SECONDS, TICK_SECONDS, Vigil


def status(step: int, state: str = "ready", num_running: int = 0) -> Status:
    return Status(epoch=1, state=state, step=step, num_running=num_running, num_waiting=0, kv_usage=0.0)


def wait(vigil: Vigil, seconds: float) -> str:
    """The verdict after so long in which nothing is heard."""
    verdicts = [vigil.tick() for _ in range(round(seconds / TICK_SECONDS))]
    assert not any(verdicts[:-1])
    return verdicts[-1]


@pytest.mark.parametrize(("state", "seconds"), [("ready", SILENT_SECONDS), ("loading", LOADING_SECONDS)])
def test_silence(state: str, seconds: float) -> None:
    vigil = Vigil(30.0)
    for step in range(3):
        vigil.hear(status(step, state))
        assert wait(vigil, seconds) == ""
    assert wait(vigil, TICK_SECONDS) == f"sent no sign of life for {seconds:g} s"
    vigil.begin()
    assert wait(vigil, LOADING_SECONDS) == "", "the next life loads first"


def test_a_phase_is_a_sign_of_life() -> None:
    vigil = Vigil(30.0)
    for _ in range(5):
        assert wait(vigil, LOADING_SECONDS) == ""
        vigil.hear(LoadPhase(name="load weights", seconds=100.0))


def test_no_step_while_requests_wait() -> None:
    vigil = Vigil(1.0)
    verdict, beats = "", 0
    while not verdict:
        vigil.hear(status(7, num_running=2))
        verdict, beats = vigil.tick(), beats + 1
    assert verdict == "did no step for 10 s with requests to compute"
    assert beats == 10 / TICK_SECONDS + 1


def test_a_rest_is_no_hang_and_slow_is_not_stuck() -> None:
    vigil = Vigil(1.0)
    for _ in range(100):
        vigil.hear(status(7))
        assert vigil.tick() == ""
    for step in range(5):
        for _ in range(15):
            vigil.hear(status(step, num_running=1))
            assert vigil.tick() == ""
