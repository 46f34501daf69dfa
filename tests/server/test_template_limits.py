"""Templates that would compute for ever are ended in time, and nobody waits for them."""

import asyncio
import time
from typing import Any

import pytest

from server.text.errors import TextError
from server.text.template import ChatTemplate
from server.text.template_limits import TooSlow
from tests.server.scripted import Api, complete, serve_api

CHAT: list[dict[str, Any]] = [{"role": "user", "content": "Hi"}]
BUSY = "{% for i in range(99999) %}{% for j in range(99999) %}{% set x = i * j %}{% endfor %}{% endfor %}"


def template(source: str, max_seconds: float = 0.2) -> ChatTemplate:
    return ChatTemplate({"default": source}, {}, max_seconds=max_seconds)


@pytest.mark.parametrize(
    "source",
    [
        BUSY,
        "{% for i in range(99999) %}{% for j in range(99999) if false %}{% endfor %}{% endfor %}",
        "{% macro f(n) %}{% if n %}{% set _ = f(n - 1) %}{% set _ = f(n - 1) %}{% endif %}{% endmacro %}{{ f(60) }}",
        "{% macro often() %}{% for i in range(99999) %}{{ caller() }}{% endfor %}{% endmacro %}"
        "{% call often() %}{% for j in range(99999) %}{% set x = j %}{% endfor %}{% endcall %}",
        "{% set tick = 1 %}{% set _clock = 1 %}{% set context = 1 %}" + BUSY,
    ],
    ids=["loops", "a filtered loop", "macros", "a call block", "names taken"],
)
def test_what_writes_nothing_is_ended_in_time(source: str) -> None:
    began = time.monotonic()
    with pytest.raises(TooSlow, match=r"takes longer than 0\.2 s"):
        template(source).render(CHAT)
    assert time.monotonic() - began < 1.0


def test_a_request_cannot_bring_a_clock_of_its_own() -> None:
    with pytest.raises(TooSlow):
        template(BUSY).render(CHAT, template_kwargs={"_clock": "later"})


def test_callers_may_have_less_patience() -> None:
    began = time.monotonic()
    with pytest.raises(TooSlow, match=r"0\.01 s"):
        template(BUSY, max_seconds=60).render(CHAT, max_seconds=0.01)
    assert time.monotonic() - began < 0.5


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'a' * 10 ** 9 }}",
        "{{ 10 ** 9 * 'a' }}",
        "{{ [0] * 10 ** 9 }}",
        "{{ 10 ** (10 ** 9) }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '%*d' % (10 ** 9, 1) }}",
        "{% set ns = namespace(x='a') %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{% set ns = namespace(x='a') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "{% set ns = namespace(x=[0]) %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{% set ns = namespace(x=9) %}{% for i in range(99) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
    ],
)
def test_one_operation_cannot_take_all_memory(source: str) -> None:
    began = time.process_time()
    with pytest.raises(TextError, match="in the chat template makes something longer than"):
        template(source, 20.0).render(CHAT)
    assert time.process_time() - began < 2.0


def test_ordinary_templates_mean_what_they_did() -> None:
    source = (
        "{% macro role(m) %}[{{ m.role }}]{% endmacro %}"
        "{% for m in messages if m.role != 'tool' %}"
        "{{ role(m) ~ ' ' ~ loop.index ~ none ~ 1.5 }}{{ '=' * 3 + '%s' % 2 }}{{ 2 ** 3 * 4 % 5 }}"
        "{% else %}nobody{% endfor %}"
    )
    assert template(source).render(CHAT) == "[user] 1None1.5===22"
    assert template(source).render([{"role": "tool", "content": "x"}]) == "nobody"


def test_the_others_do_not_wait() -> None:
    """A slow template is rendered in a thread: streams go on meanwhile."""

    async def run(api: Api) -> None:
        loop = asyncio.get_running_loop()
        slow = loop.run_in_executor(
            None,
            lambda: api.client.post("/v1/chat/completions", json={"messages": CHAT}),
        )
        longest = 0.0
        while not slow.done():
            began = time.monotonic()
            await loop.run_in_executor(None, lambda: complete(api, max_tokens=2))
            longest = max(longest, time.monotonic() - began)
        response = await slow
        assert response.status_code == 400 and "takes longer than 1 s" in response.text
        assert longest < 0.5

    with serve_api(template=template(BUSY, 1.0)) as api:
        asyncio.run(run(api))
