"""Fault 99: every Parquet value has the form that the module's table documents; faults 91, 94, 95 and 102 for Parquet."""

import math
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchctl.model.errors import UsageError
from batchctl.model.rows import Unusable

from .folder import Folder


def write(folder: Folder, table: pa.Table, name: str = "rows.parquet", **settings: Any) -> None:
    pq.write_table(table, folder.path / name, **settings)


def forms(folder: Folder, array: pa.Array) -> list[Any]:
    write(folder, pa.table({"x": array}))
    return [row["x"] for row in folder.rows("rows.parquet")]


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (pa.array([None, None]), [None, None]),
        (pa.array([True, None, False]), [True, None, False]),
        (pa.array([2**53 + 1, -(2**63), None]), [2**53 + 1, -(2**63), None]),
        (pa.array([2**64 - 1], pa.uint64()), [2**64 - 1]),
        (pa.array([-128], pa.int8()), [-128]),
        (pa.array([0.1, math.nan, math.inf, -math.inf, None]), [0.1, "NaN", "Infinity", "-Infinity", None]),
        (pa.array([0.5, math.nan], pa.float32()), [0.5, "NaN"]),
        (pa.array([0.5, None, math.inf], pa.float32()).cast(pa.float16()), [0.5, None, "Infinity"]),
        (pa.array([Decimal("1.50"), Decimal("-0.01"), None]), ["1.50", "-0.01", None]),
        (pa.array([Decimal("12345678901234567890.000")]), ["12345678901234567890.000"]),
        (pa.array([Decimal("0.0000000001")]), ["0.0000000001"]),
        (pa.array(["007", "", None, "e\u0301\x00"]), ["007", "", None, "e\u0301\x00"]),
        (pa.array(["a"], pa.large_string()), ["a"]),
        (pa.array(["a", "longer than twelve bytes"], pa.string_view()), ["a", "longer than twelve bytes"]),
        (pa.array([b"text", b"\xff\x00", b"", None]), ["dGV4dA==", "/wA=", "", None]),
        (pa.array([b"ab"], pa.binary(2)), ["YWI="]),
        (pa.array([b"ab"], pa.large_binary()), ["YWI="]),
        (pa.array([b"ab"], pa.binary_view()), ["YWI="]),
        (pa.array([date(2024, 2, 29), date(1, 1, 1), None]), ["2024-02-29", "0001-01-01", None]),
        (pa.array([86_400_000, -1 * 86_400_000], pa.date64()), ["1970-01-02", "1969-12-31"]),
        (pa.array([2_932_897, -719_163, -719_529], pa.date32()), ["+010000-01-01", "+000000-12-31", "-000001-12-31"]),
        (pa.array([time(23, 59, 59), time(0, 0, 0, 1500), None]), ["23:59:59", "00:00:00.001500", None]),
        (pa.array([86_399_999], pa.time32("ms")), ["23:59:59.999"]),
        (pa.array([1], pa.time64("ns")), ["00:00:00.000000001"]),
        (pa.array([0, 1_709_251_199, None], pa.timestamp("s")), ["1970-01-01T00:00:00", "2024-02-29T23:59:59", None]),
        (pa.array([1, 1_000_000_000, -1], pa.timestamp("ns")),
         ["1970-01-01T00:00:00.000000001", "1970-01-01T00:00:01", "1969-12-31T23:59:59.999999999"]),
        (pa.array([1_500], pa.timestamp("ms")), ["1970-01-01T00:00:01.500"]),
        (pa.array([1_500_000], pa.timestamp("us")), ["1970-01-01T00:00:01.500"]),
        (pa.array([0], pa.timestamp("us", "UTC")), ["1970-01-01T00:00:00Z"]),
        (pa.array([0], pa.timestamp("us", "Europe/Zurich")), ["1970-01-01T00:00:00Z"]),
        (pa.array([0], pa.timestamp("us", "+05:30")), ["1970-01-01T05:30:00+05:30"]),
        (pa.array([0], pa.timestamp("us", "-00:30")), ["1969-12-31T23:30:00-00:30"]),
        (pa.array([2**50, -(2**50)], pa.timestamp("s")), None),
        (pa.array([timedelta(days=1, hours=2, minutes=3, seconds=4.5), None]), ["P1DT2H3M4.5S", None]),
        (pa.array([0, 1, -1, 86_400_000, 3_600_000], pa.duration("ms")), ["PT0S", "PT0.001S", "-PT0.001S", "P1D", "PT1H"]),
        (pa.array([[1, None], [], None]), [[1, None], [], None]),
        (pa.array([[1.0, math.nan]], pa.list_(pa.float64(), 2)), [[1.0, "NaN"]]),
        (pa.array([["a"]], pa.large_list(pa.string())), [["a"]]),
        (pa.array([[b"a"], None, []], pa.list_(pa.list_(pa.binary()).value_type)), [["YQ=="], None, []]),
        (pa.array([{"a": Decimal("1.0"), "b": None}, None]), [{"a": "1.0", "b": None}, None]),
        (pa.array([[{"a": [date(2024, 1, 1)]}]]), [[{"a": ["2024-01-01"]}]]),
        (pa.array([[("k", 1), ("l", None)], None, []], pa.map_(pa.string(), pa.int64())), [{"k": 1, "l": None}, None, {}]),
        (pa.array([[(1, "a")]], pa.map_(pa.int64(), pa.string())), [[{"key": 1, "value": "a"}]]),
        (pa.array(["a", None, "a"]).dictionary_encode(), ["a", None, "a"]),
        (pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"\x12" * 16, None], pa.binary(16))),
         ["12121212-1212-1212-1212-121212121212", None]),
        (pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{"a":1}'])), ['{"a":1}']),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)  # fmt: skip
def test_each_type_has_its_form(folder: Folder, array: pa.Array, expected: list[Any] | None) -> None:
    got = forms(folder, array)
    if expected is None:  # far beyond any calendar: a text all the same
        assert all(isinstance(value, str) for value in got)
        return
    assert got == expected
    assert [type(value) for value in got] == [type(value) for value in expected]
    orjson.dumps(got)


def test_run_end_encoding_and_intervals_have_forms_or_a_refusal() -> None:
    from batchctl.tables.parquet import converter

    array = pa.RunEndEncodedArray.from_arrays([2, 3], ["a", None])
    assert converter(array.type)(array) == ["a", "a", None]
    with pytest.raises(NotImplementedError):
        converter(pa.month_day_nano_interval())


def test_nested_arrays_are_right_in_every_slice(folder: Folder) -> None:
    values = [None if i % 7 == 3 else [{"n": j, "t": [str(j)] * (j % 3)} for j in range(i % 4)] for i in range(5_000)]
    write(folder, pa.table({"x": values, "i": range(5_000)}), row_group_size=1_700)
    assert folder.rows("rows.parquet") == [{"x": value, "i": i} for i, value in enumerate(values)]


def test_a_row_with_an_impossible_value_stops_no_other(folder: Folder) -> None:
    twice = pa.array([[("k", 1)], [("k", 1), ("k", 2)], [("l", 3)]], pa.map_(pa.string(), pa.int64()))
    bad_text = pa.array([b"a", b"b", b"\xff"]).view(pa.string())
    write(folder, pa.table({"id": ["1", "2", "3"], "m": twice, "t": bad_text}))
    first, second, third = folder.rows("rows.parquet")
    assert first == {"id": "1", "m": {"k": 1}, "t": "a"}
    assert isinstance(second, Unusable)
    assert second.reason == "column `m`: a map has a key that appears twice"
    assert second.row == {"id": "2", "t": "b"}
    assert isinstance(third, Unusable)
    assert third.reason == "column `t`: the text is not valid UTF-8"


def test_columns_are_chosen_and_ordered_as_in_the_file(folder: Folder) -> None:
    write(folder, pa.table({"a": [1], "b.c": ["x"], "b": [{"c": 1, "d": 2}], "e": [None]}))
    source = folder.source("rows.parquet", columns=("b", "a"))
    assert source.columns == ("a", "b.c", "b", "e")
    assert folder.rows("rows.parquet", columns=("b", "a")) == [{"a": 1, "b": {"c": 1, "d": 2}}]
    assert folder.rows("rows.parquet", columns=("b.c",)) == [{"b.c": "x"}]


def test_an_unknown_column_is_refused_with_a_suggestion(folder: Folder) -> None:
    write(folder, pa.table({"subject": [1], "body": [2]}))
    with pytest.raises(UsageError) as caught:
        folder.source("rows.parquet", columns=("subjects",))
    assert "did you mean `subject`?" in caught.value.hint
    assert caught.value.where == ("rows.parquet has: `subject`, `body`",)


def test_two_columns_of_one_name_are_refused(folder: Folder) -> None:  # 91
    write(folder, pa.table([pa.array([1]), pa.array([2])], names=["id", "id"]))
    with pytest.raises(UsageError, match="two columns are named `id`"):
        folder.source("rows.parquet")


def test_no_rows_are_refused(folder: Folder) -> None:  # 94
    write(folder, pa.table({"a": pa.array([], pa.string())}))
    with pytest.raises(UsageError, match="nothing to do"):
        folder.rows("rows.parquet")


@pytest.mark.parametrize(
    "damage", [lambda raw: raw[:-20], lambda raw: b"not parquet", lambda raw: b"", lambda raw: raw[:4]]
)
def test_a_damaged_file_is_refused(folder: Folder, damage: Callable[[bytes], bytes]) -> None:
    write(folder, pa.table({"a": ["x" * 100] * 100}))
    path = folder.path / "rows.parquet"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UsageError, match="not a readable Parquet file"):
        folder.source("rows.parquet")


