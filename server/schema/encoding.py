"""The fields that all requests to encoders share. Null always means the default."""

from typing import Annotated, Literal

from pydantic import Field, PlainValidator, WithJsonSchema, model_validator

from server.errors import shown
from server.schema.fields import FieldError, Prompt, RequestId, check_prompts
from server.schema.parse import RequestModel
from server.schema.sampling import INT32_MAX, MAX_TIMEOUT

MAX_INPUTS = 2048
TRUNCATE = "tokens that are kept of an input, special ones included; -1: what the model takes"

EncodingFormat = Literal["float", "base64"]
Side = Literal["left", "right"]


def check_inputs(value: object) -> tuple[Prompt, ...]:
    """One input or many, as text or as token ids, none of them empty."""
    inputs = check_prompts(value, MAX_INPUTS)
    for place, text in enumerate(inputs):
        if not text:
            where = "" if isinstance(value, str) else f"item {place} "
            raise ValueError(f"{where}must not be an empty string")
    return inputs


def check_documents(value: object) -> tuple[str, ...]:
    """Strings, or objects with a `text`."""
    if not isinstance(value, list) or not value:
        raise ValueError(f"must be a list of at least one document, got {shown(value)}")
    if len(value) > MAX_INPUTS:
        raise ValueError(f"has {len(value)} documents; at most {MAX_INPUTS} are accepted")
    return tuple(_document(place, item) for place, item in enumerate(value))


def check_texts(value: object) -> tuple[str, ...]:
    """One text or many."""
    return check_documents([value] if isinstance(value, str) else value)


def _document(place: int, value: object) -> str:
    match value:
        case str():
            return value
        case {"text": str(text), **others} if not others:
            return text
    raise ValueError(f'item {place} is {shown(value)}; accepted: a string or {{"text": a string}}')


_ids = {"type": "array", "items": {"type": "integer", "minimum": 0}}
_texts = {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": MAX_INPUTS}
_document_schema = {
    "anyOf": [{"type": "string"}, {"type": "object", "properties": {"text": {"type": "string"}}}]
}
_documents = {"type": "array", "items": _document_schema, "minItems": 1, "maxItems": MAX_INPUTS}

Inputs = Annotated[
    tuple[Prompt, ...],
    PlainValidator(check_inputs),
    WithJsonSchema({"anyOf": [{"type": "string"}, _texts, _ids, {"type": "array", "items": _ids}]}),
]
Documents = Annotated[tuple[str, ...], PlainValidator(check_documents), WithJsonSchema(_documents)]
Texts = Annotated[
    tuple[str, ...],
    PlainValidator(check_texts),
    WithJsonSchema({"anyOf": [{"type": "string"}, _documents]}),
]


class EncodingRequest(RequestModel):
    """How inputs are read, and when."""

    model: str | None = None
    truncate_prompt_tokens: Annotated[int | None, Field(ge=-1, le=INT32_MAX, description=TRUNCATE)] = None
    truncation_side: Annotated[Side | None, Field(description="which is cut off; default right")] = None
    priority: Annotated[int | None, Field(ge=-INT32_MAX, le=INT32_MAX, description="lower runs sooner")] = (
        None
    )
    timeout: Annotated[float | None, Field(gt=0, le=MAX_TIMEOUT, description="seconds; then: 408")] = None
    request_id: RequestId | None = None
    user: str | None = None

    @model_validator(mode="after")
    def check_truncation(self) -> "EncodingRequest":
        if self.truncate_prompt_tokens == 0:
            raise FieldError("truncate_prompt_tokens", "must be -1 (what fits) or at least 1, got 0")
        if self.truncation_side is not None and self.truncate_prompt_tokens is None:
            raise FieldError("truncation_side", "only accepted with truncate_prompt_tokens")
        return self

    @property
    def max_tokens(self) -> int | None:
        """Of an input: what is more is cut off; -1: what the model takes; None: nothing is cut off."""
        return self.truncate_prompt_tokens

    @property
    def cut_side(self) -> Side:
        return self.truncation_side or "right"


class TruncatedRequest(EncodingRequest):
    """As text-embeddings-inference asks for it, too."""

    truncate: Annotated[bool | None, Field(description="true: as truncate_prompt_tokens -1")] = None
    truncation_direction: Annotated[
        Literal["left", "right", "Left", "Right"] | None, Field(description="as truncation_side")
    ] = None

    @model_validator(mode="after")
    def check_truncate(self) -> "TruncatedRequest":
        if self.truncate is not None and self.truncate_prompt_tokens is not None:
            raise FieldError("truncate", "not accepted with truncate_prompt_tokens")
        if self.truncation_direction is not None and self.truncation_side is not None:
            raise FieldError("truncation_direction", "not accepted with truncation_side")
        return self

    @property
    def max_tokens(self) -> int | None:
        return -1 if self.truncate else self.truncate_prompt_tokens

    @property
    def cut_side(self) -> Side:
        if self.truncation_direction is not None:
            return "left" if self.truncation_direction in ("left", "Left") else "right"
        return self.truncation_side or "right"


class InputRequest(EncodingRequest):
    """One input or many, each answered on its own."""

    input: Inputs
    add_special_tokens: bool | None = None
