"""From a body to a checked request; every fault names the field, the value and what is accepted."""

from difflib import get_close_matches
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails, from_json

from server.errors import ApiError, bad_request, shown
from server.schema.fields import FieldError
from server.schema.refused import drop_refused

MAX_REPORTED = 3
MAX_FAULTS = 100  # of more it takes too long to tell the first
MAX_NAME = 80  # characters of a field's name that an error repeats


class RequestModel(BaseModel):
    """What all request bodies share: no coercion, no unknown field, no infinity."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


RequestT = TypeVar("RequestT", bound=RequestModel)


def parse(model: type[RequestT], body: bytes) -> RequestT:
    """Raises ApiError (400) for anything but a JSON object that fits `model`."""
    fields = parse_object(body)
    drop_refused(fields)
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise _explain(model, error) from None


def parse_object(body: bytes) -> dict[str, object]:
    """The body as a dict. Bad UTF-8, lone surrogates, NaN, and nesting beyond 200 levels are errors."""
    if not body:
        raise bad_request("the request body is empty; a JSON object is expected", code="invalid_json")
    try:
        value = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise bad_request(f"the request body is not valid JSON: {error}", code="invalid_json") from None
    if not isinstance(value, dict):
        raise bad_request(f"the request body must be a JSON object, not {shown(value)}", code="invalid_json")
    return value


def _explain(model: type[RequestModel], error: ValidationError) -> ApiError:
    if error.error_count() > MAX_FAULTS:
        return bad_request(f"the request has {error.error_count()} faults", code="invalid_value")
    faults = error.errors(include_url=False)
    messages = [_message(model, fault) for fault in faults[:MAX_REPORTED]]
    if len(faults) > MAX_REPORTED:
        messages.append(f"and {len(faults) - MAX_REPORTED} more")
    code = "unknown_field" if faults[0]["type"] == "extra_forbidden" else "invalid_value"
    return bad_request("; ".join(messages), _field(faults[0]), code)


def _message(model: type[RequestModel], fault: ErrorDetails) -> str:
    field = _field(fault)
    match fault["type"]:
        case "missing":
            return f"{field}: this field is required"
        case "extra_forbidden" if len(fault["loc"]) == 1:
            return f"{field}: unknown field{_suggest(field, model)}"
        case "extra_forbidden":
            return f"{field}: unknown field"
        case "value_error":
            return f"{field}: {fault.get('ctx', {}).get('error')}"
        case _:
            said = fault["msg"].replace("Input should", "should", 1)
            return f"{field}: {said}, got {shown(fault['input'])}"


def _field(fault: ErrorDetails) -> str:
    path, error = "", fault.get("ctx", {}).get("error")
    for part in (*fault["loc"], error.field) if isinstance(error, FieldError) else fault["loc"]:
        path += f"[{part}]" if isinstance(part, int) else f".{_short(part)}" if path else _short(part)
    return path


def _short(name: str) -> str:
    return name if len(name) <= MAX_NAME else name[: MAX_NAME - 3] + "..."


def _suggest(name: str, model: type[RequestModel]) -> str:
    known = [field.alias or own for own, field in model.model_fields.items()]
    close = get_close_matches(name, known)
    return f"; did you mean {' or '.join(close)}?" if close else ""
