"""The fast reader of JSON Lines means the same as the strict one, wherever a block ends."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from batchctl.model.rows import Unusable
from batchctl.tables.jsonl import JsonLines, parse_row, parse_strictly
from batchctl.tables.streams import Identity, SourceFile

texts = st.text(st.characters(codec="utf-8"), max_size=6) | st.sampled_from(
    ['":', " :", '" :', "\\", "a", "b", "\u2028"]
)
numbers = st.integers() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
separators = st.sampled_from([(",", ":"), (", ", ": "), (" ,", " :"), (",\t", "\t:\r")])
tokens = st.sampled_from(
    ["{", "}", "[", "]", '"a"', '"b"', ":", ",", "1", " ", '"\\ud800"', "NaN", "1e400", "9" * 20, "-", "\x00"]
)


def same(line: bytes) -> None:
    fast, strict = parse_row(line), parse_strictly(line)
    if isinstance(strict, Unusable) or isinstance(fast, Unusable):
        assert isinstance(strict, Unusable)
        assert isinstance(fast, Unusable)
        assert fast == strict
        assert fast.raw == line
    else:
        assert repr(fast) == repr(strict)


@settings(max_examples=300, deadline=None)
@given(row=st.dictionaries(texts, values, max_size=4), marks=separators, ascii_only=st.booleans())
def test_any_object_is_read_alike_and_exactly(row: dict[str, Any], marks: tuple[str, str], ascii_only: bool) -> None:
    line = json.dumps(row, separators=marks, ensure_ascii=ascii_only).encode()
    assert parse_row(line) == row
    same(line)


@settings(max_examples=300, deadline=None)
@given(line=st.lists(tokens, max_size=14).map("".join).map(str.encode) | st.binary(max_size=12))
@example(line=b'{"a":1,"a":1}')
@example(line=b'{"a":{"b":1},"c":{"b" :1,"b":2}}')
def test_any_line_is_read_alike(line: bytes) -> None:
    same(line)


@settings(max_examples=200, deadline=None)
@given(
    pairs=st.lists(st.tuples(st.sampled_from("abcd"), values), min_size=2, max_size=5),
    marks=separators,
    deep=st.booleans(),
)
def test_repeated_keys_are_always_found(pairs: list[tuple[str, Any]], marks: tuple[str, str], deep: bool) -> None:
    comma, colon = marks
    body = comma.join(f'"{key}"{colon}{json.dumps(value, separators=marks)}' for key, value in pairs)
    line = (f'{{"x"{colon}[{{{body}}}]}}' if deep else f"{{{body}}}").encode()
    repeated = len({key for key, _ in pairs}) < len(pairs)
    assert isinstance(parse_row(line), Unusable) is repeated


@settings(max_examples=200, deadline=None)
@given(
    lines=st.lists(
        st.sampled_from(['{"a":1}', "", " ", "x", '{"b":"\u2028\x85"}', "\ufeff{}", '{"c":"' + "y" * 50 + '"}'])
    ),
    end=st.sampled_from(["\n", "\r\n"]),
    block_bytes=st.integers(1, 30),
    last=st.booleans(),
)
def test_lines_survive_any_block_size(lines: list[str], end: str, block_bytes: int, last: bool) -> None:
    content = end.join(lines) + end * last
    expected = [
        (f"rows.jsonl:{number}", parse_row(line.encode()))
        for number, line in enumerate(content.removeprefix("\ufeff").split("\n"), 1)
        if line.strip(" \t\r")
    ]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        path.write_bytes(content.encode())
        file = SourceFile(path, "rows.jsonl", Identity.of(path.stat()))
        reader = JsonLines(file, block_bytes=block_bytes)
        rows = [row for batch in reader.batches(None) for row in batch]
        assert rows == [row for _, row in expected]
        assert reader.locate(range(len(rows))) == {i: place for i, (place, _) in enumerate(expected)}