def test_damage_in_the_pages_is_refused(folder: Folder) -> None:
    write(
        folder,
        pa.table({"a": [f"{i * 7919 % 10007}" for i in range(10_000)]}),
        compression="zstd",
        use_dictionary=False,
    )
    path = folder.path / "rows.parquet"
    raw = bytearray(path.read_bytes())
    raw[200:6000] = b"\xaa" * 5800
    path.write_bytes(raw)
    with pytest.raises(UsageError, match="not a readable Parquet file"):
        folder.rows("rows.parquet")


def test_rows_are_located_by_number(folder: Folder) -> None:
    write(folder, pa.table({"a": [1, 2, 3]}))
    assert folder.source("rows.parquet").locate([0, 2]) == {0: "rows.parquet row 1", 2: "rows.parquet row 3"}


def test_wide_rows_make_small_batches(folder: Folder) -> None:  # 102
    write(folder, pa.table({"a": [f"{i:07}" * 5_000 for i in range(300)]}), use_dictionary=False, compression="none")
    sizes = [len(batch.rows) for batch in folder.source("rows.parquet").batches()]
    assert sum(sizes) == 300
    assert max(sizes) < 60


def test_times_agree_with_datetime(folder: Folder) -> None:
    moments = [datetime(1969, 7, 20, 20, 17, 40, 123456, UTC), datetime(2024, 12, 31, 23, 59, 59, 999999, UTC)]
    got = forms(folder, pa.array(moments, pa.timestamp("us", "UTC")))
    assert [datetime.fromisoformat(text) for text in got] == moments
