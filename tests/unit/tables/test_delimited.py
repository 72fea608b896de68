"""Faults 87 to 95, 97, 98, 100 and 102 of the input, for CSV and TSV."""

import tracemalloc

import pytest

from batchctl.model.errors import Exit, UsageError

from .folder import Folder


def refusal(folder: Folder, content: bytes | str, name: str = "rows.csv", **settings: object) -> UsageError:
    folder.write(name, content)
    with pytest.raises(UsageError) as caught:
        folder.rows(name, **settings)
    assert caught.value.exit_code is Exit.USAGE
    assert caught.value.effect == "nothing was written"
    assert caught.value.hint
    return caught.value


def test_cells_are_text_byte_for_byte(folder: Folder) -> None:  # 95, 97, 98, 100
    ids = [
        "007", "9007199254740993", "9223372036854775808", "1.0", "NA", "null", "NaN", "true", "", " x ", "a/../b",
        "=1+1", "\x1b[31m", "é", "e\u0301", "A", "a", "x" * 300, "{{ subject }}", '{"a": 1}', "2024-01-01",
    ]  # fmt: skip
    folder.write("rows.csv", "id,n\n" + "".join('"' + i.replace('"', '""') + f'",{n}\n' for n, i in enumerate(ids)))
    rows = folder.rows("rows.csv")
    assert rows == [{"id": i, "n": str(n)} for n, i in enumerate(ids)]


@pytest.mark.parametrize(
    "content",
    [
        b"a,b\n1,x\n2,y\n",
        b"a,b\r\n1,x\r\n2,y\r\n",
        b"a,b\r1,x\r2,y\r",
        b"a,b\n1,x\n2,y",
        b"\xef\xbb\xbfa,b\n1,x\n2,y\n",
        b"\n\na,b\n\n1,x\n\r\n\n2,y\n\n\n",
        b'"a","b"\n"1","x"\n"2","y"\n',
        b'a,b\r\n1,x\n"2",y\r',
    ],
)
def test_every_usual_shape_of_a_file_is_read(folder: Folder, content: bytes) -> None:  # 87, 88
    folder.write("rows.csv", content)
    assert folder.rows("rows.csv") == [{"a": "1", "b": "x"}, {"a": "2", "b": "y"}]
    assert folder.source("rows.csv").columns == ("a", "b")


def test_line_ends_in_quotes_are_text(folder: Folder) -> None:  # 88
    folder.write("rows.csv", b'"a\nb",c\n"1\r\n2","x\ry"\n3,"say ""no""\n"\n')
    assert folder.rows("rows.csv") == [{"a\nb": "1\r\n2", "c": "x\ry"}, {"a\nb": "3", "c": 'say "no"\n'}]


def test_an_empty_cell_is_empty_text_and_a_quoted_empty_cell_is_a_row(folder: Folder) -> None:
    folder.write("one.csv", b'a\n""\n\nx\n')
    folder.write("two.csv", b'a,b\n,""\n')
    assert folder.rows("one.csv") == [{"a": ""}, {"a": "x"}]
    assert folder.rows("two.csv") == [{"a": "", "b": ""}]


def test_nul_is_kept(folder: Folder) -> None:  # 89
    folder.write("rows.csv", b"a,b\n1\x00\x002,\x00\n")
    assert folder.rows("rows.csv") == [{"a": "1\x00\x002", "b": "\x00"}]


def test_long_cells_and_many_columns(folder: Folder) -> None:  # 90
    folder.write(
        "long.csv", "a,b\n" + "x" * 200_000 + ',1\n"' + "y\n" * 2_000_000 + '",2\n' + 'z "quoted" z' * 20_000 + ",3\n"
    )
    assert [len(row["a"]) for row in folder.rows("long.csv")] == [200_000, 4_000_000, 240_000]
    names = [f"c{i}" for i in range(10_000)]
    folder.write("wide.csv", ",".join(names) + "\n" + ",".join(map(str, range(10_000))) + "\n")
    assert folder.rows("wide.csv") == [{name: str(i) for i, name in enumerate(names)}]


