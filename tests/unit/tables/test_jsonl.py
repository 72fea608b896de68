"""Faults 87 to 89, 95, 99 and 109 to 113 as they meet JSON Lines sources."""

from typing import Any

import pytest

from batchctl.model.errors import UsageError
from batchctl.model.rows import Unusable
from batchctl.tables.jsonl import parse_row, parse_strictly

from .folder import Folder


def test_values_are_kept(folder: Folder) -> None:
    folder.write("rows.jsonl", '{"id":"007","n":1.5,"x":null,"y":[1,{"z":true}]}\n{"other":"a: b \\": c"}\n')
    assert folder.rows("rows.jsonl") == [
        {"id": "007", "n": 1.5, "x": None, "y": [1, {"z": True}]},
        {"other": 'a: b ": c'},
    ]
    assert folder.source("rows.jsonl").columns is None


def test_integers_of_any_size_are_exact(folder: Folder) -> None:  # 95
    numbers = [2**53 + 1, 2**63, 2**64 - 1, 2**64, 2**64 + 1, -(2**63) - 1, 10**400]
    folder.write("rows.jsonl", "".join(f'{{"n":{n}}}\n' for n in numbers))
    assert [row["n"] for row in folder.rows("rows.jsonl")] == numbers
    assert all(type(row["n"]) is int for row in folder.rows("rows.jsonl"))


def test_line_ends(folder: Folder) -> None:  # 88
    content = '\ufeff{"a":"x\u2028y\u0085z"}\r\n\r\n  \n{"a":"2"}\n\n{"a":"3"}'
    folder.write("rows.jsonl", content)
    source = folder.source("rows.jsonl")
    assert folder.rows("rows.jsonl") == [{"a": "x\u2028y\u0085z"}, {"a": "2"}, {"a": "3"}]
    assert source.locate([2, 0, 1]) == {0: "rows.jsonl:1", 1: "rows.jsonl:4", 2: "rows.jsonl:6"}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"a":1,"a":2}', 'the key "a" appears twice in one object'),
        (b'{"a" : 1, "a" : 2}', 'the key "a" appears twice in one object'),
        (b'{"a":1,"\\u0061":2}', 'the key "a" appears twice in one object'),
        (b'{"x":[{"b":{"c":1,"c":1}}]}', 'the key "c" appears twice in one object'),
        (b'{"a":1,"a":99999999999999999999}', 'the key "a" appears twice in one object'),
        (b'{"a":NaN}', "not valid JSON"),
        (b'{"a":-Infinity,"b":99999999999999999999}', "not valid JSON: -Infinity is not a JSON value"),
        (b'{"a":1e999}', "not usable JSON: a number is too large"),
        (b'{"a":1e999,"b":99999999999999999999}', "not usable JSON: a number is too large"),
        (b'{"a":"\\ud800"}', "not usable JSON: half a surrogate pair in a text"),
        (b'{"a":"\\ud800","b":99999999999999999999}', "not usable JSON: half a surrogate pair in a text"),
        (b'{"\\ud800":1,"b":99999999999999999999}', "not usable JSON: half a surrogate pair in a text"),
        (b'{"a":' + b"1" * 5000 + b"}", "not usable JSON: an integer of more than 4,300 digits"),
        (b'{"a":' + b"[" * 200 + b"]" * 200 + b"}", "nested deeper than 128 levels"),
        (b'{"a":' * 200 + b"1" + b"}" * 200, "nested deeper than 128 levels"),
        (b'{"a":' * 100_000, "nested deeper than 128 levels"),
        (b"[" * 100_000 + b"1" * 20, "nested deeper than 128 levels"),
        (b"[1]", "the line is an array, not a JSON object"),
        (b'"a"', "the line is a text, not a JSON object"),
        (b"1", "the line is a number, not a JSON object"),
        (b"99999999999999999999", "the line is a number, not a JSON object"),
        (b"null", "the line is null, not a JSON object"),
        (b"true", "the line is true or false, not a JSON object"),
        (b'{"a":1}{"a":2}', "not valid JSON"),
        (b'{"a":1', "not valid JSON"),
        (b"\x00", "not valid JSON"),
        (b'{"a":"\x00"}', "not valid JSON"),
        (b'{"a":"caf\xe9"}', "not valid UTF-8 at byte 9 of the line"),
    ],
)
def test_a_bad_line_is_unusable_and_stops_nothing(folder: Folder, line: bytes, reason: str) -> None:
    folder.write("rows.jsonl", b'{"a":1}\n' + line + b'\r\n{"a":2}\n')
    first, bad, last = folder.rows("rows.jsonl")
    assert (first, last) == ({"a": 1}, {"a": 2})
    assert isinstance(bad, Unusable)
    assert bad.reason.startswith(reason)
    assert bad.raw.strip() == line


@pytest.mark.parametrize(
    "line",
    [
        b'{"a":"b\\": c"}',
        b'{"a" :1}',
        b'{"a"\t:\t[{"b":"c : d"}]}',
        b'{"a":"http://x.y/ : z"}',
        b'{"a":{},"b":[],"c":[[]]}',
        b'{"n":1.2345678901234567890123}',
        b'{"n":"1234567890123456789012"}',
        b'{"":-0,"x":-0.0,"y":1E3}',
        b'{"a":' * 64 + b"1" + b"}" * 64,
    ],
)
def test_both_readers_agree(line: bytes) -> None:
    assert repr(parse_row(line)) == repr(parse_strictly(line))
    assert isinstance(parse_row(line), dict)


def test_columns_are_chosen_where_a_row_has_them(folder: Folder) -> None:
    folder.write("rows.jsonl", '{"c":1,"b":2,"a":3}\n{"a":4}\n')
    assert folder.rows("rows.jsonl", columns=("a", "c")) == [{"c": 1, "a": 3}, {"a": 4}]


def test_long_lines_cross_blocks(folder: Folder) -> None:  # 90
    rows: list[dict[str, Any]] = [{"a": "x" * 3_000_000}, {"a": "y"}, {"a": "z" * 1_500_000}]
    folder.write("rows.jsonl", "".join(f'{{"a":"{row["a"]}"}}\n' for row in rows))
    assert folder.rows("rows.jsonl") == rows


def test_utf16_needs_a_word_and_empty_is_refused(folder: Folder) -> None:  # 87, 94
    folder.write("rows.jsonl", '{"a":"é"}\n'.encode("utf-16"))
    with pytest.raises(UsageError) as caught:
        folder.rows("rows.jsonl")
    assert 'encoding = "utf-16"' in caught.value.hint
    assert folder.rows("rows.jsonl", encoding="utf-16") == [{"a": "é"}]
    for content in ("", "\n \r\n"):
        folder.write("empty.jsonl", content)
        with pytest.raises(UsageError, match="nothing to do"):
            folder.rows("empty.jsonl")


def test_an_endless_line_is_refused(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchctl.tables.jsonl.RECORD_BYTES", 2_000_000)
    folder.write("rows.jsonl", '{"a":1}\n{"a":"' + "x" * 5_000_000)
    with pytest.raises(UsageError) as caught:
        folder.rows("rows.jsonl")
    assert caught.value.where == ("rows.jsonl:2",)
