"""POST /v1/chat/completions, answered in one piece."""

from typing import Any

import pytest

from tests.server.scripted import MAX_MODEL_LEN, Api

HI = [{"role": "user", "content": "Hi"}]


def chat(api: Api, **fields: object) -> dict[str, Any]:
    response = api.client.post("/v1/chat/completions", json={"messages": HI} | fields)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def prompt_text(api: Api) -> str:
    return api.tokenizer.decode(api.engine.submits[-1].prompt, skip_special_tokens=False)


def test_an_answer(api: Api) -> None:
    api.engine.script.num_cached = 5
    answer = chat(api)
    assert answer["object"] == "chat.completion"
    assert answer["id"].startswith("chatcmpl-")
    assert answer["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello, wide world.", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
            "stop_reason": None,
        }
    ]
    assert answer["usage"]["prompt_tokens_details"] == {"cached_tokens": 5}
    assert prompt_text(api).endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")


def test_by_default_all_the_room_left_may_be_used(api: Api) -> None:
    num_prompt = chat(api)["usage"]["prompt_tokens"]
    assert api.engine.submits[-1].sampling.max_tokens == MAX_MODEL_LEN - num_prompt
    chat(api, max_tokens=9)
    assert api.engine.submits[-1].sampling.max_tokens == 9
    chat(api, max_tokens=9, max_completion_tokens=5)
    assert api.engine.submits[-1].sampling.max_tokens == 5


def test_content_parts_are_text(api: Api) -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    chat(api, messages=[{"role": "user", "content": parts}])
    assert "user\none\ntwo<|im_end|>" in prompt_text(api)


def test_a_developer_speaks_as_the_system(api: Api) -> None:
    chat(api, messages=[{"role": "developer", "content": "Be brief."}, *HI])
    assert "<|im_start|>system\nBe brief.<|im_end|>" in prompt_text(api)


def test_tool_messages_pass_through_the_template(api: Api) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    turns = [
        *HI,
        {"role": "assistant", "content": "calling", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "it is 7"},
    ]
    chat(api, messages=turns)
    assert "<|im_start|>tool\nit is 7<|im_end|>" in prompt_text(api)


def test_a_call_without_words_needs_no_content(api: Api) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    turn = {"role": "assistant", "tool_calls": [call]}
    for calling in (turn, turn | {"content": None}, turn | {"content": ""}):
        chat(api, messages=[*HI, calling, {"role": "tool", "tool_call_id": "1", "content": "7"}])
        assert "<|im_start|>assistant\n<|im_end|>\n<|im_start|>tool\n7<|im_end|>" in prompt_text(api)


def test_tools_are_refused_where_the_template_leaves_them_out(api: Api) -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    response = api.client.post("/v1/chat/completions", json={"messages": HI, "tools": tools})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "tools"


def test_a_final_message_is_continued(api: Api) -> None:
    turns = [*HI, {"role": "assistant", "content": "Well, I"}]
    answer = chat(api, messages=turns, continue_final_message=True, echo=True)
    assert prompt_text(api).endswith("<|im_start|>assistant\nWell, I")
    assert answer["choices"][0]["message"]["content"] == "Well, IHello, wide world."


def test_no_generation_prompt(api: Api) -> None:
    chat(api, add_generation_prompt=False)
    assert prompt_text(api).endswith("Hi<|im_end|>\n")


def test_n_choices(api: Api) -> None:
    answer = chat(api, n=3, seed=1, max_tokens=2)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    num_prompt = len(api.engine.submits[0].prompt)
    assert answer["usage"]["prompt_tokens"] == num_prompt
    assert answer["usage"]["completion_tokens"] == 6


def test_logprobs_with_bytes(api: Api) -> None:
    content = chat(api, logprobs=True, top_logprobs=2, max_tokens=1)["choices"][0]["logprobs"]["content"]
    hello = api.tokenizer.encode("Hello", False)[0]
    second = api.tokenizer.token_bytes(hello + 1)
    assert content == [
        {
            "token": "Hello",
            "logprob": -0.25,
            "bytes": list(b"Hello"),
            "top_logprobs": [
                {"token": "Hello", "logprob": -0.25, "bytes": list(b"Hello")},
                {"token": second.decode(), "logprob": -1.25, "bytes": list(second)},
            ],
        }
    ]


def test_the_bytes_of_a_character_in_several_tokens(api: Api) -> None:
    api.script("\U0001f642")
    content = chat(api, logprobs=True, max_tokens=2)["choices"][0]["logprobs"]["content"]
    assert bytes(byte for entry in content for byte in entry["bytes"]).decode() == "\U0001f642"
    assert [entry["top_logprobs"] for entry in content] == [[], []]


def test_token_ids_and_prompt_logprobs(api: Api) -> None:
    answer = chat(api, return_token_ids=True, prompt_logprobs=0, max_tokens=2)
    assert answer["prompt_token_ids"] == list(api.engine.submits[-1].prompt)
    assert answer["choices"][0]["token_ids"] == api.tokenizer.encode("Hello,", False)
    assert len(answer["prompt_logprobs"]) == len(answer["prompt_token_ids"])
    assert answer["prompt_logprobs"][0] is None


def test_a_conversation_too_long(api: Api) -> None:
    response = api.client.post(
        "/v1/chat/completions", json={"messages": [{"role": "user", "content": "word " * 300}]}
    )
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (400, "context_length_exceeded")
    assert (error["max_model_len"], error["param"]) == (MAX_MODEL_LEN, "messages")


@pytest.mark.parametrize("kwargs", [{"messages": []}, {"tools": []}])
def test_template_arguments_cannot_replace_fields(api: Api, kwargs: dict[str, object]) -> None:
    body = {"messages": HI, "chat_template_kwargs": kwargs}
    response = api.client.post("/v1/chat/completions", json=body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "chat_template_kwargs"
