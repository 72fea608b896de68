"""Which columns a publication has, and its rows: completed answers of every run of a job, one table by source id.

`include` is read as SQL reads a select list: `output.*` becomes the fields that the schema declares, under their own
names; `output` is the whole answer as JSON; `_batchctl.*` are the stamps, as `_batchctl_model` and so on; every other
name is a column of the source. A field with the name of an included source column becomes `output_NAME`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from batchctl.jobfile import Publish
from batchctl.ledger import queries
from batchctl.model.errors import StorageFailed, UsageError
from batchctl.model.ids import id_digest
from batchctl.model.rows import RowState
from batchctl.tables.columns import Column, Kind, Misfit, Row, fitted
from batchctl.tables.destinations import RUN, Destination, destination
from batchctl.tables.jsonl import parse_row
from batchctl.workflow.results import every_row
from batchctl.workflow.unsent import Ids
from batchctl.workflow.workspace import Plan, Workspace

STAMPS: dict[str, Kind] = {
    "id": Kind.TEXT,  # the source id
    "run": Kind.TEXT,
    "prompt_version": Kind.TEXT,
    "schema_version": Kind.TEXT,
    "provider": Kind.TEXT,
    "model": Kind.TEXT,
    "batch_id": Kind.TEXT,
    "attempt": Kind.INTEGER,
    "created_at": Kind.TIME,  # of the answer, by the provider's clock: publishing again gives the same bytes
}
OUTPUT, STAMP = "output", "_batchctl"
GONE_OUT = (RowState.COMPLETED, RowState.PUBLISHED)
LOOKED_AT = 1_000
_KINDS = {"string": Kind.TEXT, "integer": Kind.INTEGER, "number": Kind.NUMBER, "boolean": Kind.BOOLEAN}


@dataclass(frozen=True, slots=True)
class Taken:
    """One column and where its value comes from: `row`, `output`, `answer` (the whole output) or `stamp`."""

    column: Column
    place: str
    name: str

    @property
    def written(self) -> str:
        """As `include` and `key` may call it."""
        prefix = {"output": f"{OUTPUT}.", "stamp": f"{STAMP}."}.get(self.place, "")
        return prefix + self.name


# --- targets ----------------------------------------------------------------------------------------------------------


def destinations(plan: Plan, run_id: str) -> list[tuple[Publish, Destination]]:
    """Every `[[publish]]` table with its address taken apart. Raises `UsageError` for what no run could publish."""
    found: dict[str, tuple[Publish, Destination]] = {}
    for spec in plan.job.publish:
        place = destination(spec.to.replace(RUN, run_id), plan.job.base, plan.job.name.replace("-", "_"))
        if place.shown in found:
            raise _refused(plan, f"two [[publish]] tables write to `{place.shown}`", "remove one of them")
        if spec.mode == "upsert" and not spec.key:
            raise _refused(
                plan,
                f"`{place.shown}`: upsert needs a key; without one, publishing again would add every row again",
                'add key = ["message_id"], or use mode = "replace"',
            )
        if spec.mode == "upsert" and not place.upserts:
            raise _refused(
                plan,
                f"`{place.shown}` is only ever replaced as a whole, so an upsert cannot be kept",
                'use mode = "replace", which holds the rows of every run; or .sqlite, postgresql:// or bigquery://',
            )
        found[place.shown] = spec, place
    return list(found.values())


def check_targets(plan: Plan) -> None:
    """What can be known of the targets before anything is sent: an answer nobody can publish is money lost."""
    for spec, _ in destinations(plan, f"{plan.job.name}-0000"):
        key_of(plan, columns_of(plan, spec.include, ()), spec.key)


# --- columns ----------------------------------------------------------------------------------------------------------


def columns_of(plan: Plan, include: Sequence[str], known: Sequence[str]) -> list[Taken]:
    """The columns of a publication in order. `known` are the columns of the source, as far as they are known."""
    written = tuple(include) or (*plan.job.source.id, f"{OUTPUT}.*", f"{STAMP}.*")
    fields = _fields(plan)
    sources = {one for one in written if one != OUTPUT and not one.startswith((f"{OUTPUT}.", f"{STAMP}."))}
    taken: dict[Column, Taken] = {}
    for item in written:
        for one in _expanded(item, plan, fields, sources, known):
            taken.setdefault(one.column, one)
    names: dict[str, str] = {}
    for one in taken.values():
        folded = one.column.name.casefold()  # SQLite and BigQuery do not tell `Label` from `label`
        if folded in names:
            raise _refused(
                plan, f"two columns would be called `{one.column.name}`", "leave one of them out of `include`"
            )
        names[folded] = one.column.name
    return list(taken.values())


def _expanded(
    item: str, plan: Plan, fields: Mapping[str, Kind] | None, sources: set[str], known: Sequence[str]
) -> Iterator[Taken]:
    group, dot, name = item.partition(".")
    if item == OUTPUT or (item == f"{OUTPUT}.*" and fields is None):
        kind = Kind.TEXT if plan.schema_text is None else Kind.JSON
        yield Taken(Column(OUTPUT, kind), "answer", OUTPUT)
    elif dot and group == OUTPUT:
        declared = fields or {}
        if name != "*" and name not in declared:
            raise _unknown(plan, item, [f"{OUTPUT}.{one}" for one in declared], "no field of the answer")
        for field in declared if name == "*" else (name,):
            yield Taken(Column(f"{OUTPUT}_{field}" if field in sources else field, declared[field]), "output", field)
    elif dot and group == STAMP:
        if name != "*" and name not in STAMPS:
            raise _unknown(plan, item, [f"{STAMP}.{one}" for one in STAMPS], "no stamp")
        for stamp in STAMPS if name == "*" else (name,):
            yield Taken(Column(f"{STAMP}_{stamp}", STAMPS[stamp]), "stamp", stamp)
    else:
        if known and item not in known:
            raise _unknown(plan, item, [*known, OUTPUT, STAMP], "no column of the source")
        yield Taken(Column(item), "row", item)


def _refused(plan: Plan, what: str, hint: str) -> UsageError:
    return UsageError(what, where=f"[[publish]] in {plan.where['job']}", effect="nothing was published", hint=hint)


def _unknown(plan: Plan, item: str, known: Sequence[str], what: str) -> UsageError:
    near = get_close_matches(item, known, 1)
    hint = f"did you mean `{near[0]}`?" if near else "there are: " + ", ".join(known[:20])
    return _refused(plan, f"`{item}` in `include` is {what}", hint)


def key_of(plan: Plan, taken: Sequence[Taken], key: Sequence[str]) -> tuple[str, ...]:
    """The key's columns by the names they have at the target."""
    by_name = {one.column.name: one.column.name for one in taken} | {one.written: one.column.name for one in taken}
    for one in key:
        if one not in by_name:
            raise _refused(plan, f"the key `{one}` is not among the published columns", "add it to `include`")
    return tuple(dict.fromkeys(by_name[one] for one in key))


