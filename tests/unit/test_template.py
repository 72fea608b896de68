"""The prompt's template: what it reads, how values look, what is refused, and that no template runs away."""

from __future__ import annotations

import datetime
import math
import subprocess
import sys
import time
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest

from batchctl.model.errors import Exit, UsageError
from batchctl.template import MAX_CHARS, ColumnRef, Template, Unrenderable, as_text


def load(text: str, columns: list[str] | None = None, *, max_chars: int = MAX_CHARS) -> Template:
    return Template.load(text, where="prompt.md", columns=columns, max_chars=max_chars)


def render(text: str, row: Mapping[str, Any] | None = None) -> str:
    template = load(text)
    rendered = template.render(row or {})
    assert template.renderer()(row or {}) == rendered
    return rendered


def refused(text: str, columns: list[str] | None = None) -> UsageError:
    with pytest.raises(UsageError) as caught:
        load(text, columns)
    assert caught.value.exit_code == Exit.USAGE
    assert caught.value.effect == "nothing was written"
    return caught.value


def unrenderable(text: str, row: Mapping[str, Any] | None = None) -> str:
    template = load(text)
    with pytest.raises(Unrenderable) as caught:
        template.render(row or {})
    with pytest.raises(Unrenderable) as again:
        template.renderer()(row or {})
    assert again.value.reason == caught.value.reason
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return caught.value.reason


# What it reads


@pytest.mark.parametrize(
    ("text", "columns", "parts"),
    [
        ("Hi {{ a }}, {{a}}!", ("a",), ("Hi ", ColumnRef("a"), ", ", ColumnRef("a"), "!")),
        ("{{ a }}{{ b }}\n", ("a", "b"), ("", ColumnRef("a"), "", ColumnRef("b"), "")),
        ('{{ row["Message ID"] }}{{ row.items }}', ("Message ID", "items"), None),
        ("{# note #}{% raw %}{{ a }}{% endraw %} {{ 'b' }}", (), ("{{ a }} b",)),
        ("{{ range }}", ("range",), ("", ColumnRef("range"), "")),
        ("", (), ("",)),
    ],
)
def test_a_template_that_only_inserts_columns_is_taken_apart(text: str, columns: Any, parts: Any) -> None:
    template = load(text)
    assert template.columns == columns
    assert template.constant == (not columns)
    assert template.parts == (parts or ("", ColumnRef("Message ID"), "", ColumnRef("items"), ""))


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("{{ a | upper }}", ("a",)),
        ("{% if a %}{{ b }}{% else %}{{ c.d[e] }}{% endif %}", ("a", "b", "c", "e")),
        ("{% for x in xs %}{{ x.y }}{{ loop.index }}{{ z }}{% endfor %}", ("xs", "z")),
        ("{% for x in xs if x > low %}{% else %}{{ x }}{% endfor %}", ("xs", "low", "x")),
        ("{% set s = a %}{{ s }}{% set t %}{{ b }}{% endset %}{{ t }}", ("a", "b")),
        ("{% macro m(x, y=d) %}{{ x }}{{ y }}{{ z }}{{ caller() }}{% endmacro %}{{ m(1) }}", ("d", "z")),
        ("{% with q = a %}{{ q }}{% endwith %}{{ q }}", ("a", "q")),
        ("{% filter upper %}{{ a }}{% endfilter %}", ("a",)),
        ("{{ range(n) | list }}{{ range }}", ("n", "range")),
        ("{{ row[key] }}", ("key",)),
    ],
)
def test_templates_with_logic_know_their_columns(text: str, columns: tuple[str, ...]) -> None:
    template = load(text)
    assert (template.columns, template.parts, template.constant) == (columns, None, False)


