"""Request lines by splicing: encode once with placeholders, then only escape what changes.

A request line is the same bytes for every row except a few holes (its custom_id and the rendered texts). The provider
encodes one line with placeholders; it is cut at them; each row costs one escape per hole and one join. A property test
proves splice == encode, byte for byte, for every provider.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from batchctl.model.ids import CUSTOM_ID_LENGTH, DIGEST_BYTES, digest
from batchctl.model.rows import Unusable

Render = Callable[[Mapping[str, Any]], str]


def escape(text: str) -> bytes:
    """The inside of a JSON string, as `orjson` writes it, with the two line ends escaped that are legal in JSON.

    U+2028 and U+2029 end a line for some readers, and a split request line fails a whole file at the provider.
    Raises `TypeError` for a lone surrogate, which UTF-8 cannot carry.
    """
    inside = orjson.dumps(text)[1:-1]
    if b"\xe2\x80" in inside:
        inside = inside.replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")
    return inside


@dataclass(frozen=True, slots=True)
class Insertion:
    """A hole that only inserts columns, at least one: constant, column, ..., constant. Constants are escaped texts."""

    constants: tuple[bytes, ...]
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Frame:
    """What is the same in every line: `head` custom_id `before` middle `after`, and the line's end."""

    head: bytes
    before: bytes = b""
    after: bytes = b""

    @property
    def length(self) -> int:
        """Bytes of a line besides its middle."""
        return len(self.head) + CUSTOM_ID_LENGTH + len(self.before) + len(self.after) + 1


@dataclass(frozen=True, slots=True)
class Splice:
    """A line cut at its holes: `head` custom_id `pieces[0]` hole `pieces[1]` hole ... `pieces[-1]`.

    `shape` is a digest of all constant bytes: with the holes it names the request. `renders` fill the holes, in order;
    `insertion` fills the only one where it can.
    """

    head: bytes
    pieces: tuple[bytes, ...]
    renders: tuple[Render, ...]
    shape: bytes
    insertion: Insertion | None = None

    @property
    def frame(self) -> Frame:
        return Frame(self.head, self.pieces[0], self.pieces[-1] if len(self.pieces) > 1 else b"")

    def middle(self, holes: Sequence[bytes]) -> bytes:
        """What stands between the `frame`'s two constants."""
        parts = [holes[0]] if holes else []
        for piece, hole in zip(self.pieces[1:-1], holes[1:], strict=True):
            parts += (piece, hole)
        return b"".join(parts)

    def line(self, custom_id: str, holes: Sequence[bytes]) -> bytes:
        parts = [self.head, custom_id.encode(), self.pieces[0]]
        for hole, piece in zip(holes, self.pieces[1:], strict=True):
            parts += (hole, piece)
        return b"".join(parts) + b"\n"

    def holes(self, row: Mapping[str, Any]) -> list[bytes]:
        return [escape(render(row)) for render in self.renders]

    def request_digest(self, holes: Sequence[bytes]) -> bytes:
        if len(holes) == 1:
            return hashlib.sha256(self.shape + holes[0]).digest()[:DIGEST_BYTES]
        return digest(self.shape, *holes)


def cut(
    encode: Callable[[str, Sequence[str]], bytes], renders: Sequence[Render], insertion: Insertion | None = None
) -> Splice:
    """Cut the line `encode(custom_id, texts)` at its placeholders. `renders` and texts are in the same order.

    Each placeholder must appear exactly once and the custom_id before the texts; anything else is a bug of the codec.
    """
    nonce = hashlib.sha256(encode("probe", ["" for _ in renders])).hexdigest()[:24]
    id_mark = f"batchctl-{nonce}-id"
    marks = [f"batchctl-{nonce}-{number}-text" for number in range(len(renders))]
    line = encode(id_mark, marks)
    places = [(line.find(mark.encode()), number, mark) for number, mark in enumerate(marks)]
    if line.count(id_mark.encode()) != 1 or any(line.count(mark.encode()) != 1 for mark in marks):
        raise AssertionError("a placeholder is not in the encoded line exactly once")
    head, _, rest = line.partition(id_mark.encode())
    places.sort()
    if places and places[0][0] < len(head):
        raise AssertionError("row text comes before the custom_id")
    pieces = []
    for _, _, mark in places:
        piece, _, rest = rest.partition(mark.encode())
        pieces.append(piece)
    pieces.append(rest)
    ordered = tuple(renders[number] for _, number, _ in places)
    return Splice(head, tuple(pieces), ordered, digest(head, *pieces), insertion)


def row_json(row: Mapping[str, Any]) -> bytes | Unusable:
    """The source columns as one JSON object on one line; exact for integers of any size."""
    try:
        return orjson.dumps(row)
    except TypeError:
        pass
    import json

    try:
        return json.dumps(row, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        return Unusable("the row holds a lone surrogate, which is not valid Unicode")
    except (TypeError, ValueError) as error:
        return Unusable(f"the row cannot be written as JSON: {error}")
