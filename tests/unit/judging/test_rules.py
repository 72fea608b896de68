"""What one expression may cost on one row: nested macros over long lists end, with a reason, whatever is around them."""

from __future__ import annotations

import json
from fractions import Fraction
from typing import Any

import pytest

from batchctl.judging import cel_bounds
from batchctl.judging.cel_bounds import MOST_SECONDS, Spent, Steps, growth, with_steps
from batchctl.judging.rules import Check, Context, Expression, Names, Program, RuleBook, Rules, ShareRule
from batchctl.model.errors import UsageError

MANY = list(range(60))
EXPLODES = "output.a.all(x, output.a.all(y, output.a.all(z, x + y + z >= 0)))"
FEW_STEPS = 5_000  # tests are quick, and what they say holds for any number


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cel_bounds, "MOST_STEPS", FEW_STEPS)


def expression(text: str) -> Expression:
    return Expression(text, "job.toml:1", "`check` of rule")


def held(text: str, output: Any) -> bool | str:
    program = Program(expression(text), Names())
    context = Context([program])
    context.put("output", output)
    return program.holds(context)


@pytest.mark.parametrize(("text", "output"), [("output.trim() == 'a'", " a "), ("math.greatest([1, output]) == 3", 3)])
def test_functions_of_the_library_are_there_when_they_are_used(text: str, output: Any) -> None:
    assert held(text, output) is True


@pytest.mark.parametrize(
    "text",
    [
        EXPLODES,
        f"{EXPLODES} || true",
        f"!{EXPLODES}",
        "output.a.exists(x, output.a.exists(y, output.a.exists(z, x + y + z < 0))) || true",
        "output.a.exists_one(x, output.a.existsOne(y, output.a.exists(z, x + y + z < 0))) || true",
        "output.a.filter(x, output.a.filter(y, size(output.a.filter(z, z < 0)) > 0) == []).size() == 0",
        "output.a.map(x, output.a.map(y, output.a.map(z, true, z))).size() == 60",
        "output.a.all(x, output.a.exists(y, output.a.all(z, z >= 0) && y < 0) || x >= 0)",
    ],
)
def test_an_expression_that_explodes_ends_with_a_reason(text: str) -> None:
    said = held(text, {"a": MANY})
    assert isinstance(said, str)
    assert said.startswith(f"it takes more than {FEW_STEPS:,} steps")
    assert isinstance(held(text, {"a": [1, 2, 3]}), bool), "on a short list it is a rule like any other"


@pytest.mark.parametrize(
    ("text", "output", "holds"),
    [
        ("output.a.all(x, output.a.filter(y, y == x).size() == 1)", {"a": MANY}, True),
        ("output.a.map(x, x > 1, x * 2) == [4, 6]", {"a": [1, 2, 3]}, True),
        ("output.a . all ( x , // every one, (really)\n x in [1, 2] || {'k': x}.k == 3 )", {"a": [1, 2, 3]}, True),
        ("output.a.exists(x, x == 'all(x, y)')", {"a": ["all(x, y)"]}, True),
        ("output.all.all(all, all > 0)", {"all": [0]}, False),
        ("output.a.all(x, size(x) > 0 && x.map(y, y).all(y, y != ''))", {"a": [["b"]]}, True),
    ],
)
def test_counting_changes_no_answer(text: str, output: Any, holds: bool) -> None:
    assert held(text, output) is holds


def test_every_macro_is_counted_and_nothing_else() -> None:
    assert with_steps("output.a != 'x.all(y, z)'") == "output.a != 'x.all(y, z)'"
    assert with_steps("a.all(x, f(x, 1)).b") == f"a.all(x, ({cel_bounds.STEP}() ? (f(x, 1)) : null)).b"
    assert with_steps("a.map(x, b.exists(y, y), [x])").count(cel_bounds.STEP) == 2


def test_one_evaluation_that_explodes_leaves_the_others_alone() -> None:
    """Also where several are evaluated in one call, and where an expression without macros follows."""
    checks = [
        Check(name, expression(text), None, "review") for name, text in (("a", "output.b == 1"), ("boom", EXPLODES))
    ]
    book = RuleBook(
        checks=(*checks, Check("z", expression("output.b > 1"), None, "review")),
        shares=(ShareRule("share", expression(EXPLODES), Fraction(1)),),
    )
    rules = Rules(book)
    broken = rules.find({"a": MANY, "b": 1}, None)
    assert broken.detail.startswith("boom: cannot be evaluated: it takes more than")
    assert broken.detail.endswith("; z")
    assert rules.find({"a": [1], "b": 2}, None).detail == "a"
    assert rules.holding({"a": MANY, "b": 1}, b"{}") == (0,), "in doubt it counts"
    assert rules.holding({"a": [1], "b": 1}, b"{}") == (0,)


def test_processor_time_is_bounded_between_steps() -> None:
    now = [0.0]
    steps = Steps(clock=lambda: now[0])
    steps.begin()
    now[0] = MOST_SECONDS
    assert steps.step()
    now[0] = MOST_SECONDS + 1
    with pytest.raises(Spent, match="more than 10 s"):
        steps.step()
    steps.begin()
    assert steps.step()
    assert not steps.spent


def test_what_map_makes_is_bounded_when_it_is_compiled() -> None:
    doubled = "[output.t]" + ".map(a, a + a)" * 7
    assert growth(doubled) == 128
    with pytest.raises(UsageError, match=r"128 times what goes in") as error:
        Program(expression(f"{doubled}[0] != ''"), Names())
    assert "64 times are allowed" in error.value.hint
    assert growth("output.a.map(i, i.price * i.count).all(p, p > 0 && p < 9 && p != 3)") == 2
    assert json.dumps(held("[output.t].map(a, a + a)[0] == 'xx'", {"t": "x"})) == "true"