def names_rows(plan: Plan, taken: Sequence[Taken], key: Sequence[str]) -> bool:
    """Whether a key cannot repeat because source ids do not."""
    parts = {(one.place, one.name) for one in taken if one.column.name in key}
    ids = {("row", one) for one in plan.job.source.id}
    return ("stamp", "id") in parts or bool(ids and ids <= parts)


def _fields(plan: Plan) -> dict[str, Kind] | None:
    """The fields an answer has by its schema; None when it is no object, or declares none."""
    if plan.schema_text is None:
        return None
    root = json.loads(plan.schema_text)
    schema = _resolved(root, root)
    declared = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(declared, dict) or not declared:
        return None
    return {name: _kind(one, root) for name, one in declared.items()}


def _resolved(schema: Any, root: Any) -> Any:
    """A schema, or what its local `$ref` names."""
    for _ in range(20):
        reference = schema.get("$ref") if isinstance(schema, dict) else None
        if not isinstance(reference, str) or not reference.startswith("#/"):
            return schema
        node = root
        for part in reference[2:].split("/"):
            node = node.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(node, dict) else None
        schema = node
    return schema


def _kind(schema: Any, root: Any) -> Kind:
    """The kind of column that holds every value a schema allows; JSON when there is no narrower one."""
    schema = _resolved(schema, root)
    if not isinstance(schema, dict):
        return Kind.JSON
    for word in ("anyOf", "oneOf"):
        if isinstance(schema.get(word), list):
            others = [one for one in schema[word] if not (isinstance(one, dict) and one.get("type") == "null")]
            return _kind(others[0], root) if len(others) == 1 else Kind.JSON
    types = schema.get("type")
    if types is None and isinstance(values := schema.get("enum", [schema.get("const")]), list):
        found = {type(one) for one in values if one is not None}
        return {frozenset({str}): Kind.TEXT, frozenset({int}): Kind.INTEGER, frozenset({bool}): Kind.BOOLEAN}.get(
            frozenset(found), Kind.JSON
        )
    listed = [one for one in ([types] if isinstance(types, str) else types or []) if one != "null"]
    return _KINDS.get(listed[0], Kind.JSON) if len(listed) == 1 else Kind.JSON


