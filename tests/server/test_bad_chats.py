"""Conversations, and texts to tokenize, that are wrong in every way."""

import pytest

from tests.server.bad_request import BIG, CALL, CHAT, HI, TOOL, check_error
from tests.server.scripted import Api


def turn(**fields: object) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": "Hi"} | fields]}


def say(content: object) -> dict[str, object]:
    return turn(content=content)


CHAT_BODIES: list[tuple[dict[str, object], str]] = [
    ({}, "messages"),
    ({"messages": []}, "messages"),
    ({"messages": "Hi"}, "messages"),
    ({"messages": {}}, "messages"),
    ({"messages": ["Hi"]}, "messages[0]"),
    ({"messages": [{}]}, "messages[0].role"),
    ({"messages": [{"role": "user"}]}, "messages[0].content"),
    (turn(role="robot"), "messages[0].role"),
    (turn(role=None), "messages[0].role"),
    (turn(mood="good"), "messages[0].mood"),
    (turn(name=5), "messages[0].name"),
    (turn(tool_calls=[CALL]), "messages[0].tool_calls"),
    (turn(tool_call_id="1"), "messages[0].tool_call_id"),
    (turn(role="assistant", content=None), "messages[0].content"),
    (turn(role="assistant", tool_calls=[{}]), "messages[0].tool_calls[0].id"),
    (turn(role="assistant", tool_calls=[CALL | {"type": "custom"}]), "messages[0].tool_calls[0].type"),
    (
        turn(role="assistant", tool_calls=[CALL | {"function": {"name": "f", "arguments": {}}}]),
        "messages[0].tool_calls[0].function.arguments",
    ),
    (turn(role="assistant", tool_calls=[CALL | {"function": {"name": "f", "arguments": "{"}}]), "messages"),
    (turn(role="assistant", audio={"id": "1"}), "messages[0].audio"),
    (say(None), "messages[0].content"),
    (say(5), "messages[0].content"),
    (say(["Hi"]), "messages[0].content"),
    (say([{"type": "text"}]), "messages"),
    (say([{"type": "text", "text": 5}]), "messages"),
    (say([{"type": "image_url", "image_url": {"url": "data:"}}]), "messages"),
    (say([{"type": "input_audio", "input_audio": {}}]), "messages"),
    (say([{"text": "Hi"}]), "messages"),
    (say("word " * 300), "messages"),
    ({"messages": HI, "prompt": "a"}, "prompt"),
    ({"messages": HI, "max_tokens": 0}, "max_tokens"),
    ({"messages": HI, "max_tokens": 256}, "max_tokens"),
    ({"messages": HI, "max_completion_tokens": 0}, "max_completion_tokens"),
    ({"messages": HI, "max_completion_tokens": -5}, "max_completion_tokens"),
    ({"messages": HI, "logprobs": 5}, "logprobs"),
    ({"messages": HI, "top_logprobs": 5}, "top_logprobs"),
    ({"messages": HI, "logprobs": False, "top_logprobs": 5}, "top_logprobs"),
    ({"messages": HI, "logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"messages": HI, "logprobs": True, "top_logprobs": -1}, "top_logprobs"),
    ({"messages": HI * 1200, "max_tokens": 5}, "messages"),
    ({"messages": HI, "tools": []}, "tools"),
    ({"messages": HI, "tools": [{}]}, "tools[0].type"),
    ({"messages": HI, "tools": [{"type": "function"}]}, "tools[0].function"),
    ({"messages": HI, "tools": [{"type": "function", "function": {"name": ""}}]}, "tools[0].function.name"),
    ({"messages": HI, "tools": [TOOL]}, "tools"),
    ({"messages": HI, "tools": [TOOL], "tool_choice": "required"}, "tool_choice"),
    ({"messages": HI, "tools": [TOOL], "tool_choice": TOOL}, "tool_choice"),
    ({"messages": HI, "tool_choice": "auto"}, "tool_choice"),
    ({"messages": HI, "tool_choice": "sometimes"}, "tool_choice"),
    ({"messages": HI, "functions": [{"name": "f"}]}, "functions"),
    ({"messages": HI, "modalities": ["text", "audio"]}, "modalities"),
    ({"messages": HI, "audio": {"voice": "x"}}, "audio"),
    ({"messages": HI, "reasoning_effort": "high"}, "reasoning_effort"),
    ({"messages": HI, "chat_template": "{{ 1 }}"}, "chat_template"),
    ({"messages": HI, "chat_template_kwargs": []}, "chat_template_kwargs"),
    ({"messages": HI, "chat_template_kwargs": {"messages": []}}, "chat_template_kwargs"),
    ({"messages": HI, "documents": [{"text": "a"}]}, "documents"),
    (
        {"messages": HI, "continue_final_message": True, "add_generation_prompt": True},
        "continue_final_message",
    ),
]


@pytest.mark.parametrize(("body", "param"), CHAT_BODIES, ids=lambda value: str(value)[:60])
def test_a_chat(api: Api, body: dict[str, object], param: str) -> None:
    error = check_error(api.client.post(CHAT, json=body), 400)
    assert error["param"] == param
    assert not api.engine.submits


TOKEN_BODIES: list[tuple[str, dict[str, object], str]] = [
    ("/tokenize", {}, "prompt"),
    ("/tokenize", {"prompt": "a", "messages": HI}, "prompt"),
    ("/tokenize", {"prompt": ["a"]}, "prompt"),
    ("/tokenize", {"prompt": "a", "tools": [TOOL]}, "tools"),
    ("/tokenize", {"prompt": "a", "max_tokens": 5}, "max_tokens"),
    ("/tokenize", {"messages": []}, "messages"),
    ("/tokenize", {"messages": HI, "tools": [TOOL]}, "tools"),
    ("/detokenize", {}, "tokens"),
    ("/detokenize", {"tokens": "a"}, "tokens"),
    ("/detokenize", {"tokens": [-1]}, "tokens[0]"),
    ("/detokenize", {"tokens": [1.5]}, "tokens[0]"),
    ("/detokenize", {"tokens": [49152]}, "tokens"),
    ("/detokenize", {"tokens": [BIG]}, "tokens"),
    ("/detokenize", {"prompt": "a", "tokens": [1]}, "prompt"),
]


@pytest.mark.parametrize(("path", "body", "param"), TOKEN_BODIES, ids=lambda value: str(value)[:60])
def test_tokens(api: Api, path: str, body: dict[str, object], param: str) -> None:
    assert check_error(api.client.post(path, json=body), 400)["param"] == param
