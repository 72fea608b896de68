"""Opening a source: from what the job file says to files, columns and batches of rows.

Everything that can be known without reading the rows is checked here, so that a mistake costs a second and not a run.
Errors name the file as the user wrote it.
"""

from __future__ import annotations

import glob
import hashlib
import os
import shutil
import stat
import sys
from dataclasses import astuple, dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from batchctl.model.errors import UsageError
from batchctl.tables.streams import (
    NOTHING_WRITTEN,
    PIECE_BYTES,
    Identity,
    SourceFile,
    check_encoding,
    unreadable,
)
from batchctl.tables.texts import Texts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from batchctl.model.rows import Unusable

    Row = dict[str, Any] | Unusable

FORMATS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
COMPRESSIONS = {".gz": "gz", ".zst": "zst"}
_DELIMITERS = {"csv": ",", "tsv": "\t"}
_ADVICE = {
    ".xlsx": "export the sheet as CSV (UTF-8)",
    ".xls": "export the sheet as CSV (UTF-8)",
    ".ods": "export the sheet as CSV (UTF-8)",
    ".json": "make it JSON Lines, one object a line: `jq -c '.[]' rows.json > rows.jsonl`",
    ".zip": "unpack it first",
    ".bz2": "decompress it first, or use .gz or .zst",
    ".xz": "decompress it first, or use .gz or .zst",
    ".txt": 'if it is one of these, say so: `format = "csv"` under [source]',
}


def spool_of(state: Path, job: str) -> Path:
    """Where a job keeps its copies of what is not a file here: standard input, objects. `purge` deletes it."""
    return state / "sources" / job


@dataclass(frozen=True)
class SourceSpec:
    """[source] of a job file.

    Relative paths and globs are resolved against `base`; stdin ("-") and objects (`s3://`, `gs://`) are copied to the
    directory `spool` first.
    """

    paths: tuple[str, ...]
    format: str | None = None
    encoding: str = "utf-8"
    columns: tuple[str, ...] | None = None
    base: Path = Path()
    spool: Path | None = None


@dataclass(frozen=True, slots=True)
class RowBatch:
    """Rows that follow each other; `first` is the position of the first of them, counted from 0 over all files.

    Rows whose cells are all text may come as `Texts`; `rows` are then made of them.
    """

    first: int
    given: list[Row] | Texts

    @property
    def rows(self) -> list[Row]:
        return self.given if isinstance(self.given, list) else list(self.given)

    @property
    def texts(self) -> Texts | None:
        return self.given if isinstance(self.given, Texts) else None

    def __len__(self) -> int:
        return len(self.given)

    def part(self, start: int, end: int) -> RowBatch:
        return RowBatch(self.first + start, self.given[start:end])


class Reader(Protocol):
    """One file of rows."""

    def batches(self, columns: Any) -> Iterator[Any]: ...

    def locate(self, positions: Sequence[int]) -> dict[int, str]: ...


class Source:
    """The rows of all files of a source, in order. Every method reads the files anew.

    `columns` are those of the files, `selected` those its rows have; None where only the rows tell (JSON Lines).
    """

    def __init__(
        self, files: Sequence[SourceFile], readers: Sequence[Reader], columns: tuple[str, ...] | None, selected: Any
    ) -> None:
        self.names = tuple(file.name for file in files)
        self.columns = columns
        self.selected: tuple[str, ...] | None = selected
        self._files = tuple(files)
        self._readers = tuple(readers)

    def batches(self) -> Iterator[RowBatch]:
        """Stream the rows, at most 2,000 a batch and about 1 MB of text where the rows are not longer than that.

        Raises `UsageError` at the first place that cannot be read; batches already given stay valid. No row at all is
        an error too, because a run over nothing is a mistake upstream.
        """
        first = 0
        for reader in self._readers:
            for rows in reader.batches(self.selected):
                yield RowBatch(first, rows)
                first += len(rows)
        if not first:
            raise UsageError(
                "the source has no rows: there is nothing to do",
                where=_some(self.names),
                effect=NOTHING_WRITTEN,
                hint="check the program that writes the file",
                code="empty_source",
            )

    def locate(self, positions: Iterable[int]) -> dict[int, str]:
        """Where rows stand, for messages.

        "tickets.csv:818" is the line where the row starts; Parquet gives "tickets.parquet row 818", from 1.
        Reads the files again as far as needed, so ask once for all rows of a message; unknown positions are left out.
        """
        wanted = sorted(set(positions))
        found: dict[int, str] = {}
        first = 0
        for index, reader in enumerate(self._readers):
            if not wanted:
                break
            last = index == len(self._readers) - 1
            size = None if last else _count(reader)
            here = [p - first for p in wanted if size is None or p < first + size]
            found.update((first + position, place) for position, place in reader.locate(here).items())
            wanted = wanted[len(here) :]
            first += size or 0
        return found

    def stamp(self) -> str:
        """A digest of the files' names and statuses, without reading them: the same stamp, the same content.

        A file that was written again has another stamp even with the same content; compare the rows then.
        """
        facts = [(file.name, *astuple(file.identity)) for file in self._files]
        return hashlib.sha256(repr(facts).encode(errors="surrogateescape")).hexdigest()


