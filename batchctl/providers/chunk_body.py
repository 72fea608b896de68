"""A chunk file as the body of one request, for vendors that take no file: streamed, and read again as evidence.

Memory holds one block. A chunk is lines of JSON, each with its line end.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import orjson

from batchctl.model.errors import StorageFailed

BLOCK_BYTES = 1 << 18


def opened(staged: str) -> BinaryIO:
    """The chunk file. Called before anything is sent, so that a failure here is a certain one."""
    try:
        return Path(staged).open("rb")
    except OSError as error:
        raise StorageFailed(
            f"the request file cannot be read: {error.strerror}",
            where=staged,
            effect="nothing was sent",
            hint="restore the state directory from a backup",
        ) from error


def joined_size(file: BinaryIO) -> int:
    """Bytes of the lines of a chunk with one comma between two: all but the last line end."""
    return os.fstat(file.fileno()).st_size - 1


def joined(file: BinaryIO, head: bytes, tail: bytes) -> Iterator[bytes]:
    """The lines of a chunk as one JSON list: no line holds a line end, so each that is found stands between two."""
    size = joined_size(file)
    yield head
    while size:
        block = file.read(min(size, BLOCK_BYTES))
        if not block:
            raise OSError("the request file became shorter while it was sent")
        size -= len(block)
        yield block.replace(b"\n", b",")
    yield tail


def lines_in(staged: str) -> int:
    """How many requests a chunk has."""
    with opened(staged) as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))


def asks(staged: str, custom_id: str) -> bool:
    """Whether a request of the chunk carries this custom_id."""
    start = b'{"custom_id":%b,' % orjson.dumps(custom_id)
    with opened(staged) as file:
        return any(line.startswith(start) for line in file)
