"""Bodies made to keep a server busy: what is refused is refused at once, in few words."""

import json

import pytest

from server.errors import ApiError
from server.limits import MAX_ENTRIES, Limits
from server.schema.chat import ChatRequest
from server.schema.completion import CompletionRequest
from server.schema.parse import RequestModel, parse
from server.schema.tokens import DetokenizeRequest

MANY = 20_000


def refusal(model: type[RequestModel], **fields: object) -> ApiError:
    with pytest.raises(ApiError) as refused:
        parse(model, json.dumps(fields).encode())
    assert refused.value.status == 400
    assert len(refused.value.body()) < 500
    return refused.value


@pytest.mark.parametrize(
    ("model", "field", "value"),
    [
        (CompletionRequest, "stop_token_ids", [-1] * MANY),
        (CompletionRequest, "allowed_token_ids", ["a"] * MANY),
        (CompletionRequest, "bad_words", [5] * 100),
        (DetokenizeRequest, "tokens", [-1] * MANY),
        (ChatRequest, "messages", [{}] * 10_000),
        (ChatRequest, "messages", [5] * 10_000),
        (ChatRequest, "tools", [{}] * 1000),
        (ChatRequest, "documents", [{"a": 1}] * MANY),
    ],
)
def test_of_a_list_only_the_first_fault_is_told(
    model: type[RequestModel], field: str, value: list[object]
) -> None:
    needed: dict[str, object] = {"messages": [{"role": "user", "content": "a"}]}
    if model is not ChatRequest:
        needed = {"prompt": "a"} if model is CompletionRequest else {}
    error = refusal(model, **needed | {field: value})
    assert error.param is not None
    assert error.param.startswith(f"{field}[0]")
    assert " more" not in error.message.split("; and ")[-1]


def test_faults_without_number_are_only_counted() -> None:
    error = refusal(CompletionRequest, prompt="a", **{f"f{place}": 1 for place in range(MANY)})
    assert error.message == f"the request has {MANY} faults"
    error = refusal(CompletionRequest, prompt="a", metadata={str(place): 1 for place in range(MANY)})
    assert error.message == f"the request has {MANY} faults"


def test_a_name_without_end_is_not_repeated() -> None:
    assert refusal(CompletionRequest, prompt="a", **{"n" * 100_000: 1}).code == "unknown_field"


@pytest.mark.parametrize(("field", "value"), [("messages", [{"role": "user", "content": "a"}] * 16_385)])
def test_a_conversation_has_an_end(field: str, value: object) -> None:
    assert refusal(ChatRequest, **{field: value}).param == field


def test_a_field_is_not_copied_without_limit() -> None:
    limits = Limits(max_model_len=9, vocab_size=9, max_logprobs=9, max_choices=9, has_priority=False)
    limits.check_entries("logit_bias", MAX_ENTRIES // 64, 64)
    with pytest.raises(ApiError, match="logit_bias: 16385 entries in each of 64 requests"):
        limits.check_entries("logit_bias", MAX_ENTRIES // 64 + 1, 64)