def _count(reader: Reader) -> int:
    known: int | None = getattr(reader, "row_count", None)
    if known is not None:
        return known
    columns = getattr(reader, "columns", None)
    return sum(len(rows) for rows in reader.batches(columns[:1] if columns else None))


def open_source(spec: SourceSpec) -> Source:
    """Find the files, tell their format, read their columns. Reads no row; raises `UsageError` for what cannot work."""
    check_encoding(spec.encoding)
    found = _find(spec)
    kinds = {file.name: kind for file, kind in found}
    if len(set(kinds.values())) > 1:
        first: dict[str, str] = {}
        for name, kind in kinds.items():
            first.setdefault(kind, name)
        raise UsageError(
            "the files of one source have different formats",
            where=[f"{name}: {kind}" for kind, name in first.items()],
            effect=NOTHING_WRITTEN,
            hint="make one job file for each format, or bring the files into one format",
        )
    files = [file for file, _ in found]
    kind = found[0][1]
    if kind == "jsonl":
        from batchctl.tables.jsonl import JsonLines

        return Source(files, [JsonLines(file) for file in files], None, spec.columns)
    readers: list[Any]
    if kind == "parquet":
        from batchctl.tables.parquet import Parquet

        readers = [Parquet(file) for file in files]
    else:
        from batchctl.tables.delimited import Delimited

        readers = [Delimited(file, _DELIMITERS[kind]) for file in files]
    columns: tuple[str, ...] = readers[0].columns
    for file, reader in zip(files[1:], readers[1:], strict=True):
        _check_same(files[0].name, columns, file.name, reader.columns)
    selected = columns if spec.columns is None else _select(spec.columns, columns, files[0].name)
    return Source(files, readers, columns, selected)


def _select(wanted: Sequence[str], columns: Sequence[str], name: str) -> tuple[str, ...]:
    for column in wanted:
        if column not in columns:
            close = get_close_matches(column, columns, 1)
            raise UsageError(
                f"the source has no column `{column}`",
                where=f"{name} has: {_listed(columns)}",
                effect=NOTHING_WRITTEN,
                hint=(f"did you mean `{close[0]}`? " if close else "")
                + "correct `columns` under [source] in the job file",
                code="unknown_column",
            )
    chosen = set(wanted)
    return tuple(column for column in columns if column in chosen)


def _check_same(first: str, columns: Sequence[str], name: str, others: Sequence[str]) -> None:
    missing = [column for column in columns if column not in others]
    extra = [column for column in others if column not in columns]
    if missing or extra:
        parts = [f"lacks {_listed(missing)}"] if missing else []
        parts += [f"has {_listed(extra)} besides"] if extra else []
        raise UsageError(
            f"`{first}` and `{name}` do not have the same columns",
            where=f"{name} {' and '.join(parts)}",
            effect=NOTHING_WRITTEN,
            hint="files of one source need the same columns, in any order",
            code="different_columns",
        )


def _find(spec: SourceSpec) -> list[tuple[SourceFile, str]]:
    if not spec.paths:
        raise UsageError(
            "the source names no file", effect=NOTHING_WRITTEN, hint="set `path` under [source] in the job file"
        )
    found: dict[Path, tuple[SourceFile, str]] = {}  # a file that two patterns match is read once
    for written in spec.paths:
        for path, name in _resolve(written, spec):
            key = Path(os.path.abspath(path))
            if key not in found:
                found[key] = _open_one(path, name, spec)
    return list(found.values())


def _resolve(written: str, spec: SourceSpec) -> list[tuple[Path, str]]:
    if written == "-":
        return [(_spooled(spec), "stdin")]
    if "://" in written:
        from batchctl.tables.fetched import fetched

        return fetched(written, spec.spool)
    if "\0" in written:
        raise UsageError(
            "the path contains a NUL character", effect=NOTHING_WRITTEN, hint="correct `path` under [source]"
        )
    path = spec.base / written
    if os.path.lexists(path) or not glob.has_magic(written):  # a file may be called `data[1].csv`
        return [(path, written)]
    matches = sorted(glob.glob(written, root_dir=spec.base, recursive=True))
    files = [match for match in matches if not (spec.base / match).is_dir()]
    if not files:
        raise _not_found(f"no file matches `{written}`", written, spec)
    return [(spec.base / match, match) for match in files]


