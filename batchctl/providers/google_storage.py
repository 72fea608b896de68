"""Cloud Storage as Vertex reads and writes it: one input object a chunk, a folder of result shards a job.

google-cloud-storage 3.17.1; its own retries are off, because `guard.py` is the only layer that repeats. An input is
written once (`if_generation_match=0`): a lost answer makes the next try find it there, and its checksum tells whether
it is ours. Reads are pinned to the generation that was listed, and their checksum is compared at the end.

Facts: storage v1 discovery of 2026-10-09 and the library driven against an emulator, read 2026-11-21. What the shards are
called is reported by clients, not documented for Gemini jobs: `predictions.jsonl`, `predictions.jsonl-00000-of-00002`,
`predictions_0001.jsonl`, `errors...`, and `incremental_predictions.jsonl`, a partial dump written during the run.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from batchctl.model.errors import NotFound, OutcomeUnknown, Rejected

ANSWER_SECONDS = 600.0
CONNECT_SECONDS = 10.0
BLOCK_BYTES = 8 << 20
_SHARD = re.compile(r"predictions\.jsonl-(\d{5})-of-(\d{5})")
_FINAL = re.compile(r"predictions\.jsonl(-\d{5}-of-\d{5})?|predictions_\d+\.jsonl|errors.*\.jsonl(-\d{5}-of-\d{5})?")
_INCREMENTAL = "incremental_predictions.jsonl"


class Objects:
    """A client that is made when it is first needed. `make` returns a `google.cloud.storage.Client`."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._client: Any = None

    def _bucket(self, name: str) -> Any:
        if self._client is None:
            self._client = self._make()
        return self._client.bucket(name)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def put(self, path: Path, address: str) -> None:
        """The file as a new object. One that is there already must hold the same bytes."""
        from google.api_core.exceptions import PreconditionFailed

        bucket, name = parts_of(address)
        blob = self._bucket(bucket).blob(name, chunk_size=BLOCK_BYTES)
        try:
            blob.upload_from_filename(
                str(path),
                content_type="application/jsonl",
                if_generation_match=0,
                retry=None,
                timeout=(CONNECT_SECONDS, ANSWER_SECONDS),
            )
        except PreconditionFailed:
            blob.reload(retry=None)
            if blob.crc32c != _checksum(path):
                raise Rejected(
                    "an object of that name is there and holds something else",
                    where=address,
                    effect="nothing was sent",
                    hint="choose another [model] bucket, or delete it",
                ) from None

    def delete(self, address: str) -> None:
        bucket, name = parts_of(address)
        self._bucket(bucket).blob(name).delete(retry=None)

    def delete_folder(self, folder: str) -> None:
        """Every object of a folder; one without objects counts as deleted."""
        bucket, prefix = parts_of(folder.rstrip("/") + "/")
        for blob in self._list(bucket, prefix):
            blob.delete(retry=None)

    def read(self, address: str) -> Iterator[bytes]:
        """One object, as it is now."""
        bucket, name = parts_of(address)
        blob = self._bucket(bucket).blob(name)
        blob.reload(retry=None)
        yield from _content(blob)

    def shards(self, folder: str, *, whole: bool) -> list[Any]:
        """The result objects of a folder, each line in one of them. `whole`: the job succeeded, so none may be absent.

        The incremental dump counts only where final shards are absent: its lines are in them otherwise.
        """
        bucket, prefix = parts_of(folder.rstrip("/") + "/")
        listed = {blob.name.removeprefix(prefix): blob for blob in self._list(bucket, prefix)}
        final = {name: blob for name, blob in listed.items() if _FINAL.fullmatch(name)}
        absent = _absent(final)
        if whole and (absent or not final):
            said = f"{absent} result files are absent" if absent else "there is no result file"
            raise NotFound(f"{said} in the job's output folder", where=folder)
        if (absent or not final) and _INCREMENTAL in listed:
            final[_INCREMENTAL] = listed[_INCREMENTAL]
        return [final[name] for name in sorted(final)]

    def _list(self, bucket: str, prefix: str) -> list[Any]:
        client = self._bucket(bucket).client
        return list(client.list_blobs(bucket, prefix=prefix, retry=None))

    def content(self, blob: Any) -> Iterator[bytes]:
        yield from _content(blob)


def parts_of(address: str) -> tuple[str, str]:
    """Bucket and name out of `gs://bucket/name`."""
    bucket, _, name = address.removeprefix("gs://").partition("/")
    return bucket, name


def _absent(final: dict[str, Any]) -> int:
    """How many shards are said to exist and are not there."""
    found = [match for name in final if (match := _SHARD.fullmatch(name))]
    said = max((int(match[2]) for match in found), default=0)
    return max(0, said - len(found))


def _content(blob: Any) -> Iterator[bytes]:
    """The bytes of one generation of an object, whose checksum must agree."""
    pinned = blob.bucket.blob(blob.name, generation=blob.generation)
    checksum = _crc32c()
    with pinned.open("rb", chunk_size=BLOCK_BYTES, retry=None) as file:
        while block := file.read(BLOCK_BYTES):
            checksum.update(block)
            yield block
    if blob.crc32c and _written(checksum) != blob.crc32c:
        raise OutcomeUnknown("an object did not arrive as it is stored", where=f"gs://{blob.bucket.name}/{blob.name}")


def _checksum(path: Path) -> str:
    checksum = _crc32c()
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            checksum.update(block)
    return _written(checksum)


def _crc32c() -> Any:
    import google_crc32c

    made: Any = google_crc32c.Checksum
    return made()


def _written(checksum: Any) -> str:
    """As the service shows it."""
    return base64.b64encode(checksum.digest()).decode()
