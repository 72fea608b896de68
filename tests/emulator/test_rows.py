"""Fates of rows, oddities of result files, and determinism."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import jsonschema_rs
import pytest

from .conftest import SCHEMA, Driver, Start, shaped

ROWS = [shaped(f"r{number:03}") for number in range(200)]


def texts(good: list[Any]) -> list[str]:
    parts = [one["response"]["body"]["output"][0]["content"][0] for one in good]
    return [part.get("text", part.get("refusal")) for part in parts]


def test_the_same_settings_give_the_same_bytes(start: Start) -> None:
    settings = {"seed": 7, "invalid": 0.1, "500": "5%", "missing": 0.05, "duplicated": 0.1, "reordered": True}
    seen = []
    for state in ("one", "two"):
        driver = start(state=state, **settings)
        good, bad = driver.results(driver.run(ROWS))
        seen.append([[(one["custom_id"], texts([one])) for one in good], [one["custom_id"] for one in bad]])
    assert seen[0] == seen[1]


def test_another_custom_id_draws_another_fate_but_the_same_answer(start: Start) -> None:
    driver = start(**{"500": 0.5})
    body = ROWS[0]["body"]
    lines = [ROWS[0] | {"custom_id": f"attempt-{number}", "body": body} for number in range(40)]
    good, bad = driver.results(driver.run(lines))
    assert len(good) > 5
    assert len(bad) > 5
    assert len(set(texts(good))) == 1


def test_invalid_answers_are_either_no_json_or_break_the_schema(start: Start) -> None:
    driver = start(invalid=1.0)
    good, _ = driver.results(driver.run(ROWS))
    judge, kinds = jsonschema_rs.validator_for(SCHEMA), Counter[str]()
    for text in texts(good):
        try:
            kinds["schema" if not judge.is_valid(json.loads(text)) else "valid"] += 1
        except json.JSONDecodeError:
            kinds["not json"] += 1
    assert kinds["valid"] == 0
    assert min(kinds["schema"], kinds["not json"]) > 50


def test_truncated_and_refused_answers_are_paid_and_marked(start: Start) -> None:
    driver = start(truncated=0.5, refused=0.5)
    batch = driver.run(ROWS)
    good, _ = driver.results(batch)
    bodies = [one["response"]["body"] for one in good]
    cut = [body for body in bodies if body["status"] == "incomplete"]
    refused = [body for body in bodies if body["output"][0]["content"][0]["type"] == "refusal"]
    assert len(cut) + len(refused) == 200
    assert {body["incomplete_details"]["reason"] for body in cut} == {"max_output_tokens"}
    assert driver.billed()["rows_billed"] == 200


def test_expired_rows_end_the_batch_as_expired(start: Start) -> None:
    driver = start(expired=0.1)
    batch = driver.run(ROWS)
    good, bad = driver.results(batch)
    assert batch.status == "expired"
    assert {one["error"]["code"] for one in bad} == {"batch_expired"}
    assert all(one["response"] is None for one in bad)
    assert len(good) + len(bad) == 200
    assert driver.billed()["rows_billed"] == len(good)
    assert batch.request_counts.failed == 0


def test_failed_missing_and_strange_rows(start: Start) -> None:
    driver = start(**{"500": 0.1, "429": 0.1, "timeout": 0.1, "unknown": 0.1, "missing": 0.1})
    good, bad = driver.results(driver.run(ROWS))
    statuses = Counter(one["response"]["status_code"] if one["response"] else one["error"]["code"] for one in bad)
    assert set(statuses) == {500, 429, 0, "request_timeout"}
    assert 0 < 200 - len(good) - len(bad) < 60


def test_duplicates_agree_and_conflicts_do_not(start: Start) -> None:
    driver = start(duplicated=0.5, conflict=0.5)
    good, _ = driver.results(driver.run(ROWS))
    assert len(good) == 400
    assert driver.billed()["rows_billed"] == 200
    answers: dict[str, set[str]] = {}
    for one, text in zip(good, texts(good), strict=True):
        answers.setdefault(one["custom_id"], set()).add(text)
    assert 50 < sum(len(found) == 1 for found in answers.values()) < 150


def test_a_share_of_lines_is_reordered(start: Start) -> None:
    driver = start(reordered=0.2)
    good, _ = driver.results(driver.run(ROWS))
    order = [one["custom_id"] for one in good]
    moved = sum(one != f"r{number:03}" for number, one in enumerate(order))
    assert sorted(order) == [f"r{number:03}" for number in range(200)]
    assert 10 < moved < 80


@pytest.mark.parametrize(
    ("word", "holds"),
    [
        ("stranger", lambda raw, _: b"a-custom-id-of-nobody" in raw),
        ("null-id", lambda raw, _: b'"custom_id":null' in raw),
        ("crlf", lambda raw, _: raw.count(b"\r\n") == 20),
        ("blank", lambda raw, _: b"\n\n" in raw),
        ("u2028", lambda raw, _: "\u2028".encode() in raw),
        ("cut-last", lambda raw, _: not raw.endswith(b"}\n")),
        ("no-final-newline", lambda raw, _: raw.endswith(b"}")),
        ("both-files", lambda raw, other: json.loads(other)["custom_id"].encode() in raw),
    ],
)
def test_result_files_can_be_odd(start: Start, word: str, holds: Any) -> None:
    driver = start(results=[word])
    rows = [one | {"body": {"model": "gpt-5.4-mini", "input": "no schema here"}} for one in ROWS[:20]]
    batch = driver.run(rows)
    assert holds(driver.raw(batch.output_file_id), driver.raw(batch.error_file_id))


def test_a_cap_cuts_the_answer(driver: Driver) -> None:
    lines = [shaped("a", input="x" * 50, max_output_tokens=16)]
    long = {"type": "string", "minLength": 400}
    lines[0]["body"]["text"]["format"] |= {"strict": False, "schema": {"type": "object", "properties": {"t": long}}}
    lines[0]["body"]["text"]["format"]["schema"]["required"] = ["t"]
    good, _ = driver.results(driver.run(lines))
    body = good[0]["response"]["body"]
    assert body["status"] == "incomplete"
    assert body["usage"]["output_tokens"] == 16
