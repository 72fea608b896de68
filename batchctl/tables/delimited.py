"""CSV and TSV: every cell is text, byte for byte; nothing is guessed, nothing is dropped.

One meaning, two ways. The reference is Python's `csv.reader(strict=True)` fed with lines that end at LF, CR or CRLF.
It costs about 6 us a row, so blocks that are *proved* unambiguous go to pyarrow's parser instead (below 2 us a row).
The proof is about one block of whole records at a time, before pyarrow sees it: quotes open only at the start of a cell
and close only at its end, no line ends with a bare CR, all is UTF-8, and no mark stands where pyarrow would drop it.
Everything else, and everything pyarrow refuses, is read by the reference, which decides or words the error; the next
block may take the fast way again. pyarrow alone would accept unclosed quotes and text after a closing quote, and would
drop one of two columns of the same name (measured, pyarrow 26).

Why the proof holds: split a block at every quote. If the block starts outside quotes, the pieces with even index lie
outside and those with odd index inside, where an empty outside piece is a doubled quote. When each other outside piece
starts and ends with a delimiter or line end, both parsers open and close at the same places (property test:
tests/property/test_tables_delimited.py).

Accepted: a UTF-8 mark at the start, blank lines, CRLF, CR, line ends in quotes, NUL, no line end at the end. Refused,
with the line: cells missing or too many, unclosed quotes, text after a closing quote, two columns of one
name, bytes that are not UTF-8. A column without a name (pandas writes its index so) is kept under the
empty name; two such are refused.
"""

from __future__ import annotations

import csv
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from batchctl.model.errors import UsageError
from batchctl.tables.arrow_csv import ArrowParser
from batchctl.tables.streams import (
    MAGIC_BYTES,
    NOTHING_WRITTEN,
    PIECE_BYTES,
    RECORD_BYTES,
    SourceFile,
    check_magic,
    is_utf8,
    not_encoded,
)
from batchctl.tables.texts import Texts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from batchctl.tables.streams import ByteStream

BOM = b"\xef\xbb\xbf"
BATCH_ROWS = 2000
FAST_COLUMNS = 500
"""pyarrow pays for each column of each block; from about 1,000 columns on the reference is faster (measured)."""
_FIELD_LIMIT = (1 << 31) - 1  # the largest that fits a C long everywhere; records are bounded by RECORD_BYTES
_QUOTED = re.compile(rb'"(?:[^"]|"")*+"')
_LINE = re.compile(rb"[^\r\n]*(?:\r\n?|\n)|[^\r\n]+")
_BARE_CR = re.compile(rb"\r(?!\n)")
_LINE_END = re.compile(rb"\r\n?|\n")

Record = tuple[int, list[str]]  # the cursor's `line` where it starts, cells


