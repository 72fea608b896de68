"""Files and SQLite: what goes out, what is held back, what is refused, and that twice is once."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import NewJob, NewProvider
from tests.publish.targets import COLUMNS, EVERY, read, target
from tests.support.jobs import JobFolder
from tests.support.provider import Provider


@pytest.fixture
def job(new_job: NewJob, provider: Provider) -> JobFolder:
    """Six rows in two chunks and a target of each kind."""
    more = "".join(target(f"out/labels{suffix}", key='["id"]') for suffix in EVERY)
    return new_job(provider, limits="chunk_rows = 3", prompt_version="", more=more)


@pytest.mark.parametrize("command", ["run", "publish"])
def test_completed_rows_reach_every_target(job: JobFolder, command: str) -> None:
    if command == "publish":
        (job.path / "job.toml").write_text((job.path / "job.toml").read_text().replace("[[publish]]", "[[later]]"))
        text = (job.path / "job.toml").read_text()
        (job.path / "job.toml").write_text(text.split("[[later]]")[0])
        job.run("run", "--wait", code=0)
        (job.path / "job.toml").write_text(text.replace("[[later]]", "[[publish]]"))
        job.run("publish", code=0)
    else:
        job.run("run", "--wait", code=0)
    results = job.check_results([f"R-{number:03d}" for number in range(6)])
    assert {one["state"] for one in results.values()} == {"published"}
    for suffix in EVERY:
        rows = read(job.path / f"out/labels{suffix}")
        assert [one["id"] for one in rows] == list(results)
        assert list(rows[0]) == COLUMNS
        for one in rows:
            mine = results[one["id"]]
            assert (one["label"], one["note"]) == (mine["output"]["label"], mine["output"]["note"])
            assert one["_batchctl_run"] == job.run_id
            assert str(one["_batchctl_attempt"]) == "1"
            assert one["_batchctl_batch_id"] == mine["batch_id"]
            assert str(one["_batchctl_created_at"])[:10] == mine["created_at"][:10]
    assert pq.read_table(job.path / "out/labels.parquet").schema.field("_batchctl_attempt").type == pa.int64()


# --- twice is once ----------------------------------------------------------------------------------------------------


def contents(job: JobFolder) -> list[Any]:
    """Every target as read; files byte for byte."""
    files = [(job.path / f"out/labels{suffix}").read_bytes() for suffix in EVERY if suffix != ".sqlite"]
    return [*files, read(job.path / "out/labels.sqlite")]


def test_publishing_twice_is_publishing_once(job: JobFolder) -> None:
    job.run("run", "--wait", code=0)
    first = contents(job)
    results = (job.directory / "results.jsonl").read_bytes()
    again = job.run("publish", "--json", code=0).json
    assert contents(job) == first
    assert (job.directory / "results.jsonl").read_bytes() == results
    [sqlite] = [one for one in again["targets"] if one["to"].endswith(".sqlite")]
    assert (sqlite["added"], sqlite["changed"], sqlite["removed"]) == (0, 0, 0)
    assert again["balance"]["published"] == 6
    told = job.run("report", "--json", code=0).json["publications"]
    assert [(one["to"], one["state"], one["rows"]) for one in told] == [
        (f"out/labels{suffix}", "done", 6) for suffix in EVERY
    ]


def test_run_leaves_what_is_published_alone(job: JobFolder) -> None:
    job.run("run", "--wait", code=0)
    (job.path / "out/labels.jsonl").unlink()
    done = job.run("run", "--json", code=0).json
    assert {one["state"] for one in done["targets"]} == {"as it was"}
    assert not (job.path / "out/labels.jsonl").exists()
    job.run("publish", code=0)
    assert len(read(job.path / "out/labels.jsonl")) == 6


def test_judging_again_keeps_rows_published_unless_an_answer_changed(job: JobFolder) -> None:
    job.run("run", "--wait", code=0)
    job.run("validate", "--again", code=0)
    assert job.check_balance()["published"] == 6
    schema = json.loads((job.path / "schema.json").read_text())
    schema["properties"]["label"]["enum"].remove("other")
    (job.path / "schema.json").write_text(json.dumps(schema))
    job.run("validate", code=(0, 3))
    results = job.check_results()
    kept = {
        name: one for name, one in results.items() if one["output"] is not None and one["output"]["label"] != "other"
    }
    assert {one["state"] for one in results.values() if one not in kept.values()} <= {"invalid_output"}
    assert {one["state"] for one in kept.values()} <= {"published", "completed"}
    job.run("publish", code=(0, 3))
    assert [one["id"] for one in read(job.path / "out/labels.parquet")] == list(kept)


# --- what is held back ------------------------------------------------------------------------------------------------


def test_only_completed_rows_go_out(new_job: NewJob, new_provider: NewProvider) -> None:
    job = new_job(new_provider(invalid=0.2, refused=0.2), rows=40, more=target("out.jsonl"))
    done = job.run("run", "--wait", code=3)
    assert not (job.path / "out.jsonl").exists()
    assert "in review" in done.err
    refused = job.run("publish", "--json", code=2).json
    assert refused["error"]["code"] == "pending_review"
    ready = [one["id"] for one in job.check_results().values() if one["state"] == "completed"]
    balance = job.check_balance()
    failed, doubtful = balance["invalid_output"], balance["review_required"]
    assert 0 < len(ready) < 40 > failed > 0 < doubtful
    done = job.run("publish", "--allow-pending-review", "--json", code=3)
    assert [one["id"] for one in read(job.path / "out.jsonl")] == ready
    assert done.json["held_back"] == {"invalid_output": failed, "review_required": doubtful}
    assert job.check_balance()["published"] == len(ready)
    assert {one["id"] for one in job.check_results().values() if one["state"] == "published"} == set(ready)


def test_what_a_person_decides_goes_out_and_is_taken_back(new_job: NewJob, provider: Provider) -> None:
    job = new_job(
        provider, review="when = \"row.id in ['R-001', 'R-002', 'R-003']\"", more=target("out.sqlite", key='["id"]')
    )
    job.run("run", "--wait", code=3)
    assert not (job.path / "out.sqlite").exists()
    job.run("review", "accept", "R-001", code=(0, 3))
    job.run("review", "edit", "R-002", "--output", '{"label": "other", "note": "by hand"}', code=(0, 3))
    job.run("review", "reject", "R-003", code=(0, 3))
    job.run("run", code=3)
    rows = {one["id"]: one for one in read(job.path / "out.sqlite")}
    assert list(rows) == ["R-000", "R-001", "R-002", "R-004", "R-005"]
    assert rows["R-002"]["note"] == "by hand"
    assert job.check_balance()["published"] == 5
    job.run("review", "edit", "R-002", "--output", '{"label": "card", "note": "again"}', code=(0, 3))
    assert job.check_balance()["published"] == 0, "what is published is not what was decided"
    job.run("run", code=3)
    assert {one["id"]: one["note"] for one in read(job.path / "out.sqlite")}["R-002"] == "again"
    job.run("review", "undo", "R-001", code=(0, 3))
    job.run("publish", code=2)
    job.run("publish", "--allow-pending-review", code=3)
    assert [one["id"] for one in read(job.path / "out.sqlite")] == ["R-000", "R-002", "R-004", "R-005"]
    assert job.check_balance()["published"] == 4
    job.check_results()


def test_a_broken_rule_over_the_whole_run_holds_everything_back(new_job: NewJob, provider: Provider) -> None:
    rule = '\n[[rules]]\nname = "not all the same"\nwhere = "true"\nmax_share = "50%"\n'
    job = new_job(provider, more=rule + target("out.csv"))
    done = job.run("run", "--wait", code=5)
    assert "Not published: a rule over the whole run is broken" in done.err
    assert "Balance  6 = 6 completed" in done.err
    error = job.run("publish", "--json", code=5).json
    assert error["error"]["code"] == "rule"
    assert "not all the same" in error["error"]["where"][0]
    assert not (job.path / "out.csv").exists()


def test_a_run_with_rows_on_the_way_is_not_published(new_job: NewJob, new_provider: NewProvider) -> None:
    job = new_job(new_provider(latency="1h"), more=target("out.jsonl"))
    job.run("run", code=8)
    done = job.run("publish", code=8)
    assert "6 rows of" in done.err
    assert "still on the way" in done.err
    assert not (job.path / "out.jsonl").exists()


def stamps(job: JobFolder) -> list[tuple[Path, int]]:
    """Every file but the ledger's own, which any reader opens."""
    files = (path for path in job.path.rglob("*") if path.is_file() and "ledger" not in path.name)
    return sorted((path, path.stat().st_mtime_ns) for path in files)


