"""What a provider module and the rest of batchctl say to each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from batchctl.model.rows import Usage


class BatchState(StrEnum):
    """Our three words for every vendor's list of statuses. The vendor's own word is kept beside it."""

    RUNNING = "running"  # also every word we do not know: the unknown is never an end
    ENDED = "ended"  # will change no more; results, perhaps partial, can be fetched
    REFUSED = "refused"  # failed in validation: nothing ran, nothing was billed


@dataclass(frozen=True, slots=True)
class Limits:
    """Hard limits of one batch, as the vendor states them; `source` names the page and the date it was read."""

    requests: int
    file_bytes: int
    line_bytes: int
    source: str
    least_requests: int = 1  # a batch with fewer is refused


@dataclass(frozen=True, slots=True)
class Traits:
    """Abilities as data: callers ask "can a batch be found again?", never "is this vendor X?"."""

    searchable: bool  # a batch created by us can be found by our mark
    fenced: bool  # deleting the staged input keeps a late create from running
    token_seconds: int = 0  # so long, a create repeated with the same tag and arguments is the same batch
    id_separator: str = "-"  # between the parts of a custom_id; a letter where the vendor's ids have no signs
    wire: str = "openai"  # whose shapes its results have: names the reader in `judging.wires`
    uploads: bool = True  # False: the chunk itself is the body of `create`, and `stage` puts nothing anywhere
    live: bool = True  # it answers single requests, too: a dry run can be made
    paid: bool = True  # somebody bills what it does: a person is asked first
    batch: bool = True
    endpoints: tuple[str, ...] = ()
    structured_output: bool = True
    retention: str = ""
    regions: str = "not verified"
    lacks: tuple[str, ...] = ()  # what it cannot do in batch, as far as no other field says so
    credentials: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ask:
    """What one row asks, in the job's words: what `body` turns into a vendor's request. `mode`: native, tool or prompt."""

    endpoint: str
    model: str
    prompt: str
    system: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    schema: Mapping[str, Any] | None = None
    mode: str = "native"
    schema_name: str = "answer"


@dataclass(frozen=True, slots=True)
class Request:
    """One request before it is a line: what `encode` turns into bytes."""

    custom_id: str
    endpoint: str
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class LineError:
    """One complaint of the provider about an input file; `line` is 1-based, None when it is about the whole file."""

    code: str
    message: str
    line: int | None = None
    param: str = ""


class Refusal(StrEnum):
    """Why a whole batch failed in validation: decides whether the same bytes may be sent again."""

    FILE = "file"  # the bytes are wrong
    CAPACITY = "capacity"  # the queue is full: later, unchanged
    ACCESS = "access"  # the provider could not read the file it holds: upload again
    BILLING = "billing"


@dataclass(frozen=True, slots=True)
class BatchStatus:
    """One answer to `poll`. `files` are handles for `results`, by kind ("output", "errors").

    `owes_results`: the vendor's word means that there are results, so an end that names no file is an error and not a
    batch without answers. `out_of_time`: the batch ended because its time was over, so rows that never ran may be many.
    """

    state: BatchState
    vendor_status: str
    batch_id: str = ""
    files: tuple[tuple[str, str], ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    refusal: Refusal | None = None
    errors: tuple[LineError, ...] = ()
    known_word: bool = True
    expires_at: int | None = None
    owes_results: bool = False
    out_of_time: bool = False
    usage: Usage | None = None  # the provider's own total over all requests, where it gives one


class Proof(StrEnum):
    """Whether a batch that `find` names is ours."""

    CERTAIN = "certain"  # it carries our mark, reads our input, or has answered one of our custom_ids
    WHEN_ENDED = "when ended"  # it looks like ours and runs; its results will tell
    NEVER = "never"  # it looks like ours, and nothing at the provider tells: a person decides


@dataclass(frozen=True, slots=True)
class Candidate:
    """A batch at the provider that is or may be ours: an answer to `find`."""

    batch_id: str
    created_at: int | None
    vendor_status: str
    by: str  # "mark", "input" or both: the evidence
    proof: Proof = Proof.CERTAIN


@dataclass(frozen=True, slots=True)
class Post:
    """One synchronous request but for its body: where to, with which headers, and the secret that no answer may keep."""

    url: str
    headers: Mapping[str, str] = field(repr=False)
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Room:
    """What the provider says is left of its rate limit, and for how long; None where it does not say."""

    requests: int | None = None
    reset_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class LiveAnswer:
    """One synchronous answer: HTTP status and parsed body, and the body's own bytes where they are known."""

    status: int
    body: Any
    seconds: float
    raw: bytes = b""
    request_id: str = ""
    room: Room = Room()