def test_a_cell_of_100_mb(folder: Folder) -> None:  # 90
    folder.write("rows.csv", b'a,b\n1,"' + b"x, y\n" * 20_000_000 + b'"\n2,z\n')
    rows = folder.rows("rows.csv")
    assert [len(row["b"]) for row in rows] == [100_000_000, 1]


def test_two_columns_of_one_name_are_refused(folder: Folder) -> None:  # 91
    error = refusal(folder, "\nid,text,id\n1,2,3\n")
    assert (error.what, error.where) == ("two columns are named `id`", ("rows.csv:2",))
    assert refusal(folder, "id,,\n1,2,3\n").what == "two columns have no name"


def test_one_column_without_a_name_is_kept(folder: Folder) -> None:
    folder.write("pandas.csv", ",text\n0,a\n")
    assert folder.rows("pandas.csv") == [{"": "0", "text": "a"}]


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ("1", "a row has 1 cell where the header has 3"),
        ("1,2", "a row has 2 cells where the header has 3"),
        ("1,2,3,", "a row has 4 cells where the header has 3"),
    ],
)
def test_rows_with_cells_missing_or_too_many_are_refused(folder: Folder, row: str, what: str) -> None:  # 92
    error = refusal(folder, 'a,b,c\n1,"\n\n",3\n\n' + row + "\n4,5,6\n")
    assert (error.what, error.where) == (what, ("rows.csv:6",))


def test_the_line_of_an_error_is_right_far_into_the_file(folder: Folder) -> None:
    content = "a,b\n" + '1,"x\ny"\r\n' * 300_000
    error = refusal(folder, content + "1,2,3\n")
    assert error.where == ("rows.csv:600002",)
    error = refusal(folder, content + "1," + '"never\nclosed\n')
    assert error.where == ("rows.csv:600002",)


def test_an_unclosed_quote_is_refused_where_it_opens(folder: Folder) -> None:  # 93
    error = refusal(folder, 'a,b\n1,2\n"x\ny","z\n3,4\n5,6\n')
    assert (error.what, error.where) == ("a quote is opened and never closed", ("rows.csv:4",))
    assert refusal(folder, 'a,"b\n1,2\n').where == ("rows.csv:1",)
    assert refusal(folder, 'a,b\n1,"').where == ("rows.csv:2",)


def test_text_after_a_closing_quote_is_refused(folder: Folder) -> None:  # 93
    error = refusal(folder, 'a,b\n1,"x" y\n')
    assert (error.what, error.where) == ("text follows a closing quote", ("rows.csv:2",))
    error = refusal(folder, 'a,b\n1,"x\n2,"y"\n')
    assert error.where == ("rows.csv:3 (the row starts at line 2)",)


def test_quotes_inside_plain_cells_are_text(folder: Folder) -> None:
    folder.write("rows.csv", 'a,b\n5" pipe,6"\n"q",x"y"\n')
    assert folder.rows("rows.csv") == [{"a": '5" pipe', "b": '6"'}, {"a": "q", "b": 'x"y"'}]


