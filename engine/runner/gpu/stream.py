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


class Stream(Protocol):
    def current(self) -> AbstractContextManager[object]:
        """Within it, torch's operations and kernels go to this queue."""
        ...

    def mark(self) -> Mark:
        """Behind all that was queued so far."""
        ...


class CudaMark:
    def __init__(self, event: torch.cuda.Event) -> None:
        self._event = event

    def wait(self) -> None:
        self._event.synchronize()

    def done(self) -> bool:
        return bool(self._event.query())  # type: ignore[no-untyped-call]


class CudaStream:
    """A stream of its own: the default one cannot be captured."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def current(self) -> AbstractContextManager[object]:
        return torch.cuda.stream(self._stream)

    def mark(self) -> CudaMark:
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(self._stream)
        return CudaMark(event)
