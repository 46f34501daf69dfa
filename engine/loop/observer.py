"""What the loop reports of its work. Metrics implement it; the loop knows of no metrics library."""

from typing import Protocol

from engine.step import Launch


class EngineObserver(Protocol):
    def on_step(self, num_tokens: int, num_rows: int, seconds: float, host_gap: float) -> None:
        """A step's result was read. `host_gap`: seconds the device waited for the host before the step."""
        ...

    def on_launch(self, launch: Launch, num_moves: int) -> None:
        """Of the same step: how it was launched, and the rows that moved to close its holes."""
        ...

    def on_preempted(self) -> None: ...

    def on_prefix(self, queried: int, hit: int) -> None:
        """A request got a row: its tokens looked up in the prefix cache, and those found."""
        ...

    def on_aborted(self, cause: str) -> None: ...

    def on_rejected(self, reason: str) -> None: ...


class SilentObserver:
    """For an engine that nobody watches."""

    def on_step(self, num_tokens: int, num_rows: int, seconds: float, host_gap: float) -> None:
        return

    def on_launch(self, launch: Launch, num_moves: int) -> None:
        return

    def on_preempted(self) -> None:
        return

    def on_prefix(self, queried: int, hit: int) -> None:
        return

    def on_aborted(self, cause: str) -> None:
        return

    def on_rejected(self, reason: str) -> None:
        return
