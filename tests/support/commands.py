"""Running the command line from tests: every command is a process, several may run at once, any may be killed."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KILLED = -signal.SIGKILL
PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class Done:
    """A command that has ended. `code` is its exit code, negative for a signal."""

    argv: tuple[str, ...]
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one object that `--json` puts on stdout."""
        return json.loads(self.out)

    @property
    def killed(self) -> bool:
        return self.code == KILLED

    def __str__(self) -> str:
        return f"$ batchctl {' '.join(self.argv)}\nexit {self.code}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"


@dataclass(frozen=True)
class Running:
    """A command that may still run."""

    commands: Commands
    argv: tuple[str, ...]
    pid: int
    out: Path
    err: Path

    def wait(self) -> Done:
        """Until it ends. One that never does shows where it is, is killed, and fails the test."""
        try:
            code = self.commands.code_of(self.pid)
        except TimeoutError as error:
            os.kill(self.pid, signal.SIGUSR1)
            with contextlib.suppress(TimeoutError):
                self.commands.code_of(self.pid, patience_seconds=1.0)
            os.kill(self.pid, signal.SIGKILL)
            raise TimeoutError(f"batchctl {' '.join(self.argv)}: {error}\n{self.err.read_bytes().decode()}") from None
        return Done(self.argv, code, self.out.read_bytes().decode(), self.err.read_bytes().decode())

    @property
    def ended(self) -> bool:
        return self.commands.has_ended(self.pid)

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)


class Commands:
    """The client of one `forkserver.py`. `env` is added to the environment of the server itself."""

    def __init__(self, scratch: Path, env: Mapping[str, str] | None = None) -> None:
        self._scratch = scratch
        self._started = 0
        self.patience_seconds = PATIENCE_SECONDS
        self._lines = b""
        self._pids: dict[int, int] = {}
        self._codes: dict[int, int] = {}
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", str(Path(__file__).with_name("forkserver.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env={**os.environ, **(env or {})},
        )
        self._hear()

    def start(self, argv: Sequence[str], *, cwd: Path, env: Mapping[str, str]) -> Running:
        self._started += 1
        number = self._started
        out, err = (self._scratch / f"{number}.{name}" for name in ("out", "err"))
        facts = {"id": number, "argv": list(argv), "cwd": str(cwd), "env": dict(env), "out": str(out), "err": str(err)}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(facts).encode() + b"\n")
        while number not in self._pids:
            self._hear()
        return Running(self, tuple(argv), self._pids.pop(number), out, err)

    def run(self, argv: Sequence[str], *, cwd: Path, env: Mapping[str, str]) -> Done:
        return self.start(argv, cwd=cwd, env=env).wait()

    def code_of(self, pid: int, *, patience_seconds: float | None = None) -> int:
        while pid not in self._codes:
            self._hear(patience_seconds or self.patience_seconds)
        return self._codes[pid]

    def has_ended(self, pid: int) -> bool:
        assert self._process.stdout is not None
        while pid not in self._codes and (self._lines or select.select([self._process.stdout], [], [], 0)[0]):
            self._hear()
        return pid in self._codes

    def _hear(self, patience_seconds: float = PATIENCE_SECONDS) -> None:
        """Take in one answer."""
        assert self._process.stdout is not None
        while b"\n" not in self._lines:
            if not select.select([self._process.stdout], [], [], patience_seconds)[0]:
                raise TimeoutError(f"no end within {patience_seconds:g} s")
            block = os.read(self._process.stdout.fileno(), 1 << 16)
            assert block, "the fork server has ended"
            self._lines += block
        line, _, self._lines = self._lines.partition(b"\n")
        answer = json.loads(line)
        if "id" in answer:
            self._pids[answer["id"]] = answer["pid"]
            self._codes.pop(answer["pid"], None)  # a number that is used again
        elif "pid" in answer:
            self._codes[answer["pid"]] = answer["code"]

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(PATIENCE_SECONDS)
        self._process.stdout.close()
