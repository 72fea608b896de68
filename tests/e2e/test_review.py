"""Rows waiting for a person: decisions move rows, files and exit codes, and can be taken back."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import NewJob
from tests.support.jobs import JobFolder
from tests.support.provider import Provider

ROWS = [{"id": f"R-{number:02d}", "text": f"question {number}"} for number in range(8)]
WHEN = "\n[review]\nwhen = \"output.label != 'card'\"\n"


@pytest.fixture
def waiting(new_job: NewJob, provider: Provider) -> JobFolder:
    """A run of which some rows wait."""
    job = new_job(provider, rows=ROWS, more=WHEN)
    job.run("run", "--wait", code=3)
    return job


def rows(job: JobFolder) -> list[str]:
    return [one["id"] for one in job.run("review", "list", "--json").json["rows"]]


def state(job: JobFolder, name: str) -> Any:
    return job.check_results([row["id"] for row in ROWS])[name]


def test_what_waits_is_listed_and_shown(waiting: JobFolder) -> None:
    names = rows(waiting)
    results = {one["id"]: one for one in waiting.lines("results.jsonl")}
    assert names == [name for name, one in results.items() if one["state"] == "review_required"]
    assert {results[name]["output"]["label"] for name in names} == {"transfer", "other"}
    out = waiting.run("review", "list", code=3).out
    assert names[0] in out
    assert "question" not in out, "the list shows no row text"
    assert waiting.run("status", code=3).out.splitlines()[-1].startswith("Next: batchctl review list")
    shown = waiting.run("review", "show", names[0], code=3).out
    assert "question" in shown
    assert results[names[0]]["output"]["note"] in shown
    assert waiting.run("review", "show", "R-99", code=2).err.startswith("error: this run has no row `R-99`")
    assert rows(waiting) == names, "looking changes nothing"


def test_decisions_move_rows_and_can_be_taken_back(waiting: JobFolder) -> None:
    one, two, three = rows(waiting)[:3]
    before = waiting.lines("results.jsonl")
    waiting.run("review", "accept", one, "--by", "anna", "--note", "looks right", code=3)
    assert state(waiting, one)["state"] == "completed"
    assert "accepted by anna" in state(waiting, one)["detail"]
    assert "looks right" in state(waiting, one)["detail"]
    waiting.run("review", "reject", two, code=3)
    assert (state(waiting, two)["state"], state(waiting, two)["reason"]) == ("invalid_output", "rule")
    assert [row["id"] for row in waiting.lines("rerun.jsonl")] == [two]
    new = {"label": "card", "note": "by hand"}
    waiting.run("review", "edit", three, "--output", json.dumps(new), code=3)
    assert (state(waiting, three)["state"], state(waiting, three)["output"]) == ("completed", new)
    assert not {one, two, three} & set(rows(waiting))
    by = {row[0]: row[1] for row in waiting.sql("SELECT position, by FROM decision")}
    assert "anna" in by.values()
    assert "by hand" not in waiting.ledger.read_bytes().decode("latin-1"), "the ledger holds no text"
    waiting.run("validate", "--again", code=3)
    assert state(waiting, three)["output"] == new, "judging again keeps what a person decided"
    waiting.run("review", "accept", two, code=3)
    assert state(waiting, two)["state"] == "completed", "a new decision replaces the old one"
    waiting.run("review", "undo", "--all", code=3)
    assert waiting.lines("results.jsonl") == before
    assert waiting.run("review", "undo", "--all", code=2).err.startswith("error: there is no decision to take back")
    assert len(waiting.sql("SELECT * FROM event WHERE because LIKE 'taken back%'")) == 3


def test_filters_choose_rows(waiting: JobFolder) -> None:
    results = {one["id"]: one for one in waiting.lines("results.jsonl")}
    others = [name for name in rows(waiting) if results[name]["output"]["label"] == "other"]
    where = "output.label == 'other' && row.text.contains('question')"
    assert waiting.run("review", "accept", "--where", where, "--json").json["ids"] == others
    assert waiting.run("review", "accept", code=2).err.startswith("error: which rows?")
    assert "`raw` is not a name" in waiting.run("review", "accept", "--where", "raw.text == ''", code=2).err
    waiting.run("review", "accept", "--reason", "refused", "--json")
    assert rows(waiting)
    waiting.run("review", "accept", "--all", code=0)
    assert not rows(waiting)
    waiting.run("run", "--wait", code=0)


def test_an_edit_must_match_the_schema(waiting: JobFolder) -> None:
    name = rows(waiting)[0]
    for wrong, why in (("{", "is not JSON"), ('{"label": "nope", "note": ""}', "does not match the schema")):
        done = waiting.run("review", "edit", name, "--output", wrong, code=2)
        assert why in done.err
        assert "nothing was decided" in done.err
    assert name in rows(waiting)
    waiting.run("review", "edit", name, "--output", '{"label": "card", "note": "x"}', code=3)
    schema = json.loads((waiting.path / "schema.json").read_text())
    schema["properties"]["note"]["minLength"] = 2
    (waiting.path / "schema.json").write_text(json.dumps(schema))
    waiting.run("validate", code=3)
    assert name in rows(waiting), "an edit that the schema does not allow any more waits again"
    state(waiting, name)


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_file_of_decisions(waiting: JobFolder, suffix: str) -> None:
    names = rows(waiting)
    file = waiting.path / f"review.{suffix}"
    waiting.run("review", "export", file.name, code=0)
    assert waiting.run("review", "import", file.name).code == 3, "nothing decided in it, nothing changed"
    assert rows(waiting) == names
    new = {"label": "card", "note": "-1 is fine"}
    decide(file, {names[0]: ("accept", None), names[1]: ("edit", new), names[2]: ("edit", {"label": "x"})})
    done = waiting.run("review", "import", file.name, code=2)
    assert f"{file.name} row 3" in done.err
    assert rows(waiting) == names, "all or nothing"
    decide(file, {names[2]: ("reject", None)})
    assert waiting.run("review", "import", file.name, "--json").json["decided"] == {"accept": 1, "edit": 1, "reject": 1}
    assert state(waiting, names[1])["output"] == new
    assert [row["id"] for row in waiting.lines("rerun.jsonl")] == [names[2]]
    waiting.check_files()


def decide(file: Path, decisions: dict[str, tuple[str, Any]]) -> None:
    """Fill in a review file as a person would."""
    if file.suffix == ".jsonl":
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        for one in lines:
            if one["id"] in decisions:
                one["decision"], output = decisions[one["id"]]
                one["output"] = output or one["output"]
        file.write_text("".join(json.dumps(one) + "\n" for one in lines))
        return
    with file.open(newline="") as source:
        table = list(csv.DictReader(source))
    for row in table:
        if row["id"] in decisions:
            row["decision"], output = decisions[row["id"]]
            row["output"] = json.dumps(output) if output else row["output"]
    with file.open("w", newline="") as out:
        writer = csv.DictWriter(out, list(table[0]))
        writer.writeheader()
        writer.writerows(table)


def test_a_sample_of_good_rows_is_the_same_whenever_it_is_drawn(new_job: NewJob, provider: Provider) -> None:
    listed = [{"id": f"R-{number:03d}", "text": f"question {number}"} for number in range(100)]
    job = new_job(provider, rows=listed, review="sample = '20%'")
    job.run("run", "--wait", code=3)
    drawn = [one["id"] for one in job.lines("results.jsonl") if one["state"] == "review_required"]
    assert 5 <= len(drawn) <= 40
    assert {one["reason"] for one in job.lines("results.jsonl") if one["id"] in drawn} == {"sample"}
    job.run("validate", "--again", code=3)
    assert drawn == rows(job)
    job.run("rerun", code=3)
    assert len(job.books.creates) == 1, "a good row is not sent again because a person shall see it"
    job.run("review", "reject", drawn[0], code=3)
    assert job.lines("rerun.jsonl")[0]["_reason"] == "rule"
    job.check_results()


def test_refusals_without_an_answer_cannot_be_accepted(new_job: NewJob, new_provider: Any) -> None:
    job = new_job(new_provider(refused=1.0), rows=ROWS[:2])
    job.run("run", "--wait", code=3)
    done = job.run("review", "accept", "R-00", code=2)
    assert "no answer that could be accepted" in done.err
    job.run("review", "edit", "R-00", "--output", '{"label": "card", "note": "by hand"}', code=3)
    job.run("review", "reject", "R-01", code=3)
    found = job.check_results()
    assert (found["R-00"]["state"], found["R-01"]["state"]) == ("completed", "invalid_output")
    assert found["R-01"]["reason"] == "refused"


@pytest.mark.parametrize("point", ["review", "before-commit", "after-commit"])
def test_a_kill_leaves_a_decision_whole_or_not_there(waiting: JobFolder, point: str) -> None:
    name = rows(waiting)[0]
    new = {"label": "card", "note": "by hand"}
    command = ("review", "edit", name, "--output", json.dumps(new))
    assert waiting.run(*command, BATCHCTL_CRASH_AT=point).code == -9
    waiting.check_files()
    assert (name in rows(waiting)) == (point != "after-commit")
    waiting.run(*command, code=3)
    assert state(waiting, name)["output"] == new
    waiting.check_files()


# --- different answers for one row ------------------------------------------------------------------------------------


@pytest.fixture
def torn(new_job: NewJob, new_provider: Any) -> JobFolder:
    """Every row has two different answers; two rows share them."""
    listed = [*ROWS[:3], {"id": "R-twin", "text": ROWS[2]["text"]}]
    job = new_job(new_provider(conflict=1), rows=listed, prompt="{{ text }}")
    job.run("run", "--wait", code=3)
    return job


def answers(job: JobFolder, name: str) -> list[Any]:
    told = job.run("review", "show", name, "--json", code=3).json["row"]
    assert [one["answer"] for one in told["answers"]] == [1, 2]
    assert [one["came_back"] for one in told["answers"]] == told["came_back"]
    assert all(one["usable"] for one in told["answers"])
    return [json.loads(one) for one in told["came_back"]]


def test_one_of_several_answers_is_chosen_by_its_number(torn: JobFolder) -> None:
    first, second = answers(torn, "R-00")
    assert first != second
    shown = torn.run("review", "show", "R-00", code=3).out
    assert "answer 1 of 2:" in shown
    assert "answer 2 of 2:" in shown
    before = torn.lines("results.jsonl")
    assert "has 2 different results: which one?" in torn.run("review", "accept", "R-00", code=2).err
    assert "has no answer 3" in torn.run("review", "accept", "R-00", "--answer", "3", code=2).err
    assert "--answer is for accept" in torn.run("review", "reject", "R-00", "--answer", "1", code=2).err
    assert torn.lines("results.jsonl") == before
    torn.run("review", "accept", "R-00", "--answer", "2", "--by", "anna", code=3)
    row = torn.check_results()["R-00"]
    assert (row["state"], row["output"]) == ("completed", second)
    assert row["detail"].startswith("accepted answer 2 by anna")
    decision = torn.run("review", "show", "R-00", "--json", code=3).json["row"]["decision"]
    assert (decision["action"], decision["answer"]) == ("accept", 2)
    torn.run("validate", "--again", code=3)
    assert torn.check_results()["R-00"]["output"] == second, "judging again keeps what a person chose"
    torn.run("review", "accept", "R-00", "--answer", "1", code=3)
    assert torn.check_results()["R-00"]["output"] == first, "a new choice replaces the old one"
    torn.run("review", "undo", "R-00", code=3)
    assert torn.lines("results.jsonl") == before
    torn.run("review", "accept", "--reason", "conflict", "--answer", "1", code=0)
    rows = torn.check_results()
    assert {one["state"] for one in rows.values()} == {"completed"}
    assert rows["R-02"]["output"] == rows["R-twin"]["output"]
    assert len(torn.books.creates) == 1
    torn.check_files()


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_answers_are_chosen_in_a_file(torn: JobFolder, suffix: str) -> None:
    second = answers(torn, "R-01")[1]
    file = torn.path / f"review.{suffix}"
    torn.run("review", "export", file.name, code=0)
    if suffix == "csv":
        with file.open(newline="") as source:
            table = list(csv.DictReader(source))
        assert json.loads(json.loads(table[1]["answers"])[1]) == second
        for number in ("x", "2"):
            table[1] |= {"decision": "accept", "answer": number}
            with file.open("w", newline="") as out:
                writer = csv.DictWriter(out, list(table[0]))
                writer.writeheader()
                writer.writerows(table)
            done = torn.run("review", "import", file.name, code=2 if number == "x" else 3)
            assert ("the number of an answer" in done.err) == (number == "x")
    else:
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        assert json.loads(lines[1]["answers"][1]) == second
        lines[0] |= {"decision": "accept"}
        lines[1] |= {"decision": "accept", "answer": 2}
        file.write_text("".join(json.dumps(one) + "\n" for one in lines))
        assert f"{file.name} row 1: row `R-00` has 2 different results" in torn.run("review", "import", file.name).err
        lines[0] |= {"decision": ""}
        file.write_text("".join(json.dumps(one) + "\n" for one in lines))
        torn.run("review", "import", file.name, code=3)
    row = torn.check_results()["R-01"]
    assert (row["state"], row["output"]) == ("completed", second)


def test_a_row_with_one_answer_leaves_nothing_to_choose(waiting: JobFolder) -> None:
    name = rows(waiting)[0]
    assert "has one answer only" in waiting.run("review", "accept", name, "--answer", "1", code=2).err


def test_an_answer_that_the_schema_refuses_cannot_be_chosen(torn: JobFolder) -> None:
    second = answers(torn, "R-00")[1]
    torn.run("review", "accept", "R-00", "--answer", "2", code=3)
    schema = json.loads((torn.path / "schema.json").read_text())
    schema["properties"]["note"]["not"] = {"const": second["note"]}
    (torn.path / "schema.json").write_text(json.dumps(schema))
    torn.run("validate", code=3)
    assert torn.check_results()["R-00"]["state"] == "review_required", "what was chosen does not stand any more"
    refused = torn.run("review", "accept", "R-00", "--answer", "2", code=2).err
    assert "answer 2 of row `R-00` is none" in refused
    assert "(unusable: " in torn.run("review", "show", "R-00", code=3).out