class Delimited:
    """One CSV or TSV file. `fast=False` reads all of it by the reference; `block_bytes` exists for tests."""

    def __init__(self, file: SourceFile, delimiter: str, *, block_bytes: int = PIECE_BYTES, fast: bool = True) -> None:
        self._file = file
        self._delimiter = delimiter
        self._block_bytes = block_bytes
        self._fast = fast
        with self._cursor() as cursor:
            self.columns = self._header(cursor)

    def batches(self, columns: Sequence[str]) -> Iterator[list[dict[str, Any]] | Texts]:
        """Rows with `columns` as keys, in that order; at most 2,000 or about `block_bytes` at once."""
        with self._cursor() as cursor:
            self._header(cursor)
            parser = self._parser(columns)
            places = [self.columns.index(column) for column in columns]
            whole = places == list(range(len(self.columns)))
            while not cursor.at_end():
                table = self._parse(cursor, parser)
                if table is not None:
                    table = table.combine_chunks()
                    for batch in table.to_batches(max_chunksize=BATCH_ROWS):
                        yield Texts(tuple(columns), tuple(batch.columns))
                    continue
                rows: list[dict[str, Any]] = []
                for _, row in self._reference(cursor, self._block_bytes):
                    rows.append(dict(zip(columns, row if whole else [row[i] for i in places], strict=True)))
                    if len(rows) == BATCH_ROWS:
                        yield rows
                        rows = []
                if rows:
                    yield rows
        self._file.check_still_unchanged()

    def locate(self, positions: Sequence[int]) -> dict[int, str]:
        """Physical lines where the records start, for ascending 0-based `positions`; reads up to the last of them."""
        wanted = list(reversed(positions))
        found: dict[int, str] = {}
        with self._cursor(count_lines=True) as cursor:
            self._header(cursor)
            parser = self._parser(self.columns[:1])
            position = 0
            while wanted and not cursor.at_end():
                start = cursor.mark()
                table = self._parse(cursor, parser)
                if table is not None:
                    if wanted[-1] >= position + table.num_rows:
                        position += table.num_rows
                        continue
                    size = cursor.offset - start.offset
                    cursor.rewind(start)
                else:
                    size = self._block_bytes
                for line, _ in self._reference(cursor, size):
                    if wanted and wanted[-1] == position:
                        found[wanted.pop()] = f"{self._file.name}:{cursor.physical(line)}"
                    position += 1
        return found

    @contextmanager
    def _cursor(self, *, count_lines: bool = False) -> Iterator[_Cursor]:
        stream = self._file.open()
        try:
            yield _Cursor(self._file, stream, self._block_bytes, count_lines)
        finally:
            stream.close()

    def _header(self, cursor: _Cursor) -> tuple[str, ...]:
        cursor.start()
        record = next(self._reference(cursor, 0, width=None), None)
        if record is None:
            raise UsageError(
                f"`{self._file.name}` is empty: there is nothing to do",
                where=self._file.name,
                effect=NOTHING_WRITTEN,
                hint="the first line must name the columns, the following lines are the rows",
                code="empty_source",
            )
        line, names = record
        check_distinct(names, f"{self._file.name}:{cursor.physical(line)}")
        return tuple(names)

    def _parser(self, columns: Sequence[str]) -> ArrowParser | None:
        if not self._fast or len(self.columns) > FAST_COLUMNS:
            return None
        return ArrowParser(self.columns, columns, self._delimiter)

    def _parse(self, cursor: _Cursor, parser: ArrowParser | None) -> Any:
        """The next block as a pyarrow table; None, and the cursor not moved, if only the reference may read it."""
        if parser is None:
            return None
        start = cursor.mark()
        block = cursor.take_proved(self._delimiter.encode())
        if block is None:
            return None
        table = parser.parse(block)
        if table is None:
            cursor.rewind(start)
        return table

    def _reference(self, cursor: _Cursor, size: int, width: int | None = -1) -> Iterator[Record]:
        """Records by the reference until `size` bytes are used up, the last one whole (so: at least one).

        `width` is the number of cells each must have, -1 for as many as there are columns, None for any.
        """
        expected = len(self.columns) if width == -1 else width
        csv.field_size_limit(_FIELD_LIMIT)  # the process-wide default, 131,072, refuses ordinary long cells
        reader = csv.reader(cursor.lines(), delimiter=self._delimiter, strict=True)
        until = cursor.offset + size
        while True:
            line = cursor.line
            cursor.start_record()
            try:
                row = next(reader, None)
            except csv.Error as error:
                raise self._malformed(cursor, line, error) from error
            if row is None:
                return
            if row:  # csv gives [] for a blank line
                if expected is not None and len(row) != expected:
                    raise self._ragged(line, cursor, len(row), expected)
                yield line, row
            if cursor.offset >= until and (row or size):
                return

    def _ragged(self, line: int, cursor: _Cursor, got: int, wanted: int) -> UsageError:
        cells = f"{got:,} cell{'s' if got != 1 else ''}"
        first = cursor.physical(line)
        where = f"{self._file.name}:{first}"
        if cursor.line - line > 1:
            where += f" (to line {first + cursor.line - line - 1})"
        return UsageError(
            f"a row has {cells} where the header has {wanted:,}",
            where=where,
            effect=NOTHING_WRITTEN,
            hint="every row needs a cell for each column; cells with a delimiter, quote or line end need quotes",
            code="ragged_row",
        )

    def _malformed(self, cursor: _Cursor, line: int, error: csv.Error) -> UsageError:
        words = str(error)
        first = cursor.physical(line)
        last = first + cursor.line - line - 1
        if "unexpected end" in words:
            opened = first + _opened_after(cursor.record(), self._delimiter.encode())
            return UsageError(
                "a quote is opened and never closed",
                where=f"{self._file.name}:{opened}",
                effect=NOTHING_WRITTEN,
                hint='close the quote; a quote inside a quoted cell is written twice: ""',
                code="unclosed_quote",
            )
        if "expected after" in words:
            where = f"{self._file.name}:{last}"
            if last != first:
                where += f" (the row starts at line {first})"
            return UsageError(
                "text follows a closing quote",
                where=where,
                effect=NOTHING_WRITTEN,
                hint='a quote inside a quoted cell is written twice: ""; or a quote further up was never closed',
                code="text_after_quote",
            )
        return UsageError(
            f"the row cannot be read: {words}",
            where=f"{self._file.name}:{first}",
            effect=NOTHING_WRITTEN,
            code="bad_row",
        )


