"""Clients of a server that something is done to: each answer is held against what the same prompt got in peace."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Literal

import aiohttp

Ending = Literal["right", "wrong", "error event", "refused", "failed", "broken"]
REST_SECONDS = 0.25  # of a client that was refused
COMPLETIONS = "/v1/completions"


@dataclass(frozen=True, slots=True)
class Case:
    """A prompt, and its answer in peace."""

    body: Mapping[str, object]
    wanted: tuple[int, ...] = ()

    async def settle(self, session: aiohttp.ClientSession) -> "Case":
        """The same with its answer."""
        async with session.post(COMPLETIONS, json=dict(self.body)) as response:
            response.raise_for_status()
            answer = await response.json()
        return Case(self.body, tuple(answer["choices"][0]["token_ids"]))


def connect(url: str) -> aiohttp.ClientSession:
    """Every request on a connection of its own, so that all server processes get some."""
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    return aiohttp.ClientSession(url, connector=connector, timeout=aiohttp.ClientTimeout(120))


async def ask(
    session: aiohttp.ClientSession, case: Case, on_first: Callable[[], None] | None = None
) -> Ending:
    """Streams one answer. An answer that was cut short must have been right so far. `on_first`: called at its first event."""
    try:
        async with session.post(COMPLETIONS, json={**case.body, "stream": True}) as response:
            if response.status != 200:
                return "refused" if response.status in (429, 503) else "failed"
            events: list[bytes] = []
            async for line in response.content:
                if not line.startswith(b"data: "):
                    continue
                if not events and on_first is not None:
                    on_first()
                events.append(line[6:])
    except aiohttp.ClientError:
        return "broken"
    if not events or events.pop().strip() != b"[DONE]":
        return "broken"
    return _judge([json.loads(event) for event in events], case)


def _judge(events: list[dict[str, Any]], case: Case) -> Ending:
    is_cut = bool(events) and "error" in events[-1]
    chunks = events[:-1] if is_cut else events
    ids = tuple(token for chunk in chunks for token in chunk["choices"][0]["token_ids"])
    if ids != case.wanted[: len(ids)] or (not is_cut and ids != case.wanted):
        return "wrong"
    return "error event" if is_cut else "right"


@dataclass(slots=True)
class Load:
    """Clients that ask again and again, until `end`."""

    session: aiohttp.ClientSession
    cases: Sequence[Case]
    endings: Counter[Ending] = field(default_factory=Counter)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    is_over: bool = False
    answering: set[int] = field(default_factory=set)  # clients that have a part of their answer

    async def begin(self, num_clients: int) -> None:
        """Returns once half of them are amid an answer; what was answered until then does not count."""
        self.tasks = [asyncio.create_task(self._go_on(client)) for client in range(num_clients)]
        await self.more(num_clients)
        while len(self.answering) < num_clients / 2:
            await asyncio.sleep(0.002)
        self.endings.clear()

    async def more(self, num_answers: int) -> None:
        """Returns once so many right answers have come on top."""
        wanted = self.endings["right"] + num_answers
        while self.endings["right"] < wanted:
            await asyncio.sleep(0.02)

    async def end(self) -> Counter[Ending]:
        """How the answers ended, those included that ran to the last."""
        self.is_over = True
        await asyncio.gather(*self.tasks)
        return self.endings

    async def _go_on(self, client: int) -> None:
        for place in count(client):
            if self.is_over:
                return
            case = self.cases[place % len(self.cases)]
            ending = await ask(self.session, case, lambda: self.answering.add(client))
            self.answering.discard(client)
            self.endings[ending] += 1
            if ending == "refused":
                await asyncio.sleep(REST_SECONDS)


@dataclass(slots=True)
class Watch:
    """Asks for the health of a server all the time. Seconds are since `begin`."""

    session: aiohttp.ClientSession
    path: str = "/health"
    noticed: float | None = None  # it failed for the first time
    recovered: float | None = None  # and was well again
    began: float = 0.0
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.began

    def begin(self) -> None:
        self.began = time.perf_counter()
        self.tasks.append(asyncio.create_task(self._look()))

    def end(self) -> None:
        for task in self.tasks:
            task.cancel()

    async def until_noticed(self) -> None:
        while self.noticed is None:
            await asyncio.sleep(0.005)

    async def until_recovered(self) -> None:
        while self.recovered is None:
            await asyncio.sleep(0.005)

    async def _look(self) -> None:
        while True:
            status = await self._status()
            if status == 503 and self.noticed is None:
                self.noticed = self.seconds
            if status == 200 and self.noticed is not None and self.recovered is None:
                self.recovered = self.seconds
            await asyncio.sleep(0.02)

    async def _status(self) -> int:
        """0: the process that was asked is gone."""
        try:
            async with self.session.get(self.path) as response:
                return response.status
        except aiohttp.ClientError:
            return 0
