"""Parquet: every value in one documented JSON form, exact or as text.

| Parquet / Arrow type               | value in the row                                                               |
| ---------------------------------- | ------------------------------------------------------------------------------ |
| null, missing                      | null                                                                           |
| boolean; integers                  | true/false; the exact integer (2^53 + 1 and 2^64 - 1 stay what they are)       |
| float16/32/64                      | the number; NaN and infinities as text "NaN", "Infinity", "-Infinity"          |
| decimal                            | text with all its digits, no exponent: "1.50"                                  |
| text, large text, text view        | text                                                                           |
| binary, fixed-size binary          | Base64 text, always: the form must not depend on what the bytes happen to be   |
| date                               | "2024-02-29"                                                                   |
| time                               | "23:59:59", with 3, 6 or 9 digits of fraction if it has one                    |
| timestamp                          | "2024-02-29T23:59:59", fraction likewise (nanoseconds kept); with a time zone  |
|                                    | "Z", or "+05:30" where the zone is a fixed offset. A named zone gives UTC, "Z": |
|                                    | that is what the file stores, and rules of zones differ between machines       |
| duration                           | "P1DT2H3M4.5S", "-PT0.001S", "PT0S"                                            |
| list, large, fixed-size, view      | array                                                                          |
| struct                             | object; two fields of one name make the row unusable                           |
| map with text keys                 | object; a key that appears twice makes the row unusable                        |
| map with other keys                | array of {"key": ..., "value": ...}                                            |
| dictionary, run-end encoded        | the value it stands for                                                        |
| UUID                               | "123e4567-e89b-12d3-a456-426614174000"                                         |
| other extension types              | the form of their storage type                                                 |

Years outside 0001 to 9999 are written with a sign and six digits (ISO 8601, expanded).
"""

from __future__ import annotations

import base64
import math
import uuid
from contextlib import contextmanager
from datetime import date
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from batchctl.model.errors import UsageError
from batchctl.model.rows import Unusable
from batchctl.tables.delimited import check_distinct
from batchctl.tables.streams import NOTHING_WRITTEN, SourceFile

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

BATCH_ROWS = 2000
BATCH_BYTES = 1 << 20
_UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_EPOCH = date(1970, 1, 1).toordinal()


class Parquet:
    """One Parquet file."""

    def __init__(self, file: SourceFile) -> None:
        self._file = file
        with self._open() as parquet:
            self.columns: tuple[str, ...] = tuple(parquet.schema_arrow.names)
            self.row_count: int = parquet.metadata.num_rows
        check_distinct(self.columns, file.name)

    def batches(self, columns: Sequence[str]) -> Iterator[list[dict[str, Any] | Unusable]]:
        """Rows with `columns` as keys, in that order; only those columns are read."""
        position = 0
        with self._open() as parquet:
            converters = [self._converter(parquet.schema_arrow.field(column)) for column in columns]
            for batch in self._record_batches(parquet, columns):
                arrays = [batch.column(batch.schema.names.index(column)) for column in columns]
                yield self._rows(arrays, columns, converters, position)
                position += batch.num_rows
        self._file.check_still_unchanged()

    def locate(self, positions: Sequence[int]) -> dict[int, str]:
        return {position: f"{self._file.name} row {position + 1}" for position in positions}

    def _rows(
        self, arrays: list[Any], columns: Sequence[str], converters: list[Any], first: int
    ) -> list[dict[str, Any] | Unusable]:
        try:
            cells = [convert(array) for convert, array in zip(converters, arrays, strict=True)]
        except _RefusedError:
            pass  # one value is to blame: find it below, so that the other rows go on
        else:
            return [dict(zip(columns, row)) for row in zip(*cells)]  # noqa: B905  all of the batch's length
        rows: list[dict[str, Any] | Unusable] = []
        for index in range(len(arrays[0])):
            row: dict[str, Any] = {}
            reason = ""
            for column, convert, array in zip(columns, converters, arrays, strict=True):
                try:
                    row[column] = convert(array.slice(index, 1))[0]
                except _RefusedError as refusal:
                    reason = reason or f"column `{column}`: {refusal}"
            rows.append(Unusable(reason, f"row {first + index + 1}".encode(), row) if reason else row)
        return rows

    def _record_batches(self, parquet: Any, columns: Sequence[str]) -> Iterator[Any]:
        import pyarrow as pa

        metadata = parquet.metadata
        try:
            for group in range(metadata.num_row_groups):
                about = metadata.row_group(group)
                row_bytes = about.total_byte_size / max(1, about.num_rows)
                size = max(1, min(BATCH_ROWS, int(BATCH_BYTES / max(1.0, row_bytes))))
                for batch in parquet.iter_batches(size, row_groups=[group], columns=list(columns), use_threads=False):
                    for start in range(0, batch.num_rows, BATCH_ROWS):
                        yield batch.slice(start, BATCH_ROWS)
        except (pa.ArrowException, OSError) as error:
            raise self._damaged(error) from error

    @contextmanager
    def _open(self) -> Iterator[Any]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        with self._file.open_raw() as raw:
            try:
                # pre_buffer would hold whole row groups; extensions on, so that a UUID is one whatever wrote the file
                parquet = pq.ParquetFile(raw, pre_buffer=False, buffer_size=1 << 16, arrow_extensions_enabled=True)
            except (pa.ArrowException, OSError) as error:
                raise self._damaged(error) from error
            with parquet:
                yield parquet

    def _damaged(self, error: Exception) -> UsageError:
        return UsageError(
            f"`{self._file.name}` is not a readable Parquet file",
            where=f"{self._file.name}: {str(error).strip()[:200]}",
            effect=NOTHING_WRITTEN,
            hint="write or download the file again",
            code="damaged_source",
        )

    def _converter(self, field: Any) -> Any:
        try:
            return converter(field.type)
        except NotImplementedError as error:
            raise UsageError(
                f"column `{field.name}` has the type {error}, which has no text or JSON form",
                where=self._file.name,
                effect=NOTHING_WRITTEN,
                hint="leave the column out with `columns` under [source], or convert it where the file is made",
            ) from error