def test_plan_touches_nothing(job: JobFolder) -> None:
    text = (job.path / "job.toml").read_text()
    (job.path / "job.toml").write_text(text.split("[[publish]]")[0])
    job.run("run", "--wait", code=0)
    (job.path / "job.toml").write_text(text)
    before = stamps(job)
    done = job.run("publish", "--plan", "--json", code=0).json
    assert {(one["state"], one["rows"]) for one in done["targets"]} == {("planned", 6)}
    assert stamps(job) == before
    assert job.check_balance()["completed"] == 6


# --- all runs are one table -------------------------------------------------------------------------------------------


def test_rows_of_all_runs_are_one_table_by_source_id(new_job: NewJob, provider: Provider) -> None:
    more = target("all.parquet") + target("all.sqlite", mode='"upsert"', key='["id"]') + target("one/{run}.jsonl")
    job = new_job(provider, rows=4, prompt="{{ id }} {{ text }}", more=more)
    job.run("run", "--wait", code=0)
    with (job.path / "rows.csv").open("a") as file:
        file.write("R-004,one more\n")
    text = (job.path / "rows.csv").read_text().replace("question number 1", "another question")
    (job.path / "rows.csv").write_text(text)
    job.number = 2
    job.run("run", "--wait", "--resend-changed", code=0)
    wanted = {"R-000": 1, "R-001": 2, "R-002": 1, "R-003": 1, "R-004": 2}
    for name in ("all.parquet", "all.sqlite"):
        rows = read(job.path / name)
        assert {one["id"]: int(one["_batchctl_run"][-4:]) for one in rows} == wanted
        assert len(rows) == 5
    assert [one["id"] for one in read(job.path / f"one/{job.run_id}.jsonl")] == ["R-001", "R-004"]
    assert len(read(job.path / f"one/{job.name}-0001.jsonl")) == 4


