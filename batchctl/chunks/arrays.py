"""Columns of many rows as Arrow arrays, made and taken apart without touching single rows.

Arrays are made from buffers and never by `pyarrow.array`, nor single values by `pyarrow.scalar` (which kernels call for
every Python value they are given): both import pandas wherever it is installed (pyarrow 26.0.1, half a second).
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

_BETWEEN = b"\xff"  # in no UTF-8 text, so it tells texts apart whatever they hold
_SHORT = {8: b"\\b", 9: b"\\t", 10: b"\\n", 12: b"\\f", 13: b"\\r"}
_CONTROLS = tuple((bytes([code]), _SHORT.get(code, b"\\u%04x" % code)) for code in range(32))
_SPACE = 32
_LINE_ENDS = ((b"\xe2\x80\xa8", b"\\u2028"), (b"\xe2\x80\xa9", b"\\u2029"))


def texts(values: Sequence[bytes], kind: pa.DataType | None = None) -> pa.Array:
    """Strings (or another type with 32-bit offsets) from their bytes."""
    ends = array("i", accumulate(map(len, values), initial=0))
    return _of_buffers(kind or pa.string(), len(values), ends, b"".join(values))


def fixed(joined: bytes, width: int) -> pa.Array:
    """Values of one width from all their bytes."""
    return pa.Array.from_buffers(pa.binary(width), len(joined) // width, [None, pa.py_buffer(joined)])


def numbers(values: Sequence[int]) -> pa.Array:
    """64-bit integers."""
    return pa.Array.from_buffers(pa.int64(), len(values), [None, pa.py_buffer(array("q", values))])


def _of_buffers(kind: pa.DataType, length: int, ends: Any, data: bytes) -> pa.Array:
    return pa.Array.from_buffers(kind, length, [None, pa.py_buffer(ends), pa.py_buffer(data)])


def data_of(column: pa.Array) -> memoryview:
    """The bytes of all values of a string or binary column without nulls, one after another. Nothing is copied."""
    if not len(column):
        return memoryview(b"")
    ends = memoryview(column.buffers()[1]).cast("i")
    found = memoryview(column.buffers()[2] or b"")
    return found[ends[column.offset] : ends[column.offset + len(column)]]


def fixed_data_of(column: pa.Array) -> memoryview:
    """The bytes of all values of a column of one width."""
    width = column.type.byte_width
    return memoryview(column.buffers()[1])[column.offset * width : (column.offset + len(column)) * width]


def joined(column: pa.Array, between: bytes) -> bytes:
    """All texts as one, as `between.join` makes it."""
    ends = pa.Array.from_buffers(pa.int32(), 2, [None, pa.py_buffer(array("i", [0, len(column)]))])
    values = column if pa.types.is_binary(column.type) else column.cast(pa.binary())
    made: bytes = pc.binary_join(pa.ListArray.from_arrays(ends, values), texts([between], pa.binary())[0])[0].as_py()
    return made


def escaped(column: pa.Array) -> pa.Array:
    """Each text as the inside of a JSON string, byte for byte as `orjson` writes it."""
    data = bytes(data_of(column))
    if b'"' not in data and b"\\" not in data and _least(data) >= _SPACE:
        return column
    whole = joined(column, _BETWEEN).replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n")
    if _least(whole) < _SPACE:
        for raw, written in _CONTROLS:
            whole = whole.replace(raw, written)
    return texts(whole.split(_BETWEEN))


def _least(data: bytes | memoryview) -> int:
    """The smallest byte of some."""
    if not len(data):
        return _SPACE
    found: int = pc.min(pa.Array.from_buffers(pa.uint8(), len(data), [None, pa.py_buffer(data)])).as_py()
    return found


def without_line_ends(column: pa.Array) -> pa.Array:
    """Escaped texts with U+2028 and U+2029 escaped as well, as `splice.escape` does."""
    data = bytes(data_of(column))
    if b"\xe2" not in data or b"\xe2\x80" not in data:  # one byte is looked for many times as fast as two
        return column
    values = column.cast(pa.binary())
    for raw, written in _LINE_ENDS:
        values = pc.replace_substring(values, raw, written)
    return values.cast(pa.string())


def concatenated(*parts: pa.Array | bytes) -> pa.Array:
    """Text by text, the parts put together; constants are bytes."""
    made = [texts([one])[0] if isinstance(one, bytes) else one for one in parts]
    return pc.binary_join_element_wise(*made, texts([b""])[0])


def objects(names: Sequence[str], columns: Sequence[pa.Array]) -> pa.Array:
    """Rows as JSON objects, byte for byte as `orjson` writes them; `columns` are `escaped` texts."""
    parts: list[pa.Array | bytes] = []
    opening = b"{"
    for name, column in zip(names, columns, strict=True):
        parts += (opening + orjson.dumps(name) + b':"', column)
        opening = b'",'
    return concatenated(*parts, b'"}')
