"""Sources in object storage: `s3://bucket/name` and `gs://bucket/name`, with globs, copied here before they are read.

A source is read more than once and its identity is a file's, so each object becomes a private file under the job's
spool. The copy is named by the object's address and version: an object that did not change is not fetched again, one
that did replaces its older copy. Clients find their credentials themselves (environment, profile, metadata server).
"""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple, Protocol

from batchctl.files import replacing
from batchctl.model.errors import NotAllowed, ProviderError, UsageError

SCHEMES = ("s3", "gs")
_PIECE = 1 << 20
_ATTEMPTS = 3
_EFFECT = "nothing was written"
_NOT_ALLOWED = {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "403", "401"}


class Entry(NamedTuple):
    """An object as its store lists it. `version` changes whenever its bytes do."""

    name: str
    version: str
    size_bytes: int


class _Store(Protocol):
    def entry(self, name: str) -> Entry | None: ...
    def entries(self, prefix: str) -> Iterator[Entry]: ...
    def copy(self, entry: Entry, out: BinaryIO) -> None:
        """Write the bytes of exactly that version. Raises what the vendor's client raises."""
        ...


def fetched(address: str, spool: Path | None) -> list[tuple[Path, str]]:
    """Copies of the objects at an address, with the address of each; globs match like those of files.

    Raises `UsageError` for an address that names nothing, `NotAllowed`, or `ProviderError` when the store cannot be
    reached or an object changed while it was read.
    """
    scheme, _, rest = address.partition("://")
    bucket, _, name = rest.partition("/")
    if scheme not in SCHEMES or not bucket or not name or name.endswith("/"):
        raise UsageError(
            f"`{re.sub('//[^/@]*@', '//', address.partition('?')[0])}` is not a source",
            effect=_EFFECT,
            hint="name a file, s3://bucket/name.csv or gs://bucket/name.csv; globs such as s3://bucket/day-*.parquet work",
        )
    if spool is None:
        raise UsageError(
            f"a source in {scheme}:// cannot be read here",
            where=address,
            effect=_EFFECT,
            hint="copy it to this machine and name the copy",
        )
    with _explained(address):
        store: _Store = _S3(bucket) if scheme == "s3" else _GS(bucket)
        found = _matching(store, name)
        if not found:
            raise UsageError(
                f"no object matches `{address}`" if glob.has_magic(name) else f"there is no object `{address}`",
                where=f"looked in {scheme}://{bucket}",
                effect=_EFFECT,
                hint="check the address under [source], and that the job that writes it has run",
                code="source_not_found",
            )
        return [(_copied(store, f"{scheme}://{bucket}/{one.name}", one, spool), f"{scheme}://{bucket}/{one.name}")
                for one in found]  # fmt: skip


def _matching(store: _Store, name: str) -> list[Entry]:
    exact = store.entry(name)
    if exact is not None or not glob.has_magic(name):  # an object may be called `data[1].csv`
        return [exact] if exact is not None else []
    fixed = re.split(r"[*?\[]", name, maxsplit=1)[0]
    pattern = name.split("/")
    found = (one for one in store.entries(fixed) if not one.name.endswith("/"))
    return sorted(one for one in found if _fits(one.name.split("/"), pattern))


