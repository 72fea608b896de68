"""Rows out: JSONL as it is, CSV and Parquet with one column set.

Rows arrive as JSON objects in bytes, because that is how the ledger's segments and result files hold them. The caller
opens the file (atomically) and closes it. CSV is a view for spreadsheets and is not lossless: see `_cell`; JSONL is.
"""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from batchctl.tables.columns import Column, Kind, Load, fitted, json_text
from batchctl.tables.jsonl import parse_row

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Form = Literal["csv", "jsonl", "parquet"]
GROUP_ROWS = 20_000
GROUP_BYTES = 32 << 20
_QUOTE = '"'
_SPECIAL = re.compile(r'[",\r\n]')
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\x00")
"""First characters that make a spreadsheet run a cell; quoting does not help (OWASP, "CSV Injection")."""


def write_rows(
    form: Form, out: BinaryIO, rows: Iterable[bytes], columns: Sequence[str] = (), *, raw: bool = False
) -> int:
    """Write `rows`, each one JSON object without line end; gives their number.

    `columns` are the columns of CSV and Parquet in order; a row without one of them has an empty (CSV) or null
    (Parquet) cell, and a key that is not among them is an error, so that nothing is dropped unseen. JSONL ignores them.
    `raw` writes CSV cells that a spreadsheet would run as formulas unchanged.
    """
    if form == "jsonl":
        return _write_jsonl(out, rows)
    values = (_values(row, columns) for row in rows)
    if form == "csv":
        return _write_csv(out, values, columns, raw)
    return _write_parquet(out, values, [Column(name) for name in columns])


def write_load(form: Form, out: BinaryIO, load: Load) -> int:
    """Write the rows of a publication; gives their number. CSV is made safe for spreadsheets unless `raw_csv`."""
    if form == "csv":
        return _write_csv(out, load.rows(), load.names, load.raw_csv)
    if form == "parquet":
        return _write_parquet(out, load.rows(), load.columns)
    names = load.names
    return _write_jsonl(out, (json_text(dict(zip(names, row, strict=True))).encode() for row in load.rows()))


def _write_jsonl(out: BinaryIO, rows: Iterable[bytes]) -> int:
    count = 0
    for row in rows:
        if b"\n" in row:
            raise ValueError("a row of a JSONL file cannot contain a line end")
        out.write(row)
        out.write(b"\n")
        count += 1
    return count


def _write_csv(out: BinaryIO, rows: Iterable[Sequence[Any]], columns: Sequence[str], raw: bool) -> int:
    text = io.TextIOWrapper(out, "utf-8", newline="", write_through=False)
    try:
        text.write(_line(columns, raw))
        count = 0
        for row in rows:
            text.write(_line(row, raw))
            count += 1
        text.flush()
    finally:
        text.detach()  # the caller's file stays open
    return count


def _line(values: Sequence[Any], raw: bool) -> str:
    """One CSV line. Not the csv module's: before Python 3.13 it leaves a CR unquoted when lines end with LF."""
    cells = [_cell(value, raw) for value in values]
    quoted = [f'"{cell.replace(_QUOTE, _QUOTE * 2)}"' if _SPECIAL.search(cell) else cell for cell in cells]
    return (",".join(quoted) or '""') + "\n"  # an empty line would be no row


def _cell(value: Any, raw: bool) -> str:
    """One CSV cell: text as it is, other values as JSON, null as nothing.

    Lossy in two ways: null and empty text look the same, and a text that starts like a formula gets a `'` in front.
    Numbers are left alone: -5 is no formula.
    """
    if value is None:
        return ""
    if type(value) is not str:
        return json_text(value)
    if not raw and value.startswith(_FORMULA):
        return "'" + value
    return value


def _write_parquet(out: BinaryIO, rows: Iterable[Sequence[Any]], columns: Sequence[Column]) -> int:
    """Row groups bounded in rows and bytes, so that memory does not grow with the table."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {
        Kind.INTEGER: pa.int64(),
        Kind.NUMBER: pa.float64(),
        Kind.BOOLEAN: pa.bool_(),
        Kind.TIME: pa.timestamp("s", "UTC"),
    }
    schema = pa.schema([(column.name, types.get(column.kind, pa.string())) for column in columns])
    count = 0
    with pq.ParquetWriter(out, schema, compression="zstd") as writer:
        cells: list[list[Any]] = [[] for _ in columns]
        held = held_bytes = 0

        def flush() -> None:
            if held:
                arrays = [_array(values, column) for values, column in zip(cells, schema, strict=True)]
                writer.write_batch(pa.record_batch(arrays, schema=schema))
                for column in cells:
                    column.clear()

        for row in rows:
            for place, value in enumerate(row):
                cell = fitted(value, columns[place])
                cells[place].append(cell)
                if type(cell) is str:
                    held_bytes += len(cell)
            count += 1
            held += 1
            if held == GROUP_ROWS or held_bytes >= GROUP_BYTES:
                flush()
                held = held_bytes = 0
        flush()
    return count


def _array(values: list[Any], column: Any) -> Any:
    import pyarrow as pa

    if pa.types.is_timestamp(column.type):
        return pa.array(values, pa.string()).cast(column.type)
    return pa.array(values, column.type)


def _values(row: bytes, columns: Sequence[str]) -> list[Any]:
    value = parse_row(row)
    if not isinstance(value, dict):
        raise ValueError(f"a row to be written is unusable: {value.reason}")
    unknown = value.keys() - set(columns)
    if unknown:
        raise ValueError(f"a row to be written has keys that are no columns: {', '.join(sorted(unknown))}")
    return [value.get(column) for column in columns]