def _not_found(what: str, written: str, spec: SourceSpec) -> UsageError:
    path = spec.base / written
    folder = path.parent
    if glob.has_magic(os.fspath(folder)) or not folder.is_dir():
        return UsageError(
            what,
            where=f"looked in {spec.base.absolute()}",
            effect=NOTHING_WRITTEN,
            hint="paths under [source] are relative to the job file's folder",
            code="source_not_found",
        )
    names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    close = get_close_matches(path.name, names, 3, 0.5)
    close = close or [name for name in names if _suffixes(Path(name))[0] in FORMATS][:3]
    return UsageError(
        what,
        where=f"looked in {folder.absolute()}",
        effect=NOTHING_WRITTEN,
        hint=f"there is {_listed(close)}" if close else "paths under [source] are relative to the job file's folder",
        code="source_not_found",
    )


def _open_one(path: Path, name: str, spec: SourceSpec) -> tuple[SourceFile, str]:
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _not_found(f"there is no file `{name}`", name, spec) from error
    except OSError as error:
        raise unreadable(name, error) from error
    if not stat.S_ISREG(status.st_mode):
        directory = stat.S_ISDIR(status.st_mode)
        raise UsageError(
            f"`{name}` is a directory, not a file" if directory else f"`{name}` is a pipe or device, not a file",
            where=name,
            effect=NOTHING_WRITTEN,
            hint=f'name its files: `path = "{name.rstrip("/")}/*.csv"`'
            if directory
            else 'a source is read more than once: write it to a file first, or pipe it in with `path = "-"`',
        )
    kind, compression = _format(path, name, spec)
    return SourceFile(path, name, Identity.of(status), compression, spec.encoding), kind


def _suffixes(path: Path) -> tuple[str, str]:
    """Suffix that tells the format, suffix that tells the compression; lower case, "" where there is none."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    packed = suffixes.pop() if suffixes and suffixes[-1] in COMPRESSIONS else ""
    return (suffixes[-1] if suffixes else ""), packed


def _format(path: Path, name: str, spec: SourceSpec) -> tuple[str, str]:
    suffix, packed = _suffixes(path)
    if spec.format is not None:
        suffix, said = _suffixes(Path(f"x.{spec.format.removeprefix('.')}"))
        packed = said or packed
    kind = FORMATS.get(suffix)
    if kind is None:
        raise _unknown_format(suffix, name, spec)
    if kind == "parquet" and packed:
        raise UsageError(
            f"`{name}`: Parquet inside {packed} cannot be read in pieces",
            where=name,
            effect=NOTHING_WRITTEN,
            hint=f"decompress it: Parquet is compressed inside; `{'gunzip' if packed == '.gz' else 'unzstd'}` does it",
        )
    return kind, COMPRESSIONS.get(packed, "")


def _unknown_format(suffix: str, name: str, spec: SourceSpec) -> UsageError:
    known = f"batchctl reads {', '.join(FORMATS)}, each text format also with .gz or .zst"
    if spec.format is not None:
        close = get_close_matches(spec.format, [known_suffix[1:] for known_suffix in FORMATS], 1)
        hint = f"did you mean `{close[0]}`? {known}" if close else known
        return UsageError(f"the format `{spec.format}` is not known", where=name, effect=NOTHING_WRITTEN, hint=hint)
    if name == "stdin":
        return UsageError(
            "the format of stdin is not known",
            where=name,
            effect=NOTHING_WRITTEN,
            hint='set `format = "jsonl"` (or csv, tsv) under [source] in the job file',
        )
    close = get_close_matches(suffix, FORMATS, 1, 0.7) if suffix not in _ADVICE else []
    advice = f"did you mean `{close[0]}`?" if close else _ADVICE.get(suffix, _ADVICE[".txt"])
    return UsageError(
        f"the name `{name}` does not tell a format that batchctl reads",
        where=known,
        effect=NOTHING_WRITTEN,
        hint=advice,
        code="unknown_format",
    )


def _spooled(spec: SourceSpec) -> Path:
    """Copy stdin to a file, because a source is read more than once; a crash leaves no half copy under its name."""
    if spec.format is None:
        raise _unknown_format("", "stdin", spec)
    if spec.spool is None:
        raise UsageError(
            "stdin cannot be a source here",
            effect=NOTHING_WRITTEN,
            hint="write the rows to a file and name it in `path`",
        )
    spec.spool.mkdir(mode=0o700, parents=True, exist_ok=True)
    target = spec.spool / "stdin"
    partial = spec.spool / "stdin.partial"
    partial.unlink(missing_ok=True)
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as copy:
        shutil.copyfileobj(sys.stdin.buffer, copy, PIECE_BYTES)
    partial.replace(target)
    return target


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(f"`{name}`" for name in names[:12])
    return shown + (f" and {len(names) - 12:,} more" if len(names) > 12 else "")


def _some(names: Sequence[str]) -> list[str]:
    return [*names[:5], *([f"{len(names) - 5:,} more"] if len(names) > 5 else [])]
