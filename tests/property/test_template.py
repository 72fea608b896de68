"""Plain insertion and Jinja give the same text, or both none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from batchctl.model.errors import UsageError
from batchctl.template import ColumnRef, Template, Unrenderable, as_text

NAMES = ("a", "b", "items", "range", "Message ID", 'quote"d', "row", "self", "loop", "{{ a }}")

texts = st.text(st.one_of(st.characters(), st.sampled_from("{}%#\n\r \u2028")), max_size=30)
scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), texts)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=6
)
rows = st.fixed_dictionaries({}, optional=dict.fromkeys(NAMES, values))
full_rows = st.fixed_dictionaries(dict.fromkeys(NAMES, values))
pieces = st.lists(st.one_of(texts, st.sampled_from(NAMES).map(ColumnRef)), max_size=6)


def written(piece: str | ColumnRef) -> str:
    """The piece as template source: constants through {% raw %}, so that any text is one."""
    if isinstance(piece, str):
        return f"{{% raw %}}{piece}{{% endraw %}}"
    if piece.name.isidentifier() and piece.name not in {"row", "self"}:
        return f"{{{{ {piece.name} }}}}"
    quoted = piece.name.replace('"', '\\"')
    return f'{{{{ row["{quoted}"] }}}}'


def outcome(render: Callable[[dict[str, Any]], str], row: dict[str, Any]) -> str | None:
    try:
        return render(row)
    except Unrenderable:
        return None


@settings(deadline=None)  # the first template pays for the import of Jinja
@given(pieces, st.one_of(rows, full_rows))
@example([ColumnRef("a"), "{", ColumnRef("a"), "}"], {"a": "{0}"})
@example([ColumnRef("a")], {"a": float("nan")})
def test_insertion_equals_jinja(made_of: list[str | ColumnRef], row: dict[str, Any]) -> None:
    source = "".join(map(written, made_of))
    template = Template.load(source, where="prompt.md", columns=None)
    assert template.parts is not None
    # A branch that is never taken makes it a template with logic, with the same text.
    with_logic = Template.load("{% if false %}{% endif %}" + source, where="prompt.md", columns=None)
    assert with_logic.parts is None
    expected = outcome(with_logic.render, row)
    assert outcome(template.render, row) == expected
    assert outcome(template.renderer(), row) == expected
    assert outcome(with_logic.renderer(), row) == expected
    assert template.columns == with_logic.columns
    if expected is not None:
        spliced = (part if isinstance(part, str) else as_text(row[part.name]) for part in template.parts)
        assert "".join(spliced) == expected


@settings(deadline=None)  # the first template pays for the import of Jinja
@given(full_rows, st.randoms(use_true_random=False))
def test_the_order_of_columns_never_matters(row: dict[str, Any], random: Any) -> None:
    source = "{{ row }}{{ a }}{% for name in row %}{{ name }}{% endfor %}{{ row | length }}{{ row | tojson }}"
    names = list(row)
    random.shuffle(names)
    one = Template.load(source, where="prompt.md", columns=list(row))
    other = Template.load(source, where="prompt.md", columns=names)
    assert one.columns == other.columns
    assert outcome(one.render, row) == outcome(other.render, {name: row[name] for name in names})


@settings(deadline=None)  # the first template pays for the import of Jinja
@given(texts)
def test_any_text_is_a_template_or_a_named_mistake(source: str) -> None:
    places: tuple[str, ...] = ()
    try:
        template = Template.load(source, where="prompt.md", columns=None)
        outcome(template.render, dict.fromkeys(template.columns, "x"))
    except UsageError as mistake:
        places = mistake.where
    assert all(place.startswith("prompt.md:") for place in places)
