"""`python -m tests.mutations [NAME ...]`: takes each guard of the promises away in a copy, and runs the test that guards it.

A mutation that survives is a promise nobody watches: exit code 1. `tests/README.md` names the promise of each.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("batchctl", "tests", "samples", "pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE")
LOST = "tests/faults/test_lost_answers.py"


@dataclass(frozen=True)
class Mutation:
    """`changes`: file, what stands there, what stands there instead. `tests`: what must fail then.

    Only tests that import the tree they lie in: an interpreter of its own would load the installed package.
    """

    name: str
    promise: str
    changes: tuple[tuple[str, str, str], ...]
    tests: tuple[str, ...]


MUTATIONS = (
    Mutation(
        "no fsync of files",
        "P10 P8",
        (("batchctl/files.py", "os.fsync(", "id("),),
        ("tests/crash/test_every_call.py::test_power_cut_at_a_call",),
    ),
    Mutation(
        "ledger synced at checkpoints only",
        "P10",
        (("batchctl/ledger/store.py", "PRAGMA synchronous = FULL", "PRAGMA synchronous = NORMAL"),),
        ("tests/crash/test_every_call.py::test_power_cut_at_a_call",),
    ),
    Mutation(
        "intent written after the create",
        "P1 P10",
        (
            (
                "batchctl/workflow/submit.py",
                "    with ledger.transaction() as db:\n        transitions.open_intent(",
                "    def late(db):\n        transitions.open_intent(",
            ),
            (
                "batchctl/workflow/submit.py",
                "    reconcile.receive(workspace, provider, tag, run.id, chunk.number, batch_id)\n",
                (
                    '    crash_point("K10")\n    with ledger.transaction() as db:\n        late(db)\n'
                    "    reconcile.receive(workspace, provider, tag, run.id, chunk.number, batch_id)\n"
                ),
            ),
        ),
        ("tests/crash/test_kill_points.py::test_submit",),
    ),
    Mutation(
        "the SDK repeats a lost create",
        "P1",
        (("batchctl/providers/openai.py", "max_retries=0", "max_retries=2"),),
        (f"{LOST}::test_a_create_whose_answer_is_lost_is_found_and_not_repeated",),
    ),
    Mutation(
        "no lock",
        "P2",
        (("batchctl/ledger/store.py", "fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)", "pass"),),
        ("tests/faults/test_at_once.py",),
    ),
    Mutation(
        "no completeness check",
        "P8 P4",
        (
            ("batchctl/workflow/collect.py", "index(parts, wanted, provider.traits.wire).missing", "0"),
            ("batchctl/workflow/collect.py", "size is not None and written != size", "False"),
        ),
        (f"{LOST}::test_a_download_that_is_cut_lost_or_something_else_loses_no_answer",),
    ),
    Mutation(
        "no settle time",
        "P1",
        (("batchctl/workflow/reconcile.py", "    _wait(workspace, wait)\n", ""),),
        ("tests/faults/test_settle.py",),
    ),
    Mutation(
        "no fence",
        "P1",
        (("batchctl/workflow/reconcile.py", "    provider.delete(intent.staged)\n", ""),),
        (f"{LOST}::test_a_create_that_arrives_after_it_was_given_up_finds_its_input_gone",),
    ),
    Mutation(
        "adopted by its number of requests",
        "P1 P6",
        (
            (
                "batchctl/providers/openai.py",
                'metadata.get("batchctl_intent") == tag',
                '(batch.get("request_counts") or {}).get("total") == 3',
            ),
        ),
        (f"{LOST}::test_a_create_that_did_not_act_is_sent_again_only_behind_a_fence",),
    ),
    Mutation(
        "an unreadable list counts as empty",
        "P1 P9",
        (
            (
                "batchctl/workflow/reconcile.py",
                "    except BatchctlError as error:\n        raise OutcomeUnknown(",
                "    except BatchctlError as error:\n        return Look.ABSENT\n        raise OutcomeUnknown(",
            ),
        ),
        (f"{LOST}::test_a_list_that_cannot_be_read_is_no_proof_of_absence",),
    ),
    Mutation(
        "an unknown outcome counts as a refusal",
        "P1 P9",
        (("batchctl/workflow/submit.py", "except OutcomeUnknown as error:", "except ZeroDivisionError as error:"),),
        (f"{LOST}::test_a_create_whose_answer_is_lost_is_found_and_not_repeated",),
    ),
    Mutation(
        "a token of unknown age counts as a new one",
        "P1 P25",
        (("batchctl/workflow/reconcile.py", "not 0 <= age < provider", "not age < provider"),),
        ("tests/faults/test_token.py::test_an_old_token_is_fenced_like_any_other_create",),
    ),
    Mutation(
        "the window of a search begins with our own clock",
        "P1 P25",
        (("batchctl/workflow/submit.py", "else provider.server_time()", "else int(__import__('time').time())"),),
        ("tests/crash/test_clock.py::test_a_lost_create_is_found_whatever_the_clock_said",),
    ),
    Mutation(
        "deadlines go by our own clock",
        "P25",
        (("batchctl/workflow/workspace.py", "if heard else datetime.now(UTC)", "if False else datetime.now(UTC)"),),
        ("tests/crash/test_clock.py::test_batches_in_flight_are_waited_for_whatever_the_clock_says",),
    ),
    Mutation(
        "the second of two batches is left running",
        "P1",
        (("batchctl/workflow/reconcile.py", "        provider.cancel(one.batch_id)\n", ""),),
        (f"{LOST}::test_of_two_batches_with_our_mark_the_older_is_adopted_and_the_other_cancelled",),
    ),
    Mutation(
        "an unknown status counts as the end",
        "P9",
        (
            (
                "batchctl/providers/openai.py",
                "profile.states.get(word, BatchState.RUNNING)",
                "profile.states.get(word, BatchState.ENDED)",
            ),
        ),
        ("tests/faults/test_statuses.py::test_an_unknown_status_is_waited_for",),
    ),
    Mutation(
        "signals are not answered",
        "P13",
        (("batchctl/cli/main.py", "            signal.signal(number, _end)", "            pass"),),
        ("tests/faults/test_at_once.py::test_a_signal_during_a_call_leaves_at_once_and_nothing_is_paid_twice",),
    ),
    Mutation(
        "a call that spends follows redirects",
        "P16",
        (("batchctl/providers/openai.py", "follow_redirects=False", "follow_redirects=True"),),
        ("tests/conformance/test_openai.py::test_no_redirect_is_followed_and_no_key_leaves",),
    ),
    Mutation(
        "a newer ledger is opened",
        "P19",
        (("batchctl/ledger/store.py", "if version > formats.VERSION:", "if False:"),),
        ("tests/cli/test_storage.py::test_a_newer_ledger",),
    ),
    Mutation(
        "nobody is asked",
        "P23",
        (("batchctl/workflow/submit.py", 'model.provider == "emulator" or workspace.options.yes', "True"),),
        ("tests/cli/test_gates.py",),
    ),
    Mutation(
        "a changed file is as good as the recorded one",
        "P27",
        (("batchctl/workflow/check.py", "sha256_of(path) == sha256", "True"),),
        ("tests/cli/test_storage.py::test_check_names_what_is_damaged",),
    ),
    Mutation(
        "an older ledger is believed",
        "P1 P27",
        (("batchctl/ledger/store.py", "if all(self._is_behind() for _ in range(2)):", "if False:"),),
        ("tests/crash/test_rebuild.py::test_an_older_ledger_is_not_believed",),
    ),
    Mutation(
        "a journal written anew forgets what was before it",
        "P1 P27",
        (("batchctl/ledger/journal.py", "_AFTER % mark.encode()", 'b""'),),
        ("tests/crash/test_rebuild.py::test_an_older_ledger_is_not_believed_after_the_journal_was_written_anew",),
    ),
    Mutation(
        "an older journal is believed",
        "P27",
        (("batchctl/ledger/journal.py", "head[1].decode() in former.split()", "False"),),
        ("tests/crash/test_rebuild.py::test_an_older_journal_that_is_put_back_counts_for_nothing",),
    ),
    Mutation(
        "a sent run that the ledger does not know is replaced",
        "P1 P27",
        (("batchctl/workflow/prepare.py", "if (directory / SENT).exists():", "if False:"),),
        ("tests/crash/test_rebuild.py::test_a_run_that_the_ledger_does_not_know_is_not_sent_again",),
    ),
    Mutation(
        "rows whose answers were given up are sent by themselves",
        "P1 P23",
        (
            (
                "batchctl/ledger/transitions.py",
                "UPDATE intent SET state = 'abandoned', note = ? WHERE id = ?",
                "SELECT ?, ?",
            ),
        ),
        ("tests/faults/test_statuses.py::test_answers_that_cannot_be_had_are_given_up_by_a_person",),
    ),
    Mutation(
        "a line that hides a row is passed over",
        "P1 P6",
        (("batchctl/workflow/judge.py", "if len(lines) < len(spots) and not self.exact:", "if not lines:"),),
        ("tests/faults/test_result_files.py::test_whatever_is_between_the_lines_every_answer_is_joined",),
    ),
    Mutation(
        "no copy is made before an upgrade",
        "P19",
        (("batchctl/ledger/store.py", "                formats.keep(self.path, version)\n", ""),),
        ("tests/faults/test_upgrade.py::test_an_older_ledger_is_upgraded",),
    ),
    Mutation(
        "an upgrade beside a running older batchctl",
        "P19",
        (("batchctl/ledger/store.py", "                stack.enter_context(all_locked(self.path.parent))\n", ""),),
        ("tests/faults/test_upgrade.py::test_while_an_older_batchctl_is_at_work_nothing_is_upgraded",),
    ),
    Mutation(
        "an older batchctl writes on",
        "P19",
        (
            (
                "batchctl/ledger/store.py",
                "        self._version()  # a later batchctl may have upgraded it since it was opened\n",
                "",
            ),
        ),
        ("tests/faults/test_upgrade.py::test_an_older_batchctl_that_has_it_open_writes_no_more",),
    ),
    Mutation(
        "no journal is written",
        "P27",
        (
            (
                "batchctl/ledger/store.py",
                "                    self._record(changes or [], compact=compact)\n",
                "                    pass\n",
            ),
        ),
        ("tests/crash/test_rebuild.py::test_a_ledger_lost_at_any_moment",),
    ),
    Mutation(
        "files and directories as the system makes them",
        "P30",
        (
            ("batchctl/files.py", "PRIVATE_FILE = 0o600", "PRIVATE_FILE = 0o644"),
            ("batchctl/files.py", "PRIVATE_DIRECTORY = 0o700", "PRIVATE_DIRECTORY = 0o755"),
            ("batchctl/cli/main.py", "os.umask(0o077)", "os.umask(0o022)"),
        ),
        ("tests/cli/test_journey.py",),
    ),
    Mutation(
        "files are written in place",
        "P12 P8",
        (("batchctl/files.py", "part = path.with_name(path.name + PART)", "part = path"),),
        ("tests/crash/test_every_call.py::test_killed_while_results_are_written",),
    ),
    Mutation(
        "a table is changed statement by statement",
        "P12",
        (
            ("batchctl/tables/sqlite.py", 'db.execute("BEGIN IMMEDIATE")', "pass"),
            ("batchctl/tables/sqlite.py", '                db.execute("COMMIT")\n', ""),
            ("batchctl/tables/sqlite.py", '                db.execute("ROLLBACK")\n', ""),
        ),
        ("tests/publish/test_files.py::test_killed_anywhere_and_run_again_is_once",),
    ),
    Mutation(
        "an older run's answer is published beside the newer one",
        "P21",
        (("batchctl/workflow/outgoing.py", "owner is None or owner[0] <= place", "True"),),
        ("tests/publish/test_files.py::test_rows_of_all_runs_are_one_table_by_source_id",),
    ),
    Mutation(
        "a run with rows on the way is published",
        "P4",
        (("batchctl/workflow/publish.py", "    if on_the_way:\n", "    if False:\n"),),
        ("tests/publish/test_files.py::test_a_run_with_rows_on_the_way_is_not_published",),
    ),
    Mutation(
        "a lost load job is started again under another name",
        "P21",
        (("batchctl/tables/bigquery.py", "and self._error(found):", "and found:"),),
        ("tests/publish/test_services.py::test_bigquery_finds_its_job_again_when_an_answer_is_lost",),
    ),
    Mutation(
        "a copy of the state directory sends without looking",
        "P1",
        (
            (
                "batchctl/workflow/submit.py",
                "if copied and reconcile.sent_by_a_copy(",
                "if False and reconcile.sent_by_a_copy(",
            ),
        ),
        ("tests/faults/test_copies.py::test_two_copies_of_a_state_directory_send_a_chunk_once",),
    ),
    Mutation(
        "live calls that a kill left without an answer count as not made",
        "P1",
        (("batchctl/workflow/live.py", "if state in MAY_BE_BILLED and key not in answers]", "if False]"),),
        ("tests/e2e/test_live.py::test_a_kill_anywhere_repeats_no_call",),
    ),
    Mutation(
        "a batch that may be ours counts as none",
        "P1x",
        (("batchctl/workflow/reconcile.py", "if not ours and found:", "if False:"),),
        ("tests/faults/test_unmarked.py::test_while_the_batch_runs_its_rows_wait_and_the_other_chunks_go_on",),
    ),
    Mutation(
        "copied rows are left out of the balance",
        "P3",
        (
            (
                "batchctl/ledger/queries.py",
                "SUM(rows), SUM(copied) FROM tally",
                "SUM(rows - copied), SUM(copied) FROM tally",
            ),
        ),
        ("tests/cli/test_journey.py::test_identical_rows_are_paid_once",),
    ),
    Mutation(
        "what earlier runs completed is not looked at",
        "P5",
        (("batchctl/workflow/history.py", "key = pc.or_(key, pc.is_in(keys, value_set=seen_keys))", "pass"),),
        ("tests/e2e/test_purge.py::test_nothing_is_left_of_a_purged_run_but_what_keeps_it_from_being_paid_twice",),
    ),
    Mutation(
        "ids are trimmed",
        "P7",
        (
            (
                "batchctl/workflow/packing.py",
                "        names: list[bytes] = ids.cast(",
                (
                    '        ids = __import__("pyarrow.compute").compute.utf8_trim_whitespace(ids)\n'
                    "        names: list[bytes] = ids.cast("
                ),
            ),
        ),
        ("tests/cli/test_source.py::test_awkward_cells",),
    ),
    Mutation(
        "a file that cannot be written is passed over",
        "P11",
        (
            (
                "batchctl/files.py",
                "            raise storage_failed(error, path) from error\n        raise\n\n\ndef write_file",
                "            return\n        raise\n\n\ndef write_file",
            ),
        ),
        ("tests/crash/test_every_call.py::test_no_room_for_the_results_is_said",),
    ),
    Mutation(
        "a key that the other side repeats is kept",
        "P14",
        (
            (
                "batchctl/providers/http.py",
                'return text.replace(self.value, "[key]") if self.value else text',
                "return text",
            ),
        ),
        ("tests/conformance/test_openai.py::test_a_gateway_that_repeats_the_key_does_not_get_it_into_an_error",),
    ),
    Mutation(
        "data reaches the terminal as it is",
        "P15",
        (
            (
                "batchctl/cli/render.py",
                "    return _UNSAFE.sub(\n        lambda",
                "    return text or _UNSAFE.sub(\n        lambda",
            ),
        ),
        ("tests/cli/test_output.py::test_data_never_drives_the_terminal",),
    ),
    Mutation(
        "archives may grow without end",
        "P17",
        (("batchctl/tables/streams.py", "if self._total > BOMB_BYTES and", "if False and"),),
        ("tests/unit/tables/test_source.py::test_a_decompression_bomb_is_refused",),
    ),
    Mutation(
        "custom_ids are drawn",
        "P18",
        (
            (
                "batchctl/model/ids.py",
                "digest(run.encode(), settings_sha256.encode(), str(number).encode()).hex()[:8]",
                '__import__("secrets").token_hex(4)',
            ),
        ),
        ("tests/e2e/test_deterministic.py::test_request_files_do_not_depend_on_the_place",),
    ),
    Mutation(
        "every answer counts as an object",
        "P20",
        (("batchctl/providers/http.py", "    if not isinstance(value, dict):\n", "    if False:\n"),),
        ("tests/conformance/test_openai.py::test_no_answer_breaks_anything",),
    ),
    Mutation(
        "a plan is carried out",
        "P22",
        (("batchctl/workflow/submit.py", "        if plan_only:\n", "        if False:\n"),),
        ("tests/cli/test_journey.py::test_step_by_step",),
    ),
    Mutation(
        "the budget is a wish",
        "P23",
        (
            (
                "batchctl/workflow/money.py",
                '    if most > left:\n        raise budget_reached(workspace, run, f"chunk',
                '    if False:\n        raise budget_reached(workspace, run, f"chunk',
            ),
        ),
        ("tests/faults/test_budget.py::test_one_cent_below_the_first_chunk_nothing_is_sent",),
    ),
    Mutation(
        "errors say not what to do",
        "P24",
        (("batchctl/cli/render.py", "    if error.hint:\n", "    if False:\n"),),
        ("tests/cli/test_wrong_use.py",),
    ),
    Mutation(
        "a lost window counts as an empty result",
        "P26",
        (("batchctl/workflow/poll.py", "    if status.out_of_time:\n", "    if False:\n"),),
        ("tests/faults/test_statuses.py::test_expired_rows_are_sent_again_and_the_others_are_not",),
    ),
    Mutation(
        "the rerun file holds every row",
        "P28",
        (("batchctl/workflow/results.py", "for state in FAILED)", "for state in RowState)"),),
        ("tests/faults/test_result_files.py::test_counts_that_disagree_with_the_files_decide_nothing",),
    ),
    Mutation(
        "purge leaves the answers",
        "P29",
        (("batchctl/workflow/purge.py", '{"output": None, "detail": ""}', '{"detail": ""}'),),
        ("tests/e2e/test_purge.py::test_nothing_is_left_of_a_purged_run_but_what_keeps_it_from_being_paid_twice",),
    ),
    Mutation(
        "an expression may take for ever",
        "P17",
        (("batchctl/judging/cel_bounds.py", "        if self._left < 0:", "        if False:"),),
        ("tests/unit/judging/test_rules.py::test_an_expression_that_explodes_ends_with_a_reason",),
    ),
    Mutation(
        "an upsert leaves out what changed",
        "P21",
        (("batchctl/workflow/unsent.py", "if there.get(place) != judged)", "if place not in there)"),),
        ("tests/publish/test_files.py::test_an_answer_that_changed_is_sent_again",),
    ),
    Mutation(
        "purge leaves the journal",
        "P29",
        (("batchctl/workflow/purge.py", "    ledger.compact_journal()\n", ""),),
        ("tests/e2e/test_purge.py::test_what_the_provider_said_of_a_row_goes_as_well",),
    ),
    Mutation(
        "the marker of a publication goes first",
        "P12",
        (
            (
                "batchctl/tables/objects.py",
                '    put(place, place.name, path, CONTENT[place.form])\n    crash_point("K19c")\n',
                "",
            ),
            (
                "batchctl/tables/objects.py",
                '    put(place, place.name + MARKER, marker, "application/json")\n',
                (
                    '    put(place, place.name + MARKER, marker, "application/json")\n    crash_point("K19c")\n'
                    "    put(place, place.name, path, CONTENT[place.form])\n"
                ),
            ),
        ),
        ("tests/publish/test_services.py::test_published_twice_and_killed_anywhere_is_published_once",),
    ),
    Mutation(
        "a dry run asks again what a killed one asked",
        "P1 P22",
        (("batchctl/workflow/dry_run.py", "avoid = lost - stored.keys()", "avoid = set[str]()"),),
        ("tests/faults/test_money.py::test_a_killed_dry_run_pays_for_no_row_twice",),
    ),
    Mutation(
        "a stop for a deadline ends with the command that decided it",
        "P13",
        (("batchctl/workflow/deadline.py", "if run.stopped and run.risk == STOP:", "if False:"),),
        ("tests/e2e/test_deadline.py::test_a_stop_that_was_killed_is_carried_out",),
    ),
    Mutation(
        "a second batch costs nothing",
        "P23",
        (("batchctl/workflow/money.py", "if extra := twice.get(chunk.number):", "if extra := 0:"),),
        ("tests/faults/test_money.py::test_a_second_batch_with_our_mark_counts_with_the_most_it_can_cost",),
    ),
)


def copied(to: Path) -> Path:
    """The tree without its history."""
    to.mkdir()
    for name in COPIED:
        one = ROOT / name
        if one.is_dir():
            shutil.copytree(one, to / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(one, to / name)
    return to


def changed(tree: Path, mutation: Mutation) -> None:
    """Put a mutation into a tree. What it replaces must be there: a guard that moved takes its mutation along."""
    for name, old, new in mutation.changes:
        text = (tree / name).read_text("utf-8")
        if old not in text:
            raise LookupError(f"`{mutation.name}`: {name} has no {old!r}")
        (tree / name).write_text(text.replace(old, new), "utf-8")


def first_failure(tree: Path, tests: tuple[str, ...]) -> str:
    """The first test that fails in a tree, or nothing."""
    argv = [sys.executable, "-m", "pytest", "-x", "-q", "-n0", "-p", "no:cacheprovider", "-W", "default", *tests]
    env = os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(argv, cwd=tree, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode == 0:
        return ""
    failed = [
        line for line in done.stdout.split("\n") if line.startswith("FAILED ")
    ]  # an error is no verdict of a test
    if done.returncode != 1 or not failed:
        raise RuntimeError(f"pytest ended with {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return failed[0].split(" - ")[0].removeprefix("FAILED ")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description=__doc__)
    parser.add_argument("names", nargs="*", help="mutations to try; without any, all")
    asked = parser.parse_args()
    chosen = [one for one in MUTATIONS if not asked.names or one.name in asked.names]
    survived = []
    with tempfile.TemporaryDirectory(prefix="batchctl-mutations-") as scratch:
        for number, one in enumerate(chosen):
            begun = time.monotonic()
            tree = copied(Path(scratch) / str(number))
            changed(tree, one)
            failure = first_failure(tree, one.tests)
            said = f"killed by {failure}" if failure else f"SURVIVED {', '.join(one.tests)}"
            print(f"{one.name:<44} {one.promise:<8} {said} ({time.monotonic() - begun:.0f} s)", flush=True)
            survived += [one.name] * (not failure)
    print(f"{len(chosen) - len(survived)} of {len(chosen)} killed" + (f"; survived: {survived}" if survived else ""))
    return 1 if survived or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())
