"""Disks, locks and damage: the command says what and where, exits 12 (or 9), and the next one carries on."""

import os
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Golden, as_root
from tests.cli.desk import ROWS, Desk, held_lock, limit_files

WRITERS = ("run", "prepare", "dry-run", "submit", "poll", "validate", "rerun", "cancel", "resolve")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, commands: object) -> Path:
    """The folder of a job that is done, to be copied."""
    folder = tmp_path_factory.mktemp("finished") / "work"
    folder.mkdir()
    desk = Desk(folder, commands)  # type: ignore[arg-type]
    desk.job()
    desk.run("run", "--wait", code=0)
    return folder


@pytest.fixture
def done(bare: Desk, finished: Path) -> Desk:
    """A job that is done: paid answers that must not be lost, nor bought again."""
    shutil.copytree(finished, bare.path, dirs_exist_ok=True)
    return bare


def flip(path: Path, place: float = 0.5) -> None:
    """Change one byte."""
    content = bytearray(path.read_bytes())
    content[int(len(content) * place)] ^= 0x55
    path.write_bytes(content)


# --- another process ------------------------------------------------------------------------------------------------


def test_a_job_that_another_process_holds(desk: Desk, golden: Golden) -> None:
    desk.run("prepare", code=0)
    desk.history.clear()
    with held_lock(desk.state / "triage.lock"):
        for command in WRITERS:
            desk.fails(9, command)
        desk.fails(9, "run", "--max-wait", "0s")
        desk.run("status", code=8)
        desk.run("check", code=0)
    golden("locked")
    desk.run("run", "--wait", code=0)


def test_another_job_of_the_workspace_is_not_held(desk: Desk) -> None:
    with held_lock(desk.state / "other.lock"):
        desk.run("prepare", code=0)


def test_waiting_for_the_lock(desk: Desk) -> None:
    desk.run("prepare", code=0)
    with held_lock(desk.state / "triage.lock"):
        waiting = desk.start("run", "--wait")
        assert waiting.poll() is None
    desk.finish(waiting, "run", "--wait", code=0)


# --- the ledger -----------------------------------------------------------------------------------------------------


def test_a_newer_ledger(done: Desk, golden: Golden) -> None:
    done.sql("PRAGMA user_version = 99")
    ledger = done.state / "ledger.db"
    before = ledger.read_bytes()
    done.fails(2, "run")
    done.fails(2, "status")
    done.fails(2, "check")
    golden("newer-ledger")
    assert ledger.read_bytes() == before


