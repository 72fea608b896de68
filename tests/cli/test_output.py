"""The forms of what a command says: text, JSON, quiet, logs; pipes that close, disks that fill, old locales."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Golden
from tests.cli.desk import BATCHCTL, ROWS, Desk

DATA = ("status", "check", "resolve", "providers")


@pytest.fixture
def done(desk: Desk) -> Desk:
    desk.run("run", "--wait", code=0)
    desk.history.clear()
    return desk


def test_data_on_stdout_and_everything_else_on_stderr(done: Desk) -> None:
    for command in ("run", "prepare", "submit", "poll", "validate", "rerun", "cancel", *DATA):
        shown = done.run(command)
        assert (shown.out != "", shown.err != "") == (command in DATA, command not in DATA), shown
        assert (shown.out + shown.err).endswith("\n")


def test_json_of_every_command(done: Desk, golden: Golden) -> None:
    """`fails` and `run` check the head, the sums and the exit code; here the fields are written down."""
    for argv in (
        ["run", "--wait"],
        ["prepare"],
        ["dry-run", "--rows", "1"],
        ["submit"],
        ["submit", "--plan"],
        ["poll"],
        ["validate"],
        ["rerun"],
        ["rerun", "--plan"],
        ["status"],
        ["resolve"],
        ["cancel"],
        ["check"],
    ):
        text = done.run(*argv)
        shown = done.run(*argv, "--json", code=text.code)
        assert not shown.err or argv[0] == "dry-run", "only what is about to be asked live is announced"
        assert shown.json["run"] == "triage-0001"
        done.history.pop(-2)
    assert done.run("providers", "--json", code=0).json["providers"][0]["provider"] == "openai"
    schema = done.run("init", "--print-schema", "--json", code=0).json["job_schema"]
    assert schema == json.loads(done.run("init", "--print-schema", code=0).out)
    del done.history[-3:]
    golden("json")


def test_quiet(done: Desk) -> None:
    assert done.run("run", "--wait", "-q").err == "Balance  3 = 3 completed   simulated\n"
    assert done.run("status", "-q").out == "Balance  3 = 3 completed   simulated\n"
    missing = done.run("prepare", "nothing.toml", "--quiet", code=2).err
    assert missing.startswith("error: there is no job file")
    assert missing.endswith("hint: there is `job.toml`\n")
    assert done.run("providers", "-q", code=0).out.startswith("provider")


def test_log_lines(done: Desk) -> None:
    """Every line on stderr is a JSON object with a time and an event; data still goes to stdout."""
    runs = [
        done.run("run", "--wait", "--log-format", "json", code=0),
        done.run("status", "nothing", env={"BATCHCTL_LOG_FORMAT": "json"}, code=2),
        done.run("status", "--log-format", "json", code=0),
        done.run("dry-run", "--rows", "1", "--log-format", "json", code=0),
    ]
    events = [[json.loads(line) for line in one.err.split("\n")[:-1]] for one in runs]
    assert [[line["event"] for line in one] for one in events] == [
        ["lease.acquired", "route", "summary"],
        ["error"],
        ["summary"],
        ["lease.acquired", "note", "summary"],
    ]
    assert all(line["ts"].endswith("Z") for one in events for line in one)
    last = events[0][-1]
    assert (last["command"], last["completed"], last["exit"], last["name"]) == ("run", 3, 0, "ok")
    quiet = done.run("run", "--wait", "--quiet", "--log-format", "json", code=0)
    assert [json.loads(line)["event"] for line in quiet.err.split("\n")[:-1]] == [one["event"] for one in events[0]]
    assert events[1][0].keys() >= {"code", "what", "where", "effect", "hint", "exit"}
    assert runs[2].out.endswith("Next: use .batchctl/triage-0001/results.jsonl\n")
    assert runs[0].out == ""
    printed = done.run("init", "--print-schema", "--log-format", "json", code=0)
    assert json.loads(printed.out)["title"] == "batchctl job file"


def test_options_from_the_environment(done: Desk, tmp_path: Path) -> None:
    for value in ("1", "true", "YES"):
        assert done.run("status", env={"BATCHCTL_JSON": value}).json["run"] == "triage-0001"
    for value in ("0", "false", ""):
        assert done.run("status", env={"BATCHCTL_JSON": value}).out.startswith("triage-0001")
    usage = done.run("status", "--nothing", env={"BATCHCTL_JSON": "1"}, code=2)
    assert usage.json["error"]["what"] == "there is no option `--nothing`"
    assert done.run("status", env={"BATCHCTL_QUIET": "1"}).out.startswith("Balance")
    elsewhere = str(tmp_path / "state")
    assert "has no run yet" in done.run("status", env={"BATCHCTL_STATE": elsewhere}, code=2).err
    done.run("prepare", env={"BATCHCTL_STATE": elsewhere}, code=0)
    assert "triage-0001" in done.run("status", "--state", elsewhere, code=8).out
    assert done.run("status", env={"BATCHCTL_STATE": ""}, code=0)
    done.run("run", env={"BATCHCTL_WAIT": "1", "BATCHCTL_MAX_WAIT": "1m"}, code=0)
    assert "`soon` is not a time" in done.run("run", env={"BATCHCTL_MAX_WAIT": "soon"}, code=2).err
    assert "for `--wait` (env var: `BATCHCTL_WAIT`)" in done.run("run", env={"BATCHCTL_WAIT": "perhaps"}, code=2).err
    done.write("messages.csv", ROWS + "M-4,new,new\n")
    assert "`BATCHCTL_POLL_SECONDS` must be a number" in done.run("run", env={"BATCHCTL_POLL_SECONDS": "x"}, code=2).err


def test_help_and_version(bare: Desk, golden: Golden) -> None:
    bare.run(code=0)
    bare.run("--help", code=0)
    bare.run("-h", code=0)
    assert bare.history[0].out == bare.history[1].out == bare.history[2].out
    del bare.history[1:]
    commands = bare.history[0].out
    for command in commands.split("Work:")[1].split():
        if command not in ("run", "prepare", "submit"):
            continue
        shown = bare.run(command, "--help", code=0)
        assert shown.out == bare.run(command, "-h", code=0).out
        bare.history.pop()
    bare.run("--version", code=0)
    golden("help")


def test_every_command_opens_its_help_with_two_examples(bare: Desk) -> None:
    from batchctl.cli.main import GROUPS

    for command in (name for names in GROUPS.values() for name in names):
        lines = bare.run(command, "-h", code=0).out.split("\n")
        assert lines[0].startswith(f"Usage: batchctl {command} [OPTIONS]")
        assert lines[2].startswith("  ")
        assert sum("batchctl " in line for line in lines[3:8]) == 2, lines[:8]


# --- streams --------------------------------------------------------------------------------------------------------


def ends(done: Desk, *argv: str, **streams: int) -> subprocess.CompletedProcess[bytes]:
    how = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
    env = {**done.env, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    return subprocess.run([*BATCHCTL, *argv], cwd=done.path, env=env, timeout=60, check=False, **how)  # type: ignore[call-overload, no-any-return]


def test_a_reader_that_has_gone(done: Desk) -> None:
    """`batchctl status | head -1`: no traceback, no failure."""
    for argv in (["status"], ["status", "--json"], ["--help"]):
        read, write = os.pipe()
        os.close(read)
        shown = ends(done, *argv, stdout=write)
        os.close(write)
        assert (shown.returncode, shown.stderr) == (0, b"")
    read, write = os.pipe()
    os.close(read)
    assert ends(done, "run", "--wait", stderr=write).returncode == 0
    os.close(write)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_output_to_a_full_disk(done: Desk) -> None:
    with open("/dev/full", "wb") as full:
        shown = ends(done, "status", stdout=full.fileno())
        assert shown.returncode == 12
        assert shown.stderr.startswith(b"error: the output cannot be written: No space left on device\n")
        assert ends(done, "--help", stdout=full.fileno()).returncode == 12
        assert ends(done, "run", "--wait", stderr=full.fileno()).returncode == 0


def test_closed_descriptors(done: Desk) -> None:
    """The next file opened would get the number of a closed stream, and a library's message would go into it."""
    ledger = (done.state / "ledger.db").read_bytes()
    closed = [*BATCHCTL, "run", "--wait", "-v"]
    made = subprocess.run(
        ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *closed], cwd=done.path, env=done.env, check=False
    )
    assert made.returncode == 0
    assert (done.state / "ledger.db").read_bytes()[:16] == ledger[:16]
    done.run("check", code=0)