def test_an_upsert_leaves_rows_of_others_and_a_replace_does_not(new_job: NewJob, provider: Provider) -> None:
    more = target("both.sqlite", mode='"upsert"', key='["id"]', include='["id", "output.label"]')
    job = new_job(provider, rows=3, more=more)
    with closing(sqlite3.connect(job.path / "both.sqlite")) as db, db:
        db.execute("CREATE TABLE both (id TEXT, label TEXT, owner TEXT DEFAULT 'team')")
        db.execute("CREATE TABLE other (id TEXT)")
        db.executemany("INSERT INTO both VALUES (?, ?, ?)", [("R-001", "old", "me"), ("X", "kept", "me")])
    job.run("run", "--wait", code=0)
    rows = {one["id"]: one for one in read(job.path / "both.sqlite")}
    assert list(rows) == ["R-001", "X", "R-000", "R-002"]
    assert rows["X"] == {"id": "X", "label": "kept", "owner": "me"}
    assert rows["R-001"]["label"] != "old"
    assert rows["R-001"]["owner"] == "me"
    assert rows["R-000"]["owner"] == "team"
    job.run("publish", "--set", "publish=[{to='both.sqlite', key='id', include=['id']}]", code=0)
    assert sorted(one["id"] for one in read(job.path / "both.sqlite")) == ["R-000", "R-001", "R-002"]


# --- an upsert sends what is new --------------------------------------------------------------------------------------

UPSERT = target("all.sqlite", mode='"upsert"', key='["id"]')


@pytest.fixture
def nightly(new_job: NewJob, provider: Provider) -> JobFolder:
    """Six rows in two chunks, merged into a table."""
    job = new_job(provider, prompt="{{ text }}", limits="chunk_rows = 3", more=UPSERT)
    job.run("run", "--wait", code=0)
    return job


def append(job: JobFolder, *numbers: int) -> None:
    with (job.path / "rows.csv").open("a") as file:
        file.writelines(f"R-{number:03d},row {number} of a later night\n" for number in numbers)


def sent(job: JobFolder, *argv: str) -> tuple[str, int, bool]:
    [one] = job.run("publish", "--json", *argv, code=(0, 3)).json["targets"]
    return one["state"], one["rows"], one["everything"]


def in_table(job: JobFolder) -> dict[str, Any]:
    return {one["id"]: one for one in read(job.path / "all.sqlite")}


def change(job: JobFolder, statement: str) -> None:
    with closing(sqlite3.connect(job.path / "all.sqlite")) as db, db:
        db.execute(statement)


