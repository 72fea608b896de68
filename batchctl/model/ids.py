"""Identity: which row, which request, which attempt, which batch. Pure functions, the same on every machine.

A *source id* is the user's, kept as text. A *request digest* names what is sent, a *record key* names it for one
source id. A *custom_id* joins one result to one attempt of one record; an *intent id* names one try to create one batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

DIGEST_BYTES = 16
CUSTOM_ID_LENGTH = 8 + 1 + 16 + 1 + 6 + 1 + 2
KEY = slice(9, 25)
"""The part of a custom_id that is of the record key."""


def digest(*parts: bytes) -> bytes:
    """16 bytes over `parts`; the lengths are part of it, so that moving a border changes the digest."""
    state = hashlib.sha256()
    for part in parts:
        state.update(len(part).to_bytes(8, "big"))
        state.update(part)
    return state.digest()[:DIGEST_BYTES]


def id_digest(source_id: bytes) -> bytes:
    """16 bytes that stand for one source id (its UTF-8), or for one row's content."""
    return hashlib.sha256(source_id).digest()[:DIGEST_BYTES]


def purged_id(source_id: str) -> str:
    """What stands for a source id in the segments of a run whose texts were purged: still told apart, not readable."""
    return "purged:" + id_digest(source_id.encode()).hex()


def id_digests(source_ids: Sequence[bytes]) -> bytes:
    """`id_digest` of each, one after another."""
    sha256 = hashlib.sha256
    return b"".join([sha256(one).digest()[:DIGEST_BYTES] for one in source_ids])


def record_keys(request_digests: Sequence[bytes], source_ids: Sequence[bytes]) -> bytes:
    """`record_key` of each pair, one after another."""
    sha256, pairs = hashlib.sha256, zip(request_digests, source_ids, strict=True)
    return b"".join([sha256(request + name).digest()[:DIGEST_BYTES] for request, name in pairs])


def record_key(request_digest: bytes, source_id: bytes) -> bytes:
    """The idempotency key of a record: what is sent, and for whom. The first part has a fixed length."""
    return hashlib.sha256(request_digest + source_id).digest()[:DIGEST_BYTES]


def chunk_mark(run: str, settings_sha256: str, number: int) -> str:
    """Eight hex digits that every custom_id of a chunk begins with. Known before the first line is written."""
    return digest(run.encode(), settings_sha256.encode(), str(number).encode()).hex()[:8]


def custom_id(mark: str, key_hex: str, offset: int, attempt: int, separator: str = "-") -> str:
    """`[a-z0-9-]`, 35 characters, no user data: chunk, record, place in the chunk, attempt.

    The place makes it unique inside the chunk whatever the digests do. `attempt` is at most 99, `offset` below 2**24.
    `separator` is a letter beyond the hex digits where a vendor's ids hold letters and digits only.
    """
    return separator.join((mark, key_hex[:16], f"{offset:06x}", f"{attempt:02d}"))


def offset_of(custom_id: str) -> int | None:
    """The place inside the chunk that `custom_id` claims, or None when it is not of our making. Proves nothing alone."""
    if len(custom_id) != CUSTOM_ID_LENGTH or custom_id[25] != "-":
        return None
    try:
        return int(custom_id[26:32], 16)
    except ValueError:
        return None


def intent_id(workspace: str, run: str, chunk: int, attempt: int, send: int, chunk_sha256: str) -> str:
    """The mark a batch carries at the provider: lower-case letters, digits, single hyphens, at most 63 characters.

    `workspace` is random, so that two people running the same job on one account never adopt each other's batches.
    """
    job8 = hashlib.sha256(run.encode()).hexdigest()[:8]
    parts = (workspace, run, str(chunk), str(attempt), str(send), chunk_sha256)
    return f"bc-{job8}-{chunk:04d}-{attempt}-{digest(*(part.encode() for part in parts)).hex()[:12]}"
