"""One request as its client sees it: whether it was taken, and how it ended."""

import asyncio
from collections.abc import Callable

from engine.request import Encode, Finish, Rejected, Started, Submit


class RequestRejected(Exception):
    """The request was not taken. `retry_after` is in seconds."""

    def __init__(self, reason: str, retry_after: float) -> None:
        super().__init__(f"rejected: {reason}, retry after {retry_after:g} s")
        self.reason = reason  # queue_requests | queue_tokens | queue_seconds | draining | starting | down
        self.retry_after = retry_after


class EngineDied(Exception):
    """The engine went away while this request was with it."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


class RequestFailed(Exception):
    """This request alone failed."""


class ClientRequest:
    """What the kinds of requests have in common. One task waits for it at a time."""

    __slots__ = (
        "_accepted",
        "_error",
        "_finish",
        "_on_abort",
        "_waiter",
        "message",
        "num_lives",
        "produced",
        "started",
    )

    def __init__(self, message: Submit | Encode, on_abort: Callable[[int, str], None]) -> None:
        self.message = message
        self.started: Started | None = None
        self.produced = False  # something came that a second run would send again
        self.num_lives = 0  # engines it was sent to
        self._on_abort = on_abort
        self._accepted = False
        self._error: Exception | None = None
        self._finish = Finish.RUNNING
        self._waiter: asyncio.Future[None] | None = None

    @property
    def ended(self) -> bool:
        """Nothing more will arrive."""
        return self._finish is not Finish.RUNNING or self._error is not None

    async def accepted(self) -> None:
        """Returns once the engine has queued the request. Raises RequestRejected or EngineDied."""
        while not self._accepted and not self.ended:
            await self._wait()
        if self._error is not None and not self._accepted:
            raise self._error

    def abort(self, cause: str) -> None:
        """Ends the request at whatever stage it is; does nothing if it ended already."""
        if self.ended:
            return
        self._finish = Finish.ABORT
        self._wake()
        self._on_abort(self.message.id, cause)

    def accept(self) -> None:
        self._accepted = True
        self._wake()

    def start(self, started: Started) -> None:
        self.started = started
        self.accept()

    def reject(self, rejected: Rejected) -> None:
        """What was accepted once can no longer be refused, though it is sent again: for its reader the engine died."""
        if self._accepted:
            self.fail(
                EngineDied(f"it had to be computed again, and there was no room for it ({rejected.reason})")
            )
        else:
            self.fail(RequestRejected(rejected.reason, rejected.retry_after))

    def fail(self, error: Exception) -> None:
        if not self.ended:
            self._error = error
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _wait(self) -> None:
        if self._waiter is not None:
            raise RuntimeError(f"request {self.message.id} is already being read by another task")
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