def test_the_whole_row_is_every_column_in_an_order_that_the_file_does_not_decide() -> None:
    text = "{{ row }}{% for name, value in row.items() %} {{ name }}={{ value }}{% endfor %}"
    template = load(text, ["b", "a"])
    assert (template.columns, template.whole_row, template.constant) == (("a", "b"), True, False)
    assert template.render({"b": 1, "a": 2}) == template.render({"a": 2, "b": 1}) == '{"a":2,"b":1} a=2 b=1'
    assert not load("{{ row.a }}", ["b", "a"]).whole_row


def test_columns_that_are_not_used_are_not_visible() -> None:
    assert render("{{ range(2) | list }}{{ a }}", {"range": "x", "a": 1}) == "[0,1]1"
    assert render('{% if "b" in row %}yes{% endif %}{{ row.b }}', {"b": 1, "a": 2}) == "yes1"


# How values look


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("{{ a }} <b> & {% x %}", "{{ a }} <b> & {% x %}"),
        (None, ""),
        (True, "true"),
        (0, "0"),
        (10**30, "1" + "0" * 30),
        (1.0, "1.0"),
        (1e16, "1e+16"),
        ({"ü": [None, True, "é", 1.5]}, '{"ü":[null,true,"é",1.5]}'),
        ((1, 2), "[1,2]"),
        (Decimal("1.10"), "1.10"),
        (datetime.date(2026, 11, 21), "2026-11-21"),
        ([datetime.datetime(2026, 11, 21, 2, tzinfo=datetime.UTC)], '["2026-11-21T02:00:00+00:00"]'),
    ],
)
def test_values_are_inserted_as_json_has_them_but_text_as_it_is(value: Any, text: str) -> None:
    assert as_text(value) == text
    assert render("{{ v }}", {"v": value}) == text
    assert render("{{ v ~ '' }}", {"v": value}) == text
    assert render("{{ [v] | join }}", {"v": value}) == text
    assert render("{% set x = v %}{{ x }}", {"v": value}) == text


@pytest.mark.parametrize("value", [math.nan, math.inf, b"x", object(), [math.nan], {"a": b"x"}, {1j: 1}])
def test_values_without_a_text_make_the_row_unusable(value: Any) -> None:
    assert unrenderable("{{ v }}", {"v": value}).startswith("column `v`: a value ")
    assert "a value " in unrenderable("{{ v ~ '' }}", {"v": value})


def test_data_is_never_evaluated_even_when_inserted_twice() -> None:
    bomb = "{{ 7 * 7 }}{% for i in range(9) %}x{% endfor %}{{ row }}"
    assert (
        render("{{ v }}|{{ v | trim }}|{% set x %}{{ v }}{% endset %}{{ x }}", {"v": bomb}) == f"{bomb}|{bomb}|{bomb}"
    )


