import gzip
from pathlib import Path
from typing import Any

import pyarrow as pa

from batchctl.model.rows import Unusable
from batchctl.tables import Source, SourceSpec, open_source


def zstd(content: bytes) -> bytes:
    return bytes(pa.compress(content, codec="zstd", asbytes=True))


class Folder:
    """A directory with source files."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, name: str, content: bytes | str) -> Path:
        raw = content.encode() if isinstance(content, str) else content
        if name.endswith(".gz"):
            raw = gzip.compress(raw)
        if name.endswith(".zst"):
            raw = zstd(raw)
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(raw)
        return path

    def source(self, *paths: str, **settings: Any) -> Source:
        return open_source(SourceSpec(paths=paths, base=self.path, **settings))

    def rows(self, *paths: str, **settings: Any) -> list[dict[str, Any] | Unusable]:
        rows: list[dict[str, Any] | Unusable] = []
        for batch in self.source(*paths, **settings).batches():
            assert batch.first == len(rows)
            rows += batch.rows
        return rows