def test_an_upsert_sends_only_what_the_table_does_not_have(nightly: JobFolder) -> None:
    assert sent(nightly) == ("as it was", 0, False)
    append(nightly, 6, 7)
    [told] = nightly.run("run", "--wait", "--json", code=0).json["targets"]
    assert (told["state"], told["rows"], told["everything"]) == ("published", 2, False)
    assert (told["added"], told["changed"], told["removed"]) == (2, 0, 0)
    wanted = in_table(nightly)
    assert len(wanted) == 8
    change(nightly, "UPDATE \"all\" SET label = 'spoilt' WHERE id = 'R-001'")
    assert sent(nightly) == ("as it was", 0, False)
    assert in_table(nightly)["R-001"]["label"] == "spoilt", "nobody looks into the table"
    assert sent(nightly, "--all", "--plan") == ("planned", 8, True)
    assert sent(nightly, "--all") == ("published", 8, True)
    assert in_table(nightly) == wanted
    change(nightly, 'DELETE FROM "all"')
    assert sent(nightly) == ("as it was", 0, False)
    assert "--all sends every row" in nightly.run("publish", code=0).err
    assert sent(nightly, "--all") == ("published", 8, True)
    assert in_table(nightly) == wanted
    change(nightly, 'DROP TABLE "all"')
    append(nightly, 8)
    done = nightly.run("run", "--wait", code=0)
    assert "is not there any more: every row goes there again" in done.err
    assert len(in_table(nightly)) == 9


def test_an_answer_that_changed_is_sent_again(nightly: JobFolder) -> None:
    before = in_table(nightly)
    new = {"label": "other", "note": "by hand"}
    nightly.run("review", "edit", "R-004", "--output", json.dumps(new), code=0)
    assert sent(nightly, "--plan") == ("planned", 3, False)
    [told] = nightly.run("publish", "--json", code=0).json["targets"]
    assert (told["rows"], told["added"], told["changed"]) == (3, 0, 1), "the rows of its chunk"
    assert in_table(nightly)["R-004"]["note"] == "by hand"
    nightly.run("review", "undo", "R-004", code=0)
    assert sent(nightly) == ("published", 3, False)
    assert in_table(nightly) == before
    assert sent(nightly, "--set", "publish=[{to='all.sqlite', mode='upsert', key='id', include=['id', 'text']}]") == (
        "published",
        6,
        True,
    ), "other columns"


def test_a_later_answer_that_is_taken_back_gives_way_to_the_earlier_one(nightly: JobFolder) -> None:
    before = in_table(nightly)
    text = (nightly.path / "rows.csv").read_text().replace("question number 1", "another question")
    (nightly.path / "rows.csv").write_text(text)
    nightly.run("run", "--wait", "--resend-changed", code=0)
    assert in_table(nightly)["R-001"]["_batchctl_run"].endswith("-0002")
    nightly.run("review", "reject", "R-001", code=3)
    assert sent(nightly) == ("published", 1, False)
    assert in_table(nightly) == before


@pytest.mark.parametrize("point", ["K19b", "K19d", "K19e"])
def test_an_upsert_of_new_rows_killed_anywhere_is_carried_on(nightly: JobFolder, point: str) -> None:
    append(nightly, 6)
    nightly.run("run", "--wait", "--set", "publish=[]", code=0)
    assert nightly.run("publish", BATCHCTL_CRASH_AT=point).killed
    assert len(in_table(nightly)) in (6, 7)
    nightly.run("publish", code=0)
    assert sorted(in_table(nightly)) == [f"R-{number:03d}" for number in range(7)]
    assert sent(nightly) == ("as it was", 0, False)


def test_a_table_that_another_job_replaced_gets_every_row(nightly: JobFolder) -> None:
    """Also when the other one was interrupted, and nobody can tell what the table has."""
    for crash in (None, "K19d"):
        other = (
            (nightly.path / "job.toml").read_text().replace(f'name = "{nightly.name}"', f'name = "{nightly.name}-x"')
        )
        (nightly.path / "other.toml").write_text(other.replace('mode = "upsert"', 'mode = "replace"'))
        done = nightly.run("run", "other.toml", "--wait", BATCHCTL_CRASH_AT=crash)
        assert done.killed == (crash is not None)
        nightly.run("publish", "other.toml", code=0)
        nightly.run("publish", "other.toml", BATCHCTL_CRASH_AT=crash)
        assert sent(nightly, f"{nightly.name}-0001") == ("published", 6, True)


