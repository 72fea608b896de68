"""pyarrow's CSV parser, for blocks that are proved to mean one thing only. `delimited.py` says when."""

from __future__ import annotations

from itertools import repeat
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


class ArrowParser:
    """pyarrow's CSV parser over one block of whole records, all columns text."""

    def __init__(self, names: Sequence[str], columns: Sequence[str], delimiter: str) -> None:
        import pyarrow as pa
        import pyarrow.csv as pc

        self._pa, self._pc = pa, pc
        self._some = len(columns) < len(names)
        self._read = pc.ReadOptions(use_threads=False, column_names=list(names))
        self._parse = pc.ParseOptions(delimiter=delimiter, newlines_in_values=True, ignore_empty_lines=True)
        self._convert = pc.ConvertOptions(
            column_types=dict(zip(columns, repeat(pa.string()))),
            include_columns=list(columns),
            strings_can_be_null=False,
        )

    def parse(self, block: memoryview) -> Any:
        """A table, or None when pyarrow refuses: then the reference says why, or reads it after all."""
        if self._some:  # pyarrow checks only the columns it converts
            try:
                str(block, "utf-8")
            except UnicodeDecodeError:
                return None
        self._read.block_size = len(block) + 1  # the whole block at once: a record longer than it cannot straddle
        try:
            return self._pc.read_csv(
                self._pa.BufferReader(block),
                read_options=self._read,
                parse_options=self._parse,
                convert_options=self._convert,
            )
        except self._pa.ArrowException:
            return None
