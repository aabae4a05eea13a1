"""What a template renders is what transformers renders, where transformers is installed."""

import pytest
from chat_shapes import CONVERSATIONS, SHAPES, TOOL

from llamalite.errors import TemplateError
from llamalite.text.chat_template import ChatTemplate
from llamalite.text.templates import TEMPLATE_NAMES, named_template

reference = pytest.importorskip(
    "transformers.utils.chat_template_utils",
    reason="transformers is not installed, so there is nothing to compare with",
)
VARIATIONS = {
    "plain": {},
    "no prompt": {"add_generation_prompt": False},
    "tools": {"tools": [TOOL, TOOL]},
    "no tools": {"tools": []},
    "documents": {"documents": [{"title": "a", "text": "long\ntext " * 9}]},
    "variables": {"enable_thinking": False, "date_string": "1 Jan 2030", "bos_token": "<x>"},
}


def by_transformers(source: str, messages: list, **options: object) -> str | None:
    """Render as `apply_chat_template` does; None stands for any error."""
    present = [{key: value for key, value in m.items() if value is not None} for m in messages]
    options = {"bos_token": "<s>", "eos_token": "</s>", "add_generation_prompt": True, **options}
    try:
        rendered, _ = reference.render_jinja_template([present], chat_template=source, **options)
    except Exception:
        return None
    return rendered[0]


def by_llamalite(source: str, messages: list, **options: object) -> str | None:
    try:
        return ChatTemplate(source, "<s>", "</s>").render(messages, **options)
    except TemplateError:
        return None


@pytest.mark.parametrize("variation", VARIATIONS)
@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("shape", [*SHAPES, *TEMPLATE_NAMES])
def test_renders_as_transformers_does(shape, conversation, variation):
    source = SHAPES.get(shape) or named_template(shape)
    messages, options = CONVERSATIONS[conversation], VARIATIONS[variation]
    expected = by_transformers(source, messages, **options)
    assert by_llamalite(source, messages, **options) == expected


# One template a line.
LINES = r"""
{{ messages|tojson }}
{{ messages|tojson(indent=2, sort_keys=true) }}
{{ messages|tojson(ensure_ascii=true, separators=(',', ':')) }}
{{ messages }}{{ none }}{{ true }}{{ 1.0 }}{{ missing }}
{{ messages|map(attribute='role')|join('-') }}
{{ messages|selectattr('role', 'equalto', 'user')|list|length }}
{{ (messages|map(attribute='role')|map('upper')|list)[::-1] }}
{% set a = messages|map(attribute='role') %}{{ a|list }}{{ a|list }}
{{ 'a%sb%05.1f' % ('x', 2) }}{{ '{:>5}|{:<4}|{!r}'.format('x', 3, 'é') }}{{ '%s'|format(1) }}
{{ 'a' ~ 1 ~ none ~ missing }}{{ 'ab' * 3 }}{{ [1] * 2 + [2] }}{{ 7 // 2 }}{{ 2 ** 10 }}
{{ 'a,b,,c'.split(',') }}{{ ' a '.strip() }}{{ 'x'.join(['a', 'b']) }}{{ 'aXbX'.rsplit('X', 1) }}
{% for a, b in {'x': 1, 'y': 2}.items() %}{{ loop.index }}{{ a }}{{ b }}{{ loop.cycle(1, 2) }}{% endfor %}
{% for x in [1, [2, [3]]] recursive %}{{ loop(x) if x is iterable else x }}{% endfor %}
{% for x in range(9) if x % 2 %}{{ x }}/{{ loop.length }}/{{ loop.revindex }} {% else %}none{% endfor %}
{% for x in 'abc' %}{{ loop.previtem }}{{ x }}{{ loop.nextitem }}{{ loop.changed(x) }}{% endfor %}
{% macro m(a, b=2) %}{{ a }}{{ b }}{{ kwargs }}{{ varargs }}{% endmacro %}{{ m(1) }}{{ m(1, 3, 4, c=5) }}
{% macro m() %}<{{ caller('x') }}>{% endmacro %}{% call(y) m() %}{{ y }}{% endcall %}
{% set ns = namespace(a=1) %}{% for i in range(3) %}{% set ns.a = ns.a + i %}{% endfor %}{{ ns.a }}{{ ns }}
{% set x %}a{{ 1 }}b{% endset %}{{ x|upper }}{% filter upper %}abc{{ x }}{% endfilter %}
{% block a %}{{ messages[0].role }}{% endblock %}{{ self.a() }}
{% autoescape true %}{{ '<' }}{{ '<'|safe }}{{ '<' ~ '>' }}{% endautoescape %}{{ '<'|e }}
{% with a = 1 %}{{ a }}{% endwith %}{{ a }}{% raw %}{{ x }}{% endraw %}{# no #}
{{ dict(a=1, **{'b': 2}) }}{{ {'a': 1}.get('b', 3) }}{{ {(1, 2): 3}[(1, 2)] }}{{ {1: 2}|dictsort }}
{{ [3, 1, 2]|sort }}{{ [1, 2]|sum }}{{ [[1], [2]]|sum(start=[]) }}{{ [1, 1]|unique|list }}{{ 'ba'|sort }}
{{ [1, 2, 3]|batch(2, 0)|list }}{{ [1, 2, 3]|slice(2)|list }}{{ 'abc'|reverse }}{{ [1, 2]|reverse|list }}
{{ 'a\nb'|indent(2) }}{{ 'a\nb'|indent('> ', first=true) }}{{ 'word '|center(11) }}{{ 2.567|round(1) }}
{{ 1 in [1, 2] }}{{ 'a' in 'cat' }}{{ 'role' in messages[0] }}{{ 1 < 2 < 3 }}{{ [1] == [1] }}{{ 1 is in [1] }}
{{ 'x'|default('y') }}{{ missing|default('y') }}{{ ''|d('z', true) }}{{ '12'|int + 1 }}{{ 'q'|int(5) }}
{{ messages.append is defined }}{{ messages[0].update is callable }}{{ messages[0].clear }}
{% for i in range(5) %}{% if i == 1 %}{% continue %}{% elif i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}
{%- generation %} {% set a = 1 %}{{ messages[0].role }} {% endgeneration -%} {{ a }} x
{{ bos_token }}{{ eos_token }}{{ tools }}{{ documents is none }}{{ add_generation_prompt }}
{{ 'abc'[1:] }}{{ 'abc'[-1] }}{{ messages[0]['role'][::-1] }}{{ [1, 2, 3][:2] }}{{ (1, 2)[0] }}
{{ 'a' if false }}{{ 'a' if false else 'b' }}{{ (1, 2) }}{{ not 1 }}{{ -3 }}{{ +3 }}{{ -3|abs }}
{{ 1 / 0 }}
{{ missing.x }}
{{ missing + 'x' }}
{{ raise_exception('no') }}
{{ '%d' % 'x' }}
{{ messages.append(1) }}
{{ 'abc'|nope }}
{% if %}
"""  # noqa: E501
SNIPPETS = [
    *LINES.strip().splitlines(),
    "  {% if true %}\n  a\n  {% endif %}\n  b\n",
    "{% if x %}\n",
]


@pytest.mark.parametrize("source", SNIPPETS)
def test_constructs_mean_what_they_mean_in_transformers(source):
    messages = [{"role": "user", "content": "é<>&'\"🙂"}, {"role": "assistant", "content": "b"}]
    assert by_llamalite(source, messages) == by_transformers(source, messages)
