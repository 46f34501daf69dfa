"""The fields that completions and chat completions share. Null always means the default."""

from typing import Annotated

from pydantic import Field

from server.schema.fields import BadWords, FieldError, LogitBias, RequestId, Seed, Stop, TextFormat, TokenIds
from server.schema.parse import RequestModel

MAX_CHOICES = 16384
MAX_TIMEOUT = 86400.0
INT32_MAX = 2**31 - 1
TIMEOUT = "seconds; when they are over: status 408, or in a stream an error event after what was sent"


class StreamOptions(RequestModel):
    """What a stream tells besides its text."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None
    include_obfuscation: Annotated[bool | None, Field(le=False, description="only false")] = None


class SamplingRequest(RequestModel):
    """How to pick tokens, when to stop, and what to return beside the text."""

    model: str | None = None
    n: Annotated[int | None, Field(ge=1, le=MAX_CHOICES)] = None
    temperature: Annotated[
        float | None, Field(ge=0, le=2, description="0 is greedy; default: the model's own, or 1")
    ] = None
    top_p: Annotated[float | None, Field(gt=0, le=1)] = None
    top_k: Annotated[int | None, Field(ge=-1, le=INT32_MAX, description="0 and -1 are off")] = None
    min_p: Annotated[float | None, Field(ge=0, le=1)] = None
    repetition_penalty: Annotated[float | None, Field(ge=1e-6, le=1e6)] = None
    presence_penalty: Annotated[float | None, Field(ge=-2, le=2)] = None
    frequency_penalty: Annotated[float | None, Field(ge=-2, le=2)] = None
    logit_bias: LogitBias | None = None
    allowed_token_ids: Annotated[TokenIds | None, Field(min_length=1)] = None
    bad_words: BadWords | None = None
    seed: Annotated[Seed | None, Field(description="-1 is a random one")] = None
    min_tokens: Annotated[int | None, Field(ge=0, le=INT32_MAX)] = None
    ignore_eos: bool | None = None
    stop: Stop | None = None
    stop_token_ids: TokenIds | None = None
    include_stop_str_in_output: bool | None = None
    skip_special_tokens: bool | None = None
    add_special_tokens: bool | None = None
    truncate_prompt_tokens: Annotated[int | None, Field(ge=-1, le=INT32_MAX)] = None
    truncation_side: Annotated[str | None, Field(pattern="^(left|right)$")] = None
    prompt_logprobs: Annotated[int | None, Field(ge=0)] = None
    return_tokens_as_token_ids: bool | None = None
    return_token_ids: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    stream_interval: Annotated[int | None, Field(ge=1, description="tokens a chunk")] = None
    timeout: Annotated[float | None, Field(gt=0, le=MAX_TIMEOUT, description=TIMEOUT)] = None
    priority: Annotated[int | None, Field(ge=-INT32_MAX, le=INT32_MAX, description="lower runs sooner")] = (
        None
    )
    cache_salt: Annotated[str | None, Field(min_length=1, max_length=256)] = None
    request_id: RequestId | None = None
    response_format: TextFormat | None = None
    echo: bool | None = None
    user: str | None = None
    session_id: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    metadata: dict[str, str] | None = None

    def check_together(self) -> None:
        """What one field cannot say alone. Raises ValueError."""
        if self.stream_options is not None and not self.stream:
            raise FieldError("stream_options", "only accepted with stream=true")
        if self.prompt_logprobs is not None and self.stream:
            raise FieldError("prompt_logprobs", "not accepted with stream=true")
        if self.truncation_side is not None and self.truncate_prompt_tokens is None:
            raise FieldError("truncation_side", "only accepted with truncate_prompt_tokens")
        if self.truncate_prompt_tokens == 0:
            raise FieldError("truncate_prompt_tokens", "must be -1 (what fits) or at least 1, got 0")
        if self.is_greedy and self.num_choices > 1:
            raise FieldError("n", f"must be 1 when temperature is 0 (all would be equal), got {self.n}")

    @property
    def num_choices(self) -> int:
        return 1 if self.n is None else self.n

    @property
    def is_greedy(self) -> bool:
        """Below 1e-5 a temperature is the greedy limit."""
        return self.temperature is not None and self.temperature < 1e-5
