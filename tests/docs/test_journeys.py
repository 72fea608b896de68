"""Two journeys, walked: a job that cron starts every quarter of an hour, and a comparison that gates a merge.

The command lines are those of the design, where it lies beside the checkout; exit codes are compared with it, and the
facts a person or a monitor must see are looked for. What is printed around them may change.
"""

from __future__ import annotations

import csv
import json
import re
import shlex
from decimal import Decimal
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.conftest import SHARED, NewJob, NewProvider
from tests.support.commands import Done
from tests.support.jobs import JobFolder
from tests.support.provider import Provider, until

DESIGN = SHARED / "design" / "journeys.md"
CRON = ("run", "job.toml", "--no-input", "--quiet", "--log-format", "json")
EVAL = ("--lane", "auto", "--max-wait", "50m", "--budget", "3USD", "--no-input")
GATES = ("schema_valid >= 90%", "accuracy >= 92%", "difference >= -1.5%", "recall(card) >= 95%")
COMPARE = ("--gold", "gold/labels.csv", "--baseline", "prod", "--candidate", "lite", "--junit", "eval.xml", "--json")
CREATE = "POST /v1/batches"
OVER = ("completed", "failed", "cancelled", "expired")


def events(done: Done) -> list[dict[str, Any]]:
    """The lines of a log. Nothing else may be on either stream."""
    assert done.out == ""
    return [json.loads(line) for line in done.err.split("\n")[:-1]]


def told(done: Done, name: str) -> dict[str, Any]:
    """The one event of a name."""
    [found] = [one for one in events(done) if one["event"] == name]
    return found


# --- cron -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def slow(new_provider: NewProvider) -> Provider:
    """A provider at which nothing ends before it is told to."""
    return new_provider(latency="1h")


@pytest.fixture
def nightly(new_job: NewJob, slow: Provider) -> JobFolder:
    """A job as cron runs it: a labelled prompt, a budget, a table that grows."""
    return new_job(
        slow,
        rows=8,
        prompt="Label it: {{ text }}",
        model='provider = "openai"\nname = "gpt-5.4-mini"\nparams = { max_output_tokens = 64 }',
        limits='budget = "3.00 USD"',
        more='\n[[publish]]\nto = "labels.sqlite"\nmode = "upsert"\nkey = ["id"]\n',
    )


def label(job: JobFolder, version: str, prompt: str = "Label it: {{ text }}") -> None:
    (job.path / "prompt.md").write_text(prompt)
    text = re.sub(r'\nversion = "[^"]*"', "", (job.path / "job.toml").read_text())
    (job.path / "job.toml").write_text(text.replace("[prompt]\n", f'[prompt]\nversion = "{version}"\n'))


def end(job: JobFolder, status: str = "completed", **fields: Any) -> None:
    """Every batch under way ends at the provider."""
    assert job.provider is not None
    for number in (job.number, 1, 2):
        for one in job.provider.books(f"{job.name}-{number:04d}").creates:
            if one["status"] not in OVER:
                job.provider.force(one["id"], status=status, **fields)


def append(job: JobFolder, *numbers: int) -> None:
    with (job.path / "rows.csv").open("a") as file:
        file.writelines(f"R-{number:03d},question number {number}\n" for number in numbers)


def test_a_normal_night_is_told_in_a_log(nightly: JobFolder) -> None:
    label(nightly, "v7")
    first = nightly.run(*CRON, code=8)
    assert told(first, "lease.acquired")["job"] == nightly.name
    assert told(first, "source.scanned").items() >= {"rows": 8, "known": 0, "new": 8, "rejected": 0}.items()
    assert told(first, "route")["lane"] == "batch"
    sent = told(first, "submit.sent")
    assert (sent["run"], sent["rows"]) == (nightly.run_id, 8)
    assert sent["batch"] == nightly.books.creates[0]["id"]
    assert Decimal(sent["usd_at_most"]) > 0
    last = events(first)[-1]
    assert (last["event"], last["exit"], last["name"], last["submitted"]) == ("summary", 8, "pending", 8)
    end(nightly)
    last = events(nightly.run(*CRON, code=0))[-1]
    assert (last["event"], last["exit"], last["rows"], last["published"]) == ("summary", 0, 8, 8)
    assert Decimal(last["usd"]) == nightly.books.usd > 0
    assert Decimal(last["usd_per_1000_completed"]) > 0
    again = nightly.run(*CRON, code=0)
    assert "submit.sent" not in {one["event"] for one in events(again)}
    append(nightly, 8, 9)
    grown = nightly.run(*CRON, code=8)
    assert told(grown, "source.scanned").items() >= {"rows": 10, "known": 8, "new": 2}.items()
    assert told(grown, "submit.sent").items() >= {"run": f"{nightly.name}-0002", "rows": 2}.items()


