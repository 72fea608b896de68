"""One run, struck at one system call, then carried on by the same command: what became of the rows.

`shim.c` is loaded before libc and numbers every call of a `run --wait` that changes a file of the job or speaks to the
provider, SQLite's included. A strike names one of them and what happens there: SIGKILL just before or after it, an
error, half a write, or a power cut (SIGKILL, and whatever was not synced is gone).
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.commands import Commands, Done
from tests.support.jobs import SCHEMA, JobFolder
from tests.support.judge import harms, misbooked, misplaced
from tests.support.provider import ProviderProcess

ROWS = [f"R-{number:03d}" for number in range(6)]
LIMITS = "chunk_rows = 2"
MODES: dict[str, tuple[str, ...]] = {
    "kill": ("before", "after"),
    "enospc": ("ENOSPC", "ENOSPC+", "EDQUOT+"),
    "eio": ("EIO",),
    "erofs": ("EROFS+",),
    "efbig": ("EFBIG", "EFBIG+"),
    "short": ("short",),
    "powercut": ("cut-before", "cut-after"),
    "torn": ("torn-before", "torn-after"),
    "clock": ("clock:200000", "clock:-200000", "clock:9000", "clock:-9000"),
}
"""Mode to the ways to strike. `+`: from that call on. `torn`: names survive, content that was not synced does not.
`clock`: the clock on the wall jumps by so many seconds, and nothing fails."""
KINDS = ("batch", "live", "tail")
"""What the struck run does: `batch`: three chunks. `live`: a dry run, then row by row, then two targets. `tail`: a batch that
is cancelled for a deadline, its rows sent live in a new attempt, then the targets."""
TARGETS = '\n[[publish]]\nto = "out.jsonl"\n\n[[publish]]\nto = "out.sqlite"\nkey = ["id"]\n'
CAPPED = 'provider = "openai"\nname = "gpt-5.4-mini"\nparams = { max_output_tokens = 64 }'
LIVE_TAIL = 'deadline = "2026-01-01T00:00:00Z"\non_deadline_risk = "live-tail"'
FEW = ROWS[:4]
JOBS_PER_PROVIDER = 80
STORAGE, FINE, ATTENTION, MISSED, UNKNOWN = 12, 0, 3, 7, 11
_numbers = itertools.count(1)


def shim(directory: Path) -> Path | None:
    """The compiled `shim.c`, or None where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    made = directory / "shim.so"
    source = Path(__file__).with_name("shim.c")
    subprocess.run([compiler, "-O1", "-Wall", "-shared", "-fPIC", "-o", str(made), str(source)], check=True)
    return made


@dataclass(frozen=True)
class Outcome:
    """What one strike did. `call` is the struck call as the shim logged it, empty when the run ended before it."""

    number: int
    how: str
    call: str
    harms: tuple[str, ...]
    first: Done | None = None

    @property
    def struck(self) -> bool:
        return bool(self.call)


class Bench:
    """A fork server that carries the shim, and a provider in a process of its own, renewed now and then."""

    def __init__(self, directory: Path, preload: Path, kind: str = KINDS[0]) -> None:
        self._directory = directory
        self._kind = kind
        self._rows = ROWS if kind == "batch" else FEW
        directory.mkdir(parents=True, exist_ok=True)
        self._commands = Commands(directory, {"LD_PRELOAD": str(preload)})
        self._provider: ProviderProcess | None = None
        self._served = 0

    def close(self) -> None:
        self._commands.close()
        if self._provider is not None:
            self._provider.stop()

    def job(self) -> JobFolder:
        """A fresh job at a provider that has not served too many."""
        if self._provider is None or self._served >= JOBS_PER_PROVIDER:
            if self._provider is not None:
                self._provider.stop()
            never = {"latency": 100_000} if self._kind == "tail" else {}
            self._provider = ProviderProcess(self._directory / f"provider-{next(_numbers)}", **never)
            self._served = 0
        self._served += 1
        name = f"job-{next(_numbers)}"
        job = JobFolder(self._directory / name, self._commands, self._provider, name)
        schema = {**SCHEMA, "properties": {**SCHEMA["properties"], "code": {"type": "integer"}}}
        schema["required"] = list(schema["properties"])
        job.env |= {"CRASH_ROOT": str(job.path)}  # also while nothing is struck: syncs are counted and not waited for
        if self._kind == "batch":
            return job.write(schema=schema, limits=LIMITS)
        rows = [{"id": one, "text": f"{name} asks"} for one in self._rows]  # the books name a live call by its text
        lane = 'prefer = "live"' if self._kind == "live" else LIVE_TAIL
        sample = "rows = 2" if self._kind == "live" else "rows = 0"
        return job.write(rows, schema=schema, limits=LIMITS, model=CAPPED, lane=lane, sample=sample, more=TARGETS)

    @property
    def _good(self) -> int:
        """How a run ends that nothing strikes: a deadline that lies in the past is missed."""
        return MISSED if self._kind == "tail" else FINE

    def calls(self) -> list[str]:
        """Every call of a run that nothing strikes, in order: number, name, bytes, path."""
        job = self.job()
        log = self._directory / f"{job.name}.log"
        job.run("run", "--wait", code=self._good, CRASH_LOG=str(log))
        assert harms(job, self._rows) == []
        shutil.rmtree(job.path)
        return log.read_text().replace(f"{job.path}/", "").replace(job.name, "JOB").split("\n")[:-1]

    def strike(self, number: int, how: str) -> Outcome:
        """Strike one call, judge what is left, carry on, judge again."""
        job = self.job()
        cut, _, when = how.partition("-") if how.startswith(("cut", "torn")) else (how, "", "")
        log, shadow = (self._directory / f"{job.name}.{name}" for name in ("log", "shadow"))
        env = {"CRASH_AT": str(number), "CRASH_HOW": when or how, "CRASH_LOG": str(log)}
        if when:
            env["CRASH_SHADOW"] = str(shadow)
            keep(job.path, shadow)
        first, found = _first(job, env, self._good)
        call = _struck_call(log)
        if when and first is not None and first.killed:
            restore(job.path, shadow, names_survive=cut == "torn")
        if not found:
            found = [f"{one} (right after the strike)" for one in harms(job, self._rows, ended=False)] if call else []
        if not found:
            found = _carried_on(job, self._rows)
        outcome = Outcome(number, how, call.replace(f"{job.path}/", "").replace(job.name, "JOB"), tuple(found), first)
        if not found:
            for one in (job.path, shadow):
                shutil.rmtree(one, ignore_errors=True)
            log.unlink(missing_ok=True)
        return outcome


