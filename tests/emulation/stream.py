"""The queue of an emulated device: everything is done as soon as it is queued."""

import time
from contextlib import AbstractContextManager, nullcontext

from engine.runner.gpu.stream import Mark


class HostMark:
    def __init__(self) -> None:
        self._made = time.perf_counter()

    def wait(self) -> None:
        """Nothing is left to wait for."""

    def done(self) -> bool:
        return True

    def seconds_until(self, later: Mark) -> float:
        assert isinstance(later, HostMark)
        return later._made - self._made


class HostStream:
    def current(self) -> AbstractContextManager[object]:
        return nullcontext()

    def mark(self, timed: bool = False) -> HostMark:
        return HostMark()