def check_distinct(names: Sequence[str], where: str) -> None:
    """Refuse two columns of one name: every reader of such a table drops one of them without a word."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise UsageError(
                f"two columns are named `{name}`" if name else "two columns have no name",
                where=where,
                effect=NOTHING_WRITTEN,
                hint="give every column a name of its own",
                code="duplicate_column",
            )
        seen.add(name)


def _opened_after(record: bytes, delimiter: bytes) -> int:
    """How many line ends stand before the quote that `record` opens and never closes."""
    at = 0
    while at < len(record):
        if record[at : at + 1] == b'"':
            closed = _QUOTED.match(record, at)
            if closed is None:
                break
            at = closed.end()
        following = [i for i in (record.find(end, at) for end in (delimiter, b"\n", b"\r")) if i >= 0]
        if not following:
            break
        at = min(following) + 1
    return len(_LINE_END.findall(record[:at]))


def _count_lines(file: SourceFile, size: int) -> int:
    """Line ends in the first `size` bytes; what follows them starts a line."""
    count = 0
    stream = file.open()
    try:
        held = b""
        while size > 0 and (piece := stream.read(min(size, PIECE_BYTES))):
            size -= len(piece)
            piece = held + piece
            held = b"\r" if piece.endswith(b"\r") and size > 0 else b""  # half a CRLF, perhaps
            count += len(_LINE_END.findall(piece[: len(piece) - len(held)]))
    finally:
        stream.close()
    return count


class _Mark(NamedTuple):
    offset: int
    line: int
    base: int


class _Cursor:
    """A place in a file: what is read ahead, and the byte offset (from 0) of what comes next.

    `line` counts the line ends since a base, because counting those of proved blocks would cost 0.2 us a row;
    `physical` makes it a line of the file, from 1, by reading the file up to the base again if that is needed.
    """

    def __init__(self, file: SourceFile, stream: ByteStream, block_bytes: int, count_lines: bool) -> None:
        self._file = file
        self._stream = stream
        self._block_bytes = block_bytes
        self._buffer = b""
        self._at = 0
        self._ended = False
        self._record: list[bytes] = []
        self._record_bytes = 0
        self._count_lines = count_lines
        self._base = 0
        self.line = 0
        self.offset = 0

    def start(self) -> None:
        """Look at the first bytes: refuse what is not text of this encoding, skip a UTF-8 mark."""
        self._have(max(MAGIC_BYTES, self._block_bytes))
        if is_utf8(self._file.encoding):
            check_magic(self._file, self._buffer[:MAGIC_BYTES])
        if self._buffer.startswith(BOM):
            self._at = self.offset = len(BOM)

    def at_end(self) -> bool:
        return not self._have(1)

    def mark(self) -> _Mark:
        """Valid for `rewind` until something else than `take_proved` reads on."""
        return _Mark(self.offset, self.line, self._base)

    def rewind(self, mark: _Mark) -> None:
        self._at -= self.offset - mark.offset
        self.offset, self.line, self._base = mark

    def physical(self, line: int) -> int:
        """The line of the file, from 1, that `line` means."""
        return 1 + line + (_count_lines(self._file, self._base) if self._base else 0)

    def take_proved(self, delimiter: bytes) -> memoryview | None:
        """A block of whole records that both parsers read alike, or None: then nothing is taken.

        The window doubles until a record ends in it, so that one record of any length costs linear time.
        """
        size = self._block_bytes
        while True:
            window, final = self._window(size)
            end = proved_end(window, delimiter, final=final)
            if end is None:
                return None
            if end:
                self._at += end
                self.offset += end
                if self._count_lines:
                    self.line += window.count(b"\n", 0, end)
                else:
                    self._base, self.line = self.offset, 0
                return memoryview(window)[:end]
            if final or size >= RECORD_BYTES:
                return None
            size = min(2 * size, RECORD_BYTES)

    def start_record(self) -> None:
        self._record.clear()
        self._record_bytes = 0

    def record(self) -> bytes:
        """What `lines` gave since `start_record`."""
        return b"".join(self._record)

    def lines(self) -> Iterator[str]:
        """Physical lines with their ends, for `csv.reader`; the cursor stands behind the last one given."""
        while lines := self._lines():
            for line in lines:
                start = self.offset
                size = len(line)
                self._at += size
                self.offset += size
                self.line += 1
                self._record.append(line)
                self._record_bytes += size
                if self._record_bytes > RECORD_BYTES:
                    raise self._endless()
                try:
                    text = line.decode()
                except UnicodeDecodeError as error:
                    raise not_encoded(self._file, self.physical(self.line - 1), start + error.start) from error
                yield text

    def _endless(self) -> UsageError:
        first = self.physical(self.line - len(self._record))
        return UsageError(
            f"a row is longer than {RECORD_BYTES >> 20} MB",
            where=f"{self._file.name}:{first}",
            effect=NOTHING_WRITTEN,
            hint="most likely a quote in this row is never closed",
            code="endless_row",
        )

    def _lines(self) -> list[bytes]:
        """Some whole lines that come next, not taken yet; none at the end. A line of any length costs linear time."""
        size = self._block_bytes
        while True:
            window, final = self._window(size)
            end = len(window) if final else window.rfind(b"\n") + 1
            if not end:
                end = window.rfind(b"\r", 0, len(window) - 1) + 1  # the last byte may be half a CRLF
            if end or final:
                return _LINE.findall(window, 0, end)
            if size > RECORD_BYTES:
                self._record.append(b"")
                self.line += 1
                raise self._endless()
            size *= 2

    def _window(self, size: int) -> tuple[bytes, bool]:
        """The next `size` bytes, not taken yet, and whether the file ends with them."""
        have = self._have(size)
        if have <= size:
            return (self._buffer[self._at :] if self._at else self._buffer), self._ended
        return self._buffer[self._at : self._at + size], False

    def _have(self, size: int) -> int:
        """Read ahead until `size` bytes wait or the file ends; gives how many wait."""
        have = len(self._buffer) - self._at
        if have >= size or self._ended:
            return have
        pieces = [self._buffer[self._at :]]
        while have < size:
            piece = self._stream.read(max(self._block_bytes, size - have))
            if not piece:
                self._ended = True
                break
            pieces.append(piece)
            have += len(piece)
        self._buffer = b"".join(pieces)
        self._at = 0
        return have


def proved_end(window: bytes, delimiter: bytes, *, final: bool) -> int | None:
    """Where the last whole record of `window` ends, if it and all before are proved unambiguous.

    0: no record is whole; None: not proved. `window` starts at the start of a record; `final`: the file ends with it.
    """
    if window.startswith(BOM):
        return None  # inside the file it is text; pyarrow would drop it
    bare = _BARE_CR.search(window) if b"\r" in window else None  # counting CR and CRLF takes three times as long
    if bare and (final or bare.end() < len(window)):  # else: its LF has not been read yet
        return None
    if b'"' not in window:
        return len(window) if final else window.rfind(b"\n") + 1
    pieces = window.split(b'"')
    if final:
        end = len(window)
        if len(pieces) % 2 == 0:
            return None  # a quote stays open
    else:
        end = len(window)
        last = len(pieces) - 1
        for index in range(last, -1, -1):
            if index % 2 == 0:
                newline = pieces[index].rfind(b"\n")
                if newline >= 0:
                    end -= len(pieces[index]) - newline - 1
                    pieces[index] = pieces[index][: newline + 1]
                    del pieces[index + 1 :]
                    break
            end -= len(pieces[index]) + 1
        else:
            return 0
    if len(pieces) == 1:
        return end
    ends = (delimiter, b"\n")
    starts = (delimiter, b"\n", b"\r\n")
    if pieces[0] and not pieces[0].endswith(ends):
        return None
    if pieces[-1] and not pieces[-1].startswith(starts):
        return None
    for piece in set(pieces[2:-1:2]):  # a set: in a file that quotes every cell nearly all of them are `,`
        if piece and not (piece.startswith(starts) and piece.endswith(ends)):
            return None
    return end
