"""The gate as an ASGI middleware: when a call is over."""

import asyncio
from pathlib import Path

import pytest
from starlette.types import Message, Receive, Scope, Send

from server.auth.access import Access
from server.auth.gate import Gate
from server.auth.key import Key, digest_of
from server.auth.ledger import Ledger
from server.exchange import Notes


@pytest.mark.parametrize("num_parts", [1, 3])
def test_a_call_is_over_before_its_answers_last_part_is_sent(tmp_path: Path, num_parts: int) -> None:
    access = Access([Key("alice", digest_of(b"tl-alice"), max_concurrent=1)], Ledger(tmp_path, 0))
    running: list[int] = []

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for part in range(num_parts):
            await send({"type": "http.response.body", "body": b"x", "more_body": part + 1 < num_parts})

    async def receive() -> Message:
        raise AssertionError

    async def send(message: Message) -> None:
        running.append(len(access.calls))

    headers = [(b"authorization", b"Bearer tl-alice")]
    scope = {"type": "http", "method": "POST", "path": "/", "headers": headers, "state": {"notes": Notes()}}
    for _ in range(2):
        asyncio.run(Gate(answer, access)(scope, receive, send))
    assert running == [*[1] * num_parts, 0] * 2
