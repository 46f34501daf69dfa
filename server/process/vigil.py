"""Whether the engine hangs, by what its keeper hears of it."""

from engine import wire
from engine.request import FromEngine, Status

TICK_SECONDS = wire.BEAT_SECONDS
SILENT_SECONDS = 6.0  # no sign of life: its process is stopped, or no thread of it gets to run
LOADING_SECONDS = 120.0  # the same while it loads: reading a library from a slow disk stops every thread
STUCK_FACTOR = 10.0  # times progress_seconds: slow is not stuck, and an end costs every running request


class Vigil:
    """Counts ticks, which its owner gives it one a TICK_SECONDS: time for which the owner itself stood still is no silence.

    `progress_seconds` is the setting of that name: after so long without a step an engine is unhealthy.
    """

    def __init__(self, progress_seconds: float) -> None:
        self._stuck_seconds = STUCK_FACTOR * progress_seconds
        self.begin()

    def begin(self) -> None:
        """A life of the engine begins."""
        self._num_silent = self._num_stuck = 0  # ticks
        self._is_loading = True
        self._step = -1

    def hear(self, message: FromEngine) -> None:
        """It said something."""
        self._num_silent = 0
        if not isinstance(message, Status):
            return
        self._is_loading = message.state == "loading"
        has_work = message.num_running + message.num_waiting > 0
        if message.step != self._step or not has_work:
            self._step, self._num_stuck = message.step, 0

    def tick(self) -> str:
        """What it is to be killed for; "" as long as there is hope."""
        self._num_silent += 1
        self._num_stuck += 1
        patience = LOADING_SECONDS if self._is_loading else SILENT_SECONDS
        if self._num_silent * TICK_SECONDS > patience:
            return f"sent no sign of life for {patience:g} s"
        if not self._is_loading and self._num_stuck * TICK_SECONDS > self._stuck_seconds:
            return f"did no step for {self._stuck_seconds:g} s with requests to compute"
        return ""