# --- rows -------------------------------------------------------------------------------------------------------------


class Outgoing:
    """The rows that go out: of each source id the newest completed answer. Memory does not grow with them."""

    def __init__(self, workspace: Workspace, runs: Sequence[queries.Run], spool: Path) -> None:
        self.state = workspace.state
        self.db = workspace.ledger.db
        self.runs = runs
        self.expected = sum(_gone_out(self.db, run) for run in runs)
        self._spool = spool
        self._owners = spool / "owners.sqlite"
        self._columns: list[str] | None = None
        self._noted = False

    def _completed(self, run: queries.Run) -> Iterator[dict[str, Any]]:
        for _, _, line, _ in every_row(self.state, self.db, run):
            facts = parse_row(line.rstrip(b"\n"))
            assert isinstance(facts, dict)
            if facts["state"] in GONE_OUT:
                yield facts

    def _note_owners(self) -> None:
        """Which run has the newest answer of a row that several have. On disk: ids may be many."""
        self._owners.unlink(missing_ok=True)
        with closing(sqlite3.connect(self._owners, isolation_level=None)) as db:
            db.execute("PRAGMA journal_mode = OFF")
            db.execute("PRAGMA synchronous = OFF")
            db.execute("CREATE TABLE owner (id BLOB PRIMARY KEY, run INTEGER NOT NULL) WITHOUT ROWID")
            db.execute("BEGIN")
            for place, run in enumerate(self.runs[1:], 1):
                ids = ((id_digest(one["id"].encode()), place) for one in self._completed(run))
                db.executemany("INSERT OR REPLACE INTO owner VALUES (?, ?)", ids)
            db.execute("COMMIT")

    def known_columns(self) -> list[str]:
        """The columns of the source, from its first completed rows; a JSONL row need not have all of them."""
        if self._columns is None:
            self._columns = self._look_at_columns()
        return self._columns

    def _look_at_columns(self) -> list[str]:
        names: dict[str, None] = {}
        for run in reversed(self.runs):
            for number, facts in enumerate(self._completed(run)):
                names.update(dict.fromkeys(facts["row"]))
                if number >= LOOKED_AT:
                    break
            if names:
                break
        return list(names)

    def count(self, only: Ids | None = None) -> int:
        """How many rows go out; `only`: of these."""
        if only is None and len(self.runs) == 1:
            return self.expected
        return sum(newest and (only is None or facts["id"] in only) for newest, facts in self._newest())

    def rows(self, taken: Sequence[Taken], key: Sequence[str], only: Ids | None = None) -> Callable[[], Iterator[Row]]:
        """A function that begins a pass over the rows, in the order of `taken`. `only`: no others than these."""
        must = [(place, one.column.name) for place, one in enumerate(taken) if one.column.name in key]

        def begin() -> Iterator[Row]:
            count = replaced = 0
            for newest, facts in self._newest():
                if not newest:
                    replaced += 1
                    continue
                count += 1
                if only is None or facts["id"] in only:
                    yield _row(facts, taken, must)
            if count + replaced != self.expected:
                raise StorageFailed(
                    f"the ledger counts {self.expected:,} completed rows and the files of the runs have {count + replaced:,}",
                    where=str(self.state),
                    effect="nothing was published",
                    hint="`batchctl check` names what is damaged",
                    code="damaged",
                )

        return begin

    def _newest(self) -> Iterator[tuple[bool, dict[str, Any]]]:
        """Every completed row of every run, oldest run first, and whether no later run has completed it again."""
        if len(self.runs) == 1:
            yield from ((True, facts | {"run": self.runs[0].id}) for facts in self._completed(self.runs[0]))
            return
        if not self._noted:  # only now: a target that has everything asks for no row
            self._note_owners()
            self._noted = True
        with closing(sqlite3.connect(self._owners, isolation_level=None)) as db:
            for place, run in enumerate(self.runs):
                for facts in self._completed(run):
                    owner = db.execute(
                        "SELECT run FROM owner WHERE id = ?", (id_digest(facts["id"].encode()),)
                    ).fetchone()
                    yield (owner is None or owner[0] <= place), facts | {"run": run.id}