def test_newlines_and_the_last_one_are_as_in_jinja() -> None:
    assert render("a\r\n{{ v }}\r\n", {"v": "x\r\n"}) == "a\nx\r\n"
    assert render("a\n\n") == "a\n"


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("{{ '%.2f %s' | format(3.14159, 'x') }} {{ '%d%%' % 5 }}", "3.14 x 5%"),
        ("{{ [1, 2, 3] | sum }} {{ rows | sum(attribute='n') }}", "6 3"),
        ("{{ rows | map(attribute='n') | join(', ') }} {{ rows | join('/', attribute='n') }}", "1, 2 1/2"),
        ("{{ ', '.join(['a', 'b']) }} {{ 'a-b'.split('-') }} {{ 'aXa'.replace('a', 'b') }}", 'a, b ["a","b"] bXb'),
        ("{{ '<a>' | e }} {{ ('<a>' | e) ~ '<b>' }} {{ '<p>x</p>' | striptags }}", "&lt;a&gt; &lt;a&gt;<b> x"),
        ("{{ {'a': '<é>'} | tojson }} {{ [1] | tojson(indent=1) }}", '{"a":"<é>"} [\n 1\n]'),
        ("{{ 'abcdef' | truncate(5, true, '', 0) }} {{ 'a\nb' | indent(2) }}", "abcde a\n  b"),
        ("{% for r in rows %}{{ loop.cycle('a', 'b') }}{{ loop.index }}{% endfor %}", "a1b2"),
        (
            (
                "{% macro m(x) %}[{{ x }}{{ caller() if caller is defined }}]{% endmacro %}"
                "{{ m(1) }}{% call m(2) %}c{% endcall %}"
            ),
            "[1][2c]",
        ),
        ("{% for n in tree recursive %}{{ n.v }}{{ loop(n.c) }}{% endfor %}", "123"),
        ("{% set ns = namespace(n=0) %}{% for r in rows %}{% set ns.n = ns.n + r.n %}{% endfor %}{{ ns.n }}", "3"),
        ("{% set j = joiner('|') %}{% for r in rows %}{{ j() }}{{ r.n }}{% endfor %}", "1|2"),
        ("{{ none | default('a') }}|{{ nothing | default('a') }}|{{ none | upper }}|{{ true | string }}", "|a||true"),
        (
            "{{ 3 is in [1, 3] }} {{ 1 in [1] }} {{ 2 ** 10 }} {{ 7 // 2 }} {{ 'ab' * 2 }} {{ [1] + [2] }}",
            "true true 1024 3 abab [1,2]",
        ),
        ("{{ rows | selectattr('n', '>', 1) | list }} {{ [3, 1] | sort }} {{ 'abc'[::-1] }}", '[{"n":2}] [1,3] cba'),
        ("{{ rows[0].n if rows else 0 }} {{ {'items': 1}['items'] }} {{ {}['items'] is defined }}", "1 1 false"),
    ],
)
def test_what_prompts_need_works(text: str, rendered: str) -> None:
    row = {"rows": [{"n": 1}, {"n": 2}], "tree": [{"v": 1, "c": [{"v": 2, "c": []}]}, {"v": 3, "c": []}]}
    assert render(text, row) == rendered


# Columns that are not there


def test_a_column_the_source_lacks_is_named_with_its_line() -> None:
    error = refused("a\nb {{ subject }}\n{{ priority }}", ["ticket_id", "subject", "body", "queue"])
    assert error.what == "the prompt uses `{{ priority }}`, but the source has no such column"
    assert error.where == ("prompt.md:3; the source has: ticket_id, subject, body, queue",)
    assert error.hint == 'add `priority` to the source, or give it a default: `{{ priority | default("") }}`'


@pytest.mark.parametrize(
    ("text", "columns", "suggestion"),
    [
        ("{{ subjct }}", ["subject"], "did you mean `{{ subject }}`?"),
        ("{{ Message_ID }}", ["Message ID"], 'did you mean `{{ row["Message ID"] }}`?'),
        ('{{ row["message id"] }}', ["Message ID"], 'did you mean `{{ row["Message ID"] }}`?'),
        ("{{ SUBJECT }}", ["subject"], "did you mean `{{ subject }}`?"),
    ],
)
def test_a_column_spelt_wrong_gets_a_suggestion(text: str, columns: list[str], suggestion: str) -> None:
    assert refused(text, columns).hint.startswith(suggestion)


def test_several_missing_columns_are_told_at_once() -> None:
    error = refused("\n".join(f"{{{{ c{number} }}}}" for number in range(7)), [f"x{number}" for number in range(30)])
    assert error.what == "the prompt uses 7 columns that the source does not have"
    assert error.where[:2] == ("prompt.md:1: `{{ c0 }}`", "prompt.md:2: `{{ c1 }}`")
    assert error.where[5:] == (
        "and 2 more",
        "the source has: " + ", ".join(f"x{number}" for number in range(20)) + " and 10 more",
    )


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("{{ x | default('y') }}", "y"),
        ("{{ x | d('y') | upper }}", "Y"),
        ("{{ row.x | default('y') }}{{ row['x y'] | default('z') }}", "yz"),
        ("{% if x is defined %}{{ x }}{% else %}y{% endif %}", "y"),
        ("{% if x is not defined %}y{% endif %}", "y"),
        ("{% if x is defined and x > 3 %}{{ x }}{% endif %}y", "y"),
        ("{{ x if x is defined else 'y' }}", "y"),
    ],
)
def test_an_absent_column_may_have_a_default(text: str, rendered: str) -> None:
    assert load(text, ["a"]).render({"a": 1}) == rendered
    assert load(text).render({}) == rendered


