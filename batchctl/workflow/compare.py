"""Several models or prompts on the same rows: who is right how often, how sure that is, what it costs, and whether it will do.

Stored answers are read as the model gave them, before anybody edited one; nothing is sent. A row counts against a model
when it refused, was cut off or gave an answer that is not valid. Only rows that every contestant was asked and that have a
gold label are compared, so that differences are paired. Memory holds one short record a row: this is for evaluation sets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import orjson

from batchctl.ledger import queries
from batchctl.model.errors import Exit, UsageError
from batchctl.model.rows import Reason, RowState
from batchctl.prices import as_usd
from batchctl.tables.columns import json_text
from batchctl.tables.source import SourceSpec, open_source
from batchctl.workflow.gates import Gate, State, decide, read_gate
from batchctl.workflow.intervals import AGRESTI_MIN, MCNEMAR, WILSON, mcnemar, paired_difference, wilson
from batchctl.workflow.money import books
from batchctl.workflow.outgoing import GONE_OUT
from batchctl.workflow.publish import ON_THE_WAY, NotReady
from batchctl.workflow.report import quantile, turnaround
from batchctl.workflow.reports import Report
from batchctl.workflow.results import every_row
from batchctl.workflow.standing import is_simulated
from batchctl.workflow.verdicts import lines_of, write_files
from batchctl.workflow.workspace import Options, Workspace, opened

NOTHING = "nothing was compared"
TABLES = (".csv", ".tsv", ".jsonl", ".parquet")
SHOWN_WRONG = 50
LOOKED_AT = (None, Reason.RULE, Reason.SAMPLE)
"""Why a person looks at an answer that is valid: it is the model's answer all the same."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a contestant made of one row. `label` is None without a usable answer; `reason` says why."""

    label: str | None
    reason: str
    input_tokens: int = 0
    output_tokens: int = 0


@dataclass(slots=True)
class Contestant:
    """One model and prompt with its answers by source id."""

    name: str
    facts: dict[str, Any]
    answers: dict[str, Answer] = field(default_factory=dict)
    gold: dict[str, str] = field(default_factory=dict)  # from a column of its rows


@dataclass(frozen=True, slots=True)
class Asked:
    """What a person wants to know."""

    gold: str | None = None  # a column of the source, or a file: `gold.csv` or `gold.csv#column`
    output_field: str | None = None
    baseline: str | None = None
    candidate: str | None = None
    gates: tuple[str, ...] = ()
    undecided_passes: bool = False
    junit: str | None = None
    markdown: str | None = None
    html: str | None = None


def compare(options: Options, targets: Sequence[str], asked: Asked) -> Report:
    """The verdict on one or more contestants, also as files. Exit 5 when a gate fails, or is undecided."""
    gates = [read_gate(text) for text in asked.gates]
    named = [_named(one) for one in targets or ("job.toml",)]
    met = [_read(replace(options, target=target), name, asked) for name, target in named]
    _name_apart(met)
    gold, told = _gold(met, asked)
    baseline = _pick(met, asked.baseline, "--baseline") if asked.baseline else met[0]
    verdict = judge(met, gold, baseline, gates, asked.candidate)
    verdict["gold"] = told
    failed = [one for one in verdict["gates"] if one["state"] == State.FAIL]
    unsure = [one for one in verdict["gates"] if one["state"] == State.UNDECIDED and not asked.undecided_passes]
    verdict["verdict"] = str(State.FAIL if failed else State.UNDECIDED if unsure else State.PASS)
    verdict["undecided_passes"] = asked.undecided_passes
    wrote = write_files(verdict, asked.junit, asked.markdown, asked.html)
    return Report(
        "compare",
        verdict["contestants"][0]["run"],
        Exit.GATE if failed or unsure else Exit.OK,
        lines=(*lines_of(verdict), *wrote),
        next="a failed gate: another prompt or model; an undecided one: more rows" if failed or unsure
        else f"batchctl publish {verdict['contestants'][-1]['run']}",
        facts=verdict,
        simulated=any(one.facts["simulated"] for one in met),
    )  # fmt: skip


# --- reading ----------------------------------------------------------------------------------------------------------


def _named(target: str) -> tuple[str | None, str]:
    """`prod=eval.toml` is the target `eval.toml` under the name `prod`."""
    name, equals, rest = target.partition("=")
    return (name, rest) if equals and name and not Path(target).exists() else (None, target)


