"""The messages of a chat. Their structure is checked here; what they mean is up to the model's template."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from server.schema.fields import FieldError, MessageContent
from server.schema.parse import RequestModel

MAX_MESSAGES = 16384
MAX_TOOLS = 1024


class FunctionCall(RequestModel):
    name: str
    arguments: str


class ToolCall(RequestModel):
    """A call the assistant made earlier."""

    id: str
    type: Literal["function"] = "function"
    function: FunctionCall
    index: int | None = None


class Message(RequestModel):
    """One turn. `content` is text or parts; which parts a model takes is checked where they are rendered."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: MessageContent | None = None
    name: str | None = None
    tool_calls: Annotated[list[ToolCall], Field(fail_fast=True)] | None = None
    tool_call_id: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    annotations: list[object] | None = None
    audio: None = None
    function_call: None = None

    @model_validator(mode="after")
    def check(self) -> "Message":
        if self.content is None and not (self.role == "assistant" and self.tool_calls):
            raise FieldError("content", f"is required in a message of role {self.role}")
        if self.tool_calls is not None and self.role != "assistant":
            raise FieldError("tool_calls", f"belong to the role assistant, not {self.role}")
        if self.tool_call_id is not None and self.role != "tool":
            raise FieldError("tool_call_id", f"belongs to the role tool, not {self.role}")
        return self

    def rendered(self) -> dict[str, object]:
        """What a template reads. A developer's message is a system message by another name."""
        fields: dict[str, object] = self.model_dump(
            exclude_unset=True, exclude={"annotations", "audio", "function_call", "refusal"}
        )
        fields["role"] = "system" if self.role == "developer" else self.role
        return fields


class Function(RequestModel):
    name: Annotated[str, Field(min_length=1)]
    description: str | None = None
    parameters: dict[str, object] | None = None
    strict: bool | None = None


class Tool(RequestModel):
    type: Literal["function"]
    function: Function


Messages = Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)]
Tools = Annotated[list[Tool], Field(min_length=1, max_length=MAX_TOOLS, fail_fast=True)]
