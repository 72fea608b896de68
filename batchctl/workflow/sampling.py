"""Which requests of a run a dry run tries, and how many rows each stands for."""

from __future__ import annotations

import heapq
import random
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Container, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import orjson

from batchctl.chunks import segments
from batchctl.chunks.names import lines_name, rows_name
from batchctl.files import BLOCK_BYTES
from batchctl.ledger.queries import Chunk
from batchctl.model.errors import UsageError
from batchctl.model.ids import digest


@dataclass(frozen=True, slots=True)
class Sampled:
    """One request of the sample. `weight` is the share of its stratum in the run over its share in the sample."""

    source_id: str
    body: bytes
    key: str
    size: int  # of its line in the chunk, in bytes
    row: bytes  # the source row, JSON
    weight: Fraction = Fraction(1)


def sample_of(
    chunks: Path,
    rows: list[Chunk],
    pick: str,
    count: int,
    seed: int,
    live_body: Callable[[bytes], bytes],
    avoid: Container[str] = (),
) -> Iterator[Sampled]:
    """Requests of a run, chosen by `pick`, in source order. The same run and seed give the same sample.

    `live_body` makes a synchronous request of an input line. Requests whose key is in `avoid` are left out, and others,
    always the same ones, stand in for them as long as there are any.
    """
    total = sum(one.requests for one in rows)
    wanted: Mapping[int, Fraction]
    if pick == "first":
        wanted = dict.fromkeys(range(count), Fraction(1))
    elif pick == "longest":
        sizes = ((len(line), -place) for place, line in enumerate(_lines(chunks, rows)))
        wanted = dict.fromkeys((-place for _, place in heapq.nlargest(count, sizes)), Fraction(1))
    elif pick.startswith("stratified:"):
        wanted = _stratified(chunks, rows, pick.partition(":")[2], count, seed)
    else:
        wanted = dict.fromkeys(random.Random(seed).sample(range(total), count), Fraction(1))
    spare: Iterator[int] = iter(())
    first = True
    while True:
        found = list(_read(chunks, rows, wanted, live_body))
        gone = [place for place, one in found if one.key in avoid]
        if not gone:
            yield from (one for _, one in found)
            return
        if first:
            spare = iter(_others(seed, total, wanted.keys()))
            first = False
        kept = {place: wanted[place] for place, one in found if one.key not in avoid}
        wanted = {**kept, **{place: wanted[old] for old, place in zip(gone, spare, strict=False)}}


def _others(seed: int, total: int, taken: Collection[int]) -> list[int]:
    """Every other place, in an order that depends on the seed alone."""
    left = (place for place in range(total) if place not in taken)
    return sorted(left, key=lambda place: zlib.crc32(b"%d %d" % (seed, place)))


def _read(
    chunks: Path, rows: list[Chunk], wanted: Mapping[int, Fraction], live_body: Callable[[bytes], bytes]
) -> Iterator[tuple[int, Sampled]]:
    """The requests at the places of `wanted`, in source order."""
    told = (one for chunk in rows for one in segments.tuples(chunks / rows_name(chunk.number), ("id", "row")))
    for place, (line, (source_id, row)) in enumerate(zip(_lines(chunks, rows), told, strict=True)):
        if place in wanted:
            body = live_body(line)
            yield place, Sampled(source_id.decode(), body, digest(body).hex(), len(line), row, wanted[place])


def _lines(chunks: Path, rows: list[Chunk]) -> Iterator[bytes]:
    for chunk in rows:
        with (chunks / lines_name(chunk.number)).open("rb", buffering=BLOCK_BYTES) as file:
            yield from file


def _stratified(chunks: Path, rows: list[Chunk], column: str, count: int, seed: int) -> dict[int, Fraction]:
    """An equal share of every value of a column, as far as there are rows; each with the rows it stands for."""
    source = random.Random(seed)
    groups: dict[str, list[tuple[float, int]]] = {}
    rows_of: Counter[str] = Counter()
    place = 0
    for chunk in rows:
        for (row,) in segments.tuples(chunks / rows_name(chunk.number), ("row",)):
            values = orjson.loads(row)
            if column not in values:
                raise UsageError(
                    f"there is no column `{column}` to stratify by",
                    where="[sample] pick",
                    effect="nothing was sent",
                    hint=f"the rows have: {', '.join(list(values)[:20])}",
                )
            drawn = (source.random(), place)
            kept = groups.setdefault(str(values[column]), [])
            rows_of[str(values[column])] += 1
            if len(kept) < count:
                heapq.heappush(kept, drawn)
            else:
                heapq.heappushpop(kept, drawn)
            place += 1
    chosen: dict[str, list[int]] = {}
    ordered = {name: sorted(kept, reverse=True) for name, kept in groups.items()}
    left, turn = count, 0
    while left and any(len(kept) > turn for kept in ordered.values()):
        for name, kept in ordered.items():
            if len(kept) > turn and left:
                chosen.setdefault(name, []).append(kept[turn][1])
                left -= 1
        turn += 1
    return {place: Fraction(rows_of[name], len(places)) for name, places in chosen.items() for place in places}
