"""Ragged requests at once against a server, from several processes: each keeps its share of them in flight, as a closed loop.

Streamed completions of token ids, over bare connections: what a client costs is taken from the server where they share the cores.
"""

import asyncio
import multiprocessing
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Barrier

import numpy as np

from benchmarks.crowd import Client, Place, call, post
from benchmarks.shapes import ragged_requests
from server.bench.measure import run

NUM_PROCESSES = 8
NUM_WARM, WARM_TOKENS = 12, 64  # at least so many requests first, their answers cut
USAGE = re.compile(rb'"completion_tokens": ?(\d+)')
USAGE_BYTES = 1024  # at the end of an answer, in which it stands


@dataclass(frozen=True, slots=True)
class Load:
    port: int
    model: str
    at_once: int
    num_requests: int


@dataclass(frozen=True, slots=True)
class Answer:
    """Times are perf_counter seconds, which processes of one machine share."""

    asked: float
    first: float
    last: float
    num_tokens: int
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Summary:
    num_requests: int
    failed: int
    faults: list[str]  # the first few
    tokens: int
    seconds: float  # from the first request to the last answer
    tokens_per_second: float
    ttft_ms: float  # median time to the first token
    ttft_p99_ms: float
    tpot_ms: float  # median time of a token after the first
    tpot_p99_ms: float


class Reader(Client):
    """Keeps the end of the answer."""

    def __init__(self, request: bytes) -> None:
        super().__init__(request)
        self.end = b""

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.end = (self.end + data)[-USAGE_BYTES:]


def send_load(load: Load) -> Summary:
    """Warms the server up with the same prompts, then sends the load. Raises EOFError if a client process dies."""
    num_processes = min(NUM_PROCESSES, load.at_once)
    with _processes(load, num_processes) as ends:
        answers = [answer for end in ends for answer in end.recv()]
    return summarise(answers)


@contextmanager
def _processes(load: Load, count: int) -> Iterator[list[Connection]]:
    """Started, and ended whatever happens."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(count)
    processes: list[BaseProcess] = []
    ends: list[Connection] = []
    try:
        for share in range(count):
            own, other = context.Pipe(duplex=False)
            arguments = load, share, count, barrier, other
            processes.append(context.Process(target=_serve_share, args=arguments, daemon=True))
            processes[-1].start()
            other.close()
            ends.append(own)
        yield ends
    finally:
        for process in processes:
            process.join(0.5)
            process.kill()


def _serve_share(load: Load, share: int, count: int, barrier: Barrier, results: Connection) -> None:
    """In a process of its own: every count-th request, with its share of the places."""
    num_places = load.at_once // count + (share < load.at_once % count)
    requests = ragged_requests(1000)[: load.num_requests]
    num_warm = max(NUM_WARM, load.at_once)
    warm = [(ids, min(num_new, WARM_TOKENS)) for ids, num_new in requests[:num_warm]]
    for wave in (warm, requests):
        bodies = [(_body(load.model, ids, num_new), num_new) for ids, num_new in wave[share::count]]
        barrier.wait()
        answers = run(partial(_closed_loop, load.port, bodies, num_places))
        barrier.wait()
    results.send(answers)


def _body(model: str, ids: Sequence[int], num_new: int) -> bytes:
    return post(
        {
            "model": model,
            "prompt": list(ids),
            "max_tokens": num_new,
            "ignore_eos": True,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    )


async def _closed_loop(port: int, bodies: Sequence[tuple[bytes, int]], num_places: int) -> list[Answer]:
    """Each place sends its next request when its last one is answered."""
    place, todo, answers = Place("127.0.0.1", port), iter(bodies), list[Answer]()

    async def client() -> None:
        for body, num_new in todo:
            answers.append(await _ask(place, body, num_new))

    await asyncio.gather(*(client() for _ in range(num_places)))
    return answers


async def _ask(place: Place, body: bytes, num_new: int) -> Answer:
    reader = Reader(body)
    try:
        await call(place, reader)
        await reader.ended
    except OSError as error:
        return Answer(reader.told.asked, 0.0, 0.0, 0, f"{type(error).__name__}: {error}")
    told, usage = reader.told, USAGE.findall(reader.end)
    num_tokens = int(usage[-1]) if usage else 0
    fault = ""
    if told.status != 200:
        fault = f"status {told.status}: {bytes(told.body[:200]).decode(errors='replace')}"
    elif not told.is_whole or num_tokens != num_new:
        fault = f"{num_tokens} tokens of {num_new}, {'whole' if told.is_whole else 'cut off'}"
    return Answer(told.asked, told.first, told.last, num_tokens, fault)


def summarise(answers: Sequence[Answer]) -> Summary:
    """Tokens and times are of the requests that got all they asked for."""
    done = [answer for answer in answers if not answer.fault]
    faults = [answer.fault for answer in answers if answer.fault]
    tokens = sum(answer.num_tokens for answer in done)
    seconds = max((a.last for a in done), default=0.0) - min((a.asked for a in answers), default=0.0)
    ttft = [answer.first - answer.asked for answer in done]
    tpot = [(answer.last - answer.first) / max(1, answer.num_tokens - 1) for answer in done]
    rate = round(tokens / seconds, 1) if done else 0.0
    times = *_percentiles(ttft), *_percentiles(tpot)
    return Summary(len(answers), len(faults), faults[:3], tokens, round(seconds, 2), rate, *times)


def _percentiles(seconds: Sequence[float]) -> tuple[float, float]:
    """Median and 99th, in milliseconds; 0 of nothing."""
    if not seconds:
        return 0.0, 0.0
    median, p99 = np.percentile(seconds, (50, 99))
    return round(float(median) * 1e3, 2), round(float(p99) * 1e3, 2)