def test_two_cron_runs_that_overlap(nightly: JobFolder, slow: Provider) -> None:
    slow.fault(CREATE, "hang", seconds=30)
    first = nightly.start(*CRON)
    until(lambda: [one for one in slow.calls("POST") if one["fault"] == "hang"])
    second = nightly.run(*CRON, code=9)
    [error] = events(second)
    assert (error["event"], error["exit"], error["code"]) == ("error", 9, "locked")
    assert f"process {first.pid}" in error["what"]
    assert "since 20" in error["what"]
    assert error["effect"] == "nothing was done"
    first.signal(9)
    assert first.wait().killed
    third = nightly.run(*CRON, code=8)
    assert told(third, "lease.acquired")["job"] == nightly.name, "a dead holder blocks nobody"
    end(nightly)
    nightly.run(*CRON, code=0)
    nightly.check_money()


def test_power_is_lost_between_the_create_and_its_answer(nightly: JobFolder, slow: Provider) -> None:
    assert nightly.run(*CRON, BATCHCTL_CRASH_AT="K10").killed
    [made] = nightly.books.creates
    slow.fault("GET /v1/batches", "500", nth="every")
    unsure = events(nightly.run(*CRON, code=11))[-1]
    assert (unsure["event"], unsure["exit"]) == ("error", 11)
    assert "cannot tell whether chunk 1 was sent" in unsure["what"]
    assert "not sent again" in unsure["effect"]
    assert f"batchctl resolve {nightly.run_id}" in unsure["hint"]
    slow.clear_faults()
    adopted = nightly.run(*CRON, code=8)
    assert told(adopted, "submit.adopted").items() >= {"chunk": 1, "batch": made["id"]}.items()
    assert any("adopted, nothing sent again" in one.get("text", "") for one in events(adopted))
    assert len(nightly.books.creates) == 1
    end(nightly)
    nightly.run(*CRON, code=0)
    nightly.check_money()


def test_a_person_decides_when_the_provider_cannot_be_asked(nightly: JobFolder, slow: Provider) -> None:
    slow.fault(CREATE, "drop-before")
    slow.fault("GET /v1/batches", "500", nth="every")
    nightly.run(*CRON, code=11)
    assert nightly.books.creates == []
    nightly.run("resolve", nightly.run_id, "--chunk", "1", "--not-sent", code=(0, 8))
    slow.clear_faults()
    nightly.run(*CRON, code=8)
    end(nightly)
    nightly.run(*CRON, code=0)
    nightly.check_money()
    assert len(nightly.books.creates) == 1


def test_a_prompt_that_changed_under_its_label(nightly: JobFolder) -> None:
    label(nightly, "v7")
    nightly.run(*CRON, code=8)
    end(nightly)
    nightly.run(*CRON, code=0)
    label(nightly, "v7", "Label this: {{ text }}")
    append(nightly, 8)
    [error] = [one for one in events(nightly.run(*CRON, code=2)) if one["event"] == "error"]
    assert "the prompt changed, but its version is still `v7`" in error["what"]
    assert error["where"][0].endswith("prompt.md")
    assert "raise [prompt] version" in error["hint"]
    label(nightly, "v8", "Label this: {{ text }}")
    [error] = [one for one in events(nightly.run(*CRON, code=6)) if one["event"] == "error"]
    assert "8 rows that an earlier run completed would be bought again" in error["what"]
    assert "--keep-done" in error["hint"]
    assert len(nightly.books.creates) == 1
    kept = nightly.run(*CRON, "--keep-done", code=8)
    assert told(kept, "submit.sent")["rows"] == 1


