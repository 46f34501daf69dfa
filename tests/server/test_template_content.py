"""What is read of a chat template before it is used."""

import jinja2
import pytest

from server.text.content import looks_for_none, loops_over_content
from server.text.template import ChatTemplate

CALL = {"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{% for m in messages %}{{ m['content'] }}{% endfor %}", False),
        ("{% for m in messages %}{% for p in m['content'] %}{{ p.text }}{% endfor %}{% endfor %}", True),
        ("{% for m in messages %}{% for p in m.content %}{% endfor %}{% endfor %}", True),
        ("{% set c = messages[0]['content'] %}{% for p in c %}{% endfor %}", True),
        (
            "{% set a = messages[1:] %}{% for m in a %}{% set c = m.content %}"
            "{% for p in c|list %}{% endfor %}{% endfor %}",
            True,
        ),
        (
            "{% for m in messages %}{% for p in m.content | selectattr('type', 'equalto', 'text') %}{{ p }}"
            "{% endfor %}{% endfor %}",
            True,
        ),
        ("{% for m in messages %}{% for line in m.content.split('x') %}{% endfor %}{% endfor %}", False),
        ("{% for m in messages %}{% for t in m.tool_calls %}{{ t.content }}{% endfor %}{% endfor %}", False),
        ("{% for m in messages %}{% if m.content is string %}{{ m.content }}{% endif %}{% endfor %}", False),
    ],
)
def test_finds_out_whether_a_template_wants_parts(source: str, expected: bool) -> None:
    assert loops_over_content(jinja2.Environment().parse(source)) is expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{% for m in messages %}{{ m.content }}{% endfor %}", False),
        ("{% set x = tools is not none %}{% for m in messages %}{{ m.content }}{% endfor %}", False),
        ("{% for m in messages %}{% if m['content'] is none %}x{% endif %}{% endfor %}", True),
        ("{% for m in messages %}{% set c = m.content %}{{ c if c is not none }}{% endfor %}", True),
        ("{% for m in messages %}{% if m.content != None %}x{% endif %}{% endfor %}", True),
    ],
)
def test_a_call_without_words_has_no_content_only_where_a_template_looks_for_none(
    source: str, expected: bool
) -> None:
    assert looks_for_none(jinja2.Environment().parse(source)) is expected
    call = {"role": "assistant", "tool_calls": [CALL]}
    assert (
        "None" in ChatTemplate({"default": source + "{{ messages[0].content }}"}, {}).render([call])
    ) is expected
