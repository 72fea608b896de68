"""Finding files, telling formats, many files, compression, and faults 101 and 102."""

import gzip
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchctl.model.errors import UsageError
from batchctl.tables import SourceSpec, open_source

from .folder import Folder, zstd


def refusal(folder: Folder, *paths: str, **settings: Any) -> UsageError:
    with pytest.raises(UsageError) as caught:
        folder.rows(*paths, **settings)
    assert caught.value.effect == "nothing was written"
    return caught.value


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "id,t\n1,x\n"),
        ("a.CSV", "id,t\n1,x\n"),
        ("a.b.csv.gz", "id,t\n1,x\n"),
        ("a.csv.zst", "id,t\n1,x\n"),
        ("a.tsv", "id\tt\n1\tx\n"),
        ("a.tsv.gz", "id\tt\n1\tx\n"),
        ("a.jsonl", '{"id":"1","t":"x"}\n'),
        ("a.ndjson", '{"id":"1","t":"x"}\n'),
        ("a.jsonl.zst", '{"id":"1","t":"x"}\n'),
        ("a.ndjson.gz", '{"id":"1","t":"x"}\n'),
    ],
)
def test_the_name_tells_the_format(folder: Folder, name: str, content: str) -> None:
    folder.write(name, content)
    assert folder.rows(name) == [{"id": "1", "t": "x"}]


def test_format_overrules_the_name(folder: Folder) -> None:
    folder.write("rows.txt", "id\n1\n")
    folder.write("rows.dat.gz", "id\n1\n")
    assert folder.rows("rows.txt", format="csv") == [{"id": "1"}]
    assert folder.rows("rows.dat.gz", format="csv") == [{"id": "1"}]
    assert "`csv`" in refusal(folder, "rows.txt", format="cvs").hint


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("rows.cvs", "did you mean `.csv`?"),
        ("rows.parq", "did you mean `.parquet`?"),
        ("rows.json", "JSON Lines"),
        ("rows.xlsx", "export the sheet as CSV"),
        ("rows.txt", 'format = "csv"'),
        ("rows", 'format = "csv"'),
        ("rows.gz", 'format = "csv"'),
    ],
)
def test_an_unknown_name_gets_advice(folder: Folder, name: str, hint: str) -> None:
    (folder.path / name).write_bytes(b"a\n1\n")
    error = refusal(folder, name)
    assert hint in error.hint
    assert ".parquet" in error.where[0]


def test_files_of_a_glob_are_read_in_order_of_their_names(folder: Folder) -> None:
    for name, row in [("d/b.csv", "2,y"), ("d/a.csv", "1,x"), ("d/c.csv.gz", "3,z")]:
        folder.write(name, f"id,t\n{row}\n")
    (folder.path / "d/x.csv").mkdir()
    source = folder.source("d/*.csv*")
    assert source.names == ("d/a.csv", "d/b.csv", "d/c.csv.gz")
    assert [(batch.first, batch.rows) for batch in source.batches()] == [
        (0, [{"id": "1", "t": "x"}]),
        (1, [{"id": "2", "t": "y"}]),
        (2, [{"id": "3", "t": "z"}]),
    ]
    assert source.locate([2, 0, 3]) == {0: "d/a.csv:2", 2: "d/c.csv.gz:2"}
    assert [batch.first for batch in source.batches()] == [0, 1, 2]  # again


def test_a_file_is_read_once_whoever_names_it(folder: Folder) -> None:
    folder.write("a.csv", "id\n1\n")
    assert folder.rows("a.csv", "*.csv", "./a.csv") == [{"id": "1"}]


def test_a_name_with_brackets_is_a_name_first(folder: Folder) -> None:
    folder.write("data[1].csv", "id\n1\n")
    assert folder.rows("data[1].csv") == [{"id": "1"}]


def test_absolute_paths(folder: Folder) -> None:
    path = folder.write("a.csv", "id\n1\n")
    assert open_source(SourceSpec((str(path),), base=Path("/nowhere"))).names == (str(path),)
    assert folder.rows(str(folder.path / "*.csv")) == [{"id": "1"}]