def test_the_account_is_out_of_credit(nightly: JobFolder, slow: Provider) -> None:
    slow.fault(CREATE, "insufficient_quota", nth="every")
    for _ in range(2):
        error = events(nightly.run(*CRON, code=10))[-1]
        assert (error["event"], error["exit"]) == ("error", 10)
        assert "quota" in f"{error['what']} {error['effect']} {error['hint']}"
        assert nightly.check_balance()["queued"] == 8
    assert nightly.sql("SELECT MAX(attempt) FROM chunk") == [(1,)], "no attempt was used"
    slow.clear_faults()
    nightly.run(*CRON, code=8)
    end(nightly)
    nightly.run(*CRON, code=0)
    nightly.check_money()


def test_rows_that_expired_are_carried_over_and_the_others_are_not_bought_again(nightly: JobFolder) -> None:
    """With [retry] they go out again at once; without, with the next night's rows. Finished ones are kept either way."""
    text = (nightly.path / "job.toml").read_text()
    (nightly.path / "job.toml").write_text(f"{text}\n[retry]\ntransient = 0\n")
    nightly.run(*CRON, code=8)
    end(nightly, "expired", answered=5)
    expired = nightly.run(*CRON)
    counts = nightly.check_balance()
    assert counts["published"] == 5, expired
    append(nightly, 8)
    second = nightly.run(*CRON, code=8)
    carried = told(second, "carry_over")
    assert (carried["rows"], carried["from"]) == (3, f"{nightly.name}-0001")
    assert told(second, "submit.sent")["rows"] == 4
    nightly.number = 2
    end(nightly)
    assert events(nightly.run(*CRON, code=0))[-1]["published"] == 4


def test_expired_rows_go_out_again_by_themselves(nightly: JobFolder) -> None:
    nightly.run(*CRON, code=8)
    end(nightly, "expired", answered=5)
    again = nightly.run(*CRON, code=8)
    assert told(again, "carry_over").items() >= {"rows": 3, "from": nightly.run_id, "why": "expired"}.items()
    assert told(again, "submit.sent").items() >= {"rows": 3, "attempt": 2}.items()
    end(nightly)
    assert events(nightly.run(*CRON, code=0))[-1]["published"] == 8
    nightly.check_money()


# --- a gate in CI -----------------------------------------------------------------------------------------------------

ROWS = 60


@pytest.fixture
def evaluated(new_job: NewJob, new_provider: NewProvider) -> JobFolder:
    """Two models asked about the same rows: `prod`, which answered them before, and `lite`, which refuses some."""
    job = new_job(new_provider(), rows=ROWS, model=model_of("gpt-5.4-mini"))
    (job.path / "job.toml").rename(job.path / "prod.toml")
    lite = (job.path / "prod.toml").read_text().replace(f'name = "{job.name}"', f'name = "{job.name}-lite"')
    other = f'{model_of("gpt-5.4-nano")}\nbase_url = "{new_provider(seed=9, refused=0.1).base_url}"'
    (job.path / "lite.toml").write_text(lite.replace(model_of("gpt-5.4-mini"), other))
    job.run("run", "prod.toml", "--wait", code=0)
    return job


def model_of(name: str) -> str:
    return f'provider = "openai"\nname = "{name}"\nparams = {{ max_output_tokens = 64 }}'


def write_gold(job: JobFolder) -> dict[str, str]:
    """Labels that `prod` meets in all rows but three."""
    (job.path / "gold").mkdir()
    told = {one["id"]: one["output"]["label"] for one in job.lines("results.jsonl")}
    true = {
        name: said if place > 2 else {"card": "other"}.get(said, "card")
        for place, (name, said) in enumerate(told.items())
    }
    with (job.path / "gold" / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "label"), *true.items()])
    return true


def compared(job: JobFolder, *argv: str, code: int) -> Done:
    gates = [part for gate in GATES for part in ("--gate", gate)]
    return job.run("compare", "prod=prod.toml", "lite=lite.toml", *COMPARE, *gates, *argv, code=code)