def _read(options: Options, name: str | None, asked: Asked) -> Contestant:
    """The answers of one target: a run, or a job's newest run and the earlier ones under the same settings."""
    with opened(options, write=False) as workspace:
        run = workspace.run
        runs = [run]
        if workspace.job is not None and Path(options.target or "").suffix == ".toml":
            same = queries.runs(workspace.ledger.db, run.job)
            runs = [one for one in same if one.settings == run.settings]
        settings = queries.settings(workspace.ledger.db, run.id)[run.settings]
        found = Contestant(name or settings.model, _facts(workspace, run, runs, settings))
        label_of = _label_reader(workspace, asked.output_field)
        column = None if asked.gold is None or _is_file(asked.gold) else asked.gold
        for one in runs:
            _read_run(workspace, one, found, label_of, column)
        if column is not None and not found.gold:
            raise UsageError(f"no row of {run.id} has a gold label in a column `{column}`", where="--gold", effect=NOTHING,
                             hint="name a column of the source, or a file: --gold gold.csv")  # fmt: skip
        return found


def _read_run(workspace: Workspace, run: queries.Run, found: Contestant, label_of: Any, column: str | None) -> None:
    for _, _, line, _ in every_row(workspace.state, workspace.ledger.db, run, as_judged=True):
        facts = orjson.loads(line)
        state = facts["state"]
        if state == RowState.REJECTED:
            continue
        if state in (*ON_THE_WAY, RowState.HELD):
            raise NotReady(f"answers of {run.id} are still out", effect=NOTHING,
                           hint=f"`batchctl run` or `poll {run.id}` again; nothing is sent twice")  # fmt: skip
        usable = state in GONE_OUT or (state == RowState.REVIEW_REQUIRED and facts["reason"] in LOOKED_AT)
        usage = facts["usage"] or {}
        found.answers[facts["id"]] = Answer(
            label_of(facts["output"]) if usable else None,
            facts["reason"] or "",
            usage.get("input_tokens", 0),
            usage.get("output_tokens", 0),
        )
        if column is not None:
            value = facts["row"].get(column)
            if value not in (None, ""):
                found.gold[facts["id"]] = as_label(value)


def as_label(value: Any) -> str:
    """Labels are compared as text: `true`, `3` and `"3"` of a CSV file are what they look like."""
    return value if isinstance(value, str) else json_text(value)


def _label_reader(workspace: Workspace, wanted: str | None) -> Any:
    """A function from an answer to the label that is compared."""
    plan = workspace.current_plan() or workspace.frozen_plan()
    if plan.schema_text is None:
        return as_label
    fields = orjson.loads(plan.schema_text).get("properties") or {}
    if not fields and wanted is None:
        return as_label
    if wanted is None:
        listed = [name for name, one in fields.items() if isinstance(one, dict) and ("enum" in one or "const" in one)]
        guesses = (
            ["label"] if "label" in fields else listed if len(listed) == 1 else list(fields) if len(fields) == 1 else []
        )
        if not guesses:
            raise UsageError("it is not clear which field of the answers to compare", where=plan.where["schema"],
                             effect=NOTHING, hint=f"--output-field {next(iter(fields))}, or another of: "
                             + ", ".join(list(fields)[:20]))  # fmt: skip
        wanted = guesses[0]
    elif fields and wanted not in fields:
        near = get_close_matches(wanted, fields, 1)
        raise UsageError(f"the answers have no field `{wanted}`", where=("--output-field", plan.where["schema"]),
                         effect=NOTHING,
                         hint=f"did you mean `{near[0]}`?" if near else "there are: " + ", ".join(fields))  # fmt: skip
    return lambda output: as_label(output[wanted]) if isinstance(output, dict) and wanted in output else None


