"""Chunks against their naive description: every row once and in order, within the limits, whoever comes twice found."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchctl.chunks import duplicates, segments
from batchctl.chunks.duplicates import COPY, KEEP, KNOWN, REJECT, Fates, Leaders, Spill, place_of
from batchctl.chunks.names import rows_name
from batchctl.chunks.splice import Frame, cut, escape
from batchctl.chunks.verify import verify
from batchctl.chunks.write import Block, Packer, stored
from batchctl.model.errors import UsageError
from batchctl.model.ids import CUSTOM_ID_LENGTH, custom_id, digest, id_digest, intent_id, offset_of, record_key

SAME_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
FRAME = Frame(b'{"custom_id":"', b'","body":"', b'"}')
FIXED = FRAME.length

texts = st.text(max_size=40)


class Folder:
    """A new directory for each example of one test."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._made = 0

    def new(self) -> Path:
        self._made += 1
        made = self._path / str(self._made)
        made.mkdir(mode=0o700)
        return made


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@SAME_FOLDER
@given(
    rows=st.lists(texts.filter(lambda text: text.isprintable()), min_size=1, max_size=40),
    pieces=st.lists(st.integers(1, 7), min_size=40, max_size=40),
    max_rows=st.integers(1, 12),
    max_bytes=st.integers(FIXED + 200, FIXED + 1200),
)
def test_packing_keeps_every_row_once_in_order_and_within_the_limits(
    folder: Folder, rows: list[str], pieces: list[int], max_rows: int, max_bytes: int
) -> None:
    """However the rows arrive, in whatever portions, the chunks are the same; and they hold what was given."""
    middles = [escape(text) for text in rows]
    portions, start = [], 0
    for size in pieces:
        portions.append(range(start, min(start + size, len(rows))))
        start += size
    whole, split = folder.new(), folder.new()
    made = [packed(whole, rows, middles, [range(len(rows))], max_rows, max_bytes)]
    made.append(packed(split, rows, middles, portions, max_rows, max_bytes))
    assert [one.file for one in made[0]] == [one.file for one in made[1]]
    found = []
    for one, same in zip(*made, strict=True):
        text = (whole / one.file).read_bytes()
        assert text == (split / same.file).read_bytes()
        assert (one.requests, one.bytes) == (text.count(b"\n"), len(text))
        assert one.requests <= max_rows
        assert one.bytes <= max_bytes or one.requests == 1
        found += [row[:2] + row[4:] for row in stored(whole, one, FRAME)]
        for line, words in enumerate(text.split(b"\n")[:-1]):
            name = json.loads(words)["custom_id"]
            assert json.loads(words)["body"] == rows[len(found) - one.requests + line]
            assert offset_of(name) == line
            assert name.startswith(one.mark)
            key = segments.read(whole / rows_name(one.number), ["key"]).column(0)[line].as_py()
            assert name == custom_id(one.mark, key.hex(), line, 1)
    assert found == [
        (place, f"R{place}".encode(), json.dumps(text).encode(), middles[place]) for place, text in enumerate(rows)
    ]
    assert [(one.first_position, one.last_position) for one in made[0]] == spans(made[0])


def packed(directory: Path, rows: list[str], middles: list[bytes], portions: list[range], most: int, size: int) -> list:
    """Portions with an even start go in as blocks, the others row by row."""
    limits = {"max_rows": most, "max_bytes": size}
    with Packer(directory, run="job-0001", settings="s", attempt=1, frame=FRAME, **limits) as packer:
        for portion in portions:
            if not portion:
                continue
            here = slice(portion.start, portion.stop)
            ids = [b"R%d" % place for place in portion]
            requests = [digest(middle) for middle in middles[here]]
            keys = [record_key(*pair) for pair in zip(requests, ids, strict=True)]
            columns = (portion, ids, keys, requests, [json.dumps(t).encode() for t in rows[here]], middles[here])
            if portion.start % 2:
                for one in zip(*columns, strict=True):
                    packer.add(*one)
            else:
                packer.add_block(Block.of(*columns))
    return packer.chunks


def spans(chunks: list) -> list[tuple[int, int]]:
    starts = [sum(one.requests for one in chunks[:place]) for place in range(len(chunks) + 1)]
    return [(first, after - 1) for first, after in pairwise(starts)]


