"""One HTTP request in an encoder's engine: its inputs, and their answers in order."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from itertools import repeat
from typing import TypeVar

from starlette.requests import Request

from engine.client.client import Answer, RequestRejected
from server.auth.call import call_of
from server.context import AppContext
from server.encoding.values import Values
from server.encoding.wanted import Wanted
from server.errors import ApiError, timed_out
from server.exchange import note_work
from server.faults import engine_fault, rejection
from server.guard import guarded
from server.metrics.work import Work
from server.text.input_tokenizer import Encoded

T = TypeVar("T")


class Encoding:
    """All inputs are sent when it is made. Whoever makes it reads it, or calls `fault` or `close`."""

    def __init__(self, context: AppContext, wanted: Wanted) -> None:
        self.deadline = None if wanted.timeout is None else asyncio.get_running_loop().time() + wanted.timeout
        self._wanted = wanted
        self._metrics = context.metrics
        self._timer = context.metrics.track_inputs(len(wanted.inputs))
        self._num_answered = 0
        self._end: ApiError | None = None  # what it was ended with from outside
        self._answers = [
            context.client.encode(message) for message in wanted.messages(context.client.next_id)
        ]

    async def read(self, shape: Callable[[Values], T]) -> list[T]:
        """What `shape` makes of each answer, made as they come, in the order of the inputs.

        Raises what `ENGINE_FAULTS` names as soon as one input does.
        """
        results = await asyncio.gather(*map(self._read, self._answers, self._wanted.inputs, repeat(shape)))
        self._timer.finish()
        return results

    async def _read(self, answer: Answer, encoded: Encoded, shape: Callable[[Values], T]) -> T:
        values = await answer.result()
        self._num_answered += 1
        self._timer.on_answer(len(encoded.token_ids), answer.started)
        return shape(values)

    def work(self) -> Work:
        """So far."""
        return self._timer.work()

    def fault(self, error: Exception) -> ApiError:
        """What the client is told of `error`. Ends all inputs."""
        if self._end is not None:
            return self._end
        match error:
            case ApiError():
                self.close("error")
                return error
            case TimeoutError():
                self.close("timeout")
                return timed_out(self._wanted.timeout or 0.0)
            case RequestRejected():
                self._metrics.rejected(error.reason)
                self._timer.drop(sum(answer.ended for answer in self._answers) - self._num_answered)
                self.close("rejected")
                return rejection(error)
        self._timer.failed()
        self.close("error")
        return engine_fault(error)

    def end(self, error: ApiError) -> None:
        """An administrator's doing: the client is told `error`."""
        self._end = error
        self.close("admin")

    def close(self, cause: str) -> None:
        """Ends what has not ended, for the given cause."""
        self._timer.cancelled(cause)
        for answer in self._answers:
            answer.abort(cause)


async def encode(context: AppContext, http: Request, wanted: Wanted, shape: Callable[[Values], T]) -> list[T]:
    """Sends it to the engine; what `shape` makes of each answer. Raises ApiError or ClientGone."""
    call = call_of(http)
    priority = call.admit(wanted.num_tokens, wanted.priority)
    encoding = Encoding(context, replace(wanted, priority=priority, owner=call.key_name))
    call.attach(encoding)
    note_work(http, encoding)
    return await guarded(http, encoding, encoding.read(shape))