def _facts(
    workspace: Workspace, run: queries.Run, runs: Sequence[queries.Run], settings: queries.SettingsRow
) -> dict[str, Any]:
    """Who this is, and what its runs cost and took, further attempts included."""
    db = workspace.ledger.db
    cost: int | None = 0
    done = 0
    seconds: list[int] = []
    for one in runs:
        found = books(db, one)
        cost = None if cost is None or found.unpriced else cost + found.first + found.reruns
        balance = queries.balance(db, one.id)
        done += sum(balance[state] for state in GONE_OUT)
        seconds += [batch["seconds"] for batch in turnaround(db, one, settings.model)["batches"]]
    per_1000 = None if cost is None or not done else as_usd((cost * 1000 + done // 2) // done)
    return {
        "run": run.id,
        "provider": settings.provider,
        "model": settings.model,
        "prompt_version": settings.prompt_version,
        "schema_version": settings.schema_version,
        "simulated": is_simulated(workspace),
        "completed": done,
        "usd_per_1000_completed": per_1000,
        "p50_seconds": quantile(seconds, 50),
        "p90_seconds": quantile(seconds, 90),
    }


def _name_apart(met: Sequence[Contestant]) -> None:
    """Names that several have get the run's id beside them."""
    counted = Counter(one.name for one in met)
    for one in met:
        if counted[one.name] > 1:
            one.name = f"{one.name} {one.facts['run']}"
    if len({one.name for one in met}) < len(met):
        raise UsageError(
            "a target is given twice", effect=NOTHING, hint="name them apart: prod=job.toml new=other.toml"
        )


def _pick(met: Sequence[Contestant], name: str, option: str) -> Contestant:
    for one in met:
        if name in (one.name, one.facts["run"]):
            return one
    names = [one.name for one in met]
    near = get_close_matches(name, names, 1)
    raise UsageError(f"there is no contestant `{name}`", where=option, effect=NOTHING,
                     hint=f"did you mean `{near[0]}`?" if near else "there are: " + ", ".join(names))  # fmt: skip


def _is_file(gold: str) -> bool:
    return Path(gold.partition("#")[0]).suffix.lower() in TABLES


def _gold(met: Sequence[Contestant], asked: Asked) -> tuple[dict[str, str] | None, dict[str, Any] | None]:
    """Gold labels by source id, and how many rows they join; None when contestants are compared with each other."""
    if asked.gold is None:
        if len(met) < 2:
            raise UsageError("there is nothing to compare with", effect=NOTHING,
                             hint="--gold COLUMN (of the source) or --gold FILE, or a second target")  # fmt: skip
        return None, None
    labels = _gold_file(asked.gold, asked.output_field) if _is_file(asked.gold) else dict(met[0].gold)
    everyone = set.intersection(*(set(one.answers) for one in met))
    matched = len(everyone & labels.keys())
    told = {"from": asked.gold, "rows": len(labels), "matched": matched, "missing": len(labels) - matched,
            "extra": len(everyone) - matched}  # fmt: skip
    if not matched:
        raise UsageError("no row has both a gold label and an answer of every contestant", where=f"--gold {asked.gold}",
                         effect=NOTHING, hint="gold rows are joined by source id: compare the ids")  # fmt: skip
    return labels, told


def _gold_file(gold: str, output_field: str | None) -> dict[str, str]:
    """Labels by source id: the first column is the id; the label is the named column, or the only other one."""
    name, _, column = gold.partition("#")
    source = open_source(SourceSpec(paths=(name,), base=Path()))
    labels: dict[str, str] = {}
    for batch in source.batches():
        for row in batch.rows:
            if not isinstance(row, dict):
                raise UsageError(f"a gold row is unusable: {row.reason}", where=name, effect=NOTHING, hint="correct it")
            first, *others = row
            wanted = column or (output_field if output_field in others else others[0] if len(others) == 1 else "")
            wanted = wanted or ("label" if "label" in others else "")
            if wanted not in row:
                raise UsageError(f"it is not clear which column of {name} is the label", where=name, effect=NOTHING,
                                 hint=f"--gold {name}#{others[0] if others else 'COLUMN'}")  # fmt: skip
            source_id = as_label(row[first])
            if source_id in labels:
                raise UsageError(f"the gold file names row `{source_id}` twice", where=name, effect=NOTHING,
                                 hint="its first column is the source id")  # fmt: skip
            if row[wanted] not in (None, ""):
                labels[source_id] = as_label(row[wanted])
    return labels


# --- judging ----------------------------------------------------------------------------------------------------------


def judge(
    met: Sequence[Contestant],
    gold: Mapping[str, str] | None,
    baseline: Contestant,
    gates: Sequence[Gate],
    candidate: str | None = None,
) -> dict[str, Any]:
    """The verdict object that text, JSON, JUnit, Markdown and HTML are made from."""
    ids = [one for one in baseline.answers if all(one in other.answers for other in met)]
    if gold is not None:
        ids = [one for one in ids if one in gold]
    contestants = [figures_of(one, ids, gold, None if one is baseline else baseline) for one in met]
    asked = (
        [_pick(met, candidate, "--candidate")]
        if candidate
        else [one for one in met if one is not baseline] or list(met)
    )
    names = {one.name for one in asked}
    decided = [
        {"contestant": one["name"], **decide(gate, one)}
        for one in contestants
        if one["name"] in names
        for gate in gates
    ]
    return {
        "rows": len(ids),
        "baseline": baseline.name,
        "contestants": contestants,
        "gates": decided,
        "methods": {"shares": WILSON, "difference": AGRESTI_MIN, "p": MCNEMAR, "confidence": 0.95},
    }


def figures_of(
    one: Contestant, ids: Sequence[str], gold: Mapping[str, str] | None, baseline: Contestant | None
) -> dict[str, Any]:
    """Everything known about one contestant on these rows."""
    answers = [one.answers[name] for name in ids]
    rows = len(ids)
    figures: dict[str, Any] = {
        "name": one.name,
        **one.facts,
        "rows": rows,
        "schema_valid": share(sum(answer.label is not None for answer in answers), rows),
        "refused": share(sum(answer.reason == Reason.REFUSED for answer in answers), rows),
        "truncated": share(sum(answer.reason == Reason.TRUNCATED for answer in answers), rows),
        "input_tokens": sum(answer.input_tokens for answer in answers) / rows if rows else None,
        "output_tokens": sum(answer.output_tokens for answer in answers) / rows if rows else None,
        "accuracy": None,
        "labels": {},
        "confusion": [],
        "wrong": [],
        "paired": None,
    }
    if gold is not None:
        right = [answer.label == gold[name] for name, answer in zip(ids, answers, strict=True)]
        figures["accuracy"] = share(sum(right), rows)
        figures["labels"] = _labels([gold[name] for name in ids], answers)
        cells = Counter((gold[name], answer.label) for name, answer in zip(ids, answers, strict=True))
        ordered = sorted(cells.items(), key=lambda cell: (-cell[1], cell[0][0], cell[0][1] or ""))
        figures["confusion"] = [{"gold": was, "answer": said, "rows": count} for (was, said), count in ordered]
        figures["wrong"] = [name for name, ok in zip(ids, right, strict=True) if not ok][:SHOWN_WRONG]
    if baseline is not None:
        figures["paired"] = _paired(one, baseline, ids, gold)
        figures["agreement"] = figures["paired"]["agreement"]
    return figures


def share(hits: int, rows: int) -> dict[str, Any]:
    """A share with its interval."""
    low, high = wilson(hits, rows)
    return {"hits": hits, "rows": rows, "value": hits / rows if rows else None, "low": low, "high": high}


def _labels(gold: Sequence[str], answers: Sequence[Answer]) -> dict[str, dict[str, Any]]:
    """Precision and recall of each label that is gold or was answered."""
    support = Counter(gold)
    answered = Counter(answer.label for answer in answers if answer.label is not None)
    right = Counter(was for was, answer in zip(gold, answers, strict=True) if answer.label == was)
    found = {}
    for label in sorted(support.keys() | answered.keys()):
        precision, recall = share(right[label], answered[label]), share(right[label], support[label])
        both = support[label] + answered[label]
        found[label] = {
            "support": support[label],
            "answered": answered[label],
            "precision": precision,
            "recall": recall,
            "f1": 2 * right[label] / both,
        }
    return found


def _paired(
    one: Contestant, baseline: Contestant, ids: Sequence[str], gold: Mapping[str, str] | None
) -> dict[str, Any]:
    """The same rows, answered by both: who is right where the other is not."""
    rows = len(ids)
    same = sum(one.answers[name].label == baseline.answers[name].label is not None for name in ids)
    facts: dict[str, Any] = {"baseline": baseline.name, "rows": rows, "agreement": share(same, rows)}
    facts |= dict.fromkeys(("better", "worse", "difference", "low", "high", "p"))
    if gold is not None:
        mine = [one.answers[name].label == gold[name] for name in ids]
        theirs = [baseline.answers[name].label == gold[name] for name in ids]
        better = sum(a and not b for a, b in zip(mine, theirs, strict=True))
        worse = sum(b and not a for a, b in zip(mine, theirs, strict=True))
        low, high = paired_difference(better, worse, rows)
        facts |= {"better": better, "worse": worse, "difference": (better - worse) / rows if rows else None,
                  "low": low, "high": high, "p": mcnemar(better, worse)}  # fmt: skip
    return facts