def test_missing_files_are_refused_with_names_that_exist(folder: Folder) -> None:
    folder.write("tickets.csv", "id\n1\n")
    error = refusal(folder, "ticket.csv")
    assert (error.what, error.hint) == ("there is no file `ticket.csv`", "there is `tickets.csv`")
    error = refusal(folder, "message-*.csv")
    assert (error.what, error.hint) == ("no file matches `message-*.csv`", "there is `tickets.csv`")
    assert "relative to the job file" in refusal(folder, "data/x.csv").hint
    assert "relative to the job file" in refusal(folder, "data/*.csv").hint
    assert refusal(folder, "tickets.csv/x.csv").code == "source_not_found"


def test_only_regular_files_are_sources(folder: Folder) -> None:
    (folder.path / "dir.csv").mkdir()
    assert "dir.csv/*.csv" in refusal(folder, "dir.csv").hint
    os.mkfifo(folder.path / "pipe.csv")
    assert '"-"' in refusal(folder, "pipe.csv").hint
    (folder.path / "lost.csv").symlink_to("nowhere.csv")
    assert "no file `lost.csv`" in refusal(folder, "lost.csv").what


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_refused(folder: Folder) -> None:
    folder.write("a.csv", "id\n1\n").chmod(0)
    assert "cannot read `a.csv`" in refusal(folder, "a.csv").what


@pytest.mark.parametrize(
    "path", ["https://example.test/x.csv?token=abc", "s3://", "s3://bucket", "gs://bucket/folder/"]
)
def test_addresses_that_are_no_source(folder: Folder, path: str) -> None:
    error = refusal(folder, path)
    assert "is not a source" in error.what
    assert "token" not in error.what


@pytest.mark.parametrize("path", ["s3://bucket/key.csv", "gs://bucket/*.parquet"])
def test_an_object_needs_a_place_for_its_copy(folder: Folder, path: str) -> None:
    assert "copy it to this machine" in (refusal(folder, path).hint or "")


@pytest.mark.parametrize("paths", [(), ("a\0.csv",), ("",)])
def test_impossible_paths(folder: Folder, paths: tuple[str, ...]) -> None:
    refusal(folder, *paths)


def test_files_with_other_columns_are_refused(folder: Folder) -> None:
    folder.write("a.csv", "id,t\n1,x\n")
    folder.write("b.csv", "id,u\n1,x\n")
    error = refusal(folder, "*.csv")
    assert error.what == "`a.csv` and `b.csv` do not have the same columns"
    assert error.where == ("b.csv lacks `t` and has `u` besides",)


def test_columns_in_another_order_are_brought_into_one(folder: Folder) -> None:
    folder.write("a.csv", "id,t\n1,x\n")
    folder.write("b.csv", 't,id\ny,2\n"q"z,3\n'.replace('"q"z', 'q"z'))
    assert [list(row.items()) for row in folder.rows("*.csv")] == [
        [("id", "1"), ("t", "x")],
        [("id", "2"), ("t", "y")],
        [("id", "3"), ("t", 'q"z')],
    ]
    pq.write_table(pa.table({"a": [1], "b": [2]}), folder.path / "a.parquet")
    pq.write_table(pa.table({"b": [3], "a": [4]}), folder.path / "b.parquet")
    assert [list(row.items()) for row in folder.rows("*.parquet")] == [[("a", 1), ("b", 2)], [("a", 4), ("b", 3)]]


def test_files_of_different_formats_are_refused(folder: Folder) -> None:
    folder.write("a.csv", "id\n1\n")
    folder.write("b.jsonl", '{"id":1}\n')
    assert refusal(folder, "*").where == ("a.csv: csv", "b.jsonl: jsonl")


def test_an_unknown_column_is_refused_with_a_suggestion(folder: Folder) -> None:
    folder.write("a.csv", "ticket_id,subject\n1,x\n")
    error = refusal(folder, "a.csv", columns=("ticketid",))
    assert error.what == "the source has no column `ticketid`"
    assert error.where == ("a.csv has: `ticket_id`, `subject`",)
    assert "did you mean `ticket_id`?" in error.hint