@pytest.mark.parametrize(
    "text",
    [
        "{{ x | upper | default('y') }}",
        "{{ x | default('y') }}{{ x }}",
        "{% if x %}{% endif %}",
        "{{ x.y | default('') }}",
    ],
)
def test_a_default_elsewhere_does_not_excuse_a_missing_column(text: str) -> None:
    assert "no such column" in refused(text, ["a"]).what
    assert unrenderable(text, {"a": 1}) == "column `x` is missing"


def test_a_row_without_a_column_is_unusable() -> None:
    assert unrenderable("{{ a }}{{ b }}", {"a": 1}) == "column `b` is missing"
    assert unrenderable("{{ a }}", {}) == "column `a` is missing"
    assert unrenderable("{{ row['x'] }}{{ a | upper }}", {"a": ""}) == "column `x` is missing"
    assert unrenderable("\n{{ a.b }}", {"a": {}}) == "prompt.md:2: a name or field used here is missing in this row"


def test_errors_of_a_row_name_the_line_and_never_its_content() -> None:
    assert unrenderable("a\n{{ 1 / v }}", {"v": 0}) == "prompt.md:2: division by zero"
    for text in ("{{ v | round }}", "{{ v + 1 }}", "{{ 1[v] }}", "{{ '%d' % v }}", "{{ {}[v] }}", "{{ v() }}"):
        reason = unrenderable(text, {"v": "geheim"})
        assert reason.startswith("prompt.md:1: ")
        assert "geheim" not in reason


# What is refused


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a\n{% if %}", 2, "Expected an expression, got 'end of statement block'"),
        ("a\n\n{{ x", 3, "unexpected end of template, expected 'end of print statement'"),
        ("{% for x in y %}\n", 1, "Unexpected end of template"),
        ("\n{{ x | uper }}", 2, "there is no filter `uper`"),
        ("{% if a %}{{ x | random }}{% endif %}", 1, "there is no filter `random`"),
        ("{{ x is strange }}", 1, "there is no test `strange`"),
        ("\n{% include 'x' %}", 2, "`{% include %}` is not offered: a prompt is one file"),
        ("{% import 'x' as y %}", 1, "`{% import %}` is not offered: a prompt is one file"),
        ("{% from 'x' import y %}", 1, "`{% from %}` is not offered: a prompt is one file"),
        ("{% extends 'x' %}", 1, "`{% extends %}` is not offered: a prompt is one file"),
        ("{% block x %}{% endblock %}", 1, "`{% block %}` is not offered: a prompt is one file"),
        ("{% autoescape true %}{% endautoescape %}", 1, "`{% autoescape %}` is not offered"),
        ("{% set row = 1 %}", 1, "`row` is the source's row"),
        ("{% for self in x %}{% endfor %}", 1, "`self` is not offered"),
        ("{{ self }}", 1, "`self` is not offered"),
        ("{{ 'x{}'.format(1) }}", 1, "`.format()` is not offered"),
        ("{{ x.__class__ }}", 1, "the sandbox refuses `.__class__`"),
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", 1, "it is nested too deeply, or a number in it is too long"),
        ("{{ " + "9" * 5000 + " }}", 1, "it is nested too deeply, or a number in it is too long"),
    ],
)
def test_a_template_that_cannot_be_used_is_named_with_its_line(text: str, line: int, message: str) -> None:
    error = refused(text)
    assert error.where == (f"prompt.md:{line}",)
    assert error.what.startswith(f"the template cannot be used: {message}")
    assert error.hint


def test_an_enormous_template_is_refused() -> None:
    with pytest.raises(UsageError, match="longer than 10 characters"):
        load("x" * 11, max_chars=10)


