"""POST /predict."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, PlainValidator, WithJsonSchema

from server.errors import shown
from server.schema.encoding import MAX_INPUTS, TruncatedRequest
from server.text.truncation import TextInput

ACCEPTED = "a string, a pair of strings, or a list of lists of one or two strings"


@dataclass(frozen=True, slots=True)
class Inputs:
    """Texts and pairs of them; `many`: they came in a list."""

    texts: tuple[TextInput, ...]
    many: bool


def check_inputs(value: object) -> Inputs:
    if isinstance(value, list) and value and isinstance(value[0], list):
        if len(value) > MAX_INPUTS:
            raise ValueError(f"has {len(value)} items; at most {MAX_INPUTS} are accepted")
        return Inputs(tuple(_text(f"item {place} ", item) for place, item in enumerate(value)), many=True)
    return Inputs((_text("", value),), many=False)


def _text(where: str, value: object) -> TextInput:
    match value:
        case "" | [""]:
            raise ValueError(f"{where}must not be an empty string")
        case str() as text:
            return text
        case [str(text)]:
            return text
        case [str(first), str(second)]:
            return first, second
    raise ValueError(f"{where}is {shown(value)}; accepted: {ACCEPTED}")


_one = {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 2}


class PredictRequest(TruncatedRequest):
    """Texts, or pairs, to put under the model's labels, as text-embeddings-inference asks for it."""

    inputs: Annotated[
        Inputs,
        PlainValidator(check_inputs),
        WithJsonSchema(
            {"anyOf": [{"type": "string"}, _one, {"type": "array", "items": _one, "maxItems": MAX_INPUTS}]}
        ),
    ]
    raw_scores: Annotated[bool | None, Field(description="true: logits")] = None
