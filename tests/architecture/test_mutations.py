"""Mutations follow the code: what each takes away is there, and so are the tests that must fail then, and its promise."""

from __future__ import annotations

import re

from tests.architecture.test_catalogue import named_in
from tests.mutations import MUTATIONS, ROOT

PROMISES = re.compile(r"^\| (P\d+x?) ", re.MULTILINE)


def test_what_a_mutation_takes_away_is_there() -> None:
    for one in MUTATIONS:
        for name, old, new in one.changes:
            assert old in (ROOT / name).read_text("utf-8"), f"{one.name}: {name}"
            assert old != new


def test_the_tests_of_a_mutation_are_there() -> None:
    for one in MUTATIONS:
        assert one.tests
        for test in one.tests:
            name, _, function = test.partition("::")
            assert (ROOT / name).exists(), f"{one.name}: {name}"
            if function:
                assert function in named_in(name.removeprefix("tests/")), f"{one.name}: {test}"


def test_every_promise_has_one() -> None:
    promised = PROMISES.findall((ROOT / "tests" / "README.md").read_text("utf-8"))
    assert len(promised) == 31
    kept = {promise for one in MUTATIONS for promise in one.promise.split()}
    assert set(promised) <= kept
    assert len({one.name for one in MUTATIONS}) == len(MUTATIONS)
