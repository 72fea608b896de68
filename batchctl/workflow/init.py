"""A job, a prompt and a schema to start from, made from a look at the data."""

from __future__ import annotations

import json
import re
from pathlib import Path

from batchctl.files import write_file
from batchctl.model.errors import Exit, UsageError
from batchctl.model.rows import Unusable
from batchctl.workflow.reports import Report, plural

LOOKED_AT = 20_000
ID_NAMES = re.compile(r"(^|[_ -])(id|key|uuid|number|no)$", re.IGNORECASE)
RESERVED = frozenset("and or not in is if else true false none True False None row".split())  # noqa: SIM905
JOB = """version = 1
name    = "{name}"

[source]
path = {path}
{id_line}
[prompt]
file    = "{name}.prompt.md"
version = "v1"

[output]
schema = "{name}.schema.json"

[model]
provider = "{provider}"{about_provider}
name     = "{model}"
params   = {{ max_output_tokens = 200 }}

[sample]
rows = 20        # tried live before anything large is sent
min_valid = "90%"
"""
FIRST_ID = 'on_duplicate_id = "first"   # some ids are repeated: their later rows are rejected, not sent\n'
FEW = 100  # one repeated value in so many rows is a slip, more are no id
SCHEMA = """{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object",
  "properties": {
    "label": { "type": "string", "enum": ["yes", "no", "unsure"] },
    "reason": { "type": "string" }
  },
  "required": ["label", "reason"],
  "additionalProperties": false
}
"""


def init(name: str, *, data: str | None, force: bool, directory: Path) -> Report:
    """Write NAME.toml, NAME.prompt.md and NAME.schema.json. Existing files are never replaced without `force`."""
    if not re.fullmatch(r"[a-z0-9-]{1,40}", name):
        raise UsageError(
            f"`{name}` cannot name a job",
            effect="nothing was written",
            hint="use up to 40 lower-case letters, digits and hyphens",
        )
    columns: tuple[str, ...] = ("text",)
    id_column, looked, repeated = None, "", 0
    if data is not None:
        columns, id_column, repeated, looked = _look(data)
    shown = [one for one in columns if one != id_column] or list(columns)
    fields = "\n".join(f"{_label(one)}: {{{{ {_reference(one)} }}}}" for one in shown[:8])
    prompt = f"Read this row and answer with the label that fits and a short reason.\n\n{fields}\n"
    job = JOB.format(
        name=name,
        path=_quoted(data or "rows.csv"),
        provider="emulator",
        about_provider='   # no key needed; "openai" for the real thing',
        model="gpt-5-mini",
        id_line=f"id   = {_quoted(id_column)}\n" + (FIRST_ID if repeated else "")
        if id_column
        else '# id = "COLUMN"   (left out: rows are known by their content)\n',
    )
    files = {f"{name}.toml": job, f"{name}.prompt.md": prompt, f"{name}.schema.json": SCHEMA}
    taken = [one for one in files if (directory / one).exists()]
    if taken and not force:
        raise UsageError(
            f"`{taken[0]}` exists already",
            where=str(directory / taken[0]),
            effect="nothing was written",
            hint="choose another name, or --force to replace it",
        )
    for file, text in files.items():
        write_file(directory / file, text.encode())
    lines = ([looked] if looked else []) + [f"Wrote {', '.join(files)}"]
    return Report(
        "init",
        None,
        Exit.OK,
        None,
        None,
        tuple(lines),
        f"edit {name}.prompt.md and {name}.schema.json, then batchctl run {name}.toml",
        {"files": list(files), "columns": list(columns), "id": id_column},
    )


def _quoted(text: str) -> str:
    """As TOML and Jinja write a string: both read JSON's escapes, TOML wants one for DEL as well."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _reference(column: str) -> str:
    return column if column.isidentifier() and column not in RESERVED else f"row[{_quoted(column)}]"


def _label(column: str) -> str:
    """A column's name as text of a template: what would begin an expression there is left out."""
    return " ".join(re.sub(r"[{}#%\x00-\x1f\x7f]", " ", column).split()) or "value"


def _look(data: str) -> tuple[tuple[str, ...], str | None, int, str]:
    """Columns of a data file, the one that looks most like an id, how often its values are repeated, and words for it."""
    from batchctl.tables.source import SourceSpec, open_source

    source = open_source(
        SourceSpec(paths=(data,), format=None, encoding="utf-8", columns=None, base=Path(), spool=None)
    )
    rows = []
    for batch in source.batches():
        rows += [row for row in batch.rows if not isinstance(row, Unusable)]
        if len(rows) >= LOOKED_AT:
            break
    if not rows:
        raise UsageError("the file has no rows", where=data, effect="nothing was written")
    columns = tuple(source.columns or rows[0].keys())
    candidates = []
    for column in columns:
        values = [str(one) for row in rows if (one := row.get(column))]
        repeated = len(values) - len(set(values))
        if ID_NAMES.search(column) and len(values) == len(rows) and repeated * FEW <= len(rows):
            candidates.append((repeated, column))
    repeated, found = min(candidates, key=lambda one: one[0], default=(0, None))
    more = " or more" if len(rows) >= LOOKED_AT else ""
    said = "no id column found" if found is None else f"id column {found}"
    said += f" ({plural(repeated, 'value')} repeated)" if repeated else ""
    return (
        columns,
        found,
        repeated,
        f"Looked at {data}: {plural(len(rows), 'row')}{more}, columns {', '.join(columns[:12])}; {said}",
    )


def schema_text() -> str:
    """JSON Schema of the job file, for editors."""
    from batchctl.jobfile import json_schema

    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