def test_a_damaged_ledger(done: Desk, golden: Golden) -> None:
    ledger = done.state / "ledger.db"
    good = ledger.read_bytes()
    for damaged in (b"x" * 100 + good[100:], good[: len(good) // 2], good[:4096] + b"\x55" * (len(good) - 4096)):
        ledger.write_bytes(damaged)
        for command in ("status", "run", "check"):
            done.fails(12, command)
        assert ledger.read_bytes() == damaged, "what is left of it may help someone"
    golden("damaged-ledger")
    ledger.write_bytes(good)
    done.run("run", "--wait", code=0)
    assert done.billed()["rows_billed"] == 3


@pytest.mark.parametrize("how", ["missing", "empty", "a database without tables"])
def test_a_ledger_that_is_gone(done: Desk, how: str) -> None:
    """P27: without it nobody knows what was paid for; starting afresh would pay for everything again."""
    ledger = done.state / "ledger.db"
    good = ledger.read_bytes()
    ledger.unlink()
    if how == "empty":
        ledger.touch(0o600)
    if how == "a database without tables":
        done.sql("PRAGMA journal_mode = WAL")
        ledger.chmod(0o600)
    files = {path: path.read_bytes() for path in done.directory.rglob("*") if path.is_file()}
    for command in ("run", "prepare", "status", "check"):
        failed = done.fails(12, command)
        assert "of the runs beside it: triage-0001" in failed.err
    assert {path: path.read_bytes() for path in done.directory.rglob("*") if path.is_file()} == files
    for left in done.state.glob("ledger.db*"):
        left.unlink()
    ledger.write_bytes(good)
    ledger.chmod(0o600)
    done.run("run", "--wait", code=0)
    assert done.billed()["rows_billed"] == 3


# --- files the ledger names -----------------------------------------------------------------------------------------

NAMED = (
    "chunks/0001.jsonl",
    "chunks/0001.rows.parquet",
    "results/0001.a1.jsonl",
    "results/0001.a1.verdicts.parquet",
    "prompt.md",
    "schema.json",
    "job.toml",
)


@pytest.mark.parametrize("name", NAMED)
def test_check_names_what_is_damaged(done: Desk, name: str) -> None:
    path = done.directory / name
    good = path.read_bytes()
    flip(path)
    shown = done.fails(12, "check")
    place = name if "/" in name else "triage-0001"
    assert place in shown.err
    path.unlink()
    assert place in done.fails(12, "check").err
    path.write_bytes(good)
    path.chmod(0o600)
    done.run("check", code=0)


def test_a_damaged_file_is_not_used(done: Desk, golden: Golden) -> None:
    flip(done.directory / "results" / "0001.a1.jsonl")
    done.fails(12, "validate", "--again")
    (done.directory / "results" / "0001.a1.jsonl").unlink()
    done.fails(12, "validate", "--again")
    (done.directory / "chunks" / "0001.rows.parquet").unlink()
    done.fails(12, "validate")
    done.fails(12, "check")
    golden("damaged-files")


def test_a_request_file_changed_before_it_is_sent(desk: Desk) -> None:
    desk.run("prepare", code=0)
    flip(desk.directory / "chunks" / "0001.jsonl")
    failed = desk.fails(12, "submit")
    assert "a request file is not what was prepared" in failed.err
    assert desk.billed()["batches"] == 0


def test_results_that_people_deleted_are_written_again(done: Desk) -> None:
    """P21: what is made from the stored answers can be made again, byte for byte."""
    results = done.directory / "results.jsonl"
    before = results.read_bytes()
    results.unlink()
    (done.directory / "rerun.jsonl").unlink()
    done.run("validate", code=0)
    assert results.read_bytes() == before
    assert (done.directory / "rerun.jsonl").read_bytes() == b""


def test_nothing_failed_and_the_copy_of_the_rerun_file_says_so(done: Desk) -> None:
    """A table with its columns and no rows, not an empty file that no reader takes."""
    done.run("validate", "--rerun-file", "failed.csv", code=0)
    assert (done.path / "failed.csv").read_text() == "message_id,subject,body,_reason,_detail,_attempt\n"


# --- places nobody should write to ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_state_directory_that_others_may_write_to(done: Desk, mode: int) -> None:
    done.state.chmod(mode)
    for command in ("status", "run"):
        failed = done.run(command, code=2, check=False)
        assert "the state directory can be written by others" in failed.err
        assert "hint: chmod 700 .batchctl" in failed.err
    done.state.chmod(0o700)
    done.run("status", code=0)


@pytest.mark.parametrize("name", ["results.jsonl", "results.jsonl.part", "rerun.jsonl"])
def test_a_symlink_in_place_of_a_result_file(done: Desk, tmp_path: Path, name: str) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (done.directory / name).unlink(missing_ok=True)
    (done.directory / name).symlink_to(victim)
    failed = done.run("validate")
    assert failed.code in (2, 12)
    assert name in failed.err
    assert victim.read_text() == "precious"
    (done.directory / name).unlink()
    done.run("validate", code=0)


def test_a_symlink_in_place_of_the_lock(done: Desk, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (done.state / "triage.lock").unlink()
    (done.state / "triage.lock").symlink_to(victim)
    failed = done.fails(12, "run")
    assert "the lock is a symbolic link" in failed.err
    assert victim.read_text() == "precious"


def test_a_file_in_place_of_the_state_directory(desk: Desk) -> None:
    desk.state.write_text("not a directory")
    for command in ("run", "status"):
        assert "the state directory is not a directory" in desk.run(command, code=12, check=False).err
    assert desk.state.read_text() == "not a directory"


@as_root
def test_a_state_directory_without_permission(done: Desk) -> None:
    done.state.chmod(0o500)
    try:
        failed = done.run("run", code=12, check=False)
    finally:
        done.state.chmod(0o700)
    assert "Permission denied" in failed.err
    done.run("run", "--wait", code=0)
    assert done.billed()["rows_billed"] == 3


# --- no room --------------------------------------------------------------------------------------------------------


def test_no_room_for_the_chunks(desk: Desk) -> None:
    """RLIMIT_FSIZE stands in for a full disk. Nothing half is left, and the next command has room again."""
    desk.write("messages.csv", "message_id,subject,body\n" + "".join(f"M-{n},s,{n:0600}\n" for n in range(1000)))
    failed = desk.fresh("prepare", code=12, preexec_fn=limit_files(200_000))
    assert "File too large" in failed.err
    assert not list(desk.state.glob("triage*[0-9]*"))
    assert desk.tables() == []
    desk.run("prepare", code=0)


def test_no_room_for_results(desk: Desk) -> None:
    """Every paid answer arrives in the end, and none is paid twice, wherever the room ended."""
    desk.write("messages.csv", "message_id,subject,body\n" + "".join(f"M-{n},s,{n:0300}\n" for n in range(300)))
    desk.run("prepare", code=0)
    desk.run("submit", code=8)
    desk.run("poll", "--wait", code=0)
    failed = desk.fresh("validate", code=12, preexec_fn=limit_files(50_000))
    assert "triage-0001" in failed.err
    assert not (desk.directory / "results.jsonl").exists()
    assert not list(desk.directory.rglob("*.part"))
    done = desk.run("run", "--wait", "--json", code=0)
    assert done.json["balance"]["completed"] == 300
    assert desk.billed()["rows_billed"] == 300


def test_no_room_for_the_ledger(desk: Desk) -> None:
    desk.run("prepare", code=0)
    before = desk.tables()
    failed = desk.fresh("submit", code=12, preexec_fn=limit_files(4096))
    assert "ledger.db" in failed.err
    assert desk.tables() == before
    desk.run("run", "--wait", code=0)
    assert desk.billed()["rows_billed"] == 3


def test_other_people_on_the_machine_see_nothing(desk: Desk) -> None:
    """P30: umask 000 makes no difference. `fresh` looks at every mode."""
    desk.fresh("run", "--wait", code=0, umask=0)
    desk.fresh("init", "other", code=0, umask=0)
    assert not (os.stat(desk.path / "other.toml").st_mode & 0o077)


def test_a_working_directory_that_was_deleted(desk: Desk) -> None:
    gone = desk.path / "gone"
    gone.mkdir()
    desk.fresh("run", str(desk.path / "job.toml"), "--wait", code=0, cwd=gone, preexec_fn=gone.rmdir)
    gone.mkdir()
    failed = desk.fresh("status", code=2, cwd=gone, preexec_fn=gone.rmdir)
    assert "there is no job file `job.toml`" in failed.err


def test_the_source_changes_after_it_was_prepared(desk: Desk) -> None:
    """A run stands on the rows it was prepared with; they lie beside its chunks."""
    desk.run("prepare", code=0)
    desk.run("submit", code=8)
    desk.write("messages.csv", ROWS.replace("twice", "thrice"))
    desk.run("poll", "--wait", code=0)
    desk.run("validate", code=0)
    assert desk.lines("results.jsonl")[0]["row"]["body"] == "I was charged twice"