def work(tasks: Sequence[tuple[int, str]], process: int, scratch: Path, preload: Path, kind: str) -> Iterator[Outcome]:
    bench = Bench(scratch / f"{tasks[0][1] if tasks else 'idle'}-{process}", preload, kind)
    try:
        for number, how in tasks:
            yield bench.strike(number, how)
    finally:
        bench.close()


def _first(job: JobFolder, env: Mapping[str, str], good: int) -> tuple[Done | None, list[str]]:
    """The run that is struck. An error of the disk must be told: no traceback, a code of its own."""
    try:
        done = job.run("run", "--wait", **env)
    except (AssertionError, TimeoutError) as error:
        return None, [f"crashed or never ended: {error}"]
    allowed = (good,) if env["CRASH_HOW"].startswith("clock") else (good, STORAGE)
    if not done.killed and done.code not in allowed:
        return done, [f"exit {done.code} after what was struck: {done.err.strip()}"]
    return done, []


def _carried_on(job: JobFolder, rows: Sequence[str]) -> list[str]:
    """The same command until all is done; calls that a kill left without an answer are given up and asked again.

    A row that was given up may be one that has no answer for the second time, and then waits for a person.
    """
    given_up = False
    try:
        for _ in range(6):
            done = job.run("run", "--wait")
            if done.code == UNKNOWN:
                given_up = True
                job.run("resolve", "--abandon")
                job.run("rerun", "--wait")
            elif done.code in (FINE, MISSED) or (given_up and done.code == ATTENTION):
                break
        else:
            return [f"not carried on: {done}"]
    except (AssertionError, TimeoutError) as error:
        return [f"not carried on: {error}"]
    found = harms(job, rows) + misbooked(job) + misplaced(job)
    states = {one["state"] for one in job.lines("results.jsonl")} if not found else set()
    ended = "published" if "[[publish]]" in (job.path / "job.toml").read_text() else "completed"
    if given_up:
        states.discard("review_required")
    return found or [f"lost: rows ended as {sorted(states)}"] * (not states <= {ended})


def _struck_call(log: Path) -> str:
    if not log.exists():
        return ""
    return next((line for line in log.read_text().split("\n") if "!" in line.partition(" ")[0]), "")


# --- what a power cut leaves ----------------------------------------------------------------------------------------


def keep(tree: Path, shadow: Path) -> None:
    """Everything that is there now counts as synced."""
    shadow.mkdir()
    for place, directories, files in os.walk(tree):
        here = Path(place)
        entries = [f"d{(here / one).stat().st_ino} {one}\n" for one in directories]
        entries += [f"f{(here / one).stat().st_ino} {one}\n" for one in files]
        (shadow / f"d{here.stat().st_ino}").write_text("".join(entries))
        for one in files:
            shutil.copy(here / one, shadow / f"f{(here / one).stat().st_ino}")


def restore(tree: Path, shadow: Path, *, names_survive: bool) -> None:
    """Put `tree` back to what was synced: content at a file's last fsync, entries at a directory's last fsync."""
    new = tree.with_name(tree.name + ".restored")
    if names_survive:
        _torn(tree, shadow, new)
    else:
        _synced(f"d{tree.stat().st_ino}", shadow, new)
    shutil.rmtree(tree)
    new.rename(tree)


def _torn(old: Path, shadow: Path, new: Path) -> None:
    new.mkdir(0o700)
    for one in old.iterdir():
        if one.is_dir():
            _torn(one, shadow, new / one.name)
        else:
            _content(shadow / f"f{one.stat().st_ino}", new / one.name)


def _synced(directory: str, shadow: Path, new: Path) -> None:
    new.mkdir(0o700)
    listing = shadow / directory
    for line in listing.read_text().split("\n")[:-1] if listing.exists() else ():
        inode, _, name = line.partition(" ")
        if inode[0] == "d":
            _synced(inode, shadow, new / name)
        else:
            _content(shadow / inode, new / name)


def _content(kept: Path, new: Path) -> None:
    new.write_bytes(kept.read_bytes() if kept.exists() else b"")
    new.chmod(0o600)