# --- columns and cells ------------------------------------------------------------------------------------------------

FORMULAS = ["=1+1", "+1", "-1", "@x", "\tx"]
ODD = [
    "=1+1",
    "+1",
    "-1",
    "@x",
    "\tx",
    "007",
    "9007199254740993",
    "NA",
    "\u00e9",
    "e\u0301",
    "a,b",
    'a"b',
    "line\nbreak",
    "<b>",
]


def test_ids_survive_byte_for_byte_but_for_formulas_in_csv(new_job: NewJob, provider: Provider) -> None:
    rows = [{"id": one, "text": f"question {number}"} for number, one in enumerate(ODD)]
    job = new_job(provider, rows=rows, more="".join(target(f"out{suffix}", key='["id"]') for suffix in EVERY))
    job.run("run", "--wait", code=0)
    for suffix in EVERY:
        ids = [one["id"] for one in read(job.path / f"out{suffix}")]
        neutral = ["'" + one if one in FORMULAS else one for one in ODD]
        assert ids == (neutral if suffix == ".csv" else ODD)
    job.run("publish", "--csv-raw", code=0)
    assert [one["id"] for one in read(job.path / "out.csv")] == ODD


TYPED = {
    "type": "object",
    "properties": {
        "text": {"type": "string", "enum": ["a"]},
        "count": {"type": "integer", "minimum": 1, "maximum": 9},
        "share": {"type": "number", "minimum": 0, "maximum": 1},
        "sure": {"type": "boolean"},
        "perhaps": {"anyOf": [{"type": "string", "enum": ["b"]}, {"type": "null"}]},
        "tags": {"type": "array", "items": {"type": "string"}},
        "kind": {"$ref": "#/$defs/kind"},
    },
    "required": ["text", "count", "share", "sure", "perhaps", "tags", "kind"],
    "additionalProperties": False,
    "$defs": {"kind": {"enum": ["x", "y"]}},
}


def test_fields_have_the_types_of_the_schema_and_a_name_of_their_own(new_job: NewJob, provider: Provider) -> None:
    more = "".join(target(f"out{suffix}", include='["id", "text", "output.*", "output"]') for suffix in EVERY)
    job = new_job(provider, schema=TYPED, more=more)
    job.run("run", "--wait", code=0)
    results = job.check_results()
    names = ["id", "text", "output_text", "count", "share", "sure", "perhaps", "tags", "kind", "output"]
    types = [pa.string(), pa.string(), pa.string(), pa.int64(), pa.float64(), pa.bool_(), *[pa.string()] * 4]
    schema = pq.read_schema(job.path / "out.parquet")
    assert (schema.names, schema.types) == (names, types)
    for suffix in EVERY:
        for one in read(job.path / f"out{suffix}"):
            answer = results[one["id"]]["output"]
            assert list(one) == names
            assert one["text"] == results[one["id"]]["row"]["text"]
            tags = one["tags"] if suffix == ".jsonl" else json.loads(one["tags"])
            whole = one["output"] if suffix == ".jsonl" else json.loads(one["output"])
            assert (tags, whole) == (answer["tags"], answer)
            if suffix != ".csv":
                assert (one["count"], one["share"], one["sure"]) == (answer["count"], answer["share"], answer["sure"])


def test_free_text_is_one_column(new_job: NewJob, provider: Provider) -> None:
    job = new_job(provider, output="", more=target("out.csv", include='["id", "output.*"]'))
    job.run("run", "--wait", code=0)
    results = job.check_results()
    assert {one["id"]: one["output"] for one in read(job.path / "out.csv")} == {
        name: one["output"] for name, one in results.items()
    }


# --- what is refused --------------------------------------------------------------------------------------------------


REFUSED = [
    (target("out.sqlite", mode='"upsert"'), "needs a key"),
    (target("out.csv", mode='"upsert"', key='["id"]'), "replaced as a whole"),
    (target("out.csv", key='["label"]'), "repeats"),
    (target("out.csv", key='["nothing"]'), "not among the published columns"),
    (target("out.csv", include='["txet"]'), "did you mean `text`"),
    (target("out.csv", include='["output.lable"]'), "did you mean `output.label`"),
    (target("out.csv", include='["_batchctl.modle"]'), "did you mean `_batchctl.model`"),
    (target("out.xlsx"), "cannot tell the format"),
    (target("ftp://x/y.csv"), "not a kind of target"),
    (target("postgresql://me:secret@db/x"), "password does not belong"),
    (target("s3://bucket"), "needs a bucket, a name and a format"),
    (target("bigquery://project/table"), "three names"),
    (target("out.csv") + target("out.csv"), "two [[publish]] tables"),
    ("", "names no target"),
]


