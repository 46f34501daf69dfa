"""What this server takes: how large a body may be, and which numbers fit the model that is loaded."""

from collections.abc import Iterable
from dataclasses import dataclass

from starlette.requests import Request

from engine.request import SamplingParams
from server.errors import (
    ApiError,
    bad_request,
    body_too_large,
    context_length_exceeded,
    shown,
)

JSON_TYPE = "application/json"
MAX_ENTRIES = 1 << 20  # of a field, over all requests that one body makes of it


async def read_body(request: Request, max_body_bytes: int) -> bytes:
    """The whole body, counted as it arrives. Raises ApiError (413, 415) or ClientDisconnect."""
    _check_headers(request, max_body_bytes)
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > max_body_bytes:
            raise body_too_large(max_body_bytes)
        chunks.append(chunk)
    return b"".join(chunks)


def _check_headers(request: Request, max_body_bytes: int) -> None:
    content_type = request.headers.get("content-type", "")
    kind, _, parameters = content_type.partition(";")
    if kind.strip().lower() != JSON_TYPE or not _is_utf8(parameters):
        raise _unsupported("Content-Type", content_type, f"{JSON_TYPE} in UTF-8")
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise _unsupported("Content-Encoding", encoding, "identity")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length[:20]) > max_body_bytes:
        raise body_too_large(max_body_bytes)


def _is_utf8(parameters: str) -> bool:
    """Of a content type; those besides the charset mean nothing for JSON."""
    named = [parameter.strip().lower().partition("=") for parameter in parameters.split(";")]
    return all(name != "charset" or value.strip('"') in ("utf-8", "utf8") for name, _, value in named)


def _unsupported(header: str, value: str, accepted: str) -> ApiError:
    message = f"{header}: {shown(value)} is not supported; accepted: {accepted}"
    return ApiError(415, message, code="unsupported_media_type")


@dataclass(frozen=True, slots=True)
class Limits:
    """What the loaded model and the engine's settings allow, and what they take where a request does not say."""

    max_model_len: int
    vocab_size: int
    max_logprobs: int
    max_choices: int  # requests that can be running and queued together
    has_priority: bool
    sampling: SamplingParams = SamplingParams()  # as the model's makers recommend

    def check_token_ids(self, field: str, ids: Iterable[int]) -> None:
        """Raises ApiError (400) for an id that is not in the vocabulary."""
        for token_id in ids:
            if token_id >= self.vocab_size:
                message = f"{field}: {token_id} is not a token id; accepted: 0 to {self.vocab_size - 1}"
                raise bad_request(message, field, "invalid_value")

    def check_logprobs(self, field: str, count: int | None) -> None:
        if count is not None and count > self.max_logprobs:
            message = f"{field}: must be 0 to {self.max_logprobs}, got {count}"
            raise bad_request(message, field, "invalid_value")

    def check_choices(self, num_prompts: int, num_choices: int) -> None:
        total = num_prompts * num_choices
        if total > self.max_choices:
            field = "prompt" if num_choices == 1 else "n"
            message = f"{field}: {num_prompts} prompts with n={num_choices} make {total} requests"
            raise bad_request(f"{message}; at most {self.max_choices} fit at once", field, "invalid_value")

    def check_entries(self, field: str, num_entries: int, num_requests: int) -> None:
        """Each request has a copy of the field."""
        if num_entries * num_requests > MAX_ENTRIES:
            message = f"{field}: {num_entries} entries in each of {num_requests} requests are too many"
            raise bad_request(f"{message}; at most {MAX_ENTRIES} fit in all", field, "invalid_value")

    def check_inputs(self, field: str, count: int) -> None:
        if count > self.max_choices:
            message = f"{field}: it makes {count} requests; at most {self.max_choices} fit at once"
            raise bad_request(message, field, "invalid_value")

    def check_input(self, field: str, subject: str, num_tokens: int) -> None:
        """An encoder reads an input whole. `subject` says which of the field's it is."""
        if num_tokens == 0:
            message = f"{field}: {subject} has no tokens; at least one is needed"
            raise bad_request(message, field, "empty_prompt")
        if num_tokens > self.max_model_len:
            message = f"{field}: {subject} has {num_tokens} tokens, which is too many"
            raise self._too_long(message, field, num_tokens)

    def check_priority(self, priority: int | None) -> None:
        if priority and not self.has_priority:
            message = f"priority: must be 0 unless the engine's policy is priority, got {priority}"
            raise bad_request(message, "priority", "invalid_value")

    def room(self, field: str, num_prompt: int, asked: int | None, default: int | None) -> int:
        """How many tokens may be generated: what was asked for, or at most `default` of what is left.

        Raises ApiError (400, context_length_exceeded) when that does not fit the model's context.
        """
        if num_prompt == 0:
            raise bad_request(f"{field}: it has no tokens; at least one is needed", field, "empty_prompt")
        left = self.max_model_len - num_prompt
        if left < 1:
            message = f"{field}: {num_prompt} tokens leave no room for an answer"
            raise self._too_long(message, field, num_prompt)
        if asked is not None and asked > left:
            message = f"max_tokens: {asked} after a prompt of {num_prompt} tokens is too many"
            raise self._too_long(message, "max_tokens", num_prompt)
        if asked is not None:
            return asked
        return left if default is None else min(default, left)

    def _too_long(self, message: str, field: str, num_prompt: int) -> ApiError:
        message += f"; the model's context is {self.max_model_len} tokens"
        return context_length_exceeded(message, field, num_prompt, self.max_model_len)
