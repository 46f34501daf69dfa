"""Requests of somebody who has nothing to do with a storm: greedy, so that any answer but the quiet server's is wrong."""

import asyncio
from dataclasses import dataclass
from typing import Any

import msgspec

from benchmarks.crowd import Place, ask, post

PROMPTS = (
    "The capital of France is",
    "Water boils at",
    "Once upon a time there was a",
    "The three primary colours are",
    "def fibonacci(n):",
    "In the morning the birds",
)
PAUSE_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Testimony:
    """What the witnesses saw."""

    answered: int
    wrong: int
    failed: int  # other statuses than 200


class Witnesses:
    """`begin` once the server is quiet, `end` once the storm is over."""

    def __init__(self, place: Place, num_witnesses: int, max_tokens: int) -> None:
        self._place = place
        self._num_witnesses = num_witnesses
        self._requests = [_request(prompt, max_tokens) for prompt in PROMPTS]
        self._quiet: list[Any] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._ended = False
        self._answered = self._wrong = self._failed = 0

    async def begin(self) -> None:
        """Learns the right answers, one at a time, and goes on asking."""
        for request in self._requests:
            told = await ask(self._place, request, keeps=True)
            assert told.status == 200, bytes(told.body)
            self._quiet.append(_answer(bytes(told.body)))
        self._tasks = [asyncio.create_task(self._watch(index)) for index in range(self._num_witnesses)]

    async def end(self) -> Testimony:
        """Once the last answers have come."""
        self._ended = True
        await asyncio.gather(*self._tasks)
        return Testimony(self._answered, self._wrong, self._failed)

    async def _watch(self, index: int) -> None:
        while not self._ended:
            index = (index + 1) % len(self._requests)
            told = await ask(self._place, self._requests[index], keeps=True)
            if told.status != 200:
                self._failed += 1
            else:
                self._answered += 1
                self._wrong += _answer(bytes(told.body)) != self._quiet[index]
            await asyncio.sleep(PAUSE_SECONDS)


def _request(prompt: str, max_tokens: int) -> bytes:
    wanted = {"prompt": prompt, "max_tokens": max_tokens, "temperature": 0}
    return post(wanted | {"ignore_eos": True, "return_token_ids": True})


def _answer(body: bytes) -> tuple[str, tuple[int, ...]]:
    choice = msgspec.json.decode(body)["choices"][0]
    return choice["text"], tuple(choice["token_ids"])
