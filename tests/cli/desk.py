"""A folder with a job, the real command line run in it, and what every command must leave true behind it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import resource
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from batchctl.cli.render import safe
from batchctl.emulator import read_witness
from tests.support.commands import Commands, Done

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).parent / "golden"
STRICT = ("-W", "error", "-W", "ignore:unclosed <socket:ResourceWarning")  # the SDK's pool, at the very end
BATCHCTL = (sys.executable, *STRICT, "-m", "batchctl")
PATIENCE_SECONDS = 120.0
EXITS = {0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}
STATES = (
    "queued submitted held completed invalid_output provider_error review_required rejected published".split()  # noqa: SIM905
)
# `prepare` leaves `rejects.spill` open when it ends early: one test is about that, and no other fails for it.
LEFT_OPEN = re.compile(
    r"Exception ignored in: <_io\.FileIO name=\d+ mode='wb' closefd=True>\n(Traceback .*\n(  .*\n)*)?"
    r"ResourceWarning: unclosed file <_io\.BufferedWriter name=\d+>\n"
)
COST = {"usd", "usd_per_1000_completed", "forecast_usd", "prices_from"}

JOB = """version = 1
name = "triage"
source = { path = "messages.csv", id = "message_id" }
prompt = { file = "prompt.md" }
output = { schema = "schema.json" }
model = { provider = "emulator", name = "gpt-5-mini" }
sample = { rows = 0 }
"""
ROWS = """message_id,subject,body
M-1,Refund,I was charged twice
M-2,Crash,The app closes when I open it
M-3,Thanks,All good now
"""
PROMPT = "Label this message.\n\nSubject: {{ subject }}\n{{ body }}\n"
SCHEMA = """{
  "type": "object",
  "properties": {"label": {"type": "string", "enum": ["billing", "bug", "other"]}},
  "required": ["label"],
  "additionalProperties": false
}
"""


NOTHING: Mapping[str, str | None] = {}


class Desk:
    """A folder, `job.toml` and its files in it; `run` is the command line.

    After every command: no traceback, no control character, a known exit code, private files, and a JSON object that
    keeps what interface.md section 6 promises.
    """

    def __init__(self, path: Path, commands: Commands) -> None:
        self.path = path
        self.home = path.parent / "home"
        self.home.mkdir(exist_ok=True)
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "LC_ALL": "C.UTF-8",
            "PYTHONPATH": str(ROOT),  # the tree that these tests lie in, whatever is installed
            "PYTHONDONTWRITEBYTECODE": "1",  # under a limit on file sizes, half a cache file would stay behind
            "BATCHCTL_POLL_SECONDS": "0.02",
            "BATCHCTL_SETTLE_SECONDS": "0",
        }
        self.history: list[Done] = []
        self._commands = commands

    # --- files ---

    @property
    def state(self) -> Path:
        return self.path / ".batchctl"

    @property
    def directory(self) -> Path:
        """Of the first run."""
        return self.state / "triage-0001"

    def write(self, name: str, content: str | bytes) -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def job(self, *changes: tuple[str, str], more: str = "") -> None:
        """A job with its files. `changes` replace text in the job file, `more` is added at its end."""
        job = JOB
        for old, new in changes:
            assert old in job, old
            job = job.replace(old, new)
        self.write("job.toml", job + more)
        for name, content in {"messages.csv": ROWS, "prompt.md": PROMPT, "schema.json": SCHEMA}.items():
            if not (self.path / name).exists():
                self.write(name, content)

    # --- commands ---

    def run(
        self,
        *argv: str,
        code: int | None = None,
        env: Mapping[str, str | None] = NOTHING,
        cwd: Path | None = None,
        check: bool = True,
    ) -> Done:
        """One command, forked from a warm interpreter. In `env`, None removes a variable."""
        done = self._commands.run(argv, cwd=cwd or self.path, env=self._environment(env))
        return self._seen(done, code, check)

    def fresh(
        self,
        *argv: str,
        code: int | None = None,
        env: Mapping[str, str | None] = NOTHING,
        check: bool = True,
        program: Sequence[str] = BATCHCTL,
        **how: Any,
    ) -> Done:
        """The same in an interpreter of its own; `how` goes to `subprocess`, `input` is what stdin holds."""
        if "input" not in how:
            how.setdefault("stdin", subprocess.DEVNULL)
        made = subprocess.run(
            [*program, *argv],
            env=self._environment(env),
            timeout=PATIENCE_SECONDS,
            **{"cwd": self.path, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | how,
        )
        done = Done(argv, made.returncode, (made.stdout or b"").decode(), (made.stderr or b"").decode())
        return self._seen(done, code, check)

    def start(self, *argv: str, env: Mapping[str, str | None] = NOTHING) -> subprocess.Popen[bytes]:
        """A command that goes on while the test does something; `finish` waits for it."""
        return subprocess.Popen(
            [*BATCHCTL, *argv],
            cwd=self.path,
            env=self._environment(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            process_group=0,
        )

    def finish(self, process: subprocess.Popen[bytes], *argv: str, code: int | None = None) -> Done:
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
        return self._seen(Done(argv, process.returncode, out.decode(), err.decode()), code, True)

    def fails(self, code: int, *argv: str, **how: Any) -> Done:
        """The command fails the same way as text and as JSON, and leaves rows, files and money as they are."""
        before = self.contents()
        text = self.run(*argv, code=code, **how)
        assert text.out == "", text
        assert text.err.startswith("error: "), text
        assert self.contents() == before, "a command that failed changed something"
        in_json = self.run(*argv, "--json", code=code, **how)
        self.history.pop()
        assert self.contents() == before, "a command that failed changed something"
        error = in_json.json
        assert (error["schema"], error["exit"]) == ("batchctl/error@1", code), in_json
        assert set(error["error"]) == {"code", "what", "where", "effect", "hint"}, in_json
        assert isinstance(error["error"]["where"], list)
        assert text.err.startswith(f"error: {safe(error['error']['what'])}\n"), (text, in_json)
        assert re.fullmatch("[a-z_]+", error["error"]["code"]), in_json
        return text

    def _environment(self, more: Mapping[str, str | None]) -> dict[str, str]:
        return {name: value for name, value in {**self.env, **more}.items() if value is not None}

    def _seen(self, done: Done, code: int | None, check: bool) -> Done:
        done = replace(done, err=LEFT_OPEN.sub("", done.err))
        self.history.append(done)
        assert code is None or done.code == code, done
        if check:
            assert done.code in EXITS | {130, 143}, done
            assert "Traceback" not in done.err, done
            check_text(done)
            if "--json" in done.argv and done.code not in (130, 143):
                check_json(done)
            check_private(self.state)
        return done

    # --- what is there ---

    def contents(self) -> dict[str, Any]:
        """Everything that matters in the state directory: files by digest, and the ledger's tables."""
        found: dict[str, Any] = {}
        for path in sorted(self.state.rglob("*")) if self.state.is_dir() else []:
            name = str(path.relative_to(self.state))
            if name.startswith(("ledger.", "emulator")) or name.endswith(".lock") or name == "stdin":
                continue
            found[name] = path.read_bytes() if path.is_file() and not path.is_symlink() else "other"
        found["ledger"] = self.tables()
        return found

    def tables(self) -> list[Any]:
        """The ledger's rows but its event log and its random name; [] without one, or with one that cannot be read."""
        path = self.state / "ledger.db"
        if not path.is_file() or not os.access(path, os.R_OK):
            return []
        try:
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
                tables = ("run", "settings", "chunk", "tally", "intent", "dry_run")
                return [(name, tuple(row)) for name in tables for row in db.execute(f"SELECT * FROM {name}")]
        except sqlite3.Error:
            return []

    def sql(self, query: str, *values: Any) -> list[Any]:
        with closing(sqlite3.connect(self.state / "ledger.db")) as db, db:
            return db.execute(query, values).fetchall()

    def lines(self, name: str, run: str = "triage-0001") -> list[Any]:
        """A JSONL file of a run."""
        text = (self.state / run / name).read_bytes().decode()
        return [json.loads(line) for line in text.split("\n")[:-1]]

    def billed(self) -> dict[str, Any]:
        """The books of the emulator that runs inside the commands."""
        return read_witness(self.state / "emulator")


