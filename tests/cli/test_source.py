"""Rows as they come: what is refused names file and line and leaves nothing behind; what is fine keeps every byte."""

import gzip
import json
import subprocess

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.cli.conftest import Golden
from tests.cli.desk import BATCHCTL, ROWS, Desk

HEAD = "message_id,subject,body\n"
REFUSED = {
    "the same id twice": HEAD + "A,x,1\nB,x,2\nA,x,3\nB,x,4\n",
    "no id": HEAD + "A,x,1\n,x,2\n",
    "a cell too few": HEAD + "A,x,1\nB,x\n",
    "a cell too many": HEAD + "A,x,1\nB,x,2,3\n",
    "a quote that stays open": HEAD + 'A,x,1\nB,"x,2\nC,x,3\n',
    "text after a quote": HEAD + 'A,x,1\nB,"x" y,2\n',
    "not UTF-8": HEAD.encode() + b"A,x,1\nB,caf\xe9,2\n",
    "UTF-16": ROWS.encode("utf-16"),
    "two columns of a name": "message_id,subject,subject,body\nA,x,y,z\n",
    "an empty file": "",
    "only a header": HEAD,
    "only blank lines": "\n\n\n",
    "gzip by another name": gzip.compress(ROWS.encode(), mtime=0),
    "an Excel workbook": b"PK\x03\x04 and so on",
}


def test_refused_files(desk: Desk, golden: Golden) -> None:
    for content in REFUSED.values():
        desk.write("messages.csv", content)
        desk.fails(2, "prepare")
    golden("refused-files")
    desk.write("messages.csv", ROWS)
    assert desk.run("prepare", "--json", code=0).json["balance"]["queued"] == 3


def test_files_that_are_not_there(desk: Desk, golden: Golden) -> None:
    (desk.path / "messages.csv").rename(desk.path / "message.csv")
    desk.fails(2, "prepare")
    for path in ("data/*.csv", "rows.xlsx", ".", "https://host/rows.csv?key=secret", "-"):
        desk.job(("messages.csv", path))
        (desk.path / "messages.csv").unlink()
        desk.write("rows.xlsx", b"PK")
        desk.fails(2, "prepare")
    golden("missing-files")


def rows_of(desk: Desk) -> list[dict[str, object]]:
    """The source columns of every row, as the run keeps them."""
    table = pq.read_table(desk.directory / "chunks" / "0001.rows.parquet")
    return [json.loads(row) for row in table.column("row").to_pylist()]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.csv", ROWS),
        ("rows.csv", "\ufeff" + ROWS),
        ("rows.csv", ROWS.replace("\n", "\r\n")),
        ("rows.csv", ROWS.removesuffix("\n")),
        ("rows.tsv", ROWS.replace(",", "\t")),
        ("rows.csv.gz", gzip.compress(ROWS.encode())),
        ("rows.csv.zst", pa.compress(ROWS.encode(), "zstd", asbytes=True)),
        ("rows.jsonl", None),
        ("rows.jsonl.gz", None),
        ("rows.parquet", None),
    ],
)
def test_the_same_rows_in_every_format(desk: Desk, name: str, content: str | bytes | None) -> None:
    rows = [dict(zip(HEAD.strip().split(","), line.split(","), strict=True)) for line in ROWS.split("\n")[1:-1]]
    desk.job(("messages.csv", name))
    if content is None and "jsonl" in name:
        content = "".join(json.dumps(row) + "\n" for row in rows)
        content = gzip.compress(content.encode()) if name.endswith(".gz") else content
    if content is None:
        pq.write_table(pa.Table.from_pylist(rows), desk.path / name)
    else:
        desk.write(name, content)
    assert desk.run("prepare", "--json", code=0).json["requests"] == 3
    assert rows_of(desk) == rows


def test_stdin(desk: Desk, golden: Golden) -> None:
    desk.job(('path = "messages.csv"', 'path = "-", format = "jsonl"'))
    rows = [{"message_id": str(number), "subject": "\u2028", "body": 2**70 + number} for number in range(3)]
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    desk.fresh("prepare", code=0, input=text)
    assert rows_of(desk) == rows
    desk.fresh("run", "--wait", code=0, input=text)
    desk.fresh("prepare", code=2, input=b"")
    golden("stdin")


