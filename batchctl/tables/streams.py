"""Source files as streams of bytes: decompressed, decoded to UTF-8, and never more than one piece in memory.

Assumes nothing about rows. Damage (a truncated archive, bytes that are not the declared encoding, a file that changes
under our hands) is a `UsageError` that names the file, because the user can mend it and nothing has been sent.
"""

from __future__ import annotations

import codecs
import os
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from batchctl.model.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

NOTHING_WRITTEN = "nothing was written"
PIECE_BYTES = 1 << 20
RECORD_BYTES = 256 << 20
"""A longer record is taken for a quote that was never closed: reading on would put the rest of the file into memory."""

BOMB_BYTES = 64 << 20
BOMB_RATIO = 2000
"""gzip cannot exceed 1,032 to 1, and text in zstd hardly passes 100 to 1: more, for this long, is not a table."""

_MAGIC = (
    # Longer marks first: the UTF-32 mark starts with the UTF-16 one.
    (b"\xff\xfe\x00\x00", "is UTF-32, not UTF-8", 'set `encoding = "utf-32"` under [source] in the job file'),
    (b"\x00\x00\xfe\xff", "is UTF-32, not UTF-8", 'set `encoding = "utf-32"` under [source] in the job file'),
    (b"\xff\xfe", "is UTF-16, not UTF-8", 'set `encoding = "utf-16"` under [source] in the job file'),
    (b"\xfe\xff", "is UTF-16, not UTF-8", 'set `encoding = "utf-16"` under [source] in the job file'),
    (b"\x1f\x8b", "is compressed with gzip, but its name does not say so", "add `.gz` to the file's name"),
    (b"\x28\xb5\x2f\xfd", "is compressed with zstd, but its name does not say so", "add `.zst` to the file's name"),
    (
        b"PAR1\x15",  # four letters alone may be the name of a column
        "is a Parquet file, but its name or `format` says otherwise",
        'name it `.parquet`, or set `format = "parquet"`',
    ),
    (b"PK\x03\x04", "is a zip archive or an Excel workbook, not text", "unpack it, or export the sheet as CSV (UTF-8)"),
    (b"\xd0\xcf\x11\xe0", "is an old Excel workbook, not text", "export the sheet as CSV (UTF-8)"),
)


