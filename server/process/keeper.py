"""Keeps one child process alive: starts it, and starts it again when it dies, until told to stop."""

import asyncio
import logging
from abc import ABC, abstractmethod
from pathlib import Path

from engine.process import metric_files
from server.process.child import Child

LOG = logging.getLogger("tokenloom.supervisor")
MAX_FAILURES = 3  # starts in a row that did not get as far as working
FIRST_DELAY = 0.25
MAX_DELAY = 10.0


class ChildFailed(Exception):
    """A child cannot be brought to work; the message says why, or which and how it ended."""


class Keeper(ABC):
    """One child's. `directory` holds the metrics of all processes."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.works = False  # there is a child, and it has said that it is ready
        self._directory = directory
        self._child: Child | None = None
        self._verdict = ""  # why the child that runs now was killed, where its keeper did it
        self._stopping = asyncio.Event()
        self._wanted = asyncio.Event()  # clear: a child that ends is not started again until it is set
        self._wanted.set()
        self._is_leaving = False  # the child that runs now was told to end, and is no failure when it does

    async def keep(self) -> None:
        """Returns once stopped and the child is gone. Raises ChildFailed when a new start is of no use."""
        failures, has_worked = 0, False
        while await self._is_wanted():
            self._verdict, self._is_leaving = "", False
            self._child = self.spawn()
            end = await self._child.exited()
            self._settle_metrics(self._child.pid)
            self._child = None
            worked, self.works = self.works, False
            cause = f"{self.name} {self._verdict or end.describe()}"
            self.on_death(cause)
            if self._stopping.is_set():
                return
            has_worked = has_worked or worked
            if self._is_leaving:
                continue
            failures = 0 if worked else failures + 1
            if failures >= MAX_FAILURES or (end.code > 0 and not has_worked):
                raise ChildFailed(end.words or f"error: {cause} before it was ready")
            for words in filter(None, (end.words, f"{cause}; it is started again")):
                LOG.error(words)
            await self._pause(min(MAX_DELAY, FIRST_DELAY * 2**failures))

    @abstractmethod
    def spawn(self) -> Child:
        """Start the child."""

    @abstractmethod
    def on_death(self, cause: str) -> None:
        """The child is gone, told to or not."""

    def stop(self) -> None:
        """It is not started again; ending it is up to the caller."""
        self._stopping.set()
        self._wanted.set()

    @property
    def is_paused(self) -> bool:
        return not self._wanted.is_set()

    def pause(self) -> None:
        """Once it has ended it is not started again before `resume`; ending it is up to the caller."""
        if not self._stopping.is_set():
            self._wanted.clear()
            self._is_leaving = True

    def resume(self) -> None:
        self._wanted.set()

    def terminate(self) -> None:
        if self._child is not None:
            self._child.terminate()

    def kill(self) -> None:
        if self._child is not None:
            self._child.kill()

    def condemn(self, verdict: str) -> None:
        """Kills the child for what it did, as all are told: "sent no sign of life for 6 s"."""
        self._verdict = f"{verdict} and was killed"
        self.kill()

    async def _is_wanted(self) -> bool:
        """Whether a child is to be started, once that is known."""
        await self._wanted.wait()
        return not self._stopping.is_set()

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return

    def _settle_metrics(self, pid: int) -> None:
        """What a dead process last said it has is no longer so; its counters stay."""
        from prometheus_client.multiprocess import mark_process_dead

        mark_process_dead(pid, str(self._directory))  # type: ignore[no-untyped-call]
        metric_files.trim(self._directory, pid)
