"""The sample, walked through as its README says: the same commands in a copy of the folder, and what they show."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.docs.blocks import ROOT, SAMPLE_README, fences_of
from tests.support.commands import Commands

JOB = "samples/support-tickets/job.toml"
EXPECTED = ROOT / "samples" / "support-tickets" / "expected"
HURRIED = ("--set", "emulator.latency=0s")  # a batch that ends at once; nothing else changes
_SHOWN_LINES = 6


@dataclass(frozen=True)
class Step:
    """One command of the sample's README. `shown` is what a person sees of it, with times and batch ids replaced."""

    command: str
    code: int
    shown: str
    status: dict[str, Any] | None = None
    """What `status --json` says after it, for commands of batchctl."""


@dataclass
class Walk:
    """All steps, and some files as they were after the first one."""

    folder: Path
    steps: list[Step] = field(default_factory=list)
    first_result: dict[str, Any] = field(default_factory=dict)
    first_rerun: dict[str, Any] = field(default_factory=dict)

    @property
    def ours(self) -> list[Step]:
        return [one for one in self.steps if one.status is not None]

    def block(self, number: int) -> str:
        return f"```text\n{self.steps[number - 1].shown}```\n"

    def expected_steps(self) -> str:
        """What `expected/steps.json` holds."""
        facts = []
        for step in self.ours:
            assert step.status is not None
            facts.append(
                {
                    "command": step.command,
                    "exit": step.code,
                    "balance": {state: count for state, count in step.status["balance"].items() if count},
                    "reasons": step.status["reasons"],
                }
            )
        return json.dumps(facts, indent=2) + "\n"


def sample_commands() -> list[str]:
    """The command lines of the sample's README, in order."""
    return [text.strip() for text in fences_of(SAMPLE_README, "sh")]


def steady(text: str) -> str:
    """Text without what differs from run to run."""
    text = re.sub(r"\bbatch_[0-9a-f]{32}\b", "batch_[ID]", text)
    text = re.sub(r"\breq_[0-9a-f]+\b", "req_[ID]", text)
    return re.sub(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "[TIME]", text)


def walked(folder: Path, commands: Commands) -> Walk:
    """Copy the sample into `folder` and do what its README says."""
    target = folder / "samples" / "support-tickets"
    shutil.copytree(ROOT / "samples" / "support-tickets", target, ignore=shutil.ignore_patterns(".batchctl"))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # as in an activated environment
    env = {"PATH": path, "HOME": str(folder), "LANG": "C.UTF-8", "BATCHCTL_POLL_SECONDS": "0.02"}
    walk = Walk(folder)
    run = target / ".batchctl" / "support-tickets-0001"
    for line in sample_commands():
        if not line.startswith("batchctl "):
            walk.steps.append(_shell(line, folder, env))
            continue
        done = commands.run([*shlex.split(line)[1:], *HURRIED], cwd=folder, env=env)
        status = commands.run(["status", JOB, "--json"], cwd=folder, env=env)
        shown = steady(f"{done.err}{done.out}$ echo $?\n{done.code}\n")
        walk.steps.append(Step(line, done.code, shown, status.json))
        if len(walk.steps) == 1:
            walk.first_result = json.loads((run / "results.jsonl").read_bytes().split(b"\n")[0])
            walk.first_rerun = json.loads((run / "rerun.jsonl").read_bytes().split(b"\n")[0])
    return walk


def _shell(line: str, folder: Path, env: dict[str, str]) -> Step:
    """A line for the shell; of one that writes a file, the first lines of the file are shown."""
    done = subprocess.run(["bash", "-c", line], cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    target = re.search(r" > (\S+)$", line)
    shown = done.stdout
    if target is not None:
        head = (folder / target[1]).read_text("utf-8").splitlines(keepends=True)[:_SHOWN_LINES]
        shown = f"$ head -{_SHOWN_LINES} {target[1]}\n{''.join(head)}"
    return Step(line, 0, shown)
