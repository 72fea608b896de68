"""The file names of a chunk, one home for all of them. Loads nothing: `status` needs names, not tables."""

from __future__ import annotations


def lines_name(number: int) -> str:
    return f"{number:04d}.jsonl"


def rows_name(number: int) -> str:
    return f"{number:04d}.rows.parquet"


def copies_name(number: int) -> str:
    return f"{number:04d}.copies.parquet"


def verdicts_name(number: int, attempt: int) -> str:
    return f"{number:04d}.a{attempt}.verdicts.parquet"


def results_name(number: int, attempt: int) -> str:
    return f"{number:04d}.a{attempt}.jsonl"


def live_name(number: int, attempt: int) -> str:
    """Answers of a chunk that is being sent row by row, as they come; it becomes the result file."""
    return f"{number:04d}.a{attempt}.live"