def test_globs(desk: Desk) -> None:
    desk.job(("messages.csv", "data/part-*.csv"))
    for number in range(3):
        desk.write(f"data/part-{number}.csv", ROWS.replace("M-", f"{number}-"))
    desk.run("prepare", code=0)
    ids = [row["message_id"] for row in rows_of(desk)]
    assert ids == ["0-1", "0-2", "0-3"], "the rest asks the same and is copied"
    assert desk.run("status", "--json").json["balance"]["rows"] == 9
    desk.write("data/part-3.csv", "message_id,subject\nX,y\n")
    assert "`data/part-0.csv` and `data/part-3.csv` do not have the same columns" in desk.fails(2, "prepare").err
    desk.write("data/part-3.csv", ROWS.replace("M-", "0-"))
    assert "data/part-0.csv:2 and data/part-3.csv:2" in desk.fails(2, "prepare").err


def test_numbers_in_parquet(desk: Desk) -> None:
    """int64 ids stay exact; NaN and nested values have one written form."""
    desk.job(("messages.csv", "rows.parquet"))
    table = pa.table(
        {
            "message_id": pa.array([7, 2**53 + 1, 2**63 - 1], pa.int64()),
            "subject": pa.array([1.5, float("nan"), float("-inf")]),
            "body": pa.array([{"a": [1, 2]}, {"a": None}, None]),
        }
    )
    pq.write_table(table, desk.path / "rows.parquet")
    desk.run("run", "--wait", code=0)
    results = desk.lines("results.jsonl")
    assert [one["id"] for one in results] == ["7", "9007199254740993", "9223372036854775807"]
    assert [one["row"]["subject"] for one in results] == [1.5, "NaN", "-Infinity"]
    assert [one["row"]["body"] for one in results] == [{"a": [1, 2]}, {"a": None}, None]
    pq.write_table(table.set_column(0, "message_id", pa.array([7, None, 8])), desk.path / "rows.parquet")
    assert "rows.parquet row 2" in desk.fails(2, "prepare").err
    desk.write("rows.parquet", b"PAR1 and then nothing PAR1")
    assert "`rows.parquet` is not a readable Parquet file" in desk.fails(2, "prepare").err


def test_awkward_cells(desk: Desk) -> None:
    """Ids that others mangle, a NUL, line ends, formulas, templates, 200 kB: text in, the same text out."""
    ids = [
        "007",
        "9007199254740993",
        "NA",
        "null",
        "1.0",
        "=1+1",
        " ",
        "a/b/../c",
        "\u00e9",
        "e\u0301",
        "x" * 300,
        "\x1b[31m",
    ]
    cells = [
        "{{ body }}",
        "a\x00b",
        'line\nend,"quoted"',
        "\r",
        "\u2028\u2029\x85",
        "</script>",
        "y" * 200_000,
        "😀",
        "-1",
    ]
    cells += ["", "\ufeff", "%s{}"]
    rows = [
        {"message_id": one, "subject": str(number), "body": cell}
        for number, (one, cell) in enumerate(zip(ids, cells, strict=True))
    ]
    quoted = [",".join('"' + value.replace('"', '""') + '"' for value in row.values()) for row in rows]
    desk.write("messages.csv", HEAD + "\n".join(quoted) + "\n")
    desk.run("run", "--wait", code=0)
    results = desk.lines("results.jsonl")
    assert [one["id"] for one in results] == ids
    assert [one["row"] for one in results] == rows
    sent = (desk.directory / "chunks" / "0001.jsonl").read_bytes()
    assert sent.count(b"\n") == len(rows)
    texts = [json.loads(line)["body"]["input"][0]["content"] for line in sent.split(b"\n")[:-1]]
    assert all(row["body"] in text for row, text in zip(rows, texts, strict=True))


def test_ten_thousand_columns(desk: Desk) -> None:
    names = ["message_id", "subject", "body", *(f"c{number}" for number in range(9_997))]
    desk.write("messages.csv", ",".join(names) + "\n" + ",".join(["A"] + ["v"] * 9_999) + "\n")
    desk.run("prepare", code=0)
    assert len(rows_of(desk)[0]) == 10_000
    desk.write("prompt.md", "{{ subjct }}")
    done = desk.fails(2, "prepare")
    assert "and 9,980 more" in done.err
    assert "did you mean `{{ subject }}`?" in done.err


