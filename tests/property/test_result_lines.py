"""Whatever stands between the objects of a result file, each is found where it lies."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchctl.workflow import judge
from batchctl.workflow.judge import BLANK, index

BETWEEN = st.sampled_from(
    ["\n", "", " ", "\r\n", "\0", "\n\n", "\t", '{"custom_id": "stranger"}', "\n[]\n", "\n{\n", '\n"}{"\n']
)
JSON = st.recursive(
    st.none() | st.booleans() | st.text() | st.sampled_from(["}{", '"', "\\", '{"custom_id": "1"}', "\u2028"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def is_json(part: bytes) -> bool:
    try:
        json.loads(part)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("exact", [True, False])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(answers=st.lists(st.tuples(BETWEEN, JSON), min_size=1, max_size=6))
def test_every_object_is_found(tmp_path: Path, exact: bool, answers: list[tuple[str, object]]) -> None:
    """The quick way may pass one over, but never unseen: then it gives a line that is no JSON, and judging reads exactly."""
    path = tmp_path / "results.jsonl"
    lines = [
        json.dumps({"custom_id": f"row-{number}", "answer": answer}, ensure_ascii=False).encode("utf-8", "replace")
        for number, (_, answer) in enumerate(answers)
    ]
    path.write_bytes(b"".join(line + between.encode() for line, (between, _) in zip(lines, answers, strict=True)))
    wanted = {f"row-{number}".encode(): number for number in range(len(answers))}
    content = path.read_bytes()
    found = index([path], wanted, "openai", exact=exact)
    assert not found.others
    parts = [None if spot is None else content[spot[1] : sum(spot[1:])] for spot in found.places]
    if exact or all(is_json(one) for one in parts if one is not None):
        assert [one and one.rstrip(BLANK) for one in parts] == lines


def test_objects_of_a_line_that_is_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge, "LINE_BYTES", 200)
    path = tmp_path / "results.jsonl"
    lines = [
        json.dumps({"custom_id": f"row-{number}", "answer": "}{" * (number % 40)}).encode() for number in range(120)
    ]
    path.write_bytes(b"".join(lines))
    found = index([path], {f"row-{number}".encode(): number for number in range(120)}, "openai", exact=True)
    assert found.places == [(0, len(b"".join(lines[:number])), len(lines[number])) for number in range(120)]
    assert not found.quarantined
