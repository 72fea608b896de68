"""[source] where: only the rows it holds for are part of the run."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conftest import NewJob
from tests.support.provider import Provider

ROWS: list[dict[str, Any]] = [
    {"id": f"R-{number}", "text": f"question {number}", "lang": "de" if number % 3 else "xx", "age": str(number)}
    for number in range(9)
]
SOURCE = "path = \"rows.csv\"\nid = \"id\"\nwhere = '''{where}'''"


def test_rows_it_does_not_hold_for_are_not_there(new_job: NewJob, provider: Provider) -> None:
    job = new_job(provider, rows=ROWS, source=SOURCE.format(where="row.lang != 'xx' && int(row.age) > 1"))
    done = job.run("prepare", "--json", code=0).json
    wanted = [row["id"] for row in ROWS if row["lang"] != "xx" and int(row["age"]) > 1]
    assert (done["seen"], done["filtered"], done["requests"]) == (9, 9 - len(wanted), len(wanted))
    job.run("run", "--wait", code=0)
    job.check_results(wanted)
    text = (job.path / "job.toml").read_text()
    (job.path / "job.toml").write_text(text.replace("int(row.age) > 1", "int(row.age) > 0"))
    job.run("run", "--wait", code=0)
    assert sum(one["requests"] for one in provider.books(f"{job.name}-0002").creates) == 1, "only the new row is bought"


def test_a_row_nobody_can_tell_of_is_rejected_with_the_reason(new_job: NewJob) -> None:
    rows = [{"id": "A", "text": "a", "age": "7"}, {"id": "B", "text": "b", "age": "seven"}]
    source = SOURCE.format(where="int(row.age) > 1") + '\nmax_rejects = "50%"'
    job = new_job(None, rows=rows, source=source)
    job.run("prepare", code=0)
    [reject] = job.lines("rejects.jsonl")
    assert (reject["id"], reject["line"]) == ("B", 3)
    assert reject["reason"].startswith("[source] where cannot be evaluated: ")


@pytest.mark.parametrize(
    ("where", "what"),
    [
        ("row.lan == 'de'", "`lan` is not a field of `row`"),
        ("output.label == ''", "`output` is not a name"),
        ("row.lang ==", "is not valid CEL"),
        ("row.lang == 'fr'", "holds for none of 9 rows"),
    ],
)
def test_a_where_that_cannot_be_meant(new_job: NewJob, where: str, what: str) -> None:
    job = new_job(None, rows=ROWS, source=SOURCE.format(where=where))
    error = job.run("prepare", "--json", code=2).json["error"]
    assert what in error["what"]
    assert not job.directory.exists()


def test_values_of_json_lines_keep_their_types(new_job: NewJob) -> None:
    job = new_job(None, source='path = "rows.jsonl"\nid = "id"\nwhere = "row.age > 1.5 && !row.done"')
    rows = [{"id": str(n), "text": "t", "age": n, "done": n == 3} for n in range(5)]
    (job.path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert job.run("prepare", "--json", code=0).json["requests"] == 2
