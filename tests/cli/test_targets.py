"""Naming a run: its id, a unique start of it, or the job file; and what happens when that fits none or many."""

from tests.cli.conftest import Golden
from tests.cli.desk import ROWS, Desk


def test_run_ids_and_their_beginnings(desk: Desk, golden: Golden) -> None:
    desk.run("prepare", code=0)
    desk.job(('"triage"', '"triage-night"'))
    desk.run("prepare", code=0)
    desk.history.clear()
    desk.run("status", "triage-0001", code=8)
    desk.run("status", "triage-n", code=8)
    desk.run("status", "@last", code=8)
    desk.fails(2, "status", "triage")
    desk.fails(2, "status", "triage-0010")
    desk.fails(2, "poll", "nightly")
    golden("run-ids")


def test_no_run_yet(desk: Desk, golden: Golden) -> None:
    for command in ("status", "dry-run", "submit", "poll", "validate", "rerun", "cancel", "resolve", "check"):
        done = desk.fails(2, command)
        assert "hint: `batchctl prepare job.toml`" in done.err, done
    golden("no-run-yet")


def test_before_anything_was_sent(desk: Desk, golden: Golden) -> None:
    """Every command has something true to say about a run that is only prepared; none of them sends it."""
    desk.run("prepare", code=0)
    for command, code in {
        "submit": 0,
        "poll": 8,
        "validate": 8,
        "rerun": 0,
        "resolve": 0,
        "check": 0,
        "cancel": 0,
        "status": 8,
    }.items():
        desk.run(command, *(["--plan"] if command == "submit" else []), code=code)
    golden("only-prepared")
    assert not (desk.state / "emulator").exists(), "nothing was asked of the provider"


def test_two_runs_of_a_job(desk: Desk, golden: Golden) -> None:
    """New rows make a new run; an older one that was left unfinished is named until it is."""
    desk.run("prepare", code=0)
    desk.run("submit", code=8)
    desk.write("messages.csv", ROWS + "M-4,Late,One more\n")
    desk.run("prepare", code=0)
    desk.run("status", code=8)
    desk.run("poll", "triage-0001", "--wait", code=0)
    desk.run("validate", "triage-0001", code=0)
    desk.run("run", "--wait", code=0)
    desk.run("status", code=0)
    desk.run("run", "--wait", code=0)
    golden("two-runs")
    assert desk.billed()["rows_billed"] == 4


def test_run_with_the_id_of_an_older_run(desk: Desk) -> None:
    """What is new is sent, and it is what the report is about."""
    desk.run("run", "--wait", code=0)
    desk.write("messages.csv", ROWS + "M-4,Late,One more\n")
    done = desk.run("run", "triage-0001", "--wait", "--json", code=0)
    assert done.json["run"] == "triage-0002"
    assert done.json["balance"]["completed"] == 1


def test_a_job_edited_after_it_was_prepared(desk: Desk, golden: Golden) -> None:
    """What is sent is what was prepared, and the command says so."""
    desk.run("prepare", code=0)
    desk.write("prompt.md", "Something else: {{ body }}")
    desk.run("submit", "--plan", code=0)
    desk.run("submit", code=8)
    desk.run("run", "--wait", code=0)
    golden("edited-job")
    sent = (desk.directory / "chunks" / "0001.jsonl").read_text()
    assert "Label this message" in sent
    assert desk.billed()["rows_billed"] == 3


def test_the_next_command_works_where_it_is_typed(bare: Desk) -> None:
    """Runs are looked for in `./.batchctl`: from elsewhere the next command says where."""
    bare.job()
    (bare.path / "jobs").mkdir()
    for name in ("job.toml", "messages.csv", "prompt.md", "schema.json"):
        (bare.path / name).rename(bare.path / "jobs" / name)
    bare.run("prepare", "jobs/job.toml", code=0, check=False)
    named = (["status", "jobs/job.toml"], ["status", "triage-0001", "--state", "jobs/.batchctl"])
    for argv, code in zip(named, (8, 0), strict=True):  # what comes next is `submit`, then `poll --wait`
        shown = bare.run(*argv, code=8, check=False).out
        following = next(line for line in shown.splitlines() if line.startswith("Next: batchctl "))
        assert "triage-0001 --state jobs/.batchctl" in following
        words = following.removeprefix("Next: batchctl ").split()
        bare.run(*words, code=code, check=False)