ESCAPES = [
    "{{ v['__class__'] }}",
    "{{ v[u] }}",
    "{{ ''[u]['__mro__'] }}",
    "{{ [v] | map(attribute='__class__') | list }}",
    "{{ [v] | map(attribute=u) | join }}",
    "{{ [v] | sum(attribute='__class__') }}",
    "{{ [v] | groupby('__class__') }}",
    "{{ [v] | selectattr('__class__') | list }}",
    "{{ [v, v] | sort(attribute='__class__') }}",
    "{{ (v | e)['__html__'] }}",
    "{{ range['__init__'] }}",
    "{{ dict['mro']() }}",
    "{{ dict.fromkeys([1]) }}",
    "{{ namespace['__init__']['__globals__'] }}",
    "{{ joiner['__init__']['__globals__'] }}",
    "{% macro m() %}{% endmacro %}{{ m['_func']['__globals__'] }}",
    "{% for x in [1] %}{{ loop['_iterator'] }}{% endfor %}",
    "{% set f = v['format'] %}{{ f(1) }}",
    "{% set f = '{0.__class__}'['format'] %}{{ f(1) }}",
    "{% set f = '{x.__class__}'['format_map'] %}{{ f({}) }}",
    "{{ [1].append(2) }}",
    "{{ {}.update({1: 2}) }}",
    "{{ {}.clear() }}",
    "{{ v.encode('utf-8') }}",
    "{{ v.translate({}) }}",
    "{{ v.maketrans('a', 'b') }}",
    "{{ (1).to_bytes(2, 'big') }}",
    "{{ (1.5).as_integer_ratio() }}",
    "{{ caller() }}",
    "{{ v | map('attr', '__class__') | list }}",
    "{{ lipsum(9) }}",
    "{{ cycler(1) }}",
    "{{ row['__class__'] }}",
    "{{ row[u] }}",
    "{{ range }}",
]


@pytest.mark.parametrize("text", ESCAPES)
def test_the_sandbox_holds(text: str) -> None:
    unrenderable(text, {"v": "x", "u": "__class__"})


