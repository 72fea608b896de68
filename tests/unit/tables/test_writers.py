"""Fault 116, and what each kind of file makes of each kind of value."""

import csv
import io

import pyarrow.parquet as pq
import pytest

from batchctl.tables.writers import write_rows

ROWS = [
    b'{"id":"007","text":"a, \\"b\\"\\nc","n":-5,"nested":{"x":[1,null]}}',
    b'{"id":"=1+1","text":"","n":18446744073709551617,"nested":null}',
    b'{"id":"8","text":"x\\ry"}',
]
COLUMNS = ["id", "text", "n", "nested"]


def written(kind: str, rows: list[bytes], columns: list[str], **settings: bool) -> bytes:
    out = io.BytesIO()
    assert write_rows(kind, out, iter(rows), columns, **settings) == len(rows)  # type: ignore[arg-type]
    assert not out.closed
    return out.getvalue()


def test_jsonl_is_written_as_it_is() -> None:
    assert written("jsonl", ROWS, []) == b"\n".join(ROWS) + b"\n"
    with pytest.raises(ValueError, match="line end"):
        written("jsonl", [b'{\n"a":1}'], [])


def test_csv_is_read_back_by_the_csv_module() -> None:
    text = written("csv", ROWS, COLUMNS).decode()
    assert list(csv.reader(io.StringIO(text, newline=""), strict=True)) == [
        COLUMNS,
        ["007", 'a, "b"\nc', "-5", '{"x":[1,null]}'],
        ["'=1+1", "", "18446744073709551617", ""],
        ["8", "x\ry", "", ""],
    ]


@pytest.mark.parametrize("first", ["=", "+", "-", "@", "\t", "\r", "\x00"])
def test_cells_that_would_be_formulas_are_neutralised(first: str) -> None:  # 116
    row = f'{{"a":"\\u{ord(first):04x}1"}}'.encode()
    safe = list(csv.reader(io.StringIO(written("csv", [row], ["a"]).decode(), newline="")))
    raw = list(csv.reader(io.StringIO(written("csv", [row], ["a"], raw=True).decode(), newline="")))
    assert safe == [["a"], [f"'{first}1"]]
    assert raw == [["a"], [f"{first}1"]]
    assert written("jsonl", [row], []) == row + b"\n"


def test_names_of_columns_are_neutralised_too() -> None:
    assert written("csv", [], ["=a"]) == b"'=a\n"


def test_an_empty_cell_alone_is_a_row() -> None:
    assert written("csv", [b'{"a":""}', b"{}"], ["a"]) == b'a\n""\n""\n'


def test_parquet_holds_text_and_null() -> None:
    table = pq.read_table(io.BytesIO(written("parquet", ROWS, COLUMNS)))
    assert table.to_pylist() == [
        {"id": "007", "text": 'a, "b"\nc', "n": "-5", "nested": '{"x":[1,null]}'},
        {"id": "=1+1", "text": "", "n": "18446744073709551617", "nested": None},
        {"id": "8", "text": "x\ry", "n": None, "nested": None},
    ]
    assert {str(field.type) for field in table.schema} == {"string"}


def test_parquet_is_written_in_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchctl.tables.writers.GROUP_ROWS", 10)
    content = written("parquet", [b'{"a":"%d"}' % i for i in range(25)], ["a"])
    metadata = pq.ParquetFile(io.BytesIO(content)).metadata
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [10, 10, 5]
    assert pq.read_table(io.BytesIO(written("parquet", [], ["a"]))).num_rows == 0


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_nothing_is_dropped_unseen(kind: str) -> None:
    with pytest.raises(ValueError, match="no columns: b"):
        written(kind, [b'{"a":1,"b":2}'], ["a"])
    with pytest.raises(ValueError, match="unusable"):
        written(kind, [b'{"a":1,"a":2}'], ["a"])
