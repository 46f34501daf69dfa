"""The storms themselves: each phase does its worst to a server and says what came of it."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.crowd import Client, Told, ask, ask_and_leave, call, call_and_never_read, get, post
from benchmarks.deployed import Counts, Deployed

PATIENCE_SECONDS = 1800.0
POLL_SECONDS = 0.1
HELD_TOKENS = 480  # of answers that last until everybody has come
SILENT_PROMPT = 192  # tokens that nobody reads
LONGEST_SILENT = 300  # of an answer to them: it takes longer than a client may stand still


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one phase: what was measured, and what should not have been."""

    phase: str
    figures: dict[str, float]
    faults: list[str] = field(default_factory=list)


async def until(server: Deployed, holds: Callable[[Counts], bool], what: str) -> float:
    """Seconds until it held. Raises TimeoutError."""
    began = time.perf_counter()
    while not holds(await server.counts()):
        if time.perf_counter() - began > PATIENCE_SECONDS:
            raise TimeoutError(f"{what}: it did not happen within {PATIENCE_SECONDS:g} s")
        await asyncio.sleep(POLL_SECONDS)
    return time.perf_counter() - began


def short(num_tokens: int, **more: object) -> bytes:
    """A stream after a prompt of one token or two."""
    wanted = {"prompt": "Hello", "max_tokens": num_tokens, "stream": True, "ignore_eos": True}
    return post(wanted | {"temperature": 0} | more)


def long_prompt(rng: random.Random, num_tokens: int) -> list[int]:
    """That no prefix cache knows."""
    return [rng.randrange(1000, 40_000) for _ in range(num_tokens)]


