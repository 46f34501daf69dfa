"""Chat messages as a template wants them."""

import copy
import json
from collections.abc import Mapping, Sequence
from typing import Any

from server.text.errors import TextError

Message = Mapping[str, Any]  # {"role": ..., "content": a string, a list of parts, or None, ...}

_MARK = "\ue000continue\ue001"  # stands where the final message ends; private-use characters


def prepare(messages: Sequence[Message], as_parts: bool, keeps_none: bool) -> list[dict[str, Any]]:
    """Copies: content as a string (or, `as_parts`, a list of parts), tool calls' arguments as objects.

    A message that only calls tools has no content: few templates expect that, and the others get an empty one.
    Raises TextError for parts that are not text and for arguments that are not a JSON object.
    """
    if not messages:
        raise TextError("messages: the list is empty; accepted: at least one message", field="messages")
    return [
        _prepare_one(message, f"messages[{i}]", as_parts, keeps_none) for i, message in enumerate(messages)
    ]


def mark_continued(chat: list[dict[str, Any]]) -> None:
    """Mark where the final message ends, for the prompt to end there. The space tells if it is trimmed."""
    final = chat[-1].get("content")
    if isinstance(final, str):
        chat[-1]["content"] = final + _MARK + " "
    elif isinstance(final, list) and final:
        final[-1]["text"] += _MARK + " "
    else:
        raise TextError(
            "continue_final_message: the final message has no text to continue",
            field="continue_final_message",
        )


def cut_continued(text: str) -> str:
    """The rendered chat up to the mark; without spaces at its end where the template trims a message's."""
    place = text.rfind(_MARK)
    if place < 0:
        raise TextError(
            "continue_final_message: the model's chat template leaves out the final message",
            field="continue_final_message",
        )
    kept = text[:place]
    return kept if text[place + len(_MARK) :].startswith(" ") else kept.rstrip()


def _prepare_one(message: Message, where: str, as_parts: bool, keeps_none: bool) -> dict[str, Any]:
    prepared = dict(copy.deepcopy(message))
    if prepared.get("content") is not None:
        prepared["content"] = _content(prepared["content"], f"{where}.content", as_parts)
    if prepared.get("tool_calls"):
        if prepared.setdefault("content", None) is None and not keeps_none:
            prepared["content"] = [] if as_parts else ""
        prepared["tool_calls"] = [
            _tool_call(c, f"{where}.tool_calls[{i}]") for i, c in enumerate(prepared["tool_calls"])
        ]
    return prepared


def _content(content: object, where: str, as_parts: bool) -> str | list[dict[str, Any]]:
    match content:
        case str() if as_parts:
            return [{"type": "text", "text": content}]
        case str():
            return content
        case list():
            texts = [_part_text(part, f"{where}[{i}]") for i, part in enumerate(content)]
            return [{"type": "text", "text": text} for text in texts] if as_parts else "\n".join(texts)
        case _:
            raise TextError(
                f"{where} is of type {type(content).__name__}; accepted: a string or a list of text parts",
                field="messages",
            )


def _part_text(part: object, where: str) -> str:
    match part:
        case {"type": "text", "text": str(text)}:
            return text
        case {"type": "text"}:
            raise TextError(f"{where}.text is missing or not a string", field="messages")
        case {"type": kind}:
            raise TextError(
                f"{where}.type: {str(kind)[:80]!r} is not supported by this model; accepted: 'text'",
                field="messages",
            )
        case _:
            raise TextError(
                f'{where} is not a content part; accepted: {{"type": "text", "text": "..."}}',
                field="messages",
            )


def _tool_call(call: object, where: str) -> dict[str, Any]:
    """Clients send the arguments as JSON text; templates expect the object."""
    if not isinstance(call, dict) or not isinstance(call.get("function"), dict):
        raise TextError(f"{where} has no function; accepted: function calls", field="messages")
    function = call["function"]
    arguments = function.get("arguments")
    if not isinstance(arguments, str):
        return call
    parsed = _arguments(arguments, f"{where}.function.arguments")
    return {**call, "function": {**function, "arguments": parsed}}


def _arguments(text: str, where: str) -> dict[str, Any]:
    try:
        arguments = json.loads(text) if text.strip() else {}
    except (ValueError, RecursionError) as error:
        raise TextError(
            f"{where} is not JSON ({error}); accepted: a JSON object as text", field="messages"
        ) from error
    if not isinstance(arguments, dict):
        raise TextError(f"{where} is JSON but no object; accepted: a JSON object as text", field="messages")
    return arguments
