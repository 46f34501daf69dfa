"""Chat templates: as transformers renders them, and what is refused."""

import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from engine.checkpoint import open_checkpoint
from server.text.errors import ModelTextError, TextError
from server.text.load import load_template, load_tokenizer
from server.text.template import ChatTemplate

REFERENCES = json.loads((Path(__file__).parents[1] / "data" / "smollm2_refs.json").read_text("utf-8"))[
    "items"
]
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
PLAIN = "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{{ eos_token }}{% endfor %}"
PARTS = """{{ bos_token }}
{%- for message in messages %}
    {{- '<' + message.role + '>' }}
    {%- for part in message['content'] %}
        {%- if part.type == 'text' %}{{ part.text | trim }}{% endif %}
    {%- endfor %}
{%- endfor %}
{%- if add_generation_prompt %}<assistant>{% endif %}
"""
EVERYTHING = """{{- bos_token }}
{%- if tools %}
    {{- 'Tools:' }}
    {%- for tool in tools %}
{{ tool | tojson(indent=2) }}
    {%- endfor %}
{%- endif %}
{%- set ns = namespace(users=0) %}
{%- for message in messages %}
    {%- if message.role == 'skip' %}{% continue %}{% endif %}
    {%- if message.role == 'user' %}{% set ns.users = ns.users + 1 %}{% endif %}
    {%- if message.role == 'stop' %}{% break %}{% endif %}
    {%- if message.tool_calls is defined %}
        {%- for call in message.tool_calls %}
            {{- '<call>' + call.function.name + ':' + (call.function.arguments | tojson) + '</call>' }}
        {%- endfor %}
    {%- elif message.role == 'assistant' %}
        {%- generation %}{{ message.content | trim }}{{ eos_token }}{% endgeneration %}
    {%- else %}
        {{- '<' + message.role + '>' + message.content + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- for document in documents or [] %}({{ document.title }}: {{ document.text }}){% endfor %}
{{- ns.users }}
{%- if thinking is defined and thinking %}<think>{% endif %}
{%- if add_generation_prompt %}<assistant>{% endif %}
"""
CHAT = [
    {"role": "system", "content": "Be <brief> & 'kind'."},
    {"role": "user", "content": "  What is 日本語?\n"},
    {"role": "skip", "content": "nothing"},
    {"role": "assistant", "content": " A language. \n"},
    {"role": "user", "content": "Und sonst?"},
]
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"q": "<é>", "n": [1, 2]}}}]
CALL = {"id": "1", "type": "function", "function": {"name": "look", "arguments": '{"q": "a<b", "n": 1}'}}


def _template(source: str, **more: Any) -> ChatTemplate:
    return ChatTemplate({"default": source}, TOKENS, **more)


def _by_transformers(source: str, chat: list[dict[str, Any]], **names: Any) -> str:
    rendered, _ = render_jinja_template([chat], chat_template=source, **TOKENS, **names)
    return str(rendered[0])


def test_the_bundled_models_chats_are_the_references() -> None:
    checkpoint = open_checkpoint("")
    tokenizer = load_tokenizer(checkpoint)
    template = load_template(checkpoint, tokenizer)
    chats = [item for item in REFERENCES if item["messages"] is not None]
    assert len(chats) == 8
    for item in chats:
        text = template.render(item["messages"])
        assert text == item["prompt_text"]
        assert tokenizer.encode(text, add_special_tokens=False) == item["prompt_ids"]


@pytest.mark.parametrize(
    "names", [{}, {"tools": TOOLS}, {"documents": [{"title": "t", "text": "x"}]}], ids=str
)
@pytest.mark.parametrize("add_generation_prompt", [True, False])
def test_renders_as_transformers_does(names: dict[str, Any], add_generation_prompt: bool) -> None:
    ours = _template(EVERYTHING).render(CHAT, add_generation_prompt=add_generation_prompt, **names)
    assert ours == _by_transformers(EVERYTHING, CHAT, add_generation_prompt=add_generation_prompt, **names)


