"""A model's chat template: messages to the prompt's text."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser

from server.text.content import looks_for_none, loops_over_content
from server.text.errors import ModelTextError, TextError
from server.text.messages import Message, cut_continued, mark_continued, prepare
from server.text.template_limits import CLOCK, Clock, LimitedEnvironment, Ticks, add_ticks

_NAMES = ("default", "tool_use")
_RESERVED = ("messages", "tools", "documents", "add_generation_prompt")
_MAX_REASON = 500  # characters
_MAX_SOURCE = 1 << 18  # characters of a template: a hundred times the usual
_FAILURES = (
    jinja2.TemplateError,
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
    MemoryError,
)


@dataclass(frozen=True, slots=True)
class _Compiled:
    template: jinja2.Template
    wants_parts: bool  # content as a list of parts, not as a string
    knows_none: bool  # content that is none, not an empty one


class ChatTemplate:
    """Renders as transformers does (the same settings, functions and filters of jinja2), in jinja2's sandbox.

    `special_tokens` are the texts a template may name: `bos_token`, `eos_token` and the like.
    """

    def __init__(
        self,
        sources: Mapping[str, str],
        special_tokens: Mapping[str, str],
        max_chars: int = 32 << 20,
        max_seconds: float = 2.0,
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        """`sources` by name: `default`, and perhaps `tool_use` for chats with tools. With none, all fail.

        Raises ModelTextError for a template that is not valid jinja2.
        """
        self._special_tokens = dict(special_tokens)
        self._max_chars, self._max_seconds = max_chars, max_seconds
        environment = _environment(now)
        self._compiled = {
            name: _compile(environment, name, source) for name, source in sources.items() if name in _NAMES
        }

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        template_kwargs: Mapping[str, Any] | None = None,
        max_seconds: float | None = None,
    ) -> str:
        """The prompt. Special tokens are in it as text, so encode it with `add_special_tokens=False`.

        `max_seconds` is for callers with less patience than the template was made with. Raises TextError for messages
        the template refuses or cannot render, and where there is no template; TooSlow, which is one, too.
        """
        if continue_final_message and add_generation_prompt:
            raise TextError(
                "continue_final_message: true goes with add_generation_prompt: false only",
                field="continue_final_message",
            )
        given = dict(template_kwargs or {})
        for name in _RESERVED:
            if name in given:
                raise TextError(
                    f"chat_template_kwargs: {name!r} has a field of its own in the request",
                    field="chat_template_kwargs",
                )
        compiled = self._pick(bool(tools))
        chat = prepare(messages, as_parts=compiled.wants_parts, keeps_none=compiled.knows_none)
        if continue_final_message:
            mark_continued(chat)
        names = {
            "messages": chat,
            "tools": tools,
            "documents": documents,
            "add_generation_prompt": add_generation_prompt,
        }
        clock = Clock(self._max_seconds if max_seconds is None else max_seconds)
        text = self._text(compiled.template, self._special_tokens | given | names | {CLOCK: clock}, clock)
        return cut_continued(text) if continue_final_message else text

    def _pick(self, has_tools: bool) -> _Compiled:
        name = "tool_use" if has_tools and "tool_use" in self._compiled else "default"
        if name not in self._compiled:
            raise TextError(
                "messages: the model has no chat template; accepted: plain prompts, or a server given one",
                field="messages",
            )
        return self._compiled[name]

    def _text(self, template: jinja2.Template, names: dict[str, Any], clock: Clock) -> str:
        try:
            return "".join(self._bounded(template.generate(names), clock))
        except TextError:
            raise
        except _FAILURES as error:
            raise TextError(
                f"messages: the model's chat template refuses them: {_reason(error)}", field="messages"
            ) from error

    def _bounded(self, pieces: Iterator[str], clock: Clock) -> Iterator[str]:
        """The pieces, as long as they stay within the limits on size and time."""
        num_chars = 0
        for piece in pieces:
            num_chars += len(piece)
            if num_chars > self._max_chars:
                raise TextError(
                    f"messages: the chat becomes longer than {self._max_chars} characters", field="messages"
                )
            clock.tick()
            yield piece


def _reason(error: Exception) -> str:
    """The template's own words where it has some. They may quote messages, so they are cut and made valid."""
    words = error.message if isinstance(error, jinja2.TemplateError) else f"{type(error).__name__}: {error}"
    return str(words)[:_MAX_REASON].encode(errors="replace").decode()


class _Generation(Extension):
    """`{% generation %}` marks the assistant's words for training; here it renders what it encloses."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _compile(environment: jinja2.Environment, name: str, source: str) -> _Compiled:
    if len(source) > _MAX_SOURCE:
        raise ModelTextError(
            f"chat template {name!r} has {len(source)} characters; accepted: up to {_MAX_SOURCE}"
        )
    try:
        tree = environment.parse(source)
        wants_parts, knows_none = loops_over_content(tree), looks_for_none(tree)
        code = environment.compile(add_ticks(tree, environment), name)
        names = environment.make_globals(None)
        return _Compiled(
            environment.template_class.from_code(environment, code, names), wants_parts, knows_none
        )
    except jinja2.TemplateSyntaxError as error:
        raise ModelTextError(f"chat template {name!r}, line {error.lineno}: {error.message}") from error
    except (
        *_FAILURES,
        SyntaxError,
    ) as error:  # SyntaxError: Python has limits of its own on what jinja2 makes
        raise ModelTextError(
            f"chat template {name!r} is not one jinja2 can compile: {_reason(error)}"
        ) from error


def _environment(now: Callable[[], datetime]) -> LimitedEnvironment:
    environment = LimitedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols, Ticks]
    )

    def strftime_now(form: str) -> str:
        return now().strftime(form)

    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = strftime_now
    environment.limit()
    return environment


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """jinja2's own filter escapes HTML, which a prompt is not."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
