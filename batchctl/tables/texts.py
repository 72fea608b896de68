"""Rows whose cells are all text, kept by column: what is done with all of them need not look at each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Texts:
    """Columns of equal length without nulls; at least one."""

    names: tuple[str, ...]
    columns: tuple[pa.StringArray, ...]

    def __len__(self) -> int:
        return len(self.columns[0])

    def __iter__(self) -> Iterator[dict[str, str]]:
        """The rows, one by one."""
        names = self.names
        cells = [column.to_pylist() for column in self.columns]
        return (dict(zip(names, row)) for row in zip(*cells))  # noqa: B905  same lengths: columns of one table

    def __getitem__(self, rows: slice) -> Texts:
        return Texts(self.names, tuple(column[rows] for column in self.columns))

    def column(self, name: str) -> pa.StringArray:
        return self.columns[self.names.index(name)]