def test_names_of_the_request_reach_the_template() -> None:
    template = _template(EVERYTHING)
    assert template.render(CHAT, template_kwargs={"thinking": True}).endswith("<think><assistant>")
    assert not template.render(CHAT, template_kwargs={"thinking": False}).endswith("<think><assistant>")
    assert template.render(CHAT, template_kwargs={"eos_token": "!"}) != template.render(CHAT)
    with pytest.raises(TextError, match="chat_template_kwargs: 'messages' has a field of its own"):
        template.render(CHAT, template_kwargs={"messages": []})


@pytest.mark.parametrize(
    "source", [PLAIN, EVERYTHING, "{% for m in messages %}{{ m.content | trim }}|{% endfor %}"]
)
@pytest.mark.parametrize("final", ["Well, ", "Well,", "A\n\n"])
def test_continues_the_final_message_as_transformers_does(source: str, final: str) -> None:
    chat = [CHAT[1], {"role": "assistant", "content": final}]
    ours = _template(source).render(chat, add_generation_prompt=False, continue_final_message=True)
    assert ours == _by_transformers(source, chat, add_generation_prompt=False, continue_final_message=True)
    assert chat[-1]["content"] == final


def test_continuing_needs_a_text_to_continue() -> None:
    template = _template(PLAIN)
    with pytest.raises(TextError, match="goes with add_generation_prompt: false only"):
        template.render(CHAT, continue_final_message=True)
    with pytest.raises(TextError, match="no text to continue"):
        template.render(
            [{"role": "assistant", "content": None}], add_generation_prompt=False, continue_final_message=True
        )
    with pytest.raises(TextError, match="leaves out the final message"):
        _template("nothing").render(CHAT, add_generation_prompt=False, continue_final_message=True)


def test_content_is_text_or_parts_as_the_template_wants_it() -> None:
    as_text = [{"role": "user", "content": "one\ntwo"}]
    as_parts = [
        {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]}
    ]
    assert _template(PLAIN).render(as_parts) == _template(PLAIN).render(as_text) == "[user]one\ntwo</s>"
    assert _template(PARTS).render(as_text) == "<s><user>one\ntwo<assistant>"
    assert _template(PARTS).render(as_parts) == "<s><user>onetwo<assistant>"
    ours = _template(PARTS).render(as_parts, add_generation_prompt=False, continue_final_message=True)
    assert ours == "<s><user>onetwo"


def test_arguments_of_tool_calls_become_objects() -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    chat: list[dict[str, Any]] = [call, {"role": "tool", "content": "42"}]
    text = _template(EVERYTHING).render(chat)
    assert '<call>look:{"q": "a<b", "n": 1}</call>' in text and "<tool>42" in text
    parsed = json.loads(json.dumps(chat))
    parsed[0]["tool_calls"][0]["function"]["arguments"] = {"q": "a<b", "n": 1}
    assert text == _template(EVERYTHING).render(parsed)
    assert CALL["function"] == {"name": "look", "arguments": '{"q": "a<b", "n": 1}'}


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (
            {"role": "user", "content": 5},
            r"messages\[1\]\.content is of type int; accepted: a string or a list",
        ),
        ({"role": "user", "content": ["a"]}, r"messages\[1\]\.content\[0\] is not a content part"),
        ({"role": "user", "content": [{"type": "text"}]}, r"messages\[1\]\.content\[0\]\.text is missing"),
        (
            {
                "role": "user",
                "content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {}}],
            },
            r"messages\[1\]\.content\[1\]\.type: 'image_url' is not supported.*accepted: 'text'",
        ),
        (
            {"role": "assistant", "tool_calls": [{"id": "1"}]},
            r"messages\[1\]\.tool_calls\[0\] has no function",
        ),
        (
            {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]},
            r"messages\[1\]\.tool_calls\[0\]\.function\.arguments is not JSON",
        ),
        (
            {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "[1]"}}]},
            r"messages\[1\]\.tool_calls\[0\]\.function\.arguments is JSON but no object",
        ),
        ({"role": "user", "content": None}, r"chat template refuses them: TypeError"),
        ({"role": "user"}, r"chat template refuses them: 'dict object' has no attribute 'content'"),
    ],
)
def test_messages_that_cannot_be_rendered_are_named(message: dict[str, Any], error: str) -> None:
    source = "{% for m in messages %}{{ '[' + m.role + ']' + m.content }}{% endfor %}"
    with pytest.raises(TextError, match=error) as caught:
        _template(source).render([CHAT[0], message])
    assert caught.value.field == "messages"