def test_models_are_compared_and_the_gate_fails(evaluated: JobFolder) -> None:
    paid = evaluated.books.usd
    reused = evaluated.run("run", "prod.toml", *EVAL, code=0)
    assert evaluated.books.usd == paid, "stored answers are used again"
    assert evaluated.books.live == 0
    assert f"{ROWS} completed" in reused.err
    asked = evaluated.run("run", "lite.toml", *EVAL, "--allow-pending-review", code=3)
    assert "lane: live; " in asked.err
    assert "there are 50 min" in asked.err, "the reason: there is less time than a batch may take"
    assert "in review" in asked.err
    true = write_gold(evaluated)
    done = compared(evaluated, "--summary", "summary.md", code=5)
    verdict = done.json
    assert verdict["verdict"] == "fail"
    assert verdict["gold"].items() >= {"rows": ROWS, "matched": ROWS, "missing": 0, "extra": 0}.items()
    prod, lite = verdict["contestants"]
    assert (prod["name"], lite["name"], verdict["baseline"]) == ("prod", "lite", "prod")
    assert prod["accuracy"]["hits"] == ROWS - 3
    assert lite["refused"]["hits"] > 0
    assert lite["schema_valid"]["hits"] == ROWS - lite["refused"]["hits"]
    assert lite["usd_per_1000_completed"] is not None
    for one in (prod, lite):
        assert one["accuracy"]["low"] < one["accuracy"]["value"] < one["accuracy"]["high"]
    pair = lite["paired"]
    assert pair["better"] + pair["worse"] <= ROWS
    assert pair["low"] <= pair["difference"] <= pair["high"]
    states = {gate["gate"]: gate["state"] for gate in verdict["gates"]}
    assert set(states) == set(GATES)
    assert {gate["contestant"] for gate in verdict["gates"]} == {"lite"}
    assert states["accuracy >= 92%"] == "fail"
    assert states["difference >= -1.5%"] == "fail"
    for gate in verdict["gates"]:
        assert (gate["more_rows"] is not None) <= (gate["state"] == "undecided")
    assert lite["confusion"], "what was taken for what"
    assert set(true.values()) >= {one["gold"] for one in lite["confusion"]}

    suites = ElementTree.fromstring((evaluated.path / "eval.xml").read_bytes())
    [suite] = [one for one in suites if one.get("name") == "lite"]
    assert [case.get("name") for case in suite.iter("testcase")] == list(GATES)
    failures = {case.get("name") for case in suite.iter("testcase") if case.find("failure") is not None}
    assert failures == {name for name, state in states.items() if state != "pass"}
    assert "FAIL" in (evaluated.path / "summary.md").read_text()
    text = evaluated.run("compare", "prod=prod.toml", "lite=lite.toml", *COMPARE[:-1], "--gate", GATES[1], code=5).out
    assert re.search(r"FAIL +accuracy >= 92% ", text)
    assert "Worst confusions for lite: " in text
    assert "Gates: 1 of 1 failed" in text
    evaluated.run("compare", "prod=prod.toml", *COMPARE[:2], "--gate", "accuracy >= 85%", code=0)


def test_batches_still_out_when_the_time_is_over(new_job: NewJob, slow: Provider) -> None:
    job = new_job(slow, rows=4, model=model_of("gpt-5.4-mini"))
    wait = ("--max-wait", "0s", "--budget", "3USD", "--no-input")
    for _ in range(2):
        assert "Next: batchctl run job.toml   (goes on; nothing is sent twice)" in job.run("run", *wait, code=8).err
    assert len(job.books.creates) == 1, "the workflow can be run again: nothing is sent twice"
    end(job)
    job.run("run", *wait[2:], code=0)


# --- the design -------------------------------------------------------------------------------------------------------


def lines_of(part: str) -> str:
    """One journey."""
    text = DESIGN.read_text("utf-8")
    return text.partition(f"### ({part})")[2].partition("\n### (")[0]


@pytest.mark.skipif(not DESIGN.is_file(), reason="the design is not beside the checkout")
def test_the_commands_are_those_of_the_design() -> None:
    """File names, numbers of runs and models are examples; commands and options are not."""
    cron = {
        line.partition("batchctl ")[2].partition(" >>")[0] for line in lines_of("b").split("\n") if "cd /srv" in line
    }
    assert {tuple(shlex.split(one)[2:]) for one in cron} == {CRON[2:]}
    assert "--chunk 1 --not-sent" in lines_of("b")
    run, compare = (
        shlex.split(re.search(rf"^\$ batchctl ({name} .*)$", lines_of("c"), re.MULTILINE)[1])  # type: ignore[index]
        for name in ("run", "compare")
    )
    assert tuple(run[2:]) == EVAL
    assert set(re.findall(r"--[a-z-]+", " ".join(compare))) == set(COMPARE[::2]) | {"--json"}
    codes = set(map(int, re.findall(r"exit (\d+)", lines_of("b"))))
    assert codes == {2, 8, 9, 10, 11}
