"""Where rows are published: the text of `[[publish]] to`, taken apart.

`.jsonl .csv .parquet` and `.sqlite` are files beside the job; `postgresql://`, `s3://`, `gs://` and `bigquery://` are
addresses. No credential ever stands in one: each client finds its own in the environment.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from batchctl.model.errors import UsageError

Form = Literal["csv", "jsonl", "parquet"]
FORMS: dict[str, Form] = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
SQLITE = (".sqlite", ".sqlite3", ".db")
RUN = "{run}"
"""In an address: replaced by the run's id. The target then holds that run's rows alone."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_$-]{0,127}")


@dataclass(frozen=True, slots=True)
class Destination:
    """One target. `shown` is what people and the ledger see."""

    kind: Literal["file", "sqlite", "postgresql", "s3", "gs", "bigquery"]
    shown: str
    path: Path = Path()
    form: Form = "jsonl"
    address: str = ""  # for the client: the connection string, without our own parameters
    bucket: str = ""
    name: str = ""  # object name
    table: tuple[str, ...] = ()  # with its schema, or project and dataset, in front

    @property
    def upserts(self) -> bool:
        """Whether rows can be changed in place; files and objects are only ever replaced as a whole."""
        return self.kind in ("sqlite", "postgresql", "bigquery")


def destination(to: str, base: Path, table: str) -> Destination:
    """Take `to` apart. `base` is where relative paths start, `table` the name used when the address names none."""
    scheme, divider, _ = to.partition("://")
    if not divider:
        return _file(to, base, table)
    if scheme in ("postgresql", "postgres"):
        return _postgresql(to, table)
    if scheme in ("s3", "gs"):
        return _object(to, scheme)  # type: ignore[arg-type]
    if scheme == "bigquery":
        return _bigquery(to)
    raise _wrong(to, f"`{scheme}://` is not a kind of target", "use a file, postgresql://, s3://, gs:// or bigquery://")


def _wrong(to: str, what: str, hint: str) -> UsageError:
    shown = re.sub("(?i)(password|passfile)=[^&#]*", "\\1=...", re.sub("//[^/@]*@", "//", to))
    return UsageError(what, where=f"[[publish]] to = {shown}", effect="nothing was published", hint=hint)


def _file(to: str, base: Path, table: str) -> Destination:
    name, _, fragment = to.partition("#")
    path = base / name
    suffix = path.suffix.lower()
    if suffix in SQLITE:
        stem = re.sub(r"[^A-Za-z0-9_]", "_", path.stem)
        return Destination("sqlite", to, path=path, table=(_named(to, fragment) if fragment else stem or table,))
    if suffix not in FORMS or fragment:
        raise _wrong(
            to, f"cannot tell the format of `{path.name}`", "end its name in .jsonl, .csv, .parquet or .sqlite"
        )
    return Destination("file", to, path=path, form=FORMS[suffix])


def _named(to: str, name: str) -> str:
    if not _NAME.fullmatch(name):
        raise _wrong(to, f"`{name[:60]}` cannot be a table's name", "use letters, digits and _")
    return name


def _postgresql(to: str, table: str) -> Destination:
    """`postgresql://host/database?table=schema.table`; also `#schema.table`. The rest is libpq's connection URI."""
    parts = urlsplit(to)
    if parts.password is not None:
        raise _wrong(
            to, "a password does not belong into a job file", "remove it; set PGPASSWORD, or keep it in ~/.pgpass"
        )
    options = parse_qsl(parts.query, keep_blank_values=True)
    if any(name.lower() in ("password", "passfile", "sslpassword") for name, _ in options):
        raise _wrong(to, "a password does not belong into a job file", "set PGPASSWORD, or keep it in ~/.pgpass")
    named = next((value for name, value in options if name == "table"), "") or unquote(parts.fragment)
    rest = urlencode([(name, value) for name, value in options if name != "table"])
    address = f"postgresql://{parts.netloc}{parts.path}{f'?{rest}' if rest else ''}"  # as libpq wants it, host or not
    pieces = (named or table).split(".")
    if len(pieces) > 2:
        raise _wrong(to, f"`{named}` is not a table", "write ?table=name or ?table=schema.name")
    return Destination("postgresql", to, address=address, table=tuple(_named(to, one) for one in pieces))


def _object(to: str, scheme: Literal["s3", "gs"]) -> Destination:
    bucket, _, name = to.removeprefix(f"{scheme}://").partition("/")
    suffix = Path(name).suffix.lower()
    if not bucket or suffix not in FORMS or name.endswith("/"):
        raise _wrong(
            to,
            "an object needs a bucket, a name and a format",
            f"write it like {scheme}://bucket/labels.parquet (or .jsonl, .csv)",
        )
    return Destination(scheme, to, form=FORMS[suffix], bucket=bucket, name=name)


def _bigquery(to: str) -> Destination:
    pieces = [one for one in re.split(r"[/.]", to.removeprefix("bigquery://")) if one]
    if len(pieces) != 3:
        raise _wrong(to, "a BigQuery table has three names", "write bigquery://project/dataset/table")
    return Destination("bigquery", to, table=tuple(_named(to, one) for one in pieces))