@SAME_FOLDER
@given(
    rows=st.lists(texts, min_size=1, max_size=6),
    place=st.floats(0, 1, exclude_max=True),
    bit=st.integers(0, 7),
)
def test_a_bit_that_flips_in_a_written_chunk_is_never_sent(
    folder: Folder, rows: list[str], place: float, bit: int
) -> None:
    """Read back, a changed chunk is refused, or has another digest than the one taken before."""
    directory = folder.new()
    splice = cut(
        lambda name, holes: json.dumps({"custom_id": name, "body": holes[0]}, separators=(",", ":")).encode(),
        [lambda row: str(row["t"])],
    )
    [chunk] = packed(directory, rows, [escape(text) for text in rows], [range(len(rows))], 100, 10**6)
    assert splice.frame == FRAME

    def problem(line: bytes) -> str | None:
        try:
            value = json.loads(line)
        except ValueError as error:
            return str(error)
        return None if value.keys() == {"custom_id", "body"} else "other keys"

    sha256 = verify(directory, chunk, problem, splice)
    assert sha256 == hashlib.sha256((directory / chunk.file).read_bytes()).hexdigest()
    damaged = bytearray((directory / chunk.file).read_bytes())
    damaged[int(place * len(damaged))] ^= 1 << bit
    (directory / chunk.file).write_bytes(damaged)
    with suppress(UsageError):
        assert verify(directory, chunk, problem, splice) != sha256


@SAME_FOLDER
@given(values=st.lists(st.integers(0, 30), max_size=120), block=st.integers(1, 50), partition=st.integers(1, 40))
def test_repeated_digests_are_found_in_whatever_portions(
    folder: Folder, values: list[int], block: int, partition: int
) -> None:
    digests = [id_digest(str(value).encode()) for value in values]
    groups: dict[int, list[int]] = {}
    for ordinal, value in enumerate(values):
        groups.setdefault(value, []).append(ordinal)
    with pytest.MonkeyPatch.context() as patch, Spill(folder.new() / "spill") as spill:
        patch.setattr(duplicates, "PARTITION_ROWS", partition)
        patch.setattr(duplicates, "BLOCK_BYTES", block * 16)
        for start in range(0, len(digests), 7):
            spill.add(b"".join(digests[start : start + 7]))
        spill.close()
        assert sorted(spill.repeated()) == sorted(group for group in groups.values() if len(group) > 1)


@given(fates=st.lists(st.sampled_from([KEEP, REJECT, KNOWN, COPY]), max_size=60), stride=st.integers(1, 9))
def test_fates_count_the_kept(fates: list[int], stride: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Fates, "STRIDE", stride)
        told = Fates(len(fates))
        for ordinal, fate in enumerate(fates):
            told.set(ordinal, fate)
        told.settle()
        kept = [ordinal for ordinal, fate in enumerate(fates) if fate == KEEP]
        assert [told.new_ordinal(ordinal) for ordinal in kept] == list(range(len(kept)))
        assert {fate: told.count(fate) for fate in (KEEP, REJECT, KNOWN, COPY)} == {
            fate: Counter(fates)[fate] for fate in (KEEP, REJECT, KNOWN, COPY)
        }
        assert told.untouched == (not any(fates))


@given(st.dictionaries(st.integers(0, 10**6), st.integers(0, 10**6), max_size=50), st.randoms())
def test_every_copy_finds_its_payer(payers: dict[int, int], chance: object) -> None:
    order = list(payers)
    chance.shuffle(order)  # type: ignore[attr-defined]
    leaders = Leaders()
    for copy in order:
        leaders.add(copy, payers[copy])
    leaders.settle()
    assert {copy: leaders[copy] for copy in payers} == payers
    assert len(leaders) == len(payers)
    assert leaders.payers() == set(payers.values())


@given(st.lists(st.integers(1, 9), min_size=1, max_size=20))
def test_a_place_is_the_chunk_and_the_line(sizes: list[int]) -> None:
    starts = [sum(sizes[:place]) for place in range(len(sizes))]
    naive = [(chunk, line) for chunk, size in enumerate(sizes) for line in range(size)]
    assert [place_of(starts, ordinal) for ordinal in range(sum(sizes))] == naive


@given(st.text(max_size=60))
def test_escaped_text_is_the_inside_of_one_json_string_on_one_line(text: str) -> None:
    inside = escape(text)
    assert json.loads(b'"' + inside + b'"') == text
    assert not set(inside.decode()) & set("\n\r\u2028\u2029")


@given(st.lists(st.binary(max_size=6), max_size=4), st.lists(st.binary(max_size=6), max_size=4))
def test_a_digest_tells_lists_apart(one: list[bytes], other: list[bytes]) -> None:
    assert (digest(*one) == digest(*other)) == (one == other)


@given(st.text(max_size=20), st.text(max_size=80), st.integers(1, 9999), st.integers(1, 9), st.integers(1, 99))
def test_an_intent_id_fits_every_providers_mark(workspace: str, run: str, chunk: int, attempt: int, send: int) -> None:
    given_id = intent_id(workspace, run, chunk, attempt, send, "0" * 64)
    assert len(given_id) <= 63
    assert set(given_id) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert "--" not in given_id
    assert given_id != intent_id(workspace, run, chunk, attempt, send + 1, "0" * 64)


@given(st.text(max_size=40))
def test_what_is_not_our_custom_id_claims_no_place_it_could_take(text: str) -> None:
    found = offset_of(text)
    assert found is None or 0 <= found < 2**24 or len(text) == CUSTOM_ID_LENGTH
