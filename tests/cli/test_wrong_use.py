"""What a slip of the fingers gets: the nearest right word, exit 2, and nothing done."""

import pytest

from tests.cli.conftest import Golden
from tests.cli.desk import Desk


def test_unknown_commands_and_options(bare: Desk, golden: Golden) -> None:
    for argv in (
        ["frobnicate"],
        ["statsu"],
        ["purge", "job.toml"],
        ["status", "--jsno"],
        ["prepare", "--resend-chnaged"],
        ["status", "one", "two"],
        ["emulator", "--port", "99999"],
        ["submit", "--max-batches", "none"],
    ):
        bare.fails(2, *argv)
    bare.run("status", "--state", code=2)
    golden("wrong-use")


def test_an_option_of_commands_before_the_command(bare: Desk) -> None:
    """`--json` is known everywhere, but only after a command; the error is JSON, as was asked."""
    done = bare.run("--json", "status", code=2, check=False)
    assert done.json["error"]["hint"] == "write it after the command: `batchctl status --json`"
    assert bare.run("--verbose", "status", code=2).err.endswith("after the command: `batchctl status --verbose`\n")


def test_option_values(desk: Desk, golden: Golden) -> None:
    for argv in (
        ["status", "--color", "red"],
        ["status", "--log-format", "xml"],
        ["run", "--max-wait", "soon"],
        ["run", "--max-wait", "-1s"],
        ["submit", "--lane", "sideways"],
        ["rerun", "--only", "expired,invalid"],
        ["resolve", "--adopt", "batch_1", "--not-sent"],
        ["emulator", "--host", "0.0.0.0"],
        ["run", "--set", "model.nam=x"],
        ["run", "--set", "model.name"],
        ["validate", "--rerun-file", "failed.txt"],
        ["validate", "--rerun-file", "nowhere/failed.csv"],
        ["status", "--env-file", "missing.env"],
    ):
        desk.fails(2, *argv)
    desk.write("bad.env", "# keys\nOPENAI_API_KEY\n")
    desk.fails(2, "status", "--env-file", "bad.env")
    golden("option-values")


def test_no_job_file(bare: Desk, golden: Golden) -> None:
    for command in ("run", "prepare", "dry-run", "submit", "poll", "validate", "rerun", "status", "check", "cancel"):
        done = bare.fails(2, command)
        assert "there is no job file `job.toml`" in done.err
        bare.history.pop()
    bare.fails(2, "run", "jobs/nightly.toml")
    bare.fails(2, "status", "triage-0001")
    bare.fails(2, "init")
    bare.fails(2, "init", "Not_A_Name")
    bare.fails(2, "init", "triage", "--from", "rows.csv")
    golden("no-job-file")
    assert not bare.state.exists()


def test_a_directory_is_no_job_file(desk: Desk) -> None:
    done = desk.fails(2, "prepare", ".")
    assert "`.` is a directory" in done.err
    assert "such as `./job.toml`" in done.err


@pytest.mark.parametrize("command", ["run", "prepare"])
def test_what_reads_the_source_needs_the_job_file(desk: Desk, command: str) -> None:
    """A run names its job file; when that has gone, there is nothing to read rows from."""
    desk.run("prepare", code=0)
    (desk.path / "job.toml").rename(desk.path / "elsewhere.toml")
    done = desk.fails(2, command, "triage-0001")
    assert f"{command} takes a job file" in done.err


def test_init_replaces_nothing_unasked(bare: Desk, golden: Golden) -> None:
    bare.write("messages.csv", 'Message ID,if,{{ x }},say "it"\n1,a,b,c\n2,d,e,f\n')
    bare.run("init", "triage", "--from", "messages.csv", code=0)
    bare.fails(2, "init", "triage")
    golden("init")
    written = (bare.path / "triage.prompt.md").read_text()
    bare.run("init", "triage", "--from", "messages.csv", "--force", code=0)
    assert (bare.path / "triage.prompt.md").read_text() == written
    done = bare.run("run", "triage.toml", "--wait", "--json", code=0)
    assert done.json["balance"]["completed"] == 2
    assert [one["id"] for one in bare.lines("results.jsonl")] == ["1", "2"]
