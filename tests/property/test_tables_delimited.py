"""The fast way of reading CSV means the same as Python's csv module, whatever the bytes and wherever a block ends."""

import csv
import io
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from batchctl.model.errors import UsageError
from batchctl.tables.delimited import Delimited
from batchctl.tables.streams import Identity, SourceFile

blocks = st.integers(1, 40) | st.just(1 << 20)
hostile = st.text(alphabet='ab,"\n\r\t\x00é\u2028\ufeff ', max_size=30).map(str.encode)
hostile_bytes = st.lists(
    st.sampled_from([b"a", b",", b'"', b'""', b"\n", b"\r\n", b"\r", b"\xff", b"\xef\xbb\xbf", b"\xc3"])
).map(b"".join)


def read(content: bytes, delimiter: str, block_bytes: int, *, fast: bool) -> tuple[list[dict[str, str]], str | None]:
    """Rows, and the error that ended them."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "rows.csv"
        path.write_bytes(content)
        file = SourceFile(path, "rows.csv", Identity.of(path.stat()))
        rows: list[dict[str, str]] = []
        try:
            table = Delimited(file, delimiter, block_bytes=block_bytes, fast=fast)
            for batch in table.batches(table.columns):
                rows += batch
        except UsageError as error:
            return rows, f"{error.what} {error.where}"
        return rows, None


def with_csv_module(content: bytes, delimiter: str) -> list[dict[str, str]] | None:
    """What the csv module makes of it, None for what must be refused."""
    if content.startswith((b"PK\x03\x04", b"PAR1\x15")):  # text, but surely not meant as such
        return None
    try:
        text = io.TextIOWrapper(io.BytesIO(content), "utf-8-sig", newline="").read()
        records = [r for r in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True) if r]
    except (csv.Error, UnicodeDecodeError):
        return None
    if not records or len(set(records[0])) < len(records[0]) or any(len(r) != len(records[0]) for r in records):
        return None
    return [dict(zip(records[0], record, strict=True)) for record in records[1:]]


@settings(max_examples=500, deadline=None)
@given(content=hostile | hostile_bytes | st.binary(max_size=20), block_bytes=blocks, delimiter=st.sampled_from(",\t"))
@example(content=b"a\n1\n\xef\xbb\xbf2\n", block_bytes=2, delimiter=",")
@example(content=b'a,b\n1,"2"x\n', block_bytes=4, delimiter=",")
@example(content=b'a,b\n1,"2\n', block_bytes=4, delimiter=",")
@example(content=b'a,b\n1,2"3,"4"\n', block_bytes=4, delimiter=",")
@example(content=b"a\r1\r\r2", block_bytes=1, delimiter=",")
@example(content=b'a\n"1"\r\n', block_bytes=5, delimiter=",")
@example(content=b'a\n"1\r\n"\r\n"2"\r\n', block_bytes=3, delimiter=",")
def test_any_bytes_mean_what_the_csv_module_makes_of_them(content: bytes, block_bytes: int, delimiter: str) -> None:
    rows, error = read(content, delimiter, block_bytes, fast=True)
    by_reference, reference_error = read(content, delimiter, block_bytes, fast=False)
    expected = with_csv_module(content, delimiter)
    assert error == reference_error  # also the lines they name
    assert (rows if error is None else None) == (by_reference if error is None else None) == expected


cells = st.text(alphabet=st.sampled_from('abc,;"\n\r\t=é\u2028\ufeff\x00 0'), max_size=8)


@settings(max_examples=250, deadline=None)
@given(
    data=st.data(),
    width=st.integers(1, 4),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    block_bytes=blocks,
    delimiter=st.sampled_from(",\t"),
    mark=st.booleans(),
    ended=st.booleans(),
)
def test_any_table_that_csv_writes_is_read_back(
    data: st.DataObject, width: int, quoting: int, end: str, block_bytes: int, delimiter: str, mark: bool, ended: bool
) -> None:
    names = [f"c{i}" for i in range(width)]
    table = data.draw(st.lists(st.lists(cells, min_size=width, max_size=width), max_size=12))
    if len(end) == 1:
        quoting = csv.QUOTE_ALL  # before Python 3.13 the writer quotes only the line end it uses itself
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter, lineterminator=end, quoting=quoting)
    writer.writerow(names)
    writer.writerows(table)
    content = (b"\xef\xbb\xbf" if mark else b"") + out.getvalue().encode()
    if not ended:
        content = content.removesuffix(end.encode())
    expected = [dict(zip(names, row, strict=True)) for row in table]
    assert read(content, delimiter, block_bytes, fast=True) == (expected, None)
    assert read(content, delimiter, block_bytes, fast=False) == (expected, None)


@settings(max_examples=200, deadline=None)
@given(content=hostile, block_bytes=blocks, fast=st.booleans())
def test_a_row_is_located_at_the_line_where_it_starts(content: bytes, block_bytes: int, fast: bool) -> None:
    content = b"a,b\n" + content
    rows, error = read(content, ",", 1 << 20, fast=False)
    if error is not None:
        return
    starts = []
    line = 0
    reader = csv.reader(io.StringIO(content.decode(), newline=""), strict=True)
    for record in reader:
        starts.append(line + 1 if record else 0)
        line = reader.line_num
    expected = {position: f"rows.csv:{start}" for position, start in enumerate([s for s in starts if s][1:])}
    assert len(expected) == len(rows)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "rows.csv"
        path.write_bytes(content)
        table = Delimited(
            SourceFile(path, "rows.csv", Identity.of(path.stat())), ",", block_bytes=block_bytes, fast=fast
        )
        assert table.locate(range(len(rows))) == expected


SHARED = Path(__file__).resolve().parents[2] / "../shared/data/banking77/test.csv"


@pytest.mark.skipif(not SHARED.exists(), reason="shared data is not here")
@pytest.mark.parametrize("block_bytes", [50, 4096, 1 << 20])
def test_a_real_file_is_read_as_the_csv_module_reads_it(block_bytes: int) -> None:
    content = SHARED.read_bytes()
    expected = with_csv_module(content, ",")
    assert expected is not None
    assert len(expected) == 3080
    assert read(content, ",", block_bytes, fast=True) == (expected, None)
