"""Rules beyond the schema: what they make of rows, of copies, of a whole run; wrong ones cost nothing."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tests.conftest import NewJob
from tests.support.jobs import JobFolder
from tests.support.provider import Provider

RULE = '\n[[rules]]\nname = "{name}"\n{keys}\n'
ROWS = [{"id": f"R-{number:02d}", "text": f"question {number}", "lang": "de"} for number in range(12)]


def rule(name: str, **keys: str) -> str:
    return RULE.format(name=name, keys="\n".join(f"{key} = '''{value}'''" for key, value in keys.items()))


def edit(job: JobFolder, more: str) -> None:
    """The job file with other rules at its end."""
    text = (job.path / "job.toml").read_text().partition("\n[[rules]]")[0]
    (job.path / "job.toml").write_text(text + more)


def labels(job: JobFolder) -> dict[str, str]:
    return {one["id"]: one["output"]["label"] for one in job.lines("results.jsonl")}


def test_a_broken_rule_reruns_asks_or_warns_and_an_edit_judges_again_for_free(
    new_job: NewJob, provider: Provider
) -> None:
    job = new_job(provider, rows=ROWS)
    job.run("run", "--wait", code=0)
    told = labels(job)
    cards = {name for name, label in told.items() if label == "card"}
    others = {name for name, label in told.items() if label == "other"}
    transfers = set(told) - cards - others
    assert cards
    assert others
    assert transfers
    edit(
        job,
        rule("no cards", check="output.label != 'card'")
        + rule("no transfers", check="output.label != 'transfer'", on_fail="review")
        + rule("no others", check="output.label != 'other'", where="row.lang == 'de'", on_fail="warn"),
    )
    job.run("validate", code=3)
    rows = job.check_results(told)
    assert {name for name, one in rows.items() if one["state"] == "invalid_output"} == cards
    assert {name for name, one in rows.items() if one["state"] == "review_required"} == transfers
    assert {rows[name]["detail"] for name in cards} == {"no cards"}
    assert {rows[name]["reason"] for name in cards | transfers} == {"rule"}
    assert {(rows[name]["state"], rows[name]["detail"]) for name in others} == {("completed", "warning: no others")}
    edit(job, "")
    job.run("validate", code=0)
    assert labels(job) == told
    assert len(job.books.creates) == 1, "judging again sends nothing"


def test_a_rule_that_cannot_be_evaluated_is_broken_and_says_why(new_job: NewJob, provider: Provider) -> None:
    job = new_job(provider, rows=ROWS, more=rule("a number", check="output.note > 3", on_fail="review"))
    job.run("run", "--wait", code=3)
    details = {one["detail"] for one in job.check_results().values()}
    assert len(details) == 1
    assert details.pop().startswith("a number: cannot be evaluated: ")


def test_a_share_over_the_run_is_a_gate(new_job: NewJob, provider: Provider) -> None:
    job = new_job(provider, rows=ROWS)
    job.run("run", "--wait", code=0)
    share = Counter(labels(job).values())["card"] / len(ROWS)
    edit(job, rule("few cards", where="output.label == 'card'", max_share=f"{share * 100 + 1:.0f}%"))
    assert job.run("validate", "--json", code=0).json["broken_rules"] == []
    edit(job, rule("few cards", where="output.label == 'card'", max_share=f"{share * 100 - 1:.0f}%"))
    [broken] = job.run("validate", "--json", code=5).json["broken_rules"]
    assert (broken["name"], broken["of"], broken["share"]) == ("few cards", len(ROWS), share)
    assert "few cards" in job.run("status", code=5).out
    assert "few cards" in job.run("report", code=0).out
    waiting = [name for name, label in labels(job).items() if label == "card"]
    job.run("review", "reject", *waiting, code=3)
    assert job.run("status", "--json", code=3).json["broken_rules"] == []
    job.run("review", "undo", "--all", code=5)
    job.check_results()


@pytest.mark.parametrize(
    ("keys", "what", "where"),
    [
        ({"check": "output.label !="}, "is not valid CEL", "column 16"),
        ({"check": "output.labl == 'card'"}, "`labl` is not a field of `output`", "column 8"),
        ({"check": "row.txt == ''"}, "`txt` is not a field of `row`", "column 5"),
        ({"check": "outptu.label == ''"}, "`outptu` is not a name", "column 1"),
        ({"check": "output.label.lowerAsci() == ''"}, "`lowerAsci` is not a function", "column 14"),
    ],
)
def test_a_wrong_rule_is_refused_before_anything_is_prepared(
    new_job: NewJob, keys: dict[str, str], what: str, where: str
) -> None:
    job = new_job(None, more=rule("wrong", **keys))
    error = job.run("prepare", "--json", code=2).json["error"]
    assert what in error["what"]
    assert 'rule "wrong"' in error["what"]
    assert "job.toml:" in error["where"][0]
    assert where in error["where"][0]
    assert not job.directory.exists()


@pytest.mark.parametrize("keys", [{}, {"where": "true"}, {"max_share": "5%"}, {"check": "true", "max_share": "5%"}])
def test_a_rule_is_about_rows_or_about_the_run(new_job: NewJob, keys: dict[str, str]) -> None:
    job = new_job(None, more=rule("odd", **keys))
    assert "rules[0]" in job.run("prepare", code=2).err


def test_copies_are_judged_with_their_own_row(new_job: NewJob, provider: Provider) -> None:
    """Identical requests are paid once; a rule that looks at the row still speaks about each row."""
    rows: list[dict[str, Any]] = [
        {"id": f"R-{number}", "text": f"question {number // 4}", "vip": str(number % 2)} for number in range(8)
    ]
    more = rule("vip", check="row.vip == '0'", on_fail="review")
    job = new_job(provider, rows=rows, prompt="{{ text }}", more=more)
    job.run("run", "--wait", code=3)
    found = job.check_results()
    assert sum(one["copied_from"] is not None for one in found.values()) == 6
    assert {name: one["state"] for name, one in found.items()} == {
        row["id"]: "completed" if row["vip"] == "0" else "review_required" for row in rows
    }
    job.run("review", "accept", "R-1", "R-3", code=3)
    assert job.check_results()["R-3"]["state"] == "completed"
    job.run("report", code=0)
    edit(job, "")
    job.run("validate", code=0)
    assert job.check_balance()["completed"] == 8
    job.check_money()


def test_ready_made_checks(new_job: NewJob, provider: Provider) -> None:
    schema = {
        "type": "object",
        "properties": {"id": {"enum": ["R-00", "R-01"]}, "note": {"enum": ["fine", "<b>bold</b>", "much too long"]}},
        "required": ["id", "note"],
        "additionalProperties": False,
    }
    job = new_job(provider, rows=ROWS, schema=schema, rules_builtin="echo = 'id'\nmax_chars = 11\nhtml = 'reject'")
    job.run("run", "--wait", code=3)
    text = (job.path / "job.toml").read_text()
    details = {name: one["detail"] or "" for name, one in job.check_results().items()}
    (job.path / "job.toml").write_text(text.partition("\n[rules_builtin]")[0])
    job.run("validate", code=0)
    for name, one in job.check_results().items():
        said = [kind for kind in ("echo", "max_chars", "html") if f"{kind}: " in details[name]]
        wanted = ["echo"] * (one["output"]["id"] != name)
        wanted += ["max_chars"] * (len(one["output"]["note"]) > 11) + ["html"] * ("<" in one["output"]["note"])
        assert said == wanted, (one, details[name])


def test_the_size_of_a_text_is_counted_in_characters(new_job: NewJob, provider: Provider) -> None:
    schema = {
        "type": "object",
        "properties": {"note": {"const": "grüße"}},
        "required": ["note"],
        "additionalProperties": False,
    }
    more = rule("five", check="size(output.note) == 5 && output.note.size() == 5")
    job = new_job(provider, rows=ROWS[:2], schema=schema, more=more)
    job.run("run", "--wait", code=0)


def test_a_dry_run_knows_the_rules(new_job: NewJob, provider: Provider) -> None:
    job = new_job(provider, rows=ROWS, sample="rows = 6", more=rule("never", check="false"))
    job.run("prepare", code=0)
    done = job.run("dry-run", "--json", code=5).json
    assert done["reasons"] == {"rule": 6}
    edit(job, "\n[review]\nwhen = 'true'\nsample = '100%'\n")
    assert job.run("dry-run", "--json", code=0).json["valid"] == 6, "rows for a person have valid answers"
