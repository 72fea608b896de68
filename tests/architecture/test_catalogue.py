"""The table of faults names tests that exist, and every fault."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
CATALOGUE = TESTS / "faults" / "CATALOGUE.md"
PROMISES = TESTS.parent.parent / "shared" / "design" / "promises.md"
ROW = re.compile(r"^\| (\d+) \|(.*)\|(.*)\|$", re.MULTILINE)
TEST = re.compile(r"`([\w/]+\.py)::(test_\w+)`")


@cache
def named_in(name: str) -> frozenset[str]:
    return frozenset(re.findall(r"^ *(?:async )?def (test_\w+)", (TESTS / name).read_text("utf-8"), re.MULTILINE))


def rows() -> list[tuple[int, str]]:
    return [(int(number), text) for number, _, text in ROW.findall(CATALOGUE.read_text("utf-8"))]


def test_every_test_it_names_exists() -> None:
    for number, text in rows():
        for name, test in TEST.findall(text):
            assert test in named_in(name), f"fault {number}: {name}::{test}"


def test_every_fault_has_a_test_or_a_reason() -> None:
    assert [number for number, _ in rows()] == list(range(1, 139))
    for number, text in rows():
        assert TEST.search(text) or text.strip().startswith(("n/a: ", "n/a on ", "a SIGKILL: as 1")), number


@pytest.mark.skipif(not PROMISES.is_file(), reason="the project's design papers are not here")
def test_it_has_the_faults_of_the_design() -> None:
    section = PROMISES.read_text("utf-8").partition("## 3. Fault catalogue")[2].partition("\n## 4")[0]
    listed = re.findall(r"^\| (\d+) \|", section, re.MULTILINE)
    assert [number for number, _ in rows()] == [int(one) for one in listed]
