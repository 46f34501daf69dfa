"""The queue a GPU's steps lie in, and marks in it that the host can wait for."""

from contextlib import AbstractContextManager
from typing import Protocol

import torch


class Mark(Protocol):
    """A place in the queue."""

    def wait(self) -> None:
        """Until everything before it is done."""
        ...

    def done(self) -> bool: ...

    def seconds_until(self, later: "Mark") -> float:
        """Between two marks of one stream that were made to be timed, both of them done."""
        ...


class Stream(Protocol):
    def current(self) -> AbstractContextManager[object]:
        """Within it, torch's operations and kernels go to this queue."""
        ...

    def mark(self, timed: bool = False) -> Mark:
        """Behind all that was queued so far."""
        ...


class CudaMark:
    def __init__(self, event: torch.cuda.Event) -> None:
        self._event = event

    def wait(self) -> None:
        self._event.synchronize()

    def done(self) -> bool:
        return bool(self._event.query())  # type: ignore[no-untyped-call]

    def seconds_until(self, later: Mark) -> float:
        assert isinstance(later, CudaMark)
        return float(self._event.elapsed_time(later._event)) * 1e-3


class CudaStream:
    """A stream of its own: the default one cannot be captured."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def current(self) -> AbstractContextManager[object]:
        return torch.cuda.stream(self._stream)

    def mark(self, timed: bool = False) -> CudaMark:
        event = torch.cuda.Event(enable_timing=timed)  # type: ignore[no-untyped-call]
        event.record(self._stream)
        return CudaMark(event)
