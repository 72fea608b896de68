"""Whatever is written into a job file: a job, or an error that names the file and says what to do."""

from __future__ import annotations

import copy
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchctl import jobfile
from batchctl.model.errors import UsageError

SAMPLE = (Path(__file__).parents[2] / "samples" / "support-tickets" / "job.toml").read_text("utf-8")
FULL = """
[[publish]]
to = "out.csv"
key = ["ticket_id"]

[review]
sample = "5%"
refused = true

[[rules]]
name = "unsure"
check = "output.category != row.category"

[retention]
inputs = "30d"

[lane]
prefer = "batch"

[limits]
chunk_rows = 5
budget = "5 USD"

[prices]
input = 0.5
output = 1.5
"""
FUZZ = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
WORDS = st.sampled_from(
    [
        "batch",
        "live",
        "id",
        "30d",
        "-1s",
        "5%",
        "101%",
        "1e999",
        "openai",
        "emulator",
        "${HOME}",
        "../..",
        "s3://",
        "\0",
        "[bold]",
        "*",
    ]
)
VALUES = st.recursive(
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.text(max_size=20)
    | WORDS
    | st.datetimes()
    | st.times(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | WORDS, inner, max_size=3),
    max_leaves=6,
)


def read(text: str, place: Path) -> jobfile.Job | None:
    """The job, or None after an error as a person needs it."""
    try:
        return jobfile.from_text(text, where="job.toml", environ={"HOME": "/home/someone"}, base=place)
    except UsageError as error:
        told = error
    said = (told.what, *told.where)
    assert any("job.toml" in one for one in said), said
    assert told.hint, said
    return None


def written(value: Any) -> str:
    """A value in TOML."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{quoted(key)} = {written(one)}" for key, one in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(written(one) for one in value) + "]"
    if isinstance(value, str):
        return quoted(value)
    return value.isoformat() if hasattr(value, "isoformat") else repr(value)


def quoted(text: str) -> str:
    plain = "".join(one if " " < one < "\x7f" and one not in '"\\' else f"\\U{ord(one):08x}" for one in text)
    return f'"{plain}"'


def paths(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [one for key, inner in items for one in [(*at, key), *paths(inner, (*at, key))]]


def test_the_job_that_is_changed_is_a_good_one(tmp_path: Path) -> None:
    assert read(SAMPLE + FULL, tmp_path) is not None
    table = tomllib.loads(SAMPLE + FULL)
    assert read("".join(f"{key} = {written(value)}\n" for key, value in table.items()), tmp_path) is not None


@FUZZ
@given(text=st.text())
def test_any_text(tmp_path: Path, text: str) -> None:
    assert read(text, tmp_path) is None


@FUZZ
@given(data=st.data())
def test_any_edit_of_the_text(tmp_path: Path, data: st.DataObject) -> None:
    text = SAMPLE + FULL
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        put = data.draw(st.text(max_size=8) | st.sampled_from(["\n[source]\n", "[[", '"', "'''", "=", "{", "\r"]))
        text = text[:start] + put + text[start + data.draw(st.integers(0, 20)) :]
    read(text, tmp_path)


@pytest.mark.parametrize("how", ["another value", "a key more", "a key less"])
@FUZZ
@given(data=st.data())
def test_any_value_in_any_place(tmp_path: Path, how: str, data: st.DataObject) -> None:
    table = copy.deepcopy(tomllib.loads(SAMPLE + FULL))
    for _ in range(data.draw(st.integers(1, 3))):
        if not (known := paths(table)):
            break
        *way, last = data.draw(st.sampled_from(known))
        place: Any = table
        for key in way:
            place = place[key]
        if how == "a key less":
            del place[last]
        elif how == "another value" or isinstance(place, list):
            place[last] = data.draw(VALUES)
        else:
            place[data.draw(st.text(max_size=8) | WORDS)] = data.draw(VALUES)
    read("".join(f"{quoted(key)} = {written(value)}\n" for key, value in table.items()), tmp_path)