def _fits(parts: list[str], pattern: list[str]) -> bool:
    """Whether a name fits, part by part: `*` stays within a part, `**` is any number of them."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_fits(parts[skipped:], pattern[1:]) for skipped in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])


def _copied(store: _Store, address: str, entry: Entry, spool: Path) -> Path:
    """The copy of one object; made now, unless it is here already."""
    place = hashlib.sha256(address.encode()).hexdigest()[:24]
    version = hashlib.sha256(f"{entry.version} {entry.size_bytes}".encode()).hexdigest()[:24]
    suffixes = "".join(PurePosixPath(entry.name).suffixes[-2:])
    path = spool / f"{place}-{version}{suffixes}"
    if path.is_file() and path.stat().st_size == entry.size_bytes:
        return path
    spool.mkdir(mode=0o700, parents=True, exist_ok=True)
    with replacing(path) as out:
        with _explained(address):  # here too: some of the clients' errors are `OSError`, which are the disk's otherwise
            store.copy(entry, out)
        if out.tell() != entry.size_bytes:
            raise ProviderError(
                f"`{address}` has {entry.size_bytes:,} bytes, {out.tell():,} arrived",
                where=address,
                effect=_EFFECT,
                hint="run the same command again",
                code="source_truncated",
            )
    for older in spool.glob(f"{place}-*"):
        if older != path:
            older.unlink(missing_ok=True)
    return path


class _S3:
    def __init__(self, bucket: str) -> None:
        import boto3

        self._client = boto3.client("s3")
        self._bucket = bucket

    def entry(self, name: str) -> Entry | None:
        from botocore.exceptions import ClientError

        try:
            head = self._client.head_object(Bucket=self._bucket, Key=name)
        except ClientError as error:
            if _code(error) not in ("404", "NoSuchKey", "NotFound"):
                raise
            self._client.head_bucket(Bucket=self._bucket)  # tells a missing bucket from a missing object
            return None
        return Entry(name, str(head["ETag"]), int(head["ContentLength"]))

    def entries(self, prefix: str) -> Iterator[Entry]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
        for page in pages:
            for one in page.get("Contents", ()):
                yield Entry(str(one["Key"]), str(one["ETag"]), int(one["Size"]))

    def copy(self, entry: Entry, out: BinaryIO) -> None:
        from botocore.exceptions import ReadTimeoutError, ResponseStreamingError

        for attempt in range(1, _ATTEMPTS + 1):
            out.seek(0)
            out.truncate()
            got = self._client.get_object(Bucket=self._bucket, Key=entry.name, IfMatch=entry.version)
            try:
                for piece in got["Body"].iter_chunks(_PIECE):
                    out.write(piece)
                return
            except (ResponseStreamingError, ReadTimeoutError):
                if attempt == _ATTEMPTS:
                    raise


class _GS:
    def __init__(self, bucket: str) -> None:
        from google.cloud import storage

        client = storage.Client(project=os.environ.get("GOOGLE_CLOUD_PROJECT") or "-")  # reading needs no project
        self._bucket = client.bucket(bucket)

    def entry(self, name: str) -> Entry | None:
        from google.api_core.exceptions import NotFound

        blob = self._bucket.get_blob(name)
        if blob is not None:
            return _of(blob)
        try:  # tells a missing bucket from a missing object
            next(iter(self._bucket.client.list_blobs(self._bucket, max_results=1)), None)
        except NotFound as error:
            raise _no_bucket(f"gs://{self._bucket.name}/{name}") from error
        return None

    def entries(self, prefix: str) -> Iterator[Entry]:
        for blob in self._bucket.client.list_blobs(self._bucket, prefix=prefix):
            yield _of(blob)

    def copy(self, entry: Entry, out: BinaryIO) -> None:
        blob = self._bucket.blob(entry.name, generation=int(entry.version))
        blob.download_to_file(out, raw_download=True, checksum="auto")  # the bytes as they are stored


def _of(blob: Any) -> Entry:
    return Entry(str(blob.name), str(blob.generation), int(blob.size))


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _explained(address: str) -> AbstractContextManager[None]:
    """The vendor's errors in our words."""
    return (_s3_errors if address.startswith("s3:") else _gs_errors)(address)


@contextmanager
def _s3_errors(address: str) -> Iterator[None]:
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    try:
        yield
    except NoCredentialsError as error:
        hint = "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        raise NotAllowed("no AWS credentials were found", where=address, effect=_EFFECT, hint=hint) from error
    except ClientError as error:
        code = _code(error)
        if code in _NOT_ALLOWED:
            hint = "the key needs s3:GetObject and s3:ListBucket there"
            raise NotAllowed(f"S3 refuses: {code}", where=address, effect=_EFFECT, hint=hint) from error
        if code in ("NoSuchBucket", "404"):
            raise _no_bucket(address) from error
        if code in ("PreconditionFailed", "412", "NoSuchKey"):
            raise _changed(address) from error
        raise _unavailable(f"S3 cannot be used now: {code}", address) from error
    except BotoCoreError as error:
        raise _unavailable(f"S3 cannot be used now: {type(error).__name__}", address) from error


@contextmanager
def _gs_errors(address: str) -> Iterator[None]:
    from google.api_core.exceptions import Forbidden, GoogleAPICallError, NotFound, Unauthorized
    from google.auth.exceptions import GoogleAuthError
    from google.cloud.storage.exceptions import DataCorruption
    from requests.exceptions import RequestException

    try:
        yield
    except (Forbidden, Unauthorized) as error:
        hint = "the account needs storage.objects.get and storage.objects.list there"
        raise NotAllowed("Google Cloud Storage refuses", where=address, effect=_EFFECT, hint=hint) from error
    except GoogleAuthError as error:
        hint = "`gcloud auth application-default login`, or a service account"
        raise NotAllowed("no Google credentials were found", where=address, effect=_EFFECT, hint=hint) from error
    except NotFound as error:
        raise _changed(address) from error
    except DataCorruption as error:
        raise _unavailable("the bytes that arrived are not those that are stored", address) from error
    except (GoogleAPICallError, RequestException) as error:
        raise _unavailable(f"Google Cloud Storage cannot be used now: {type(error).__name__}", address) from error


def _no_bucket(address: str) -> UsageError:
    bucket = address.partition("://")[2].partition("/")[0]
    return UsageError(
        f"there is no bucket `{bucket}`", where=address, effect=_EFFECT, hint="correct `path` under [source]"
    )


def _changed(address: str) -> ProviderError:
    return ProviderError(
        "an object changed or went while it was read",
        where=address,
        effect=_EFFECT,
        hint="let the program that writes it finish, then run the same command again",
        code="source_changed",
    )


def _unavailable(what: str, address: str) -> ProviderError:
    return ProviderError(what, where=address, effect=_EFFECT, hint="run the same command again later", code="source")