class _RefusedError(Exception):
    """A value without a form; the text is the reason and holds none of the value."""


def converter(kind: Any) -> Any:
    """A function from an Arrow array of type `kind` to the list of its values' forms.

    Raises NotImplementedError, with the type, for a type that has none.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    t = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        if kind.extension_name == "arrow.uuid":
            return lambda array: [_or_none(_uuid, v) for v in array.storage.to_pylist()]
        inner = converter(kind.storage_type)
        return lambda array: inner(array.storage)
    if t.is_dictionary(kind):
        inner = converter(kind.value_type)
        return lambda array: inner(array.dictionary_decode())
    if t.is_run_end_encoded(kind):
        inner = converter(kind.value_type)
        return lambda array: inner(pc.run_end_decode(array))
    if t.is_null(kind) or t.is_boolean(kind) or t.is_integer(kind):
        return _plain
    if t.is_string(kind) or t.is_large_string(kind) or kind == pa.string_view():
        return _texts
    if t.is_floating(kind):
        return _floats
    if t.is_decimal(kind):
        return lambda array: [None if v is None else format(v, "f") for v in array.to_pylist()]
    if t.is_binary(kind) or t.is_large_binary(kind) or t.is_fixed_size_binary(kind) or kind == pa.binary_view():
        return lambda array: [_or_none(_base64, v) for v in array.to_pylist()]
    if t.is_temporal(kind):
        return _temporal(kind)
    if t.is_map(kind):
        return _map(kind)
    if t.is_struct(kind):
        return _struct(kind)
    if t.is_list(kind) or t.is_large_list(kind) or t.is_fixed_size_list(kind) or _is_list_view(kind):
        inner = converter(kind.value_type)
        return lambda array: _lists(array, inner)
    raise NotImplementedError(str(kind))


def _plain(array: Any) -> list[Any]:
    return list(array.to_pylist())


def _texts(array: Any) -> list[Any]:
    try:
        return list(array.to_pylist())
    except UnicodeDecodeError as error:  # Parquet does not check what a writer calls text
        raise _RefusedError("the text is not valid UTF-8") from error


def _floats(array: Any) -> list[Any]:
    import pyarrow as pa

    values = array.cast(pa.float64()).to_pylist()
    finite = math.isfinite
    return [v if v is None or finite(v) else _not_finite(v) for v in values]


def _not_finite(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def _or_none(form: Any, value: Any) -> Any:
    return None if value is None else form(value)


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


def _uuid(value: bytes) -> str:
    return str(uuid.UUID(bytes=value))


def _is_list_view(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind))


def _lists(array: Any, inner: Any) -> list[Any]:
    """Row by row through scalars' own arrays: offsets of slices, views and fixed sizes all differ, this does not."""
    return [inner(scalar.values) if scalar.is_valid else None for scalar in array]


def _struct(kind: Any) -> Any:
    names = [kind.field(i).name for i in range(kind.num_fields)]
    inner = [converter(kind.field(i).type) for i in range(kind.num_fields)]
    twice = len(set(names)) != len(names)

    def convert(array: Any) -> list[Any]:
        if twice and len(array) > array.null_count:
            raise _RefusedError("a struct has two fields of one name")
        valid = array.is_valid().to_pylist()
        cells = [form(field) for form, field in zip(inner, array.flatten(), strict=True)]
        rows = zip(*cells, strict=True) if cells else ((),) * len(valid)
        return [dict(zip(names, row, strict=True)) if ok else None for ok, row in zip(valid, rows, strict=True)]

    return convert