def check_text(done: Done) -> None:
    """Nothing that drives a terminal; nothing on stderr that is only Python's business."""
    for text in (done.out, done.err):
        found = re.findall("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)
        assert not found, (found, done)
    assert "Warning" not in done.err, done
    assert "object at 0x" not in done.err + done.out, done


def check_json(done: Done) -> None:
    """One object, the exit code in it, and a balance that sums."""
    assert done.out.count("\n") == 1, done
    value = done.json
    assert value["exit"] == done.code, done
    assert re.fullmatch(r"batchctl/[a-z-]+@1", value["schema"]), done
    if value["schema"] == "batchctl/error@1":
        return
    assert value["schema"] == f"batchctl/{done.argv[0]}@1", done
    assert "run" in value, done
    if "balance" in value:
        check_balance(value["balance"])
        assert value["cost"].keys() >= COST, done


def check_balance(balance: Mapping[str, int]) -> None:
    assert set(balance) == {"rows", "copied", *STATES}
    assert balance["rows"] == sum(balance[state] for state in STATES)
    assert 0 <= balance["copied"] <= balance["rows"]


def check_private(state: Path) -> None:
    """P30: 0700 and 0600, whatever the umask."""
    if not state.is_dir():
        return
    for path in (state, *state.rglob("*")):
        with contextlib.suppress(FileNotFoundError):  # an emulator may be at work
            facts = path.lstat()
            if stat.S_ISLNK(facts.st_mode):
                continue
            wanted = 0o700 if stat.S_ISDIR(facts.st_mode) else 0o600
            assert stat.S_IMODE(facts.st_mode) == wanted, f"{path} has mode {stat.S_IMODE(facts.st_mode):o}"


def limit_files(size: int) -> Callable[[], None]:
    """For `preexec_fn`: no file may grow beyond `size` bytes; writing more fails, as on a full disk."""

    def apply() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return apply


_IDS = (
    (r"\b(batch|file|req)_?-?[0-9a-f]{20,}\b", r"\1_[ID]"),
    (r"\bbc-[0-9a-f]{8}-(\d{4}-\d+)-[0-9a-f]{12}", r"bc-[ID]-\1-[ID]"),
    (r"\b[0-9a-f]{64}\b", "[ID]"),
    (r"\b[0-9a-f]{8}-[0-9a-f]{16}-([0-9a-f]{6}-\d\d)\b", r"[ID]-\1"),
    (r"process \d+", "process [ID]"),
    (r"127\.0\.0\.1:\d+", "127.0.0.1:[ID]"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "[TIME]"),
)


def plain(text: str, desk: Desk) -> str:
    """Output with what differs from one machine and run to the next replaced."""
    for name in (desk.path, desk.home):
        text = text.replace(str(name), "[DIR]")
    text = text.replace(socket.gethostname(), "[HOST]")
    for pattern, placeholder in _IDS:
        text = re.sub(pattern, placeholder, text)
    return text


def transcript(desk: Desk) -> str:
    """Every command of a test and what it showed."""
    parts = []
    for done in desk.history:
        shown = [f"$ batchctl {' '.join(done.argv)}".rstrip()]
        for mark, text in (("", done.out), ("! ", done.err)):
            shown += [f"{mark}{line}".rstrip() for line in plain(text, desk).removesuffix("\n").split("\n") if text]
        parts.append("\n".join([*shown, f"exit {done.code}", ""]))
    return "\n".join(parts)


@contextlib.contextmanager
def held_lock(path: Path) -> Iterator[None]:
    """Hold the lock of a job as another batchctl does."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.ftruncate(descriptor, 0)
        holder = {"pid": 4711, "host": socket.gethostname(), "since": "2026-11-21T07:00:00Z"}
        os.pwrite(descriptor, json.dumps(holder).encode(), 0)
        yield
    finally:
        os.close(descriptor)
