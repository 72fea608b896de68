"""Random fault scripts: a provider that misbehaves, commands that are killed, a person who decides; then it must end.

One seed makes one script: the job, the fate of its rows, faults on calls, and commands with kills. What follows is
always the same: the faults end, the commands are run until nothing is under way, and the provider's books say whether
every row is in one place and was paid at most once per attempt.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.commands import Commands
from tests.support.jobs import JobFolder
from tests.support.judge import UNPAID, harms
from tests.support.provider import Provider, ProviderThread, until

OVER = ("completed", "failed", "cancelled", "expired")
CALLS = 14
"""So many commands may a job need to come to its end once nothing fails any more."""
ROUTES = (
    "POST /v1/batches",
    "POST /v1/batches",
    "POST /v1/batches",
    "GET /v1/batches",
    "GET /v1/batches/*",
    "POST /v1/files",
    "GET /v1/files/*",
    "GET /v1/files/*/content",
    "DELETE /v1/files/*",
    "POST /v1/batches/*/cancel",
    "* /v1/*",
)
FAULTS = (
    *("drop-after", "drop-after", "drop-before", "late", "hang", "hide", "garbage", "no-id", "empty", "truncate"),
    *("truncate-clean", "500-after", "503-after", "500", "502", "503", "504", "529", "408", "409", "redirect", "429"),
    *("400", "401", "403", "404", "413", "insufficient_quota"),
)
FATES = {
    "delivery": ("expired", "500", "429", "timeout", "unknown", "missing"),
    "quality": ("invalid_json", "schema", "truncated", "refused", "filtered"),
    "line": ("duplicated", "conflict"),
}
ODDITIES = ("stranger", "null-id", "cut-last", "no-final-newline", "crlf", "blank", "u2028", "both-files")
KILLS = (
    *(f"K{number}" for number in (1, 2, 3, 4, 5, 6, 7, 10, 11, 12, 13, 14, 15, 17)),
    *("K14b", "K7:2", "K10:2", "K13:2"),
    *(f"{when}:{number}" for when in ("before-commit", "after-commit") for number in range(1, 12)),
)
COMMANDS = (
    *(("run",), ("run", "--wait"), ("run", "--wait"), ("poll",), ("poll", "--wait"), ("submit",), ("validate",)),
    *(("rerun",), ("rerun", "--wait"), ("cancel",), ("prepare",), ("resolve",)),
)


@dataclass(frozen=True)
class Script:
    """What one seed says."""

    seed: int
    rows: int
    limits: str
    lane: str
    provider: dict[str, Any]
    faults: tuple[dict[str, Any], ...]
    commands: tuple[tuple[tuple[str, ...], str], ...]
    """Commands with the point at which each is killed, empty for one that is left alone."""

    def __str__(self) -> str:
        lines = [f"seed {self.seed}: {self.rows} rows, {self.limits!r}, {self.lane!r}, provider {self.provider}"]
        lines += [f"  fault {one}" for one in self.faults]
        lines += [f"  batchctl {' '.join(argv)}" + (f"   killed at {at}" if at else "") for argv, at in self.commands]
        return "\n".join(lines)


def written(seed: int) -> Script:
    """The script of a seed, the same on every machine."""
    dice = random.Random(seed)
    provider: dict[str, Any] = {"seed": seed}
    for names in FATES.values():
        for name in names:
            if dice.random() < 0.12:
                provider[name] = dice.choice((0.1, 0.15))
    if dice.random() < 0.3:
        provider["reordered"] = 1.0
    if dice.random() < 0.25:
        provider["results"] = dice.sample(ODDITIES, dice.randint(1, 2))
    if dice.random() < 0.25:
        provider["latency"] = dice.choice((0.05, 0.2))
        if dice.random() < 0.3:
            provider["window"] = 0.1
    faults = []
    for _ in range(dice.randint(0, 6)):
        fault: dict[str, Any] = {"on": dice.choice(ROUTES), "do": dice.choice(FAULTS), "nth": dice.randint(1, 4)}
        fault["count"] = dice.choice((1, 1, 1, 2, 3))
        if fault["do"] in ("hang", "late"):
            fault["seconds"] = dice.choice((0.05, 0.3))
        elif dice.random() < 0.3:
            fault["hide"] = dice.randint(1, 3)
        faults.append(fault)
    commands = [
        (dice.choice(COMMANDS), dice.choice(KILLS) if dice.random() < 0.7 else "") for _ in range(dice.randint(1, 5))
    ]
    limits = f"chunk_rows = {dice.randint(2, 5)}" + (
        f"\nin_flight = {dice.randint(1, 2)}" if dice.random() < 0.25 else ""
    )
    lane = 'on_ambiguous = "hold"' if dice.random() < 0.2 else ""
    return Script(seed, dice.randint(4, 9), limits, lane, provider, tuple(faults), tuple(commands))


@dataclass
class Course:
    """How a script went."""

    harms: list[str] = field(default_factory=list)
    commands: int = 0
    kills: int = 0
    states: dict[str, int] = field(default_factory=dict)


def play(script: Script, job: JobFolder, provider: Provider) -> Course:
    """Run a script in a job that was written for it, at a provider with its settings."""
    course = Course()
    ids = [f"R-{number:03d}" for number in range(script.rows)]
    dice = random.Random(script.seed)
    for fault in script.faults:
        provider.fault(**fault)
    try:
        for argv, at in script.commands:
            done = job.run(*argv, **({"BATCHCTL_CRASH_AT": at} if at else {}))
            course.kills += done.killed
            course.harms = [f"{one} (after {' '.join(argv)})" for one in harms(job, ids, ended=False)]
            if course.harms:
                return course
        provider.clear_faults()
        if not carried_on(job, dice):
            course.harms = [f"no end after {CALLS} commands: {job.done[-1]}"]
        else:
            until(lambda: all(one["status"] in OVER for one in job.books.creates))  # a late create may still be billed
            course.harms = harms(job, ids)
            course.states = {name: count for name, count in job.check_balance().items() if count}
    except (AssertionError, TimeoutError) as error:
        course.harms = [f"crashed or never ended: {error}"]
    finally:
        course.commands = len(job.done)
    return course


def carried_on(job: JobFolder, dice: random.Random) -> bool:
    """Carry a job on until nothing is under way, one rerun of what failed included."""
    reruns = 1
    for _ in range(CALLS):
        done = job.run("run", "--wait")
        if done.code == 11:
            decide(job, dice)
        elif done.code == 8:  # what a cancel left waiting goes out only when a person says so
            job.run("submit")
        elif done.code == 10 and "names no result file" in done.err:
            return True  # all rows of a batch are missing: attention, for a person
        elif done.code in (0, 3, 7) and not any(job.check_balance()[state] for state in UNPAID):
            if not reruns or done.code == 0:
                return True
            reruns -= 1
            job.run("rerun", "--wait")
    return False


def decide(job: JobFolder, dice: random.Random) -> None:
    """What a person does who knows the truth: adopts a batch that is listed, waits for one that is not listed yet, and
    says of the others that they were not sent, or gives them up. A wrong word is the one way to be billed twice."""
    shown = job.run("resolve", "--json")
    unsure = shown.json.get("open") if shown.out else None
    if not unsure:
        return
    first = unsure[0]
    chunk = ("--chunk", str(first["chunk"]))
    if first["candidates"]:
        job.run("resolve", *chunk, "--adopt", first["candidates"][0]["batch_id"])
    elif first["intent"] not in {(one["metadata"] or {}).get("batchctl_intent") for one in job.books.creates}:
        job.run("resolve", *chunk, dice.choice(("--not-sent", "--not-sent", "--abandon")))


def played(place: Path, commands: Commands, seed: int, *, show: bool = False) -> Course:
    """One script from nothing, in a folder that is gone afterwards."""
    script = written(seed)
    folder = place / f"script-{seed}"
    provider = ProviderThread(folder / "provider", **script.provider)
    try:
        job = JobFolder(folder / "job", commands, provider, f"script-{seed}")
        job.write(script.rows, limits=script.limits, lane=script.lane)
        course = play(script, job, provider)
    finally:
        provider.stop()
    if show:
        print(script)
        for done in job.done:
            print(done)
    shutil.rmtree(folder)
    return course


def work(seeds: Sequence[int], process: int, scratch: Path) -> Iterator[tuple[int, Course]]:
    place = scratch / str(process)
    place.mkdir()
    commands = Commands(place)
    try:
        for seed in seeds:
            yield seed, played(place, commands, seed)
    finally:
        commands.close()
