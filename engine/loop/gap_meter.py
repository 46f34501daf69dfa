"""How long the runner stood still between two steps."""

from collections.abc import Callable


class GapMeter:
    """Seconds by `clock`. A runner that has nothing to do does not wait for the host."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last_end: float | None = None  # of the step before; None after a rest

    def measure(self, launched: float, seconds: float, has_work: bool, told: float | None = None) -> float:
        """The gap before a step that took `seconds`: none if it was launched before the last one was done.

        told: the device's own account of it, which counts unless there was nothing to do before the step.
        """
        rested = self._last_end is None
        last_end = launched if self._last_end is None else self._last_end
        end = min(max(launched, last_end) + seconds, self._clock())
        self._last_end = end if has_work else None
        if told is not None:
            return 0.0 if rested else told
        return max(0.0, launched - last_end)
