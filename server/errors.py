"""One shape for every error: `{"error": {"message", "type", "param", "code"}}`, as OpenAI clients read it."""

import math
from collections.abc import Mapping
from http import HTTPStatus

import msgspec

_QUEUE_FULL = {
    "queue_requests": "the queue holds as many requests as it may",
    "queue_tokens": "the queue holds as many tokens as it may",
    "queue_seconds": "the wait for an answer to begin would be too long",
}


class ApiError(Exception):
    """An answer that is not a success. `detail` adds machine-readable numbers to the error object."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
        detail: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.param = param
        self.code = code
        self.headers = dict(headers or {})
        self.detail = dict(detail or {})

    def body(self) -> bytes:
        """The error object as JSON."""
        error: dict[str, str | int | None] = {
            "message": self.message,
            "type": self.kind,
            "param": self.param,
            "code": self.code,
        }
        return msgspec.json.encode({"error": error | self.detail})


def bad_request(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """The caller has to change the request. `message` names the field, the value and what is accepted."""
    return ApiError(400, message, param=param, code=code)


def context_length_exceeded(message: str, param: str, num_prompt: int, max_model_len: int) -> ApiError:
    """The tokens of the prompt, or of the prompt and the answer asked for, do not fit the model."""
    detail = {"n_prompt_tokens": num_prompt, "max_model_len": max_model_len}
    return ApiError(400, message, param=param, code="context_length_exceeded", detail=detail)


def model_not_found(name: str, served: str) -> ApiError:
    message = f"model: {shown(name)} is not served here; this server has {shown(served)}"
    return ApiError(404, message, param="model", code="model_not_found")


def body_too_large(max_body_bytes: int) -> ApiError:
    message = f"the request body is larger than the {max_body_bytes} bytes that are accepted"
    return ApiError(413, message, code="body_too_large")


def queue_full(reason: str, retry_after: float) -> ApiError:
    why = _QUEUE_FULL.get(reason, "the queue is full")
    return ApiError(
        429,
        f"{why}; try again in {wait_seconds(retry_after)} s",
        kind="rate_limit_error",
        code=reason,
        headers={"Retry-After": str(wait_seconds(retry_after))},
    )


def unavailable(message: str, code: str, retry_after: float = 1.0) -> ApiError:
    """The server cannot take or finish this request now, whatever it says."""
    headers = {"Retry-After": str(wait_seconds(retry_after))}
    return ApiError(503, message, kind="service_unavailable_error", code=code, headers=headers)


def timed_out(seconds: float) -> ApiError:
    """The request's own time limit passed. Clients are told not to repeat it by themselves."""
    return ApiError(
        408,
        f"the request did not finish within its timeout of {seconds:g} s",
        kind="timeout_error",
        param="timeout",
        code="timeout",
        headers={"x-should-retry": "false"},
    )


def internal(message: str = "internal server error") -> ApiError:
    return ApiError(500, message, kind="server_error")


def http_fault(status: int, message: str, headers: Mapping[str, str] | None = None) -> ApiError:
    """A fault of the HTTP exchange itself, such as an unknown path or method."""
    code = HTTPStatus(status).phrase.lower().replace(" ", "_")
    kind = "invalid_request_error" if status < 500 else "server_error"
    return ApiError(status, message, kind=kind, code=code, headers=headers)


def wait_seconds(retry_after: float) -> int:
    """Retry-After counts whole seconds, at least one."""
    return max(1, math.ceil(retry_after))


def shown(value: object, width: int = 80) -> str:
    """`value` as JSON for a message, cut to `width` characters."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    try:
        text = msgspec.json.encode(value).decode()
    except (TypeError, ValueError, RecursionError):
        text = repr(value)
    return text if len(text) <= width else text[: width - 3] + "..."
