"""Rows in and rows out: delimited text, JSON Lines, Parquet. Importing this loads no reader and no pyarrow."""

from batchctl.tables.source import RowBatch, Source, SourceSpec, open_source

__all__ = ["RowBatch", "Source", "SourceSpec", "open_source"]
