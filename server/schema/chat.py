"""POST /v1/chat/completions."""

from typing import Annotated

from pydantic import Field, model_validator

from server.schema.fields import FieldError, ToolChoice
from server.schema.message import Messages, Tools
from server.schema.sampling import INT32_MAX, SamplingRequest


class ChatRequest(SamplingRequest):
    """A conversation to answer."""

    messages: Messages
    max_tokens: Annotated[int | None, Field(ge=1, le=INT32_MAX)] = None
    max_completion_tokens: Annotated[
        int | None, Field(ge=1, le=INT32_MAX, description="wins over max_tokens")
    ] = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int | None, Field(ge=0)] = None
    tools: Tools | None = None
    tool_choice: ToolChoice | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    documents: Annotated[list[dict[str, str]], Field(fail_fast=True)] | None = None
    chat_template_kwargs: dict[str, object] | None = None

    @model_validator(mode="after")
    def check(self) -> "ChatRequest":
        self.check_together()
        if self.top_logprobs is not None and not self.logprobs:
            raise FieldError("top_logprobs", "only accepted with logprobs=true")
        if self.continue_final_message and self.add_generation_prompt:
            raise FieldError(
                "continue_final_message", "not accepted together with add_generation_prompt=true"
            )
        if self.tool_choice == "auto" and not self.tools:
            raise FieldError("tool_choice", "auto is only accepted with tools")
        return self

    @property
    def limit(self) -> int | None:
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def opens_answer(self) -> bool:
        """Whether the template adds the head of the assistant's turn."""
        return not self.continue_final_message and self.add_generation_prompt is not False
