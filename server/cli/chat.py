"""A chat in the terminal with any server that speaks OpenAI's API."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import TextIO

import aiohttp
import msgspec

HELP = "/system TEXT sets the system prompt, /reset forgets the talk, /exit leaves, Ctrl-C stops an answer"


@dataclass(frozen=True, slots=True)
class Settings:
    """Who is asked, and how."""

    url: str
    model: str = ""  # "": the server's first
    system: str = ""
    temperature: float = 0.7
    max_tokens: int = 1024
    api_key: str = field(default="", repr=False)

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}


class ServerError(Exception):
    """The server refused or broke off; the message is its own."""


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta = msgspec.field(default_factory=_Delta)


class _Usage(msgspec.Struct):
    completion_tokens: int = 0


class _Error(msgspec.Struct):
    message: str = "no message"


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: _Error | None = None


class _Model(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Model]


@dataclass(slots=True)
class Conversation:
    """What was said so far, and the speed of the last answer."""

    settings: Settings
    system: str = ""
    turns: list[dict[str, str]] = field(default_factory=list)
    num_tokens: int = 0
    seconds: float = 0.0  # from the first token to the last
    first_after: float = 0.0

    def messages(self) -> list[dict[str, str]]:
        return ([{"role": "system", "content": self.system}] if self.system else []) + self.turns

    async def answer(self, text: str, write: Callable[[str], None]) -> None:
        """Stream the answer to `text` into `write`; what was written is remembered, even if cut short, and what was not is not."""
        self.turns.append({"role": "user", "content": text})
        parts: list[str] = []
        try:
            async for part in self._stream():
                parts.append(part)
                write(part)
        finally:
            if parts:
                self.turns.append({"role": "assistant", "content": "".join(parts)})
            else:  # many templates refuse two questions in a row
                self.turns.pop()

    async def _stream(self) -> AsyncIterator[str]:
        start, first = time.perf_counter(), 0.0
        self.num_tokens, self.seconds, self.first_after = 0, 0.0, 0.0
        async for chunk in _chunks(self.settings, self.messages()):
            text = chunk.choices[0].delta.content if chunk.choices else None
            if text:
                first = first or time.perf_counter()
                self.num_tokens += 1  # until the server's own count arrives
                self.first_after, self.seconds = first - start, time.perf_counter() - first
                yield text
            if chunk.usage is not None:
                self.num_tokens = chunk.usage.completion_tokens

    def speed(self) -> str:
        if not self.num_tokens:
            return "[no tokens]"
        rate = (
            f", {(self.num_tokens - 1) / self.seconds:.1f} tok/s"
            if self.num_tokens > 1 and self.seconds
            else ""
        )
        return f"[{self.num_tokens} tokens{rate}, the first after {self.first_after:.2f} s]"


async def _chunks(settings: Settings, messages: list[dict[str, str]]) -> AsyncIterator[_Chunk]:
    body = {
        "messages": messages,
        "temperature": settings.temperature,
        "max_tokens": settings.max_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
    async with aiohttp.ClientSession(timeout=timeout, headers=settings.headers) as session:
        model = settings.model or await _first_model(session, settings.url)
        async with session.post(
            settings.url + "/v1/chat/completions", json=body | {"model": model}
        ) as response:
            if response.status != 200:
                raise ServerError(f"{response.status}: {_error_message(await response.read())}")
            async for line in response.content:
                data = line.removeprefix(b"data:").strip()
                if line.startswith(b"data:") and data != b"[DONE]":
                    yield _checked(data)


def _checked(data: bytes) -> _Chunk:
    try:
        chunk = msgspec.json.decode(data, type=_Chunk)
    except msgspec.MsgspecError as error:
        raise ServerError(f"not a chunk of a chat completion: {error}") from None
    if chunk.error is not None:
        raise ServerError(chunk.error.message)
    return chunk


async def _first_model(session: aiohttp.ClientSession, url: str) -> str:
    async with session.get(url + "/v1/models") as response:
        body = await response.read()
    if response.status != 200:
        raise ServerError(f"{response.status}: {_error_message(body)}")
    try:
        return msgspec.json.decode(body, type=_Models).data[0].id
    except (msgspec.MsgspecError, IndexError):
        raise ServerError(f"{url}/v1/models does not list a model (status {response.status})") from None


def _error_message(body: bytes) -> str:
    try:
        chunk = msgspec.json.decode(body, type=_Chunk)
    except msgspec.MsgspecError:
        return body.decode(errors="replace")[:500]
    return chunk.error.message if chunk.error else body.decode(errors="replace")[:500]


def chat_in_terminal(settings: Settings) -> int:
    """Read lines until /exit or the end of the input. The exit status: 1 when an answer failed in a pipe."""
    conversation = Conversation(settings, system=settings.system)
    interactive = sys.stdin.isatty()
    if interactive:
        _enable_line_editing()
        print(f"Talking to {settings.url}. {HELP}.")
    while (line := _read_line(interactive)) is not None:
        if not line or _is_command(conversation, line):
            continue
        if not _answer(conversation, line, sys.stdout) and not interactive:
            return 1
    return 0


def _enable_line_editing() -> None:
    try:
        import readline  # noqa: F401 - importing it gives input() its history and editing keys
    except ModuleNotFoundError:  # it does not exist for Windows
        return


def _read_line(interactive: bool) -> str | None:
    """The next line; None at the end. Ctrl-C clears the line that is being written."""
    while True:
        try:
            line = input("> " if interactive else "").strip()
        except EOFError:
            return None
        except KeyboardInterrupt:
            print()
            continue
        return None if line == "/exit" else line


def _is_command(conversation: Conversation, line: str) -> bool:
    if not line.startswith("/"):
        return False
    name, _, rest = line.partition(" ")
    match name:
        case "/reset":
            conversation.turns.clear()
        case "/system":
            conversation.system = rest.strip()
        case _:
            print(HELP, file=sys.stderr)
    return True


def _answer(conversation: Conversation, line: str, output: TextIO) -> bool:
    """False when it failed. Ctrl-C ends the answer, not the chat."""

    def write(text: str) -> None:
        output.write(text)
        output.flush()

    try:
        asyncio.run(conversation.answer(line, write))
    except KeyboardInterrupt:
        write(" [stopped]")
    except (aiohttp.ClientError, ServerError) as error:
        print(f"error: {error}", file=sys.stderr)
        return False
    write("\n")
    print(conversation.speed(), file=sys.stderr)
    return True