@dataclass(frozen=True, slots=True)
class Identity:
    """Enough of a file's status to notice that another one took its place, or that it was written to."""

    device: int
    inode: int
    size_bytes: int
    modified_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Identity:
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of a source. `name` is how messages call it: as the user wrote it, relative to the job file."""

    path: Path
    name: str
    identity: Identity
    compression: str = ""  # "", "gz" or "zst"
    encoding: str = "utf-8"

    def check_unchanged(self, status: os.stat_result) -> None:
        if Identity.of(status) != self.identity:
            raise UsageError(
                f"`{self.name}` changed while it was being read",
                where=self.name,
                effect=NOTHING_WRITTEN,
                hint="let the program that writes the file finish, then run the same command again",
                code="source_changed",
            )

    def check_still_unchanged(self) -> None:
        """After the last byte: rows read from a file that was rewritten meanwhile belong to no version of it."""
        try:
            status = self.path.stat()
        except OSError as error:
            raise unreadable(self.name, error) from error
        self.check_unchanged(status)

    def open_raw(self) -> BinaryIO:
        """The bytes as they are on disk."""
        try:
            raw = self.path.open("rb", buffering=0)
        except OSError as error:
            raise unreadable(self.name, error) from error
        try:
            self.check_unchanged(os.fstat(raw.fileno()))
        except BaseException:
            raw.close()
            raise
        return raw

    def open(self) -> ByteStream:
        """The bytes decompressed and, for text in another encoding, as UTF-8."""
        stream: ByteStream = _Compressed(self) if self.compression else _Plain(self)
        return stream if is_utf8(self.encoding) else _Transcoded(self, stream)

    def pieces(self) -> Iterator[bytes]:
        """The raw bytes, piece by piece, for a digest."""
        with self.open_raw() as raw:
            while piece := raw.read(PIECE_BYTES):
                yield piece


def unreadable(name: str, error: OSError) -> UsageError:
    return UsageError(
        f"cannot read `{name}`: {error.strerror or error}",
        where=name,
        effect=NOTHING_WRITTEN,
        hint="check that the file exists and that you may read it",
    )


MAGIC_BYTES = max(len(mark) for mark, _, _ in _MAGIC)


def check_magic(file: SourceFile, start: bytes) -> None:
    """Refuse a file whose first bytes (`MAGIC_BYTES`, if there are as many) show that it is not UTF-8 text."""
    for mark, what, hint in _MAGIC:
        if start.startswith(mark):
            raise UsageError(f"`{file.name}` {what}", where=file.name, effect=NOTHING_WRITTEN, hint=hint)


def is_utf8(encoding: str) -> bool:
    """UTF-8 with or without a mark: the mark is dropped by whoever reads the first line."""
    return codecs.lookup(encoding).name in ("utf-8", "utf-8-sig", "ascii")


def check_encoding(encoding: str) -> None:
    """Refuse an encoding that Python does not know, or one that is not text (such as `hex`)."""
    try:
        b"a".decode(encoding)
        known = codecs.lookup(encoding).incrementaldecoder is not None
    except UnicodeError:
        known = True  # one byte is not a whole character of it, as in UTF-16
    except (LookupError, ValueError):
        known = False
    if not known:
        raise UsageError(
            f"the encoding `{encoding}` is not known",
            effect=NOTHING_WRITTEN,
            hint='`encoding` under [source] takes names such as "utf-8", "cp1252", "latin-1" and "utf-16"',
        )


class ByteStream:
    """`read(size)` gives up to `size` bytes and b"" only at the end. Always closed by its reader."""

    def read(self, size: int) -> bytes:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


class _Plain(ByteStream):
    def __init__(self, file: SourceFile) -> None:
        self._file = file
        self._raw = file.open_raw()

    def read(self, size: int) -> bytes:
        try:
            return self._raw.read(size)
        except OSError as error:
            raise unreadable(self._file.name, error) from error

    def close(self) -> None:
        self._raw.close()


class _Compressed(ByteStream):
    def __init__(self, file: SourceFile) -> None:
        import pyarrow as pa

        self._file = file
        self._raw = file.open_raw()
        codec = {"gz": "gzip", "zst": "zstd"}[file.compression]
        self._stream: Any = pa.CompressedInputStream(pa.PythonFile(self._raw, mode="r"), codec)
        self._total = 0

    def read(self, size: int) -> bytes:
        try:
            piece = bytes(self._stream.read(size))
        except OSError as error:  # pyarrow's word for a damaged archive as well as for a failing disk
            raise UsageError(
                f"`{self._file.name}` is damaged or incomplete: it cannot be decompressed",
                where=f"{self._file.name}, after {self._total:,} decompressed bytes: {error}",
                effect=NOTHING_WRITTEN,
                hint="copy or download the file again; `gzip -t` or `zstd -t` checks it",
            ) from error
        self._total += len(piece)
        if self._total > BOMB_BYTES and self._total > BOMB_RATIO * max(1, self._raw.tell()):
            raise UsageError(
                f"`{self._file.name}` decompresses to more than {BOMB_RATIO:,} times its size: this is not a table",
                where=f"{self._file.name}, after {self._total:,} decompressed bytes",
                effect=NOTHING_WRITTEN,
                hint="if the file is what you mean, decompress it yourself and name the result in `path`",
            )
        return piece

    def close(self) -> None:
        with closing(self._raw):
            self._stream.close()


class _Transcoded(ByteStream):
    """Text in another encoding as UTF-8. The offset in an error counts (decompressed) bytes of the file itself."""

    def __init__(self, file: SourceFile, inner: ByteStream) -> None:
        self._file = file
        self._inner = inner
        self._decode = codecs.getincrementaldecoder(file.encoding)("strict")
        self._consumed = 0
        self._line = 1
        self._ended = False

    def read(self, size: int) -> bytes:
        while not self._ended:
            piece = self._inner.read(size)
            self._ended = not piece
            pending = len(self._decode.getstate()[0])
            try:
                text = self._decode.decode(piece, final=self._ended)
                out = text.encode()
            except UnicodeError as error:
                raise self._undecodable(error, self._consumed - pending) from error
            self._consumed += len(piece)
            self._line += text.count("\n")
            if out:
                return out
        return b""

    def close(self) -> None:
        self._inner.close()

    def _undecodable(self, error: UnicodeError, base: int) -> UsageError:
        start = error.start if isinstance(error, UnicodeDecodeError) else 0
        line = self._line
        if isinstance(error, UnicodeDecodeError):
            good = bytes(error.object[:start])
            line += good.decode(self._file.encoding, "ignore").count("\n")
        return not_encoded(self._file, line, base + start)


def not_encoded(file: SourceFile, line: int, offset: int) -> UsageError:
    """Bytes that are not text in the source's encoding. `offset` counts from 0, as `xxd` and editors show it."""
    name = file.encoding.upper() if is_utf8(file.encoding) else f"`{file.encoding}`"
    other = "cp1252" if is_utf8(file.encoding) else "utf-8"
    return UsageError(
        f"`{file.name}` is not valid {name} text",
        where=f"{file.name}:{line}, byte offset {offset}",
        effect=NOTHING_WRITTEN,
        hint=f'set the file\'s true encoding under [source] in the job file, such as `encoding = "{other}"`',
    )
