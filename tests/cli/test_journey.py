"""One job from the first command to the last, as a person sees it."""

from tests.cli.conftest import Golden
from tests.cli.desk import Desk

MANY = "message_id,subject,body\n" + "".join(f"M-{n},Subject {n},Text {n}\n" for n in range(1, 41))


def test_step_by_step(desk: Desk, golden: Golden) -> None:
    desk.job(("rows = 0", "rows = 2"), more="[limits]\nchunk_rows = 2\n")
    desk.run("prepare", code=0)
    desk.run("prepare", code=0)
    desk.run("dry-run", code=0)
    desk.run("submit", "--plan", code=0)
    desk.run("submit", "--max-batches", "1", code=8)
    desk.run("status", code=8)
    desk.run("poll", "--wait", code=0)
    desk.run("validate", code=0)
    desk.run("status", code=0)
    desk.run("check", code=0)
    desk.run("submit", code=0)
    desk.run("run", "--wait", code=0)
    golden("step-by-step")
    books = desk.billed()
    assert (books["batches"], books["rows_billed"], books["live_calls"]) == (2, 3, 2)


def test_failures_and_a_second_attempt(desk: Desk, golden: Golden) -> None:
    """Rows that fail at the provider go again by request, paid answers that are unusable do not."""
    desk.write("messages.csv", MANY)
    desk.job(more="[emulator]\nseed = 3\nerror500 = 0.1\ntruncated = 0.1\nrefused = 0.1\nmissing = 0.05\n")
    desk.run("prepare", code=0)
    desk.run("submit", code=8)
    desk.run("poll", "--wait", code=0)
    desk.run("validate", code=3)
    desk.run("status", code=3)
    desk.run("rerun", "--plan", code=0)
    desk.run("rerun", "--wait", code=3)
    desk.run("validate", "--rerun-file", "failed.csv", code=3)
    golden("failures")
    results = desk.lines("results.jsonl")
    assert [one["id"] for one in results] == [f"M-{n}" for n in range(1, 41)]
    failed = [one["id"] for one in results if one["state"] in ("invalid_output", "provider_error")]
    assert [one["message_id"] for one in desk.lines("rerun.jsonl")] == failed
    assert (desk.path / "failed.csv").read_text().count("\n") == len(failed) + 1


def test_the_rerun_file_is_a_source(desk: Desk) -> None:
    """`prepare --rows rerun.jsonl` takes the failed rows, and only them, into a new run."""
    desk.write("messages.csv", MANY)
    desk.job(more="[emulator]\nseed = 3\nschema = 0.3\n")
    desk.run("run", "--wait", code=3)
    failed = [one["message_id"] for one in desk.lines("rerun.jsonl")]
    assert failed
    desk.job()
    desk.write("prompt.md", "Better: {{ subject }}, {{ body }}")
    desk.run("prepare", "--rows", ".batchctl/triage-0001/rerun.jsonl", code=0)
    desk.run("submit", code=8)
    desk.run("poll", "--wait", code=0)
    desk.run("validate", code=0)
    assert [one["id"] for one in desk.lines("results.jsonl", "triage-0002")] == failed
    assert all("_reason" not in one["row"] for one in desk.lines("results.jsonl", "triage-0002"))


def test_cancelling(desk: Desk, golden: Golden) -> None:
    desk.job(more='[emulator]\nlatency = "1h"\n[limits]\nchunk_rows = 2\n')
    desk.run("prepare", code=0)
    desk.run("submit", "--max-batches", "1", code=8)
    desk.run("cancel", "--wait", code=0)
    desk.run("poll", code=8)
    desk.run("validate", code=8)
    golden("cancel")
    assert desk.billed()["batches"] == 1


def test_identical_rows_are_paid_once(desk: Desk) -> None:
    desk.write("messages.csv", "message_id,subject,body\nA,hi,there\nB,other,text\nC,hi,there\nD,hi,there\n")
    done = desk.run("run", "--wait", "--json", code=0)
    assert (done.json["balance"]["completed"], done.json["balance"]["copied"]) == (4, 2)
    assert desk.billed()["rows_billed"] == 2
    results = {one["id"]: one for one in desk.lines("results.jsonl")}
    assert [results[one]["copied_from"] for one in "ABCD"] == [None, None, "A", "A"]
    assert results["A"]["output"] == results["C"]["output"] == results["D"]["output"]


def test_rows_without_ids(desk: Desk) -> None:
    """Known by their content; the same content twice is two rows, told apart by a number."""
    desk.write("messages.csv", "subject,body\nhi,there\nother,text\nhi,there\n")
    desk.job((', id = "message_id"', ""))
    desk.run("run", "--wait", code=0)
    first, second, third = (one["id"] for one in desk.lines("results.jsonl"))
    assert third == f"{first}-2"
    assert second != first