@pytest.mark.parametrize("name", ["a.csv.gz", "a.csv.zst", "a.jsonl.gz", "a.jsonl.zst"])
def test_damaged_archives_are_refused_by_name(folder: Folder, name: str) -> None:
    lines = [
        f'{{"id":"{os.urandom(8).hex()}"}}\n' if "jsonl" in name else f"{os.urandom(8).hex()}\n" for _ in range(90_000)
    ]
    path = folder.write(name, "id\n" * ("csv" in name) + "".join(lines))
    whole = path.read_bytes()
    assert len(folder.rows(name)) == 90_000
    for damaged in (
        whole[:-1],
        whole[:-9],
        whole[: len(whole) // 2],
        whole[:10],
        b"id\n1\n",
        whole[:1000] + bytes(500) + whole[1500:]
        if name.endswith(".gz")
        else whole[:5],  # pyarrow writes zstd without sums
    ):
        path.write_bytes(damaged)
        error = refusal(folder, name)
        assert error.what == f"`{name}` is damaged or incomplete: it cannot be decompressed"
        assert error.where[0].startswith(name)


@pytest.mark.parametrize("pack", [gzip.compress, zstd])
def test_archives_of_several_parts(folder: Folder, pack: Any) -> None:
    suffix = "gz" if pack is gzip.compress else "zst"
    (folder.path / f"a.csv.{suffix}").write_bytes(pack(b"id\n1\n") + pack(b"2\n"))
    assert folder.rows(f"a.csv.{suffix}") == [{"id": "1"}, {"id": "2"}]


def test_a_decompression_bomb_is_refused(folder: Folder) -> None:
    folder.write("a.csv.zst", b"id\n" + (b"1" * 100_000 + b"\n") * 1_000)
    assert (folder.path / "a.csv.zst").stat().st_size < 50_000
    error = refusal(folder, "a.csv.zst")
    assert "2,000 times" in error.what


def test_parquet_in_an_archive_is_refused(folder: Folder) -> None:
    folder.write("a.parquet.gz", b"PAR1")
    assert "gunzip" in refusal(folder, "a.parquet.gz").hint


def test_stdin_is_copied_first(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b'{"id":1}\n{"id":2}\n'
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    spool = folder.path / "state" / "spool"
    source = folder.source("-", format="jsonl", spool=spool)
    assert source.names == ("stdin",)
    for _ in range(2):
        assert [row for batch in source.batches() for row in batch.rows] == [{"id": 1}, {"id": 2}]
    assert source.locate([1]) == {1: "stdin:2"}
    assert [(path.name, path.stat().st_mode & 0o777) for path in spool.iterdir()] == [("stdin", 0o600)]


def test_stdin_needs_a_format_and_a_place(folder: Folder) -> None:
    assert 'format = "jsonl"' in refusal(folder, "-", spool=folder.path).hint
    refusal(folder, "-", format="jsonl")


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet", "a.csv.gz"])
def test_a_file_that_changes_is_noticed(folder: Folder, name: str) -> None:  # 101
    def write() -> None:
        if name.endswith(".parquet"):
            pq.write_table(pa.table({"id": ["1"] * 5000}), folder.path / name)
        else:
            folder.write(name, ('{"id":1}\n' if "jsonl" in name else "id\n") * 5000)
        os.utime(folder.path / name, ns=(0, write_times.pop()))

    write_times = [3, 2, 1]
    write()
    source = folder.source(name)
    write()
    with pytest.raises(UsageError, match="changed while"):
        list(source.batches())
    source = folder.source(name)
    with pytest.raises(UsageError, match="changed while"):  # noqa: PT012  the change falls between two batches
        for batch in source.batches():
            assert batch.rows
            if write_times:
                write()


def test_importing_tables_is_light() -> None:
    code = "import sys, batchctl.tables; print([m for m in ('pyarrow', 'orjson', 'csv') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
