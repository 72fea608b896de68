"""Random fault scripts: a provider that misbehaves, commands that are killed, a person who decides; then it must end.

One seed makes one script: the job (its lane, deadline, dry run, budget, retries, review and targets), the fate of its
rows, faults on calls, and commands with kills; in some the ledger is lost and made again. What follows is always the same:
the faults end, the commands are run until nothing is under way, and the provider's books say whether every row is in one
place, was paid at most once per attempt, and whether what is booked is what was billed.
"""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from batchctl.ledger import journal
from tests.support.commands import Commands, Done
from tests.support.jobs import JobFolder
from tests.support.judge import UNPAID, harms, has_run, lost_and_billed, misbooked, misplaced
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
LIVE_ROUTES = ("POST /v1/responses", "POST /v1/responses", "GET /v1/responses/*")
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
LIVE_KILLS = ("L1", "L2", "L3", "L1:2", "L2:2", "B1", "B2", "B3", "B2:2")
COMMANDS = (
    *(("run",), ("run", "--wait"), ("run", "--wait"), ("poll",), ("poll", "--wait"), ("submit",), ("validate",)),
    *(("rerun",), ("rerun", "--wait"), ("cancel",), ("prepare",), ("resolve",)),
)
MORE_COMMANDS = (
    *(("run", "--wait"), ("run", "--wait"), ("dry-run",), ("publish", "--allow-pending-review"), ("validate",)),
    *(("review", "accept"), ("review", "reject"), ("rerun", "--only", "missing"), ("submit", "--lane", "live")),
)
REBUILD = ("check", "--rebuild")
"""Before this command the ledger is lost."""
REVIEW = ("review", "accept"), ("review", "reject")
"""These are told the first row that waits for a person."""
CAP = 64
BUDGETS = ("0.0003", "0.001", "0.003")
PLENTY = "10.00"


@dataclass(frozen=True)
class Script:
    """What one seed says."""

    seed: int
    rows: int
    limits: str
    lane: str
    more: str
    """Further tables of the job file."""
    sample: str
    provider: dict[str, Any]
    faults: tuple[dict[str, Any], ...]
    commands: tuple[tuple[tuple[str, ...], str], ...]
    """Commands with the point at which each is killed, empty for one that is left alone."""

    def __str__(self) -> str:
        tables = [self.limits, self.lane, self.sample, self.more]
        lines = [f"seed {self.seed}: {self.rows} rows, provider {self.provider}", *(f"  {one!r}" for one in tables)]
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
    lane, live = _lane(dice)
    sample = f'rows = {dice.randint(1, 4)}\nmin_valid = "0%"' if dice.random() < 0.3 else "rows = 0"
    kills = KILLS + LIVE_KILLS * (2 * live)
    faults = []
    for _ in range(dice.randint(0, 6)):
        routes = LIVE_ROUTES if live and dice.random() < 0.6 else ROUTES
        fault: dict[str, Any] = {"on": dice.choice(routes), "do": dice.choice(FAULTS), "nth": dice.randint(1, 4)}
        fault["count"] = dice.choice((1, 1, 1, 2, 3))
        if fault["do"] in ("hang", "late"):
            fault["seconds"] = dice.choice((0.05, 0.3))
        elif dice.random() < 0.3:
            fault["hide"] = dice.randint(1, 2)  # a list that lags for three looks lags longer than the settle time
        faults.append(fault)
    commands: list[tuple[tuple[str, ...], str]] = []
    for _ in range(dice.randint(1, 5)):
        command = dice.choice(COMMANDS if dice.random() < 0.7 else MORE_COMMANDS)
        commands.append((command, dice.choice(kills) if dice.random() < 0.7 else ""))
    if dice.random() < 0.25:
        commands.append((REBUILD, ""))
        commands.append((("run", "--wait"), dice.choice(kills) if dice.random() < 0.5 else ""))
    asks = sample != "rows = 0" or any("live" in command for command, _ in commands)
    if live or asks:  # live, a request has one fate for ever: these would never end
        for name in ("500", "429", "timeout", "unknown"):
            provider.pop(name, None)
    limits = f"chunk_rows = {dice.randint(2, 5)}" + (
        f"\nin_flight = {dice.randint(1, 2)}" if dice.random() < 0.25 else ""
    )
    if dice.random() < 0.2:
        limits += f'\nbudget = "{dice.choice(BUDGETS)} USD"'
    rows = dice.randint(4, 9)
    return Script(seed, rows, limits, lane, _tables(dice), sample, provider, tuple(faults), tuple(commands))


def _lane(dice: random.Random) -> tuple[str, bool]:
    """`[lane]`, and whether calls will be made row by row."""
    prefer = dice.choices(("batch", "live", "background", "auto"), (10, 4, 1, 2))[0]
    lines = [] if prefer == "batch" else [f'prefer = "{prefer}"']
    live = prefer != "batch"
    if dice.random() < 0.2:
        lines.append('on_ambiguous = "hold"')
    if dice.random() < 0.25:
        risk = dice.choice(("wait", "live-tail", "live-tail", "stop"))
        due = dice.choice(("0s", "2026-01-01T00:00:00Z", "2h"))
        lines += [f'deadline = "{due}"', f'on_deadline_risk = "{risk}"']
        live = live or risk == "live-tail"
    return "\n".join(lines), live


