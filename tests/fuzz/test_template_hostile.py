"""Chat templates from somebody who means no good: refused at the start, or ended in time and within bounds on what they make."""

import time
from pathlib import Path

import pytest

from engine.checkpoint import open_checkpoint
from server.text.errors import ModelTextError, TextError
from server.text.load import load_template, load_tokenizer
from server.text.template import ChatTemplate
from server.text.template_limits import TooSlow
from tests.fuzz.raw_folder import put

CHAT = [{"role": "user", "content": "Hi"}]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{% if", "line 1: unexpected 'end of template'"),
        ("{% for a in [1] %}" * 30 + "{% endfor %}" * 30, "too many statically nested blocks"),
        ("{{ " + "(" * 10_000 + "1" + ")" * 10_000 + " }}", "RecursionError"),
        ("{% if 1 %}" * 500 + "{% endif %}" * 500, "RecursionError"),
        ("{{ 1 }}" * 100_000, "has 700000 characters"),
        ("{{ " + "9" * 5000 + " }}", "ValueError"),
        ("{{ 'a'|no_such_filter }}", "No filter named 'no_such_filter'"),
    ],
)
def test_a_template_that_cannot_be_compiled_is_refused(source: str, message: str, tmp_path: Path) -> None:
    (put(tmp_path) / "chat_template.jinja").write_text(source)
    checkpoint = open_checkpoint(str(tmp_path))
    with pytest.raises(ModelTextError, match=message):
        load_template(checkpoint, load_tokenizer(checkpoint))


SHARED = "{% set ns = namespace(x=[0]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}"  # 2**60 items
LARGE = [
    "{{ 'x'|center(10 ** 10) }}",  # also where it could be computed when it is compiled
    "{{ 'x'.center(10 ** 9)|length }}",
    "{{ ('x'|safe).center(10 ** 9)|length }}",
    "{{ 'x'.encode().ljust(10 ** 9)|length }}",
    "{{ 'x'.zfill(10 ** 9)|length }}",
    "{{ '\\t'.expandtabs(10 ** 9)|length }}",
    "{{ (1).to_bytes(10 ** 10, 'big')|length }}",
    "{{ ('a' * 10 ** 6).replace('a', 'b' * 10 ** 6)|length }}",
    "{{ ('a' * 10 ** 6)|replace('a', 'b' * 10 ** 6)|length }}",
    "{{ (['a' * 10 ** 6] * 10 ** 6)|join|length }}",
    "{{ ('a' * 10 ** 6).join('b' * 10 ** 6)|length }}",
    "{{ '{:>1000000000}'.format(1)|length }}",
    "{{ '{:{}}'.format(1, 10 ** 9)|length }}",
    "{{ '%1000000000d'|format(1)|length }}",
    "{{ ('a\\n' * 10 ** 5)|indent(10 ** 6)|length }}",
    "{{ ('a ' * 10 ** 5)|wordwrap(1, true, 'x' * 10 ** 6)|length }}",
    "{{ [1]|batch(10 ** 9, 0)|list|length }}",
    "{{ [1]|slice(10 ** 9)|list|length }}",
    "{{ [1]|tojson(indent=10 ** 9)|length }}",
    "{{ ([[1] * 10 ** 6] * 1000)|sum(start=[])|length }}",
    SHARED + "{{ ns.x }}",
    SHARED + "{{ ns.x|tojson|length }}",
    SHARED + "{{ ('' ~ ns.x)|length }}",
    SHARED + "{{ '{}'.format(ns.x)|length }}",
    SHARED + "{{ ('%s' % ns.x)|length }}",
]
LONG = [
    "{{ ([range(99999)] * 99999)|map('list')|map('length')|sum }}",
    "{{ ([range(99999)] * 9999)|map('sort')|map('length')|sum }}",
    "{% set l = range(99999)|list %}{{ range(99999)|select('in', l)|list|length }}",
    "".join(
        f"{{% block b{i} %}}{{{{ self.b{i + 1}() }}}}{{{{ self.b{i + 1}() }}}}{{% endblock %}}"
        for i in range(60)
    )
    + "{% block b60 %}{% endblock %}",
]


@pytest.mark.parametrize("source", LARGE)
def test_one_operation_cannot_make_much_of_little(source: str) -> None:
    began = time.process_time()
    with pytest.raises(TextError, match="in the chat template makes something longer than"):
        ChatTemplate({"default": source}, {}, max_seconds=20).render(CHAT)
    assert time.process_time() - began < 4


@pytest.mark.parametrize("source", LONG)
def test_what_filters_and_blocks_repeat_is_ended_in_time(source: str) -> None:
    began = time.process_time()
    with pytest.raises(TooSlow):
        ChatTemplate({"default": source}, {}, max_seconds=0.2).render(CHAT)
    assert time.process_time() - began < 2


def test_the_clock_cannot_be_taken_away() -> None:
    source = "{% set _clock = 1 %}{% block b scoped %}{{ 'x'|upper }}{% endblock %}"
    with pytest.raises(TextError, match="_clock is no name for a template's own value"):
        ChatTemplate({"default": source}, {}).render(CHAT)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ messages|map(attribute='role')|join(', ') }}", "user"),
        ("{{ messages|tojson(indent=2)|length > 20 }}", "True"),
        ("{{ 'a'.center(5) ~ 'b'|center(3) ~ 'x'.ljust(2) }}", "  a   b x "),
        ("{{ '{:>4}|{}'.format(1, [2]) ~ '%5.2f' % 1.5 ~ '%s'|format(3) }}", "   1|[2] 1.503"),
        ("{{ 'a-b'.split('-')|reverse|join('+') ~ 'aXa'.replace('X', '.') }}", "b+aa.a"),
        ("{{ [3, 1, 2]|sort|batch(2)|map('list')|list }}", "[[1, 2], [3]]"),
        ("{{ [1, 2]|sum ~ [{'a': 4}]|sum(attribute='a') ~ (2)|string }}", "342"),
        ("{{ ['b', 'a']|map('upper')|select('equalto', 'A')|list|length }}", "1"),
        ("{{ 'line\\nline'|indent(2) ~ '\\t'.expandtabs(2) }}", "line\n  line  "),
    ],
)
def test_filters_and_methods_mean_what_they_did(source: str, text: str) -> None:
    assert ChatTemplate({"default": source}, {}).render(CHAT) == text
