"""Types of fields that a plain annotation cannot say: unions told apart with clear errors, and bounds."""

import re
from typing import Annotated, cast

from pydantic import AfterValidator, Field, PlainValidator, WithJsonSchema

from server.errors import shown

MAX_PROMPTS = 1024
MAX_STOP_STRINGS = 4
MAX_STOP_CHARS = 256
MAX_BAD_WORDS = 128
MAX_WORD_CHARS = 128
INT64 = 2**63
REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")

Prompt = str | tuple[int, ...]
Content = str | list[dict[str, object]]


class FieldError(ValueError):
    """A fault that shows only when fields are read together; it belongs to `field`."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


def is_token_id(value: object) -> bool:
    return type(value) is int and value >= 0


def check_prompts(value: object, max_prompts: int = MAX_PROMPTS) -> tuple[Prompt, ...]:
    """One prompt or many, as text or as token ids: always a tuple of prompts."""
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list):
        raise ValueError(f"must be a string, a list of strings, or token ids; got {shown(value)}")
    if not value:
        raise ValueError("must not be an empty list")
    if type(value[0]) is int:
        return (_check_ids("", value),)
    if len(value) > max_prompts:
        raise ValueError(f"has {len(value)} items; at most {max_prompts} are accepted")
    return tuple(_check_prompt(place, item) for place, item in enumerate(value))


def _check_prompt(place: int, value: object) -> Prompt:
    match value:
        case str():
            return value
        case []:
            raise ValueError(f"item {place} is an empty list")
        case list():
            return _check_ids(f"item {place}: ", value)
    raise ValueError(f"item {place} is {shown(value)}; a string or a list of token ids is accepted")


def _check_ids(where: str, value: list[object]) -> tuple[int, ...]:
    for place, item in enumerate(value):
        if not is_token_id(item):
            raise ValueError(f"{where}item {place} is {shown(item)}, not a token id (an integer, 0 or more)")
    return tuple(cast(list[int], value))


def check_stop(value: object) -> tuple[str, ...]:
    """A stop string or up to four, none of them empty or long."""
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        raise ValueError(f"must be a string or a list of strings; got {shown(value)}")
    if len(stops) > MAX_STOP_STRINGS:
        raise ValueError(f"has {len(stops)} strings; at most {MAX_STOP_STRINGS} are accepted")
    if "" in stops:
        raise ValueError("must not hold an empty string")
    longest = max(map(len, stops), default=0)
    if longest > MAX_STOP_CHARS:
        raise ValueError(f"has a string of {longest} characters; at most {MAX_STOP_CHARS} are accepted")
    return tuple(stops)


def check_logit_bias(value: object) -> dict[int, float]:
    """Token ids, written as JSON keys, to a bias from -100 to 100."""
    if not isinstance(value, dict):
        raise ValueError(f"must map token ids to biases; got {shown(value)}")
    return {_bias_token(key): _bias(key, bias) for key, bias in value.items()}


def _bias_token(key: str) -> int:
    if not (key.isascii() and key.isdecimal() and len(key) <= 10):
        raise ValueError(f"key {shown(key)} is not a token id")
    return int(key)


def _bias(key: str, bias: object) -> float:
    if isinstance(bias, bool) or not isinstance(bias, int | float) or not -100 <= bias <= 100:
        raise ValueError(f"the bias of token {key} must be a number from -100 to 100, got {shown(bias)}")
    return float(bias)


def check_content(value: object) -> Content:
    """A message's text, or its parts."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(part, dict) for part in value):
        return value
    raise ValueError(f"must be a string or a list of content parts (objects); got {shown(value)}")


def check_bad_words(words: list[str]) -> list[str]:
    if any(not word.strip() for word in words):
        raise ValueError("must not hold an empty word")
    for place, word in enumerate(words):
        if len(word) > MAX_WORD_CHARS:
            raise ValueError(
                f"item {place} has {len(word)} characters; at most {MAX_WORD_CHARS} are accepted"
            )
    return words


def check_text_format(value: object) -> dict[str, str]:
    """Only `{"type": "text"}`: grammars and schemas are not supported."""
    if value == {"type": "text"}:
        return {"type": "text"}
    message = f"{shown(value)} is not supported: answers follow no grammar or schema"
    raise ValueError(f'{message}; accepted: null or {{"type": "text"}}')


def check_tool_choice(value: object) -> str:
    """Calls cannot be forced, and they come back as the text the model wrote."""
    if value == "none" or value == "auto":
        return str(value)
    raise ValueError(f'{shown(value)} is not supported: a call cannot be forced; accepted: "none" and "auto"')


def check_request_id(value: str) -> str:
    if not REQUEST_ID.fullmatch(value):
        raise ValueError(f"must be 1 to 128 printable ASCII characters without spaces, got {shown(value)}")
    return value


_ids = {"type": "array", "items": {"type": "integer", "minimum": 0}}
_texts = {"type": "array", "items": {"type": "string"}}
_some = {"minItems": 1}
_stop = {"type": "string", "minLength": 1, "maxLength": MAX_STOP_CHARS}

Prompts = Annotated[
    tuple[Prompt, ...],
    PlainValidator(check_prompts),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                _texts | _some,
                _ids | _some,
                {"type": "array", "items": _ids | _some} | _some,
            ]
        }
    ),
]
Stop = Annotated[
    tuple[str, ...],
    PlainValidator(check_stop),
    WithJsonSchema({"anyOf": [_stop, {"type": "array", "items": _stop, "maxItems": MAX_STOP_STRINGS}]}),
]
LogitBias = Annotated[
    dict[int, float],
    PlainValidator(check_logit_bias),
    WithJsonSchema(
        {"type": "object", "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100}}
    ),
]
TextFormat = Annotated[
    dict[str, str],
    PlainValidator(check_text_format),
    WithJsonSchema({"type": "object", "properties": {"type": {"const": "text"}}}),
]
MessageContent = Annotated[
    Content,
    PlainValidator(check_content),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "object"}}]}),
]
ToolChoice = Annotated[
    str, PlainValidator(check_tool_choice), WithJsonSchema({"type": "string", "enum": ["none", "auto"]})
]
TokenIds = Annotated[list[Annotated[int, Field(ge=0)]], Field(fail_fast=True)]
BadWords = Annotated[
    list[str], Field(max_length=MAX_BAD_WORDS, fail_fast=True), AfterValidator(check_bad_words)
]
RequestId = Annotated[
    str,
    AfterValidator(check_request_id),
    WithJsonSchema({"type": "string", "pattern": f"^{REQUEST_ID.pattern}$"}),
]
Seed = Annotated[int, Field(ge=-INT64, le=INT64 - 1)]