def test_an_endless_row_is_refused_before_it_fills_the_memory(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchctl.tables.delimited.RECORD_BYTES", 3_000_000)
    error = refusal(folder, 'a,b\n1,2\n1,"' + "x\n" * 2_500_000)
    assert error.where == ("rows.csv:3",)
    assert error.code == "endless_row"
    error = refusal(folder, "a,b\n1,2\n1," + "x" * 5_000_000)
    assert error.where == ("rows.csv:3",)


@pytest.mark.parametrize("content", [b"", b"\n\r\n", b"\xef\xbb\xbf"])
def test_an_empty_file_is_refused(folder: Folder, content: bytes) -> None:  # 94
    error = refusal(folder, content)
    assert "nothing to do" in error.what
    assert error.where == ("rows.csv",)


@pytest.mark.parametrize("content", ["a,b\n", "a,b", "a,b\n\n\n"])
def test_a_header_without_rows_is_refused(folder: Folder, content: str) -> None:  # 94
    assert refusal(folder, content).what == "the source has no rows: there is nothing to do"


@pytest.mark.parametrize("columns", [None, ("a",)])
def test_bytes_that_are_not_utf8_are_refused_with_line_and_offset(  # 87
    folder: Folder, columns: tuple[str, ...] | None
) -> None:
    error = refusal(folder, b'a,b\n"x\n",y\n1,caf\xe9\n', columns=columns)
    assert (error.what, error.where) == ("`rows.csv` is not valid UTF-8 text", ("rows.csv:4, byte offset 16",))
    assert '`encoding = "cp1252"`' in error.hint
    assert refusal(folder, b"a,b\xff\n1,2\n").where == ("rows.csv:1, byte offset 3",)
    assert refusal(folder, b"a,b\n1,\xed\xa0\x80\n").where == ("rows.csv:2, byte offset 6",)  # half a surrogate pair


@pytest.mark.parametrize(("encoding", "hint"), [("utf-16", "utf-16"), ("utf-32", "utf-32")])
def test_utf16_is_refused_until_it_is_declared(folder: Folder, encoding: str, hint: str) -> None:  # 87
    content = "a,b\n1,é\n".encode(encoding)
    assert f'encoding = "{hint}"' in refusal(folder, content).hint
    assert folder.rows("rows.csv", encoding=encoding) == [{"a": "1", "b": "é"}]


def test_other_encodings(folder: Folder) -> None:  # 87
    folder.write("rows.csv", "a,b\n1,\u20ac é\n".encode("cp1252"))
    assert folder.rows("rows.csv", encoding="cp1252") == [{"a": "1", "b": "\u20ac é"}]
    folder.write("rows.csv", "a,b\n1,日本\n".encode("shift_jis"))
    assert folder.rows("rows.csv", encoding="shift_jis") == [{"a": "1", "b": "日本"}]
    error = refusal(folder, b"a,b\n1,\x81\x81\n", encoding="cp1252")
    assert (error.what, error.where) == ("`rows.csv` is not valid `cp1252` text", ("rows.csv:2, byte offset 6",))
    error = refusal(folder, "a,b\n1,2\n3,4".encode("utf-16") + b"x", encoding="utf-16")
    assert error.where == ("rows.csv:3, byte offset 24",)


@pytest.mark.parametrize("encoding", ["utf8x", "hex", "rot13", "", "a\0b"])
def test_an_unknown_encoding_is_refused(folder: Folder, encoding: str) -> None:
    assert "encoding" in refusal(folder, "a\n1\n", encoding=encoding).what


@pytest.mark.parametrize(
    "content", [b"PK\x03\x04 rest", b"PAR1\x15\x04", b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"\xd0\xcf\x11\xe0"]
)
def test_other_kinds_of_files_are_recognised(folder: Folder, content: bytes) -> None:
    assert "UTF-8" not in refusal(folder, content).what


def test_tsv_has_the_same_quoting(folder: Folder) -> None:
    folder.write("rows.tsv", 'a\tb\n"1\t""x"""\t2,3\n')
    assert folder.rows("rows.tsv") == [{"a": '1\t"x"', "b": "2,3"}]


def test_columns_are_chosen_in_the_order_of_the_file(folder: Folder) -> None:
    folder.write("rows.csv", 'a,b,c\n1,2,3\n4,"5" ,6\n'.replace('"5" ', '5"'))
    rows = folder.rows("rows.csv", columns=("c", "a"))
    assert [list(row.items()) for row in rows] == [[("a", "1"), ("c", "3")], [("a", "4"), ("c", "6")]]


def test_rows_are_located_by_line(folder: Folder) -> None:
    folder.write("rows.csv", b'a,b\n\n1,"x\ny"\n2,z\r\n3,5"\n4,"\n"')
    source = folder.source("rows.csv")
    assert source.locate([3, 0, 2, 1, 9]) == {0: "rows.csv:3", 1: "rows.csv:5", 2: "rows.csv:6", 3: "rows.csv:7"}


def test_memory_stays_flat(folder: Folder) -> None:  # 102
    folder.write("rows.csv", "id,text\n" + "".join(f'T-{i},"{"word " * 40}"\n' for i in range(60_000)))
    source = folder.source("rows.csv")
    tracemalloc.start()
    count = sum(len(batch.rows) for batch in source.batches())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 60_000
    assert peak < 12_000_000  # the file: 13 MB, its rows as Python values: 30 MB
