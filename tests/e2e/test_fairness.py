"""A flood that comes with one key, and what the owner of another one waits: counted in steps, for machines differ."""

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import aiohttp
import pytest

from tests.e2e.deployment import Deployment, start_scripted
from tests.e2e.test_keys import entry, headers_of
from tests.engine.scripted_runner import answer

STEP_SECONDS = 0.005
SLACK = 300  # steps that pass while a busy machine takes a request in and tells its answer
NUM_ROWS = 16


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("fairness")
    keys = folder / "keys.toml"
    keys.write_text(entry("flood") + entry("quiet"))
    place = folder / "place"
    place.mkdir()
    deployment = start_scripted(place, STEP_SECONDS, key_file=str(keys), api_workers=2)
    try:
        yield deployment
        deployment.process.terminate()
        assert deployment.wait() == 0
    finally:
        deployment.close()


@dataclass(slots=True)
class Owner:
    """Somebody with a key."""

    name: str
    session: aiohttp.ClientSession
    num_answered: int = 0
    running: list[asyncio.Task[None]] = field(default_factory=list)

    async def ask(self, prompt: tuple[int, ...], max_tokens: int) -> None:
        body = {
            "prompt": list(prompt),
            "max_tokens": max_tokens,
            "ignore_eos": True,
            "return_token_ids": True,
        }
        async with self.session.post("/v1/completions", json=body, headers=headers_of(self.name)) as response:
            told = await response.json()
            assert response.status == 200, told
        assert told["choices"][0]["token_ids"] == answer(prompt, max_tokens)
        self.num_answered += 1

    def flood(self, prompts: list[tuple[int, ...]], max_tokens: int) -> None:
        self.running = [asyncio.create_task(self.ask(prompt, max_tokens)) for prompt in prompts]

    async def metric(self, name: str) -> float:
        async with self.session.get("/metrics", headers=headers_of(self.name)) as response:
            found = re.findall(rf"^tokenloom:{name}\{{.*\}} (\S+)$", await response.text(), re.MULTILINE)
        return sum(map(float, found))

    async def until_waiting(self, count: int) -> None:
        async with asyncio.timeout(15):
            while await self.metric("num_requests_waiting") < count:
                await asyncio.sleep(0.02)

    async def count_steps(self, prompt: tuple[int, ...], max_tokens: int) -> float:
        """Those that pass while it is answered."""
        before = await self.metric("step_time_seconds_count")
        await self.ask(prompt, max_tokens)
        return await self.metric("step_time_seconds_count") - before


async def test_a_flood_of_long_answers_takes_no_row_that_another_is_due(server: Deployment) -> None:
    async with aiohttp.ClientSession(server.url, connector=aiohttp.TCPConnector(limit=0)) as session:
        flood, quiet = Owner("flood", session), Owner("quiet", session)
        flood.flood([(i, i) for i in range(2 * NUM_ROWS + 8)], max_tokens=300)
        await quiet.until_waiting(8)
        for number in range(3):
            assert await quiet.count_steps((number, 7, 9), max_tokens=20) < 20 + SLACK
            assert flood.num_answered < NUM_ROWS + 8, (
                "in the order of arrival those that wait have rows first"
            )
        await asyncio.gather(*flood.running)
        assert await quiet.metric("num_preemptions_total") >= 1


async def test_a_flood_of_long_prompts_is_read_in_turns_with_anothers(server: Deployment) -> None:
    async with aiohttp.ClientSession(server.url, connector=aiohttp.TCPConnector(limit=0)) as session:
        flood, quiet = Owner("flood", session), Owner("quiet", session)
        flood.flood([(number, *range(1900)) for number in range(30)], max_tokens=1)
        await quiet.until_waiting(15)
        assert await quiet.count_steps(tuple(range(200)), max_tokens=10) < 2 * 4 + 10 + SLACK
        assert flood.num_answered < 20
        await asyncio.gather(*flood.running)
        assert flood.num_answered == 30
