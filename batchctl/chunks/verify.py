"""A written chunk read back as the provider will read it, and proved to hold the requests that were meant."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

import orjson

from batchctl.chunks.names import rows_name
from batchctl.chunks.segments import batches
from batchctl.chunks.splice import Splice
from batchctl.chunks.write import Packed
from batchctl.files import blocks_of
from batchctl.model.errors import UsageError
from batchctl.model.ids import CUSTOM_ID_LENGTH

Check = Callable[[bytes], str | None]


def verify(directory: Path, chunk: Packed, check: Check, splice: Splice) -> str:
    """Read a chunk as it is on disk and check every line; its SHA-256.

    `check` parses a whole line and says what is wrong. The first line is always given to it. Further lines are proved
    many at a time to be the very bytes of that one around their own custom_id and one JSON string; where that cannot be
    proved, each is given to `check`. Raises `UsageError` naming file and line.
    """
    path = directory / chunk.file
    state = hashlib.sha256()
    ids = (one for (column,) in batches(directory / rows_name(chunk.number), ("custom_id",)) for one in column)
    begin = len(splice.head)
    number = 0
    with path.open("rb", buffering=0) as file:
        for block in _whole_lines(blocks_of(file)):
            state.update(block)
            lines = block.split(b"\n")
            if not lines[-1]:
                lines.pop()
            names = list(islice(ids, len(lines)))
            problem = check(lines[0]) if not number else None
            if problem is None and _as_spliced(block, lines, names, splice):
                number += len(lines)
                continue
            for place, line in enumerate(lines):
                number += 1
                problem = check(line)
                if problem is None and (place >= len(names) or line[begin : begin + CUSTOM_ID_LENGTH] != names[place]):
                    problem = "its custom_id is not the one recorded for this row"
                if problem is not None:
                    raise _refused(problem, chunk, number)
    if number != chunk.requests:
        raise UsageError(
            f"a chunk has other lines than were written: {number:,} of {chunk.requests:,}",
            where=f"chunks/{chunk.file}",
            effect="nothing was sent",
            hint="run `batchctl prepare` again",
        )
    return state.hexdigest()


def _refused(problem: str, chunk: Packed, number: int) -> UsageError:
    return UsageError(
        f"the provider would refuse a request: {problem}",
        where=f"chunks/{chunk.file}:{number}",
        effect="nothing was sent",
        hint="look at [model] and the prompt; `batchctl prepare` writes the chunk again",
    )


def _as_spliced(block: bytes, lines: list[bytes], names: list[bytes], splice: Splice) -> bool:
    """Whether each line is the constant bytes around the custom_id of that name and one hole that is a JSON string.

    False is no answer: then the lines are to be looked at one by one.

    The block is put together again from what is meant and from the holes, and must be the same. The holes are parsed at
    once, as one string with a DEL between each two. In a JSON string DEL stands for itself and is no part of an escape or
    of another character, and only the last quote can end the string: so each hole is the inside of a string by itself.
    """
    if len(splice.pieces) != 2 or not block.endswith(b"\n") or len(names) != len(lines):
        return False
    head, before, after = splice.head, splice.pieces[0], splice.pieces[1] + b"\n"
    joined = b"".join(names)
    if b"\n" in joined or set(map(len, names)) != {CUSTOM_ID_LENGTH}:
        return False
    start, end = len(head) + CUSTOM_ID_LENGTH + len(before), 1 - len(after)
    holes = [line[start:end] for line in lines]
    meant = [head, b"", before, b"", after] * len(lines)
    meant[1::5] = names
    meant[3::5] = holes
    if b"".join(meant) != block:
        return False
    try:
        return type(orjson.loads(b'"' + b"\x7f".join(holes) + b'"')) is str
    except orjson.JSONDecodeError:
        return False


def _whole_lines(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Blocks that end at a line end, but perhaps the last."""
    rest: list[bytes] = []
    for block in blocks:
        end = block.rfind(b"\n") + 1
        if end:
            yield b"".join([*rest, block[:end]])
            rest = [block[end:]]
        else:
            rest.append(block)
    last = b"".join(rest)
    if last:
        yield last