def test_rows_that_cannot_become_a_request(desk: Desk, golden: Golden) -> None:
    """Rejected by name and line; the others go on; every row is in the results."""
    lines = [{"message_id": f"M-{number}", "subject": "s", "body": f"b{number}"} for number in range(4)]
    text = [json.dumps(line) for line in lines]
    text[1] = '{"message_id": "M-1", "subject": "s"}'
    text[2] = "not json"
    desk.write("rows.jsonl", "\n".join(text) + "\n")
    desk.job(("messages.csv", "rows.jsonl"))
    desk.fails(2, "prepare")
    desk.run("prepare", "--set", "source.max_rejects=50%", code=0)
    desk.run("run", "--wait", "--set", "source.max_rejects=50%", code=0)
    golden("rejects")
    rejects = desk.lines("rejects.jsonl")
    assert [(one["where"], one["line"], one["id"]) for one in rejects] == [
        ("rows.jsonl:2", 2, "M-1"),
        ("rows.jsonl:3", 3, None),
    ]
    results = desk.lines("results.jsonl")
    assert [(one["id"], one["state"]) for one in results] == [
        ("M-0", "completed"),
        ("M-1", "rejected"),
        (None, "rejected"),
        ("M-3", "completed"),
    ]


def test_a_row_over_the_line_limit(desk: Desk) -> None:
    desk.job(more="[limits]\nchunk_bytes = 800\n")
    desk.write("messages.csv", ROWS + "M-4,big," + "x" * 1000 + "\n")
    done = desk.run("run", "--wait", "--json", code=0)
    assert (done.json["balance"]["completed"], done.json["balance"]["rejected"]) == (3, 1)
    [reject] = desk.lines("rejects.jsonl")
    assert (reject["where"], reject["id"]) == ("messages.csv:5", "M-4")
    assert "the limit is 800" in reject["reason"]


def test_more_rows_than_the_job_allows(desk: Desk) -> None:
    desk.job(more="[limits]\nmax_rows = 2\n")
    done = desk.fails(6, "prepare")
    assert "the source has more than 2 rows, the limit this job sets" in done.err


def test_duplicates_by_choice(desk: Desk) -> None:
    desk.write("messages.csv", HEAD + "A,x,1\nB,x,2\nA,x,3\n")
    desk.job(('id = "message_id"', 'id = "message_id", on_duplicate_id = "first", max_rejects = "50%"'))
    desk.run("run", "--wait", code=0)
    states = [(one["id"], one["state"], one["row"]["body"]) for one in desk.lines("results.jsonl")]
    assert states == [("A", "completed", "1"), ("B", "completed", "2"), ("A", "rejected", "3")]


def test_a_source_that_grew_by_a_row_that_cannot_be_sent(desk: Desk) -> None:
    """Every source row is somewhere: the new one is among the rejected."""
    desk.job(("messages.csv", "rows.jsonl"), ('id = "message_id"', 'id = "message_id", max_rejects = "50%"'))
    good = "".join(f'{{"message_id": "M-{n}", "subject": "s", "body": "b{n}"}}\n' for n in range(3))
    desk.write("rows.jsonl", good)
    assert desk.run("prepare", "--json", code=0).json["balance"]["rows"] == 3
    desk.write("rows.jsonl", good + "not json\n")
    balance = desk.run("prepare", "--json", code=0).json["balance"]
    assert (balance["rows"], balance["rejected"]) == (4, 1)


def test_a_source_cut_short_by_its_compression(desk: Desk) -> None:
    desk.job(("messages.csv", "rows.csv.gz"))
    desk.write("rows.csv.gz", gzip.compress(ROWS.encode())[:-6])
    assert "damaged or incomplete" in desk.fails(2, "prepare").err


def test_a_prepare_that_ends_early_leaves_no_file_open(desk: Desk) -> None:
    desk.write("messages.csv", HEAD)
    shown = subprocess.run([*BATCHCTL, "prepare"], cwd=desk.path, env=desk.env, capture_output=True, check=False)
    assert b"unclosed file" not in shown.stderr