BOMBS = {
    "repeat": "{{ 'a' * 10**8 }}",
    "repeat the other way": "{{ 10**8 * 'a' }}",
    "repeat a list": "{{ [0] * 10**9 }}",
    "repeat a long text in a list": "{{ ['a' * 1000] * 10**6 }}",
    "power": "{{ 10 ** (10**8) }}",
    "power of power": "{{ (9 ** 999) ** 999 }}",
    "squares": "{% set a = 10 %}" + "{% set a = a * a %}" * 40 + "{{ a }}",
    "percent": "{{ '%1000000000d' % 1 }}",
    "percent precision": "{{ '%.1000000000f' % 1 }}",
    "percent star": "{{ '%*d' % (1000000000, 1) }}",
    "percent named": "{{ '%(a)999999999d' % {'a': 1} }}",
    "format filter": "{{ '%1000000000s' | format('x') }}",
    "center": "{{ 'a' | center(10**9) }}",
    "center method": "{{ 'a'.center(10**9) }}",
    "zfill": "{{ 'a'.zfill(10**9) }}",
    "expandtabs": "{{ '\t'.expandtabs(10**9) }}",
    "indent": "{{ 'a\nb' | indent(10**9) }}",
    "indent by text": "{{ ('\n' * 10**6) | indent('x' * 10**6) }}",
    "tojson indent": "{{ [1] | tojson(indent=10**9) }}",
    "batch": "{{ [1] | batch(10**9, 0) | list }}",
    "slice": "{{ [1] | slice(10**9) | list }}",
    "round": "{{ 1 | round(10**9, 'ceil') }}",
    "replace": "{{ ('x' * 10**6) | replace('x', 'y' * 10**6) }}",
    "replace method": "{{ ('x' * 10**6).replace('x', 'y' * 10**6) }}",
    "join": "{{ ('x' * 10**5) | join('y' * 10**5) }}",
    "join method": "{{ ('y' * 10**5).join('x' * 10**5) }}",
    "map default": "{{ range(9999) | map(attribute='z', default='y' * 10**6) | join }}",
    "range": "{% for i in range(10**9) %}{% endfor %}",
    "range down": "{{ range(0, -10**9, -1) | list }}",
    "huge range": "{{ range(10**30) | sum }}",
    "loops": "{% for i in range(9999) %}" * 3 + "{% endfor %}" * 3,
    "loops with a condition": "{% for i in range(9999) %}{% for j in range(9999) if false %}{% endfor %}{% endfor %}",
    "loops of constant text": "{% set x %}{% for i in range(9999) %}" + "x" * 100_000 + "{% endfor %}{% endset %}",
    "loops of comparisons": "{% set l = range(9999) | list %}{% for i in l %}{% if -1 in l %}{% endif %}{% endfor %}",
    "loops of tests": "{% set l = range(9999) | list %}{% for i in l %}{% if -1 is in l %}{% endif %}{% endfor %}" * 9,
    "loops of slices": "{% set s = 'x' * 10**7 %}{% for i in range(9999) %}{% if s[1:] %}{% endif %}{% endfor %}",
    "macro recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "macro doubling": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "tilde doubling": "{% set a = 'aaaa' %}" + "{% set a = a ~ a %}" * 40 + "{{ a }}",
    "plus doubling": "{% set a = 'aaaa' %}" + "{% set a = a + a %}" * 40 + "{{ a }}",
    "list doubling": "{% set a = [1] %}" + "{% set a = a + a %}" * 40 + "{{ a }}",
    "nested list doubling": "{% set a = [1] %}" + "{% set a = [a, a] %}" * 40 + "{{ a }}",
    "nested table doubling": "{% set a = 1 %}" + "{% set a = {'x': a, 'y': a} %}" * 40 + "{{ a }}",
    "nested dict() doubling": "{% set a = 1 %}" + "{% set a = dict(x=a, y=a) %}" * 40 + "{{ a }}",
    "block doubling": "{% set a = 'aaaa' %}" + "{% set a %}{{ a }}{{ a }}{% endset %}" * 40 + "{{ a }}",
    "a namespace in itself": "{% set n = namespace(a=1) %}{% set n.a = [n, n] %}{{ n.a }}",
    "long output": "{% for i in range(9999) %}" + "x" * 2000 + "{% endfor %}",
    "select in": "{{ range(9999) | select('in', range(9999)) | list }}",
    "reject in": "{% set l = range(9999) | list %}{{ l | map('int') | reject('in', l) | list }}",
    "nested list sum": "{{ ([[0] * 100] * 9999) | sum(start=[]) }}",
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_bounded(name: str) -> None:
    template = load(BOMBS[name])
    started = time.process_time()
    with pytest.raises(Unrenderable):
        template.render({})
    assert time.process_time() - started < 10  # at most 1 s on a quiet machine; unbounded, minutes or all memory


def test_the_text_is_bounded() -> None:
    for text in ("{{ v }}", "{{ v }}{{ w }}", "{{ v | trim }}"):
        template = load(text, max_chars=20)
        row = {"v": "x" * 21, "w": ""}
        for render_row in (template.render, template.renderer()):
            with pytest.raises(Unrenderable, match="the text is longer than 20 characters"):
                render_row(row)
        assert template.render({"v": "x" * 20, "w": ""}) == "x" * 20


def test_no_state_is_kept_between_rows() -> None:
    template = load("{% for x in xs %}{% endfor %}{{ n }}")
    for number in range(100):  # one budget would last for 66 of them
        assert template.render({"xs": [0] * 3000, "n": number}) == str(number)


def test_importing_the_module_does_not_import_jinja() -> None:
    code = "import sys, batchctl.template; sys.exit('jinja2' in sys.modules or 'pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
