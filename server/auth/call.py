"""One HTTP request as its key's owner makes it: what it may, what it uses, and how it is ended from outside."""

import time
from collections.abc import MutableMapping
from typing import Any, Protocol

from starlette.requests import Request

from server.auth.key import Key
from server.auth.ledger import Ledger, LimitReached, Standings
from server.auth.refusal import limit_reached, priority_refused
from server.errors import ApiError
from server.metrics.work import Work


class InEngine(Protocol):
    """The request's part in the engine."""

    def work(self) -> Work: ...

    def end(self, error: ApiError) -> None:
        """Whoever reads it is told `error`."""
        ...


class Call:
    """`ledger` is None where nothing is counted. Whoever makes it calls `close`."""

    __slots__ = ("_began", "_key", "_ledger", "_num_taken", "_part", "_state", "standings")

    def __init__(self, key: Key | None, ledger: Ledger | None, state: MutableMapping[str, Any]) -> None:
        self._key = key
        self._ledger = ledger if key is not None and key.has_limits else None
        self._state = state
        self._began = time.monotonic()
        self._part: InEngine | None = None
        self._num_taken = 0  # tokens of the prompt
        self.standings = Standings()

    @property
    def key_name(self) -> str:
        return "" if self._key is None else self._key.name

    @property
    def request_id(self) -> str:
        return str(self._state["request_id"])

    @property
    def age(self) -> float:
        """Seconds."""
        return time.monotonic() - self._began

    @property
    def part(self) -> InEngine | None:
        """None: it has not reached the engine."""
        return self._part

    def enter(self) -> None:
        """It counts from now on. Raises ApiError (429)."""
        if self._key is None or self._ledger is None:
            return
        try:
            self.standings = self._ledger.enter(self._key)
        except LimitReached as reached:
            self._ledger = None
            raise limit_reached(reached) from reached

    def admit(self, num_prompt_tokens: int, priority: int) -> int:
        """Before it goes to the engine; the priority that it goes there with.

        Raises ApiError: 400 for the priority, 429 for the tokens.
        """
        if self._key is not None:
            priority = _priority_of(self._key, priority)
        self._take(num_prompt_tokens)
        return priority

    def _take(self, num_prompt_tokens: int) -> None:
        key = self._key
        if key is None or self._ledger is None:
            return
        try:
            self.standings = self._ledger.take(key, num_prompt_tokens)
        except LimitReached as reached:
            raise limit_reached(reached) from reached
        self._num_taken = num_prompt_tokens

    def salted(self, salt: str) -> str:
        """The prefix cache's salt for a request of this key."""
        return salt if self._key is None else self._key.salted(salt)

    def attach(self, part: InEngine) -> None:
        self._part = part

    def close(self) -> None:
        """The response is over: what was generated is charged. What the engine never took costs nothing."""
        if self._key is None or self._ledger is None:
            return
        work = None if self._part is None else self._part.work()
        was_taken = work is not None and work.life.reason != ""
        num_tokens = work.num_output_tokens if work is not None and was_taken else -self._num_taken
        self._ledger.leave(self._key, num_tokens)
        self._ledger = None


def _priority_of(key: Key, asked: int) -> int:
    """0 is what requests have that ask for none: where that is too urgent they get the most urgent one they may have."""
    if key.max_priority is None or asked >= key.max_priority:
        return asked
    if asked:
        raise priority_refused(asked, key.max_priority)
    return key.max_priority


def call_of(http: Request) -> Call:
    """That of the request being answered."""
    call = http.state.call
    assert isinstance(call, Call)
    return call