async def queue_storm(server: Deployed, num_rows: int, num_queued: int) -> Outcome:
    """All rows are held, `num_queued` requests wait, a quarter of them leaves at once, then the others are answered."""
    began = time.perf_counter()
    holders = [await call(server.place, Client(short(HELD_TOKENS))) for _ in range(num_rows)]
    await until(server, lambda counts: counts.sum("num_requests_running") >= num_rows, "holding every row")
    waiting = await asyncio.gather(*(call(server.place, Client(short(1))) for _ in range(num_queued)))
    await until(server, lambda counts: counts.sum("num_requests_waiting") >= num_queued, "a full queue")
    figures = {
        "queued": num_queued,
        "s to take them in": time.perf_counter() - began,
        "MiB at the peak": sum(footprint.memory for footprint in server.footprints().values()) / 2**20,
        "ms of /metrics, median": (await scrape_seconds(server, 5))[2] * 1e3,
    }
    leavers, rest = waiting[: num_queued // 4], waiting[num_queued // 4 :]
    figures |= {"left in the queue": len(leavers)}
    figures |= {"s until they were forgotten": await _leave_the_queue(server, leavers, len(rest))}
    began = time.perf_counter()
    for client in holders:
        client.leave()
    told = await ends_of(rest)
    figures |= {"s until the rest was answered": time.perf_counter() - began}
    return Outcome("queue", figures, _not_whole(told))


async def _leave_the_queue(server: Deployed, leavers: Sequence[Client], num_left: int) -> float:
    """Seconds until the queue is shorter; witnesses wait in it too."""
    for client in leavers:
        client.leave()
    most = num_left + len(leavers) // 2
    return await until(server, lambda counts: counts.sum("num_requests_waiting") <= most, "leaving the queue")


async def stream_storm(server: Deployed, num_streams: int, num_tokens: int) -> Outcome:
    """So many streams are live at once; half of them then leave in the middle of their events."""
    began = time.perf_counter()
    clients = await asyncio.gather(
        *(call(server.place, Client(short(num_tokens))) for _ in range(num_streams))
    )
    await until(server, lambda counts: counts.sum("num_requests_running") >= num_streams, "live streams")
    live = time.perf_counter() - began
    scrapes = await scrape_seconds(server, 20)
    while not all(client.told.num_events >= 2 for client in clients[: num_streams // 2]):
        await asyncio.sleep(POLL_SECONDS)
    leavers, rest = clients[: num_streams // 2], clients[num_streams // 2 :]
    num_cut = sum(not client.ended.done() for client in leavers)
    for client in leavers:
        client.leave()
    freed = await until(
        server, lambda counts: counts.sum("num_requests_running") <= len(rest) + 64, "freed rows"
    )
    told = await ends_of(rest)
    seconds = time.perf_counter() - began
    figures = {
        "streams at once": num_streams,
        "s until all were live": live,
        "left in mid-stream": num_cut,
        "s until their rows were free": freed,
        "events a second": sum(client.told.num_events for client in clients) / seconds,
        "ms of /metrics, median": scrapes[len(scrapes) // 2] * 1e3,
        "ms of /metrics, longest": scrapes[-1] * 1e3,
        "ms of /metrics by the server's clock, mean": await served_scrape_seconds(server) * 1e3,
    }
    return Outcome("streams", figures, _not_whole(told))


async def leave_storm(server: Deployed, num_each: int, longest: int) -> Outcome:
    """At every stage, in any order: half-sent requests, prompts, whole answers that are being made, streams."""
    rng = random.Random(1)
    order = [leave for _ in range(num_each) for leave in _leavings(server, rng, longest)]
    rng.shuffle(order)
    began = time.perf_counter()
    told = await asyncio.gather(*order)
    figures = {
        "left at each stage": num_each,
        "stages": len(order) // num_each,
        "s": time.perf_counter() - began,
        "left before the end": sum(one.has_left for one in told),
        "s until the server was idle but for witnesses": await until(
            server, lambda counts: counts.sum("num_requests_running") <= 8, "an idle server"
        ),
    }
    wrong = [f"status {one.status}" for one in told if one.status not in (0, 200)]
    return Outcome("leaving", figures, wrong[:3])


def _leavings(server: Deployed, rng: random.Random, longest: int) -> list[Awaitable[Told]]:
    """One client for each stage."""
    place, whole = server.place, short(longest)
    unread = short(longest, prompt=long_prompt(rng, 200))
    return [
        ask_and_leave(place, whole[: rng.randrange(1, len(whole))], rng.uniform(0, 1)),
        ask_and_leave(place, unread, rng.uniform(0, 1)),
        ask_and_leave(place, short(longest, stream=False), rng.uniform(0.5, 4)),
        ask(place, whole, leaves_at_event=rng.randint(1, longest // 2)),
    ]


async def silent_storm(server: Deployed, num_silent: int) -> Outcome:
    """Clients that ask for more than the kernel holds for them, and never read: each is dropped, and its request ended."""
    rng = random.Random(2)
    before = (await server.counts()).sum("request_cancellations_total", cause="disconnect")
    began = time.perf_counter()
    clients = await asyncio.gather(
        *(call_and_never_read(server.place, _verbose(rng)) for _ in range(num_silent))
    )
    await until(
        server,
        lambda counts: counts.sum("request_cancellations_total", cause="disconnect") >= before + num_silent,
        "dropping clients that never read",
    )
    figures = {"never reading": num_silent, "s until all were dropped": time.perf_counter() - began}
    for client in clients:
        client.close()
    return Outcome("never reading", figures)


def _verbose(rng: random.Random) -> bytes:
    """Its first event holds the alternatives of every token of its prompt: more than sockets hold."""
    return short(LONGEST_SILENT, prompt=long_prompt(rng, SILENT_PROMPT), logprobs=20, echo=True)


async def scrape_seconds(server: Deployed, count: int) -> list[float]:
    """Seconds that /metrics took, as its client saw it, in ascending order."""
    found = []
    for _ in range(count):
        began = time.perf_counter()
        await ask(server.place, get("/metrics"))
        found.append(time.perf_counter() - began)
        await asyncio.sleep(POLL_SECONDS)
    return sorted(found)


async def served_scrape_seconds(server: Deployed) -> float:
    """The mean since the server's start, by its own clock."""
    counts = await server.counts()
    name = "http_response_seconds"
    return counts.sum(f"{name}_sum", route="/metrics") / counts.sum(f"{name}_count", route="/metrics")


async def ends_of(clients: Sequence[Client]) -> list[Told]:
    await asyncio.gather(*(client.ended for client in clients))
    return [client.told for client in clients]


def _not_whole(told: Sequence[Told]) -> list[str]:
    """What clients that stayed to the end did not get."""
    lost = [one for one in told if not one.is_whole]
    statuses = sorted({one.status for one in lost})
    return [f"{len(lost)} of {len(told)} answers were not whole (statuses {statuses})"] if lost else []