def _map(kind: Any) -> Any:
    import pyarrow as pa

    keys, items = converter(kind.key_type), converter(kind.item_type)
    text = pa.types.is_string(kind.key_type) or pa.types.is_large_string(kind.key_type)

    def one(entries: Any) -> Any:
        names, values = keys(entries.field(0)), items(entries.field(1))
        if not text:
            return [{"key": name, "value": value} for name, value in zip(names, values, strict=True)]
        if len(set(names)) != len(names):
            raise _RefusedError("a map has a key that appears twice")
        return dict(zip(names, values, strict=True))

    return lambda array: [one(scalar.values) if scalar.is_valid else None for scalar in array]


def _temporal(kind: Any) -> Any:
    import pyarrow as pa

    t = pa.types
    if t.is_date32(kind):
        return lambda array: [_or_none(_date, v) for v in array.cast(pa.int32()).to_pylist()]
    if t.is_date64(kind):
        return lambda array: [_or_none(_date, v and v // 86_400_000) for v in array.cast(pa.int64()).to_pylist()]
    if t.is_time32(kind) or t.is_time64(kind):
        number = pa.int32() if t.is_time32(kind) else pa.int64()
        per_second = _UNITS[kind.unit]
        return lambda array: [_or_none(lambda v: _clock(v, per_second), v) for v in array.cast(number).to_pylist()]
    if t.is_duration(kind):
        per_second = _UNITS[kind.unit]
        return lambda array: [
            _or_none(lambda v: _duration(v, per_second), v) for v in array.cast(pa.int64()).to_pylist()
        ]
    if t.is_timestamp(kind):
        per_second = _UNITS[kind.unit]
        minutes, mark = _zone(kind.tz)
        return lambda array: [
            _or_none(lambda v: _timestamp(v, per_second, minutes) + mark, v) for v in array.cast(pa.int64()).to_pylist()
        ]
    raise NotImplementedError(str(kind))


def _zone(name: str | None) -> tuple[int, str]:
    """Minutes to add to UTC, and the mark behind the time."""
    if name is None:
        return 0, ""
    if len(name) == 6 and name[0] in "+-" and name[3] == ":" and (name[1:3] + name[4:]).isdigit():
        minutes = (int(name[1:3]) * 60 + int(name[4:])) * (-1 if name[0] == "-" else 1)
        if minutes:
            return minutes, name
    return 0, "Z"


def _timestamp(value: int, per_second: int, minutes: int) -> str:
    seconds, fraction = divmod(value, per_second)
    days, seconds = divmod(seconds + 60 * minutes, 86_400)
    return f"{_date(days)}T{_time(seconds, fraction, per_second)}"


def _clock(value: int, per_second: int) -> str:
    return _time(*divmod(value, per_second), per_second)


def _time(seconds: int, fraction: int, per_second: int) -> str:
    text = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return f"{text}.{_fraction(fraction, per_second)}" if fraction else text


def _fraction(fraction: int, per_second: int) -> str:
    """The fewest of 3, 6 or 9 digits that are exact: the same moment reads the same whatever unit stored it."""
    digits = f"{fraction * (1_000_000_000 // per_second):09}"
    while digits.endswith("000"):
        digits = digits[:-3]
    return digits


def _duration(value: int, per_second: int) -> str:
    seconds, fraction = divmod(abs(value), per_second)
    days, seconds = divmod(seconds, 86_400)
    hours, minutes, seconds = seconds // 3600, seconds // 60 % 60, seconds % 60
    text = f"{hours}H" if hours else ""
    text += f"{minutes}M" if minutes else ""
    if fraction:
        text += f"{seconds}.{_fraction(fraction, per_second).rstrip('0')}S"
    elif seconds:
        text += f"{seconds}S"
    day = f"{days}D" if days else ""
    return f"{'-' if value < 0 else ''}P{day}{'T' if text or not day else ''}{text or ('' if day else '0S')}"


@lru_cache(maxsize=4096)
def _date(days: int) -> str:
    """Days since 1970-01-01 in the Gregorian calendar, also before its time."""
    if 1 <= _EPOCH + days <= date.max.toordinal():
        return date.fromordinal(_EPOCH + days).isoformat()
    cycles, rest = divmod(_EPOCH + days - 1, 146_097)  # 400 years; day 1 is 0001-01-01
    near = date.fromordinal(rest + 1)
    year = near.year + 400 * cycles
    return f"{'-' if year < 0 else '+'}{abs(year):06}-{near.month:02}-{near.day:02}"