def test_no_colour_without_a_terminal(done: Desk) -> None:
    for more in ({}, {"NO_COLOR": "1"}, {"FORCE_COLOR": "1"}, {"TERM": "dumb"}, {"BATCHCTL_COLOR": "never"}):
        shown = done.run("status", env=more, code=0)
        assert "\x1b" not in shown.out + shown.err


def test_a_stream_without_unicode(desk: Desk) -> None:
    """Text is escaped for people, JSON for readers of JSON; the data stays what it is."""
    ascii_only = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
    desk.write("messages.csv", "message_id,subject,body\né,ü,x\né,ü,y\n")
    assert r"source id `\xe9` appears twice" in desk.fresh("prepare", code=2, env=ascii_only).err
    in_json = desk.fresh("prepare", "--json", code=2, env=ascii_only)
    assert in_json.json["error"]["what"] == "source id `é` appears twice"
    desk.write("messages.csv", "message_id,subject,body\né,ü,x\n")
    desk.fresh("run", "--wait", code=0, env={"LC_ALL": "C"})
    assert desk.lines("results.jsonl")[0]["id"] == "é"


def test_a_file_system_without_unicode(desk: Desk) -> None:
    desk.job(("messages.csv", "nachrichten-ü.csv"))
    env = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    shown = desk.fresh("prepare", code=2, env=env)
    if sys.getfilesystemencoding() == "utf-8":
        assert "a file name cannot be written in this locale's encoding, ascii" in shown.err
        assert "LC_ALL=C.UTF-8" in shown.err


def test_data_never_drives_the_terminal(desk: Desk) -> None:
    """P15: escapes, titles, the clipboard, bidi, C1: visible in text, escaped in JSON, intact in the data."""
    evil = "\x1b[31m\x1b]52;c;aGk=\x07\x9b2J\u202egnp.exe\x7f"
    desk.write("messages.csv", f'message_id,subject,body\n"{evil}",a,b\n"{evil}",c,d\n')
    text = desk.fails(2, "prepare")
    assert r"\x1b[31m\x1b]52;c;aGk=\x07\x9b2J\u202egnp.exe\x7f" in text.err
    assert desk.run("prepare", "--json", code=2).json["error"]["what"] == f"source id `{evil}` appears twice"
    desk.write("messages.csv", f'message_id,subject,"{evil}"\nA,b,c\n')
    desk.fails(2, "prepare")
    desk.job(('"gpt-5-mini"', '"[bold]gpt[/bold] [link=file:///etc/passwd]x[/link]"'))
    desk.write("messages.csv", ROWS)
    desk.run("prepare", code=0)
    assert "emulator/[bold]gpt[/bold] [link=file:///etc/passwd]x[/link]" in desk.run("status", code=8).out
