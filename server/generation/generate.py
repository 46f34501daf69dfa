"""One HTTP request in the engine: its choices, their pieces in the order they come, and what they used."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from engine.client.client import RequestRejected
from server.context import AppContext
from server.errors import ApiError, timed_out
from server.faults import engine_fault, rejection
from server.generation.choice import Choice, Piece
from server.generation.wanted import Wanted
from server.metrics.request_timer import RequestTimer
from server.metrics.work import Work, lives_together
from server.schema.answer import PromptDetails, Usage
from server.text.stop import StopStrings

WAITING_PIECES = 64  # that several choices may have ready before a slow reader holds them up


class Generation:
    """The requests are sent when it is made. Whoever makes it calls `close`."""

    def __init__(self, context: AppContext, wanted: Wanted) -> None:
        self.wanted = wanted
        self.deadline = None if wanted.timeout is None else asyncio.get_running_loop().time() + wanted.timeout
        self._metrics = context.metrics
        self.choices: list[Choice] = []
        self._timers: list[RequestTimer] = []
        stops = StopStrings(wanted.text.stop, wanted.text.include_stop)
        for index, (prompt, submit) in enumerate(wanted.submits(context.client.next_id)):
            timer = context.metrics.track(len(prompt.token_ids), prompt.sampling, wanted.num_choices)
            self._timers.append(timer)
            stream = context.client.submit(submit)
            choice = Choice(index, prompt, wanted.text, context.tokenizer, stops.anew(), stream, timer)
            self.choices.append(choice)

    async def accepted(self) -> None:
        """Returns once the engine has queued every choice. Raises what `ENGINE_FAULTS` names."""
        for choice in self.choices:
            await choice.stream.accepted()

    async def pieces(self) -> AsyncGenerator[Piece, None]:
        """Of all choices as they come. Raises what `ENGINE_FAULTS` names, and ApiError (503) at shutdown."""
        source = self.choices[0].pieces() if len(self.choices) == 1 else _merge(self.choices)
        async with aclosing(source):
            async for piece in source:
                yield piece

    def usage(self) -> Usage:
        """So far. A prompt counts once, as its first choice found it."""
        firsts = self.choices[:: self.wanted.num_choices]
        num_prompt = sum(len(choice.prompt.token_ids) for choice in firsts)
        num_output = sum(choice.num_tokens for choice in self.choices)
        num_cached = sum(choice.num_cached for choice in firsts)
        return Usage(num_prompt, num_prompt + num_output, num_output, PromptDetails(num_cached))

    def work(self) -> Work:
        """So far."""
        usage = self.usage()
        num_cached = usage.prompt_tokens_details.cached_tokens
        life = lives_together(timer.life() for timer in self._timers)
        return Work(usage.prompt_tokens, num_cached, usage.completion_tokens, life)

    def fault(self, error: Exception) -> ApiError:
        """What the client is told of `error`. Ends all choices."""
        match error:
            case ApiError():
                self.close("shutdown")
                return error
            case TimeoutError():
                self.close("timeout")
                return timed_out(self.wanted.timeout or 0.0)
            case RequestRejected():
                self._metrics.rejected(error.reason)
                self._drop_rejected()
                return rejection(error)
        for choice in self.choices:
            choice.fail()
        return engine_fault(error)

    def _drop_rejected(self) -> None:
        """A request that was never taken is no cancelled one; its fellows are."""
        for choice in self.choices:
            if choice.stream.ended:
                choice.drop()
        self.close("rejected")

    def end(self, error: ApiError) -> None:
        """An administrator's doing: the client is told `error`."""
        for choice in self.choices:
            choice.end(error, "admin")

    def close(self, cause: str) -> None:
        """Ends what has not ended, for the given cause."""
        for choice in self.choices:
            choice.abort(cause)


async def _merge(choices: list[Choice]) -> AsyncGenerator[Piece, None]:
    queue: asyncio.Queue[Piece | Exception | None] = asyncio.Queue(WAITING_PIECES)
    tasks = [asyncio.create_task(_forward(choice, queue)) for choice in choices]
    try:
        num_open = len(tasks)
        while num_open:
            item = await queue.get()
            if isinstance(item, Exception):
                raise item
            if item is None:
                num_open -= 1
            else:
                yield item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _forward(choice: Choice, queue: "asyncio.Queue[Piece | Exception | None]") -> None:
    try:
        async with aclosing(choice.pieces()) as pieces:
            async for piece in pieces:
                await queue.put(piece)
    except Exception as error:
        await queue.put(error)
    else:
        await queue.put(None)