def test_refused_before_anything_is_touched(new_job: NewJob, provider: Provider) -> None:
    job = new_job(provider)
    job.run("run", "--wait", code=0)
    text = (job.path / "job.toml").read_text()
    for more, said in REFUSED:
        (job.path / "job.toml").write_text(text + (target("first.jsonl") + more if more else ""))
        done = job.run("publish", code=2)
        assert said in done.err, done
        assert "secret" not in done.err
        assert not (job.path / "first.jsonl").exists()


def test_a_target_no_run_could_reach_is_refused_before_anything_is_sent(new_job: NewJob, provider: Provider) -> None:
    for more in (target("x.csv", mode='"upsert"', key='["id"]'), target("x.csv", include='["output.lable"]')):
        job = new_job(provider, more=more)
        job.run("run", "--wait", code=2)
        assert not job.directory.exists()


def test_a_target_that_is_no_regular_file_is_refused(new_job: NewJob, provider: Provider) -> None:
    job = new_job(provider, more=target("link.csv") + target("link.sqlite"))
    for name in ("link.csv", "link.sqlite"):
        (job.path / name).symlink_to(job.path / "elsewhere")
        done = job.run("run", "--wait", code=2)
        assert "regular file" in done.err
        (job.path / name).unlink()
    assert not (job.path / "elsewhere").exists()


def test_text_into_a_column_of_numbers_is_refused(new_job: NewJob, provider: Provider) -> None:
    job = new_job(provider, more=target("out.sqlite", include='["id", "output.label"]'))
    with closing(sqlite3.connect(job.path / "out.sqlite")) as db, db:
        db.execute("CREATE TABLE out (id INTEGER, label TEXT)")
    done = job.run("run", "--wait", code=2)
    assert "would change text such as 007" in done.err
    assert read(job.path / "out.sqlite") == []


def test_a_file_others_may_read_stays_readable(new_job: NewJob, provider: Provider) -> None:
    job = new_job(provider, more=target("mine.csv") + target("ours.csv"))
    (job.path / "ours.csv").write_text("")
    (job.path / "ours.csv").chmod(0o644)
    job.run("run", "--wait", code=0)
    assert [(job.path / name).stat().st_mode & 0o777 for name in ("mine.csv", "ours.csv")] == [0o600, 0o644]


# --- killed -----------------------------------------------------------------------------------------------------------

POINTS = ["K19a", "K19b", "K19m", "K19c", "K19d", "K19e", "K19f"]


def test_killed_anywhere_and_run_again_is_once(new_job: NewJob, provider: Provider) -> None:
    """One job; for each point the targets are put back, publishing is killed there, and the same command carries on."""
    files = ("out.jsonl", "out.sqlite")
    job = new_job(provider, more="".join(target(name, key='["id"]') for name in files))
    job.run("run", "--wait", code=0)
    wanted = [read(job.path / name) for name in files]
    old = [{"id": "old"}]
    for point in [*POINTS, "before-commit:2"]:
        (job.path / "out.jsonl").write_text(json.dumps(old[0]) + "\n")
        with closing(sqlite3.connect(job.path / "out.sqlite")) as db, db:
            db.execute("DELETE FROM out")
            db.execute("INSERT INTO out (id) VALUES ('old')")
        job.sql("UPDATE chunk SET published = NULL")
        job.sql("UPDATE tally SET state = 'completed' WHERE state = 'published'")
        assert job.run("publish", BATCHCTL_CRASH_AT=point).killed, point
        for name, whole in zip(files, wanted, strict=True):
            now = read(job.path / name)
            assert now == whole or [one["id"] for one in now] == ["old"], (point, name)
        job.run("publish", code=0)
        assert [read(job.path / name) for name in files] == wanted, point
        assert {one["state"] for one in job.check_results().values()} == {"published"}
        assert not list(job.path.rglob("*.part"))
        opened = job.sql("SELECT count(*) FROM publication WHERE state = 'open'")
        assert opened == [(0,)], point
