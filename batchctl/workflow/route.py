"""Which lane a workload belongs in: live, batch or background; for a list of tasks, or for one job with its own history.

Three rules carry it: a person waiting means live; many independent rows that can wait mean batch; one long tracked task
means background. What the list does not say is asked for, not guessed: `question` is what would decide, or sharpen, it.

A batch is promised within 24 hours at OpenAI, Anthropic, Google and Amazon, and mostly ends sooner
(developers.openai.com/api/docs/guides/batch and the others' batch pages, read 2026-11-21); background mode is OpenAI's
Responses API only, at the live price.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from batchctl.ledger import queries
from batchctl.model.errors import Exit, UsageError
from batchctl.model.rows import Unusable, Usage
from batchctl.prices import as_usd, find, picos, usd_text
from batchctl.tables import SourceSpec, open_source
from batchctl.workflow.report import span, turnaround
from batchctl.workflow.reports import Report, plural
from batchctl.workflow.workspace import Options, opened

COLUMNS = ("task", "waiting", "per_month", "delay", "input_tokens", "output_tokens", "model", "provider", "lane", "owner",
           "input", "long")  # fmt: skip
LANES = ("live", "batch", "background", "both")
SOON_SECONDS = 3600  # sooner than a batch can be counted on to be done
SURE_SECONDS = 8 * 3600  # a night: nearly every batch is done, and the promise is a day
OVERNIGHT_SECONDS = 12 * 3600
MANY = 1000  # a month: so many long tasks are rows again
LONG_TOKENS = 50_000
REVIEW_DAYS = {"unsure": 30}
USUAL_REVIEW_DAYS = 90
CROWDED = (
    "retry with backoff, cap what is in flight, answer from a cache or a smaller model; what can wait goes to batch"
)
_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_WORDS = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
_IDLE = frozenset(
    [
        "the",
        "and",
        "for",
        "from",
        "with",
        "per",
        "all",
        "new",
        "live",
        "batch",
        "background",
        "hourly",
        "nightly",
        "daily",
        "weekly",
        "monthly",
    ]
)


@dataclass(frozen=True, slots=True)
class Task:
    """One line of the list, as far as it says something."""

    task: str
    waiting: str | None = None  # yes, no, sometimes
    per_month: int | None = None
    delay_seconds: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    model: str | None = None
    provider: str | None = None
    lane: str | None = None
    owner: str | None = None
    input: str | None = None
    long: bool | None = None


@dataclass(frozen=True, slots=True)
class Advice:
    """A lane with its one reason; `question` decides or sharpens it, `usd` is a month in each lane, picodollars."""

    task: Task
    lane: str
    reason: str
    question: str | None = None
    flags: tuple[str, ...] = ()
    usd: Mapping[str, int | None] = field(default_factory=lambda: {"live": None, "batch": None})

    def as_dict(self, today: date) -> dict[str, Any]:
        days = REVIEW_DAYS.get(self.lane, USUAL_REVIEW_DAYS)
        return {
            "task": self.task.task,
            "lane": self.lane,
            "reason": self.reason,
            "question": self.question,
            "usd_per_month": {lane: None if one is None else as_usd(one) for lane, one in self.usd.items()},
            "flags": list(self.flags),
            "review_at": (today + timedelta(days=days)).isoformat(),
            "lane_today": self.task.lane,
            "owner": self.task.owner,
            "when_crowded": CROWDED if self.lane in ("live", "both") else None,
        }


def route(options: Options, *, check: bool = False, today: date | None = None) -> Report:
    """Advice for every task of a list, or for one job. With `check`, exit 5 when a task runs in another lane today."""
    today = today or datetime.now(UTC).date()
    target = options.target or "job.toml"
    rows = _listed(target)
    if rows is None:
        return _of_job(options, today)
    advised = flagged([advise(_task(row, f"{target}: task {number}")) for number, row in enumerate(rows, 1)])
    wrong = [one for one in advised if "other lane today" in one.flags]
    facts = {"tasks": [one.as_dict(today) for one in advised]}
    lines = [f"{plural(len(advised), 'task')}"]
    for one in advised:
        lines += _lines(one)
    if any(one.lane in ("live", "both") for one in advised):
        lines.append(f"  when live is crowded: {CROWDED}")
    code = Exit.GATE if check and wrong else Exit.OK
    unsure = [one for one in advised if one.lane == "unsure"]
    following = (
        f"answer {plural(len(unsure), 'question')} and run it again" if unsure else "batchctl init NAME --from FILE"
    )
    return Report("route", exit=code, lines=tuple(lines), next=following, facts=facts)


# --- rules ---------------------------------------------------------------------------------------------------------


def advise(task: Task) -> Advice:
    """The lane of one task by what the list says of it."""
    lane, reason, question = _decided(task)
    usd = {name: _monthly(task, name) for name in ("live", "batch")}
    if question is None and None in usd.values():
        question = _unpriced(task)
    return Advice(task, lane, reason, question, usd=usd)


def _decided(task: Task) -> tuple[str, str, str | None]:
    """Lane, reason, and the question that would decide or sharpen it."""
    long = task.long
    if long is None and (task.per_month or MANY) <= 5:
        long = (task.input_tokens or 0) + (task.output_tokens or 0) >= LONG_TOKENS or None
    if long:
        if task.waiting != "yes" and (task.per_month or 0) >= MANY:
            return "batch", "so many long tasks are rows: none is watched, all can wait", None
        return "background", "one long task: created once, tracked until it is done", None
    if task.waiting == "yes":
        return "live", "a person is waiting", None
    if task.waiting == "sometimes":
        return "both", "live while somebody waits, batch for everything else", None
    delay = task.delay_seconds
    if delay is not None and delay < SOON_SECONDS:
        return "live", f"it is needed within {span(delay)}, and a batch may take 24 hours", None
    if delay is not None and delay < SURE_SECONDS:
        return (
            "unsure",
            f"{span(delay)} is often enough for a batch and never promised",
            "Does it matter if it takes 24 hours?",
        )
    if delay is not None:
        return "batch", "independent rows that can wait, at about half the price", None
    if task.waiting == "no":
        return "batch", "nobody is waiting, and rows that can wait cost about half", "May it take up to 24 hours?"
    return "unsure", "the list does not say who waits", "Is a person waiting for the answer?"


def _monthly(task: Task, lane: str) -> int | None:
    """Picodollars a month in a lane; None when something it needs is not known."""
    needed = (task.per_month, task.input_tokens, task.output_tokens)
    if None in needed or not task.model or not task.provider:
        return None
    price = find(task.provider, task.model, "batch" if lane == "batch" else "live")
    count, taken, given = (one or 0 for one in needed)
    return None if price is None else count * price.rates.cost(Usage(taken, given))


def _unpriced(task: Task) -> str | None:
    """What is missing for the monthly cost."""
    names = ("per_month", "input_tokens", "output_tokens", "model", "provider")
    missing = [name for name in names if getattr(task, name) is None]
    if missing:
        return f"For the cost: what is its {', '.join(missing)}?"
    return f"For the cost: what does {task.provider}/{task.model} cost? No source is certain of it."


def flagged(advised: Sequence[Advice]) -> list[Advice]:
    """What only the whole list shows: another lane today, the same work twice, one input in two lanes."""
    found = []
    for one in advised:
        flags = list(one.flags)
        if one.task.lane is not None and one.lane in LANES and one.task.lane != one.lane:
            flags.append("other lane today")
        if one.lane == "background" and one.task.provider not in (None, "openai", "azure-openai"):
            flags.append("background mode is OpenAI's only: run it live, with a long timeout")
        for other in advised:
            if other is one or not _same_work(one.task, other.task):
                continue
            lanes = {one.task.lane or one.lane, other.task.lane or other.lane}
            flags.append(
                f"duplicate of {other.task.task}" if len(lanes) == 1 else f"in two lanes: also {other.task.task}"
            )
        found.append(replace(one, flags=tuple(flags)))
    return found


def _same_work(left: Task, right: Task) -> bool:
    """The same input and the same kind of task, whatever the word order and endings."""
    if not left.input or not right.input or left.input.casefold() != right.input.casefold():
        return False
    one, two = _stems(left.task), _stems(right.task)
    return bool(one and two) and 2 * len(one & two) >= len(one | two)


def _stems(text: str) -> frozenset[str]:
    """`tag tickets` and `ticket tagging` have the same: words without their usual endings, idle words left out."""
    words = re.findall(r"[^\W\d_]{3,}", text.casefold())
    bare = (re.sub(r"(?:ing|ed|es|e|s)$", "", word) for word in words if word not in _IDLE)
    return frozenset(re.sub(r"(.)\1$", r"\1", word) for word in bare)


# --- reading -------------------------------------------------------------------------------------------------------


def _listed(target: str) -> list[dict[str, Any]] | None:
    """The rows of a task list; None when `target` is a job file or a run."""
    path = Path(target)
    if path.suffix.lower() in (".csv", ".tsv", ".jsonl"):
        source = open_source(SourceSpec((target,)))
        found: list[dict[str, Any]] = []
        for batch in source.batches():
            for row in batch.rows:
                if isinstance(row, Unusable):
                    raise _wrong(f"a line of the list cannot be read: {row.reason}", target, "correct it")
                found.append({name: value for name, value in row.items() if value not in (None, "")})
        return found
    if path.suffix.lower() != ".toml" or not path.is_file():
        return None
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None  # the job file reader says what is wrong with it, and where
    rows = table.get("tasks", table.get("task"))
    return rows if isinstance(rows, list) else None


def _task(row: Mapping[str, Any], where: str) -> Task:
    unknown = [name for name in row if name not in COLUMNS]
    if unknown or not str(row.get("task", "")).strip():
        raise _wrong(
            f"there is no column `{unknown[0]}` in a task list" if unknown else "a task has no name", where,
            f"columns are {', '.join(COLUMNS)}; only task is needed",
        )  # fmt: skip
    text = {name: str(row[name]).strip() for name in ("task", "model", "provider", "owner", "input") if name in row}
    lane = _word(row, "lane", LANES, where)
    return Task(
        **text,
        lane=lane,
        waiting=_word({**row, "waiting": _plain(row.get("waiting"))}, "waiting", ("yes", "no", "sometimes"), where),
        long=_flag(row, where),
        per_month=_number(row, "per_month", where),
        input_tokens=_number(row, "input_tokens", where),
        output_tokens=_number(row, "output_tokens", where),
        delay_seconds=_delay(row, where),
    )


def _plain(value: Any) -> Any:
    return {True: "yes", False: "no"}.get(value, value) if isinstance(value, bool) else value


def _word(row: Mapping[str, Any], name: str, known: Sequence[str], where: str) -> str | None:
    value = row.get(name)
    if value is None or not str(value).strip():
        return None
    word = str(value).strip().casefold()
    if word not in known:
        raise _wrong(f"`{name}` is {word!r}", where, f"use {', '.join(known)}, or leave it empty")
    return word


def _flag(row: Mapping[str, Any], where: str) -> bool | None:
    value = row.get("long")
    if value is None or not str(value).strip():
        return None
    word = str(_plain(value)).strip().casefold()
    if word not in _WORDS:
        raise _wrong(f"`long` is {word!r}", where, "use yes or no, or leave it empty")
    return _WORDS[word]


def _number(row: Mapping[str, Any], name: str, where: str) -> int | None:
    """A whole number; `12,000`, `12_000` and `12k` read the same."""
    value = row.get(name)
    if value is None or not str(value).strip():
        return None
    text = str(value).strip().casefold().replace(",", "").replace("_", "")
    factor = {"k": 10**3, "m": 10**6}.get(text[-1:], 1)
    try:
        number = Decimal(text[:-1] if factor > 1 else text) * factor
    except InvalidOperation:
        number = Decimal(-1)
    if not number.is_finite() or number < 0 or number != int(number) or number > 10**15:
        raise _wrong(f"`{name}` is {text!r}", where, "write a whole number")
    return int(number)


def _delay(row: Mapping[str, Any], where: str) -> int | None:
    value = row.get("delay")
    if value is None or not str(value).strip():
        return None
    text = str(value).strip().casefold()
    if text in ("overnight", "nightly"):
        return OVERNIGHT_SECONDS
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?(s|min|m|h|d|w)", text)
    if not match:
        raise _wrong(f"`delay` is {text!r}", where, "write 2s, 10m, 1h, 3d or overnight")
    return int(Decimal(match[1]) * _UNITS[match[2]])


def _wrong(what: str, where: str, hint: str) -> UsageError:
    return UsageError(what, where=where, effect="nothing was done", hint=hint)


# --- one job -------------------------------------------------------------------------------------------------------


def _of_job(options: Options, today: date) -> Report:
    """One job: its rows, its dry run, and how long this workspace's batches have taken."""
    with opened(options, write=False) as workspace:
        if not workspace.has_run:
            job = workspace.policy
            task = Task(job.name, waiting="no", model=job.model.name, provider=job.model.provider, lane="batch")
            unprepared = "What will it cost? `batchctl prepare`, then `batchctl dry-run`."
            advice = Advice(task, "batch", "a table of independent rows that can wait", unprepared)
            return _job_report(advice, None, None, None, today)
        run = workspace.run
        db = workspace.ledger.db
        settings = queries.settings(db, run.id)[run.settings]
        dry = queries.last_dry_run(db, run.settings)
        expected = (dry.report.get("forecast") if dry is not None else None) or {}
        taken = turnaround(db, run, settings.model)
        task = Task(run.job, waiting="no", model=settings.model, provider=settings.provider, lane="batch")
        reason = "a table of independent rows that can wait"
        slow = taken["history_p90_seconds"] or taken["p90_seconds"]
        if slow is not None:
            reason += f"; nine in ten of its batches here ended within {span(slow)}"
        asked = None if expected else "What will it cost? `batchctl dry-run` measures it."
        return _job_report(Advice(task, "batch", reason, asked), run.id, expected, taken, today)


def _job_report(
    advice: Advice, run: str | None, expected: dict[str, Any] | None, taken: dict[str, Any] | None, today: date
) -> Report:
    known = expected or {}
    usd = {"live": known.get("live_usd"), "batch": known.get("usd")}
    lines = _lines(advice)
    if any(usd.values()):
        words = [f"{lane} {usd_text(picos(Decimal(one)))}" for lane, one in usd.items() if one is not None]
        lines.append(f"    this run: {', '.join(words)}")
    facts = {"tasks": [{**advice.as_dict(today), "usd_per_run": usd, "turnaround": taken}]}
    following = "batchctl prepare" if run is None else f"batchctl status {run}"
    return Report("route", run, lines=tuple(lines), next=following, facts=facts)


def _lines(one: Advice) -> list[str]:
    """One task for people."""
    costs = [f"{lane} {usd_text(amount)}" for lane, amount in one.usd.items() if amount is not None]
    lines = [f"  {one.lane:<11} {one.task.task}: {one.reason}" + (f"   ({', '.join(costs)} a month)" if costs else "")]
    lines += [f"              ! {flag}" for flag in one.flags]
    if one.question:
        lines.append(f"              ? {one.question}")
    return lines
