"""Ctrl-C at the right moment."""

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Self


class HeldInterrupts:
    """While this is entered, Ctrl-C waits for `let_through` or the end: Python would raise it in the midst of a change.

    Python tells the main thread alone of it, and nothing is held in another.
    """

    def __init__(self) -> None:
        self._held: FrameType | None = None
        self._handle: Callable[[int, FrameType | None], object] | None = None

    def __enter__(self) -> Self:
        handle = signal.getsignal(signal.SIGINT)
        if callable(handle) and threading.current_thread() is threading.main_thread():
            self._handle = handle
            signal.signal(signal.SIGINT, self._hold)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._handle is not None:
            signal.signal(signal.SIGINT, self._handle)
        if error is None:
            self.let_through()

    def let_through(self) -> None:
        """What came until now is handled as it would have been: by KeyboardInterrupt, if nobody changed that."""
        held, self._held = self._held, None
        if held is not None and self._handle is not None:
            self._handle(signal.SIGINT, held)

    def _hold(self, number: int, frame: FrameType | None) -> None:
        self._held = frame
