"""`batchctl compare` on runs of the emulator: gold labels are made from the answers, so that every verdict is known."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.conftest import NewJob, NewProvider
from tests.support.jobs import JobFolder

ROWS = 120
Two = tuple[JobFolder, Path]


@pytest.fixture
def two(new_job: NewJob, new_provider: NewProvider) -> Callable[..., Two]:
    """One job, run twice under different models in one folder of states each, and a gold file the first one meets."""

    def make(wrong: int, **faults: Any) -> Two:
        provider = new_provider(**faults)
        job = new_job(provider, rows=ROWS)
        job.run("run", "--wait", code=(0, 3))
        gold = job.path / "gold.csv"
        with gold.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "label"])
            for number, (name, one) in enumerate(job.check_results().items()):
                said = one["output"]["label"] if one["output"] else "card"
                others = [label for label in ("card", "transfer", "other") if label != said]
                writer.writerow([name, others[0] if number < wrong else said])
        return job, gold

    return make


def test_one_model_against_gold_in_every_form(two: Callable[..., Two]) -> None:
    job, gold = two(6)
    gates = ("accuracy >= 85%", "accuracy >= 99%", "accuracy >= 94%", "schema_valid >= 95%", "p90_seconds <= 100000")
    argv = ["compare", "job.toml", "--gold", str(gold), *(part for gate in gates for part in ("--gate", gate))]
    files = ["--junit", "eval.xml", "--markdown", "eval.md", "--html", "eval.html"]
    done = job.run(*argv, *files, "--json", code=5)
    verdict = done.json
    [one] = verdict["contestants"]
    assert (one["accuracy"]["hits"], one["accuracy"]["rows"]) == (ROWS - 6, ROWS)
    assert (round(one["accuracy"]["low"], 4), round(one["accuracy"]["high"], 4)) == (0.8952, 0.9769)  # by statsmodels
    assert verdict["gold"] == {"from": str(gold), "rows": ROWS, "matched": ROWS, "missing": 0, "extra": 0}
    states = [gate["state"] for gate in verdict["gates"]]
    assert states == ["pass", "fail", "undecided", "pass", "pass"]
    assert verdict["gates"][2]["more_rows"] > 1_000
    assert verdict["verdict"] == "fail"

    suite = ElementTree.fromstring((job.path / "eval.xml").read_bytes())[0]
    assert (suite.get("tests"), suite.get("failures")) == ("5", "2")
    assert [case.get("name") for case in suite.iter("testcase") if len(case)] == [gates[1], gates[2]]
    markdown = (job.path / "eval.md").read_text()
    assert markdown.count("FAIL") == 1
    assert "89.5 - 97.7" in markdown
    html = (job.path / "eval.html").read_text()
    assert "A gate failed" in html
    assert "default-src 'none'" in html
    assert "question number" not in markdown + html + (job.path / "eval.xml").read_text(), "no row text leaves"

    text = job.run(*argv, code=5)
    assert f"{ROWS} gold rows, joined by source id: {ROWS} matched, 0 missing, 0 extra" in text.out
    assert "FAIL      accuracy >= 99%   95.0 % (89.5 - 97.7)" in text.out
    assert "Gates: 1 of 5 failed, 1 undecided" in text.out
    passing = [*argv[:4], "--gate", gates[0], "--gate", gates[2]]
    job.run(*passing, code=5)
    job.run(*passing, "--undecided", "pass", code=0)


def test_failed_rows_count_against_the_model(two: Callable[..., Two]) -> None:
    job, gold = two(0, invalid=0.1, refused=0.1, truncated=0.1)
    [one] = job.run("compare", "job.toml", "--gold", str(gold), "--json", code=0).json["contestants"]
    balance = job.check_balance()
    usable = balance["completed"]
    assert usable < ROWS
    assert one["accuracy"] == one["schema_valid"] | {"hits": usable}
    results = job.check_results().values()
    for kind in ("refused", "truncated"):
        assert one[kind]["hits"] == sum(row["reason"] == kind for row in results) > 0


def test_two_models_on_the_same_rows(two: Callable[..., Two], new_job: NewJob, new_provider: NewProvider) -> None:
    job, gold = two(10)
    other = new_job(new_provider(seed=9), rows=ROWS + 5)
    other.run("run", "--wait", code=0)
    argv = ["compare", "prod=job.toml", f"small={other.path / 'job.toml'}", "--gold", str(gold)]
    verdict = job.run(*argv, "--gate", "difference >= -1.5%", "--json", code=5).json
    prod, small = verdict["contestants"]
    mine = {name: one["output"]["label"] for name, one in job.check_results().items()}
    theirs = {name: one["output"]["label"] for name, one in other.check_results().items()}
    with gold.open(newline="") as file:
        truth = {row["id"]: row["label"] for row in csv.DictReader(file)}
    better = sum(theirs[name] == label != mine[name] for name, label in truth.items())
    worse = sum(mine[name] == label != theirs[name] for name, label in truth.items())
    pair = small["paired"]
    assert (pair["better"], pair["worse"], pair["rows"]) == (better, worse, ROWS)
    assert pair["agreement"]["hits"] == sum(mine[name] == theirs[name] for name in truth)
    assert [one["contestant"] for one in verdict["gates"]] == ["small"]
    assert (verdict["gates"][0]["state"], verdict["baseline"]) == ("fail", "prod")
    assert prod["accuracy"]["hits"] == ROWS - 10
    text = job.run(*argv, code=0).out
    assert "paired with prod" in text
    alone = job.run(*argv[:3], "--json", code=0).json
    assert alone["contestants"][1]["accuracy"] is None
    assert alone["contestants"][1]["agreement"]["hits"] == pair["agreement"]["hits"]


def test_gold_from_a_column_of_the_source(new_job: NewJob, new_provider: NewProvider) -> None:
    rows = [{"id": f"R-{number}", "text": f"question {number}", "truth": "card"} for number in range(9)]
    job = new_job(new_provider(), rows=rows)
    job.run("run", "--wait", code=0)
    [one] = job.run("compare", "--gold", "truth", "--json", code=0).json["contestants"]
    assert one["accuracy"]["hits"] == sum(row["output"]["label"] == "card" for row in job.check_results().values())
    assert one["labels"]["card"]["support"] == 9


def test_a_model_is_judged_by_what_it_said_and_not_by_what_a_person_made_of_it(
    new_job: NewJob, new_provider: NewProvider
) -> None:
    rows = [{"id": f"R-{number}", "text": f"question {number}", "truth": "card"} for number in range(6)]
    job = new_job(new_provider(), rows=rows, review='when = "true"')
    job.run("run", "--wait", code=3)
    said = [row["output"]["label"] for row in job.check_results().values()]
    wrong = next(number for number, label in enumerate(said) if label != "card")
    job.run("review", "edit", f"R-{wrong}", "--output", '{"label": "card", "note": "by hand"}', code=(0, 3))
    [one] = job.run("compare", "--gold", "truth", "--json", code=0).json["contestants"]
    assert (one["accuracy"]["hits"], one["schema_valid"]["hits"]) == (said.count("card"), 6)


def test_what_cannot_be_compared_is_refused(
    two: Callable[..., Two], new_job: NewJob, new_provider: NewProvider
) -> None:
    job, gold = two(0)
    (job.path / "others.csv").write_text("id,label\nX,card\n")
    (job.path / "twice.csv").write_text("id,label\nR-001,card\nR-001,card\n")
    for argv, said in (
        ([], "nothing to compare with"),
        (["--gold", "lable"], "gold label in a column `lable`"),
        (["--gold", "others.csv"], "no row has both"),
        (["--gold", "twice.csv"], "names row `R-001` twice"),
        (["--gold", str(gold), "--output-field", "lable"], "did you mean `label`"),
        (["--gold", str(gold), "--baseline", "prod"], "no contestant `prod`"),
        (["--gold", str(gold), "--gate", "acuracy >= 9%"], "did you mean `accuracy`"),
        (["--gold", str(gold), "--gate", "recall(cards) >= 9%"], "cannot be told from these rows"),
        (["--gold", str(gold), "--gate", "difference >= 0"], "needs gold labels and a baseline"),
        (["--gold", str(gold), "--undecided", "maybe"], "is not one of fail, pass"),
        (["--gold", str(gold), "--junit", "nowhere/x.xml"], "no directory"),
        (["job.toml", "job.toml"], "given twice"),
    ):
        done = job.run("compare", *(argv if "job.toml" in argv else ["job.toml", *argv]), code=2)
        assert said in done.err, done
    slow = new_job(new_provider(latency="1h"))
    slow.run("run", code=8)
    assert "still out" in slow.run("compare", "--gold", "text", code=8).err


def test_the_verdict_is_one_object(two: Callable[..., Two]) -> None:
    """`--json` is all there is: the other forms are made from it alone."""
    from batchctl.workflow.verdicts import html, junit, markdown

    job, gold = two(3)
    argv = ["compare", "job.toml", "--gold", str(gold), "--gate", "accuracy >= 90%"]
    files = {"eval.xml": junit, "eval.md": markdown, "eval.html": html}
    options = ["--junit", "eval.xml", "--markdown", "eval.md", "--html", "eval.html"]
    verdict = json.loads(json.dumps(job.run(*argv, *options, "--json").json))
    for name, form in files.items():
        assert form(verdict) == (job.path / name).read_text()
