"""A request for tokens as its client sees it: what arrived and was not read yet."""

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from engine.client.request import ClientRequest
from engine.request import Finish, Submit, TokenLogprobs


@dataclass(frozen=True, slots=True)
class Output:
    """What arrived since the last read."""

    token_ids: list[int]
    finish: Finish
    logprobs: list[TokenLogprobs]  # one a token, or empty when none were asked for
    prompt_logprobs: list[TokenLogprobs]


class Stream(ClientRequest):
    """A request's tokens, for one reader: `await accepted()`, then `async for output in stream`."""

    __slots__ = ("_fresh", "_logprobs", "_prompt_logprobs", "_tokens", "submit")

    def __init__(self, submit: Submit, on_abort: Callable[[int, str], None]) -> None:
        super().__init__(submit, on_abort)
        self.submit = submit
        self._fresh = False  # something came since the last read
        self._tokens: list[int] = []
        self._logprobs: list[TokenLogprobs] = []
        self._prompt_logprobs: list[TokenLogprobs] = []

    def __aiter__(self) -> "Stream":
        return self

    async def __anext__(self) -> Output:
        """The next output. Raises EngineDied or RequestFailed after whatever had arrived was read."""
        while not self._fresh:
            if self._error is not None:
                raise self._error
            if self.ended:
                raise StopAsyncIteration
            await self._wait()
        return self._take()

    def abort(self, cause: str) -> None:
        """As every request's; what had arrived and was not read is dropped."""
        if not self.ended:
            self._fresh = False
        super().abort(cause)

    @property
    def may_be_infected(self) -> bool:
        """Whether its failure may be another's, whose prefix it read before that one failed too.

        Where a token's values are not finite, attention may spoil those of tokens that are computed beside it.
        """
        return not self.produced and self.started is not None and self.started.num_cached > 0

    def share_nothing(self) -> None:
        """From now on its prefix is nobody else's."""
        message = self.submit
        self.message = msgspec.structs.replace(message, cache_salt=f"{message.cache_salt} {message.id}")

    def push(self, token: int, finish: int) -> None:
        """A token came. Called once a token and row: keep it short."""
        self._tokens.append(token)
        self._accepted = self.produced = self._fresh = True
        if finish:
            self._finish = Finish(finish)
        if self._waiter is not None:
            self._wake()

    def push_logprobs(self, entry: TokenLogprobs) -> None:
        """Comes before its token."""
        self._logprobs.append(entry)

    def push_prompt_logprobs(self, entries: tuple[TokenLogprobs, ...]) -> None:
        self._prompt_logprobs.extend(entries)
        self.produced = self._fresh = True
        self._wake()

    def _take(self) -> Output:
        output = Output(self._tokens, self._finish, self._logprobs, self._prompt_logprobs)
        self._tokens, self._logprobs, self._prompt_logprobs = [], [], []
        self._fresh = False
        return output