def _gone_out(db: sqlite3.Connection, run: queries.Run) -> int:
    balance = queries.balance(db, run.id)
    return sum(balance[state] for state in GONE_OUT)


def _row(facts: dict[str, Any], taken: Sequence[Taken], must: Sequence[tuple[int, str]]) -> Row:
    output, source = facts["output"], facts["row"]
    values = []
    for one in taken:
        if one.place == "row":
            value = source.get(one.name)
        elif one.place == "output":
            value = output.get(one.name) if isinstance(output, dict) else None
        elif one.place == "answer":
            value = output
        else:
            value = facts[one.name]
        if one.column.kind not in (Kind.TEXT, Kind.JSON):
            try:
                value = fitted(value, one.column)
            except Misfit as misfit:
                raise UsageError(
                    str(misfit),
                    where=f"run {facts['run']}, row `{facts['id']}`",
                    effect="nothing was published",
                    hint=f"if the schema changed since, `batchctl validate {facts['run']}` judges its rows again",
                ) from None
        values.append(value)
    for place, name in must:
        if values[place] is None:
            raise UsageError(
                f"the key column `{name}` is empty",
                where=f"run {facts['run']}, row `{facts['id']}`",
                effect="nothing was published",
                hint="use a key that every row has, such as `_batchctl.id`",
            )
    return tuple(values)


def check_key(load_rows: Callable[[], Iterator[Row]], names: Sequence[str], key: Sequence[str], spool: Path) -> None:
    """Refuse a key that repeats. Only asked about keys that are not the source id."""
    places = [names.index(one) for one in key]
    path = spool / "keys.sqlite"
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = OFF")
        db.execute("PRAGMA synchronous = OFF")
        db.execute("CREATE TABLE used (key BLOB PRIMARY KEY) WITHOUT ROWID")
        db.execute("BEGIN")
        for row in load_rows():
            digest = id_digest(json.dumps([str(fitted(row[place], Column(""))) for place in places]).encode())
            if not db.execute("INSERT OR IGNORE INTO used VALUES (?)", (digest,)).rowcount:
                raise UsageError(
                    f"the key `{'`, `'.join(key)}` repeats: at least two rows have the same",
                    where="[[publish]] key",
                    effect="nothing was published",
                    hint="use a key that tells rows apart, such as the source id",
                )