def test_no_messages_and_no_template() -> None:
    with pytest.raises(TextError, match="the list is empty"):
        _template(PLAIN).render([])
    with pytest.raises(TextError, match="the model has no chat template"):
        ChatTemplate({}, TOKENS).render(CHAT)


def test_what_a_template_refuses_is_the_requests_error() -> None:
    with pytest.raises(TextError, match="refuses them: only users, please"):
        _template("{{ raise_exception('only users, please') }}").render(CHAT)
    with pytest.raises(TextError) as caught:
        _template("{{ raise_exception(messages[0].content) }}").render(
            [{"role": "user", "content": "\ud800" * 9_999}]
        )
    assert str(caught.value).endswith(": " + "?" * 500)


def test_a_template_for_tools_is_taken_when_there_are_some() -> None:
    template = ChatTemplate({"default": "plain", "tool_use": "tools", "rag": "{% never compiled"}, TOKENS)
    assert template.render(CHAT) == "plain"
    assert template.render(CHAT, tools=[]) == "plain"
    assert template.render(CHAT, tools=TOOLS) == "tools"


def test_the_day_comes_from_the_clock() -> None:
    day = datetime(2026, 2, 3)
    assert _template("{{ strftime_now('%d %b %Y') }}", now=lambda: day).render(CHAT) == "03 Feb 2026"


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ raise_exception.__globals__.x }}",
        "{% for m in messages %}{{ m.update({'role': 'x'}) }}{% endfor %}",
    ],
)
def test_templates_are_kept_in_a_sandbox(source: str) -> None:
    with pytest.raises(TextError, match="unsafe"):
        _template(source).render(CHAT)


def test_size_and_time_are_bounded() -> None:
    loop = "{% for i in range(99999) %}{% for j in range(99999) %}0123456789{% endfor %}{% endfor %}"
    with pytest.raises(TextError, match="becomes longer than 1000 characters"):
        _template(loop, max_chars=1_000).render(CHAT)
    with pytest.raises(TextError, match=r"takes longer than 0\.05 s"):
        _template(loop, max_seconds=0.05).render(CHAT)


def test_a_template_that_is_not_jinja_is_found_at_the_start() -> None:
    with pytest.raises(ModelTextError, match="chat template 'default', line 2"):
        _template("fine\n{% for %}")


def test_a_padding_id_beyond_the_vocabulary_has_no_text() -> None:
    checkpoint = open_checkpoint("")
    tokenizer = load_tokenizer(checkpoint)
    special = replace(checkpoint.special, pad_id=tokenizer.vocab_size)
    templates = {"default": "own {{ bos_token }} {{ pad_token is defined }}"}
    template = load_template(replace(checkpoint, special=special, chat_templates=templates), tokenizer)
    assert template.render(CHAT) == "own <|im_start|> False"


def test_the_operators_template_comes_first(tmp_path: Path) -> None:
    checkpoint = replace(
        open_checkpoint(""), chat_templates={"default": "own {{ bos_token }} {{ pad_token }}"}
    )
    tokenizer = load_tokenizer(checkpoint)
    assert load_template(checkpoint, tokenizer).render(CHAT) == "own <|im_start|> <|im_end|>"
    (tmp_path / "mine.jinja").write_text("mine {{ eos_token }}", "utf-8")
    assert (
        load_template(checkpoint, tokenizer, str(tmp_path / "mine.jinja")).render(CHAT) == "mine <|im_end|>"
    )
    with pytest.raises(ModelTextError, match=r"absent\.jinja' cannot be read"):
        load_template(checkpoint, tokenizer, str(tmp_path / "absent.jinja"))