def _tables(dice: random.Random) -> str:
    """What the job says of retries, review and targets."""
    tables = ""
    if dice.random() < 0.4:
        more = f"\ntruncated = {{ attempts = 1, set = {{ max_output_tokens = {2 * CAP} }} }}"
        tables += f"\n[retry]\ntransient = {dice.randint(0, 3)}{more * (dice.random() < 0.5)}\n"
    if dice.random() < 0.3:
        tables += f'\n[review]\nsample = "{dice.choice((20, 50))}%"\n'
    if dice.random() < 0.4:
        for name in dice.choice((("out.jsonl",), ("out.sqlite",), ("out.jsonl", "out.sqlite"))):
            tables += f'\n[[publish]]\nto = "{name}"\nkey = ["id"]\n'
    return tables


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
            done = step(job, argv, at)
            course.kills += done is not None and done.killed
            course.harms = [
                f"{one} (after {' '.join(argv)})"
                for one in (*harms(job, ids, ended=False), *misbooked(job, ended=False))
            ]
            if course.harms:
                return course
        provider.clear_faults()
        if not carried_on(job, dice):
            course.harms = [f"no end after {CALLS} commands: {job.done[-1]}"]
        else:
            until(lambda: all(one["status"] in OVER for one in job.books.creates))  # a late create may still be billed
            course.harms = harms(job, ids) + misbooked(job) + misplaced(job)
            course.states = {name: count for name, count in job.check_balance().items() if count}
    except Exception as error:  # whatever it was, the other scripts are played
        course.harms = [f"crashed or never ended: {type(error).__name__}: {error}"]
    finally:
        course.commands = len(job.done)
    return course


def step(job: JobFolder, argv: tuple[str, ...], at: str) -> Done | None:
    """One command of a script; None when there is nothing it could be about."""
    if argv == REBUILD:
        if not (has_run(job) and (job.state / journal.NAME).exists()):
            return None
        for suffix in ("", "-wal", "-shm"):
            job.ledger.with_name(job.ledger.name + suffix).unlink(missing_ok=True)
        return job.run(*argv, code=0)
    if argv in REVIEW:
        listed = job.run("review", "list", "--json").out
        rows = json.loads(listed).get("rows") if listed else None
        if not rows:
            return None
        argv = (*argv, rows[0]["id"])
    return job.run(*argv, **({"BATCHCTL_CRASH_AT": at} if at else {}))


def carried_on(job: JobFolder, dice: random.Random) -> bool:
    """Carry a job on until nothing is under way, one rerun of what failed included."""
    reruns = 1
    for _ in range(CALLS):
        done = job.run("run", "--wait")
        if done.code == 11:
            decide(job, dice)
            continue
        if done.code == 8 or (done.code == 7 and job.check_balance()["queued"]):
            done = job.run("submit")  # what a cancel, or a deadline, left waiting goes out only when a person says so
            done = job.run("dry-run") if done.code == 5 else done
        if done.code == 6:
            _changed(job, r'budget = "[^"]*"', f'budget = "{PLENTY} USD"')
        elif done.code == 5:  # every row of a small sample was lost
            _changed(job, r"\[sample\]\nrows = \d+", "[sample]\nrows = 0")
        elif done.code == 10 and "names no result file" in done.err:
            if not job.check_balance()["held"]:
                return True  # all rows of a batch are missing: attention, for a person
            decide(job, dice)
        elif done.code in (0, 3, 7) and not any(job.check_balance()[state] for state in UNPAID):
            if not reruns or done.code == 0:
                return True
            reruns -= 1
            job.run("rerun", "--wait")
    return False


def _changed(job: JobFolder, pattern: str, text: str) -> None:
    """Another value in the job file, as a person would write it."""
    path = job.path / "job.toml"
    path.write_text(re.sub(pattern, text, path.read_text()))


def decide(job: JobFolder, dice: random.Random) -> None:
    """What a person does who knows the truth: adopts a batch that is listed, waits for one that is not listed yet, and
    says of the others that they were not sent, or gives them up. A wrong word is the one way to be billed twice."""
    shown = job.run("resolve", "--json")
    unsure = shown.json.get("open") if shown.out else None
    if not unsure:
        return
    first = unsure[0]
    chunk = ("--chunk", str(first["chunk"]))
    if first.get("lane") == "live":
        billed = lost_and_billed(job, first["chunk"])
        job.run("resolve", *chunk, "--abandon" if billed else dice.choice(("--not-sent", "--abandon")))
    elif first["candidates"]:
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
        model = f'provider = "openai"\nname = "gpt-5.4-mini"\nparams = {{ max_output_tokens = {CAP} }}'
        tables = {"limits": script.limits, "lane": script.lane, "sample": script.sample, "model": model}
        job.write(script.rows, more=script.more, **tables)
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
