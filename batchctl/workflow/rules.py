"""The rules of a job: from the job file to a rule book, checked before anything is paid, and which shares are broken.

Rules, review and retry can change at any moment; what was answered is then judged again, free.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from fractions import Fraction
from typing import Any

import orjson

from batchctl.chunks.names import rows_name
from batchctl.chunks.splice import row_json
from batchctl.jobfile import Job
from batchctl.jobfile.lines import Lines
from batchctl.judging.caps import Caps
from batchctl.judging.rules import Check, Context, Expression, Names, Program, RuleBook, Rules, ShareRule
from batchctl.ledger import queries
from batchctl.model.rows import Unusable
from batchctl.workflow.workspace import Plan, Workspace


def rule_book(job: Job, where: str) -> RuleBook:
    """The rules of a job file, with the line each stands on."""
    lines = Lines(job.text)

    def expression(text: str, path: tuple[str | int, ...], key: str) -> Expression:
        line = lines.line_of(path)
        return Expression(text, where if line is None else f"{where}:{line}", key)

    checks, shares = [], []
    for place, rule in enumerate(job.rules):
        base, name = ("rules", place), f'rule "{rule.name}"'
        limit = None
        if rule.where is not None:
            limit = expression(rule.where, (*base, "where"), f"`where` of {name}")
        if rule.check is not None:
            check = expression(rule.check, (*base, "check"), f"`check` of {name}")
            checks.append(Check(rule.name, check, limit, rule.on_fail))
        elif limit is not None and rule.max_share is not None:
            shares.append(ShareRule(rule.name, limit, rule.max_share))
    builtin, review = job.rules_builtin, job.review
    return RuleBook(
        checks=tuple(checks),
        shares=tuple(shares),
        max_chars=None if builtin is None else builtin.max_chars,
        html=builtin is None or builtin.html != "reject",
        echo=None if builtin is None else builtin.echo,
        when=None if review.when is None else expression(review.when, ("review", "when"), "[review] when"),
        sample=review.sample or Fraction(0),
    )


def caps(job: Job) -> Caps:
    """Further attempts by kind of failure."""
    retry = job.retry
    return Caps(
        retry.transient, 0 if retry.truncated is None else retry.truncated.attempts, retry.invalid, retry.refused
    )


def digest(job: Job) -> str:
    """What verdicts depend on of [[rules]], [rules_builtin], [review] and [retry]."""
    book = rule_book(job, "")
    facts = [
        [(one.name, one.check.text, one.where and one.where.text, one.on_fail) for one in book.checks],
        [(one.name, one.where.text) for one in book.shares],
        [book.max_chars, book.html, book.echo, book.when and book.when.text, str(book.sample)],
        [job.review.refused, str(caps(job))],
    ]
    return hashlib.sha256(orjson.dumps(facts)).hexdigest()


def check_rules(plan: Plan, columns: Collection[str] | None) -> None:
    """Raise for a rule that is not CEL or names what does not exist. `columns`: of the rows, where they are known."""
    book = rule_book(plan.job, plan.where["job"])
    if book:
        Rules(book, Names(_output_names(plan), columns, free_text=plan.schema_text is None and _gives_text(plan)))


class RowFilter:
    """[source] where, row by row."""

    def __init__(self, expression: Expression, columns: Collection[str] | None) -> None:
        self._program = Program(expression, Names(row=columns), ("row",))
        self._context = Context([self._program])

    def holds(self, row: Any) -> bool | str:
        """Whether a row is wanted; or in words why nobody can tell. A row that cannot be read is wanted: it is rejected
        by name later."""
        text = row if isinstance(row, Unusable) else row_json(row)
        if isinstance(text, Unusable):
            return True
        try:
            self._context.put("row", orjson.loads(text))
        except (ValueError, TypeError, OverflowError):
            return "a value of the row is out of range"
        return self._program.holds(self._context)


def row_filter(plan: Plan, columns: Collection[str] | None) -> RowFilter | None:
    """[source] where as a filter; None without one. Raises `UsageError` for one that is wrong."""
    where = plan.job.source.where
    if where is None:
        return None
    line = Lines(plan.job.text).line_of(("source", "where"))
    place = plan.where["job"] + ("" if line is None else f":{line}")
    return RowFilter(Expression(where, place, "[source] where"), columns)


def _gives_text(plan: Plan) -> bool:
    """Embeddings and moderations give data without a schema; every other endpoint text."""
    return plan.endpoint not in ("/v1/embeddings", "/v1/moderations")


def _output_names(plan: Plan) -> Collection[str] | None:
    """The fields an answer can have, when the schema says so."""
    if plan.schema_text is None:
        return None
    schema: Any = orjson.loads(plan.schema_text)
    closed = isinstance(schema, dict) and schema.get("additionalProperties") is False
    if not closed or "patternProperties" in schema or not isinstance(schema.get("properties"), dict):
        return None
    return list(schema["properties"])


def columns_of(workspace: Workspace, run: queries.Run) -> list[str] | None:
    """The columns of a run's rows when all rows have the same, by the first row; None for a source without a header."""
    if any(name.rpartition("/")[2].split(".")[-1] in ("jsonl", "-") or ".jsonl" in name for name in run.source):
        return None
    from batchctl.chunks import segments  # tables take their time to load, and `status` needs none

    chunks = queries.chunks(workspace.ledger.db, run.id)
    if not chunks:
        return None
    path = workspace.directory(run.id) / "chunks" / rows_name(chunks[0].number)
    for (row,) in segments.tuples(path, ("row",)):
        return list(orjson.loads(row))
    return None
