"""The terminal chat, in a pipe and when things go wrong, against a server that follows a script."""

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import cast

import pytest

from server.cli.base_url import base_url
from server.cli.chat import Conversation, ServerError, Settings
from tests.server.scripted_api import DONE, Body, ScriptedApi, delta, event, usage

ROOT = Path(__file__).parents[2]
Messages = list[dict[str, str]]


def echo(body: Body) -> list[bytes | float | int]:
    """Answers with what was said last, in two pieces."""
    said = cast(Messages, body["messages"])[-1]["content"]
    return [
        event({"choices": [{"delta": {"role": "assistant"}}]}),
        delta(said[:1]),
        delta(said[1:]),
        usage(3, 7),
        DONE,
    ]


def conversation(url: str, system: str = "") -> Conversation:
    return Conversation(Settings(url=url), system=system)


async def test_the_conversation_is_remembered() -> None:
    api = ScriptedApi(echo)
    async with api.serving() as url:
        chat = conversation(url, system="Be brief.")
        written: list[str] = []
        await chat.answer("hello", written.append)
        await chat.answer("again", written.append)
    assert written == ["h", "ello", "a", "gain"]
    assert [m["role"] for m in cast(Messages, api.bodies[1]["messages"])] == [
        "system",
        "user",
        "assistant",
        "user",
    ]
    assert api.bodies[1]["model"] == "scripted"
    assert chat.num_tokens == 7
    assert "7 tokens" in chat.speed()


async def test_an_answer_that_is_stopped_is_kept_as_far_as_it_came() -> None:
    async with ScriptedApi(lambda body: [delta("half"), 30.0]).serving() as url:
        chat = conversation(url)
        written: list[str] = []
        task = asyncio.create_task(chat.answer("go", written.append))
        while not written:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert chat.turns == [{"role": "user", "content": "go"}, {"role": "assistant", "content": "half"}]


async def test_a_question_that_is_stopped_before_a_word_is_not_remembered() -> None:
    api = ScriptedApi(lambda body: [30.0])
    async with api.serving() as url:
        chat = conversation(url)
        task = asyncio.create_task(chat.answer("go", print))
        while not api.bodies:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert chat.turns == []
    assert chat.speed() == "[no tokens]"


@pytest.mark.parametrize(
    "text", ["http://a:8000", "http://a:8000/", "a:8000", "http://a:8000/v1", "a:8000/v1/"]
)
def test_a_servers_url_may_be_that_of_its_api(text: str) -> None:
    assert base_url(text) == "http://a:8000"
    assert base_url("https://a/b/v1") == "https://a/b"


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([b"data: <html>\n\n"], "not a chunk of a chat completion"),
        ([400, b'{"error": {"message": "messages: too long"}}'], "400: messages: too long"),
        ([500, b"<html>"], "500: <html>"),
        ([event({"error": {"message": "the engine stopped"}}), DONE], "the engine stopped"),
    ],
)
async def test_a_question_that_failed_is_not_remembered(
    items: list[bytes | float | int], message: str
) -> None:
    async with ScriptedApi(lambda body: list(items)).serving() as url:
        chat = conversation(url)
        with pytest.raises(ServerError, match=message):
            await chat.answer("go", lambda piece: None)
    assert chat.turns == []


def run_chat(url: str, lines: str) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "server", "chat", "--url", url]
    done = subprocess.run(command, input=lines, cwd=ROOT, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


async def test_in_a_pipe_answers_alone_are_written() -> None:
    api = ScriptedApi(echo)
    async with api.serving() as url:
        lines = "one\n\n/system Be kind.\ntwo\n/reset\nthree\n/exit\nfour\n"
        code, output, errors = await asyncio.to_thread(run_chat, url, lines)
    assert (code, output) == (0, "one\ntwo\nthree\n")
    assert errors.count("7 tokens") == 3
    roles = [[m["role"] for m in cast(Messages, body["messages"])] for body in api.bodies]
    assert roles == [["user"], ["system", "user", "assistant", "user"], ["system", "user"]]


async def test_in_a_pipe_a_failure_ends_it() -> None:
    async with ScriptedApi(lambda body: [503, b'{"error": {"message": "draining"}}']).serving() as url:
        code, output, errors = await asyncio.to_thread(run_chat, url, "one\ntwo\n")
    assert (code, output, errors) == (1, "", "error: 503: draining\n")


def test_nobody_listens() -> None:
    code, _, errors = run_chat("http://127.0.0.1:9", "one\n")
    assert code == 1
    assert errors.startswith("error: Cannot connect to host 127.0.0.1:9")
