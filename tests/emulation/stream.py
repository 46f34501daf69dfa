"""The queue of an emulated device: everything is done as soon as it is queued."""

from contextlib import AbstractContextManager, nullcontext


class HostMark:
    def wait(self) -> None:
        """Nothing is left to wait for."""

    def done(self) -> bool:
        return True


class HostStream:
    def current(self) -> AbstractContextManager[object]:
        return nullcontext()

    def mark(self) -> HostMark:
        return HostMark()
