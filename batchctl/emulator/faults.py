"""What goes wrong on purpose: scripted faults on calls, and the fate drawn for each row.

A call fault names a method and a path and the calls it strikes. A row's fate is drawn from the seed, the request's
digest and its custom_id: the same request under the same custom_id always meets the same fate, and a new attempt, which
carries another custom_id, draws again, so that a rerun can succeed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import orjson

from batchctl.emulator.reading import known_keys, nearest, refuse, seconds, whole

if TYPE_CHECKING:
    from batchctl.emulator.settings import Settings

ACTS = frozenset(("drop-after", "truncate", "truncate-clean", "garbage", "no-id", "empty", "hang", "late", "hide"))
"""The faults under which the call takes effect; all others strike before anything happened."""
BEFORE = frozenset(("drop-before", "redirect", "insufficient_quota"))
_STATUS = re.compile(r"(400|401|403|404|408|409|413|429|500|502|503|504|529)(-after)?")
_KNOWN = (*ACTS, *BEFORE, "400", "401", "403", "404", "429", "500", "503", "529", "500-after", "503-after")
_KEYS = ("on", "do", "nth", "count", "retry_after", "seconds", "hide", "location")


@dataclass(frozen=True, slots=True)
class CallFault:
    """One scripted fault.

    `on` is `"POST /v1/batches"`: a method (or `*`) and a path with shell wildcards. Calls that fit are counted from the
    first one the state directory ever saw; calls `nth` .. `nth + count - 1` are struck, all of them when `nth` is 0
    (written `"every"`). `hide` may accompany any fault that lets a create take effect: the new batch stays out of the
    next `hide` list answers.
    """

    on: str
    do: str
    nth: int = 1
    count: int = 1
    retry_after: float | None = None
    seconds: float = 0.0
    hide: int = 0
    location: str = ""

    @classmethod
    def from_mapping(cls, mapping: Any, where: str) -> CallFault:
        if not isinstance(mapping, Mapping):
            raise refuse("a call fault must be a table", where, 'write `{on = "POST /v1/batches", do = "drop-after"}`')
        known_keys(mapping, _KEYS, where)
        on, do = mapping.get("on"), str(mapping.get("do", ""))
        if not isinstance(on, str) or len(on.split()) != 2:
            raise refuse(f"`on` must be a method and a path, not {on!r}", where, 'write `on = "POST /v1/batches"`')
        if do not in ACTS and do not in BEFORE and not _STATUS.fullmatch(do):
            raise refuse(f"unknown fault `{do}`", where, nearest(do, _KNOWN))
        nth = 0 if mapping.get("nth") == "every" else whole(mapping.get("nth", 1), "nth", where, least=0)
        default_seconds = {"hang": 3600.0, "late": 1.0}.get(do, 0.0)
        return cls(
            on=on,
            do=do,
            nth=nth,
            count=whole(mapping.get("count", 1), "count", where, least=1),
            retry_after=seconds(mapping["retry_after"], "retry_after", where) if "retry_after" in mapping else None,
            seconds=seconds(mapping.get("seconds", default_seconds), "seconds", where),
            hide=whole(mapping.get("hide", 1 if do == "hide" else 0), "hide", where),
            location=str(mapping.get("location", "")),
        )

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def fits(self, method: str, path: str) -> bool:
        wanted, pattern = self.on.split()
        return wanted.upper() in ("*", method) and fnmatchcase(path, pattern)

    def strikes(self, seen: int) -> bool:
        """Whether the `seen`-th fitting call (1-based) is struck."""
        return self.nth == 0 or self.nth <= seen < self.nth + self.count

    @property
    def status(self) -> int | None:
        """The HTTP status of a plain refusal, or None."""
        match = _STATUS.fullmatch(self.do)
        return int(match[1]) if match else None

    @property
    def acts(self) -> bool:
        return self.do in ACTS or self.do.endswith("-after")


@dataclass(frozen=True, slots=True)
class Fate:
    """What happens to one row: `delivery` instead of an answer, `quality` of the answer, `line` in the result file.

    A quality that begins with `=` is the answer itself.
    """

    delivery: str = ""
    quality: str = ""
    line: str = ""


FINE = Fate()
_DELIVERY = ("expired", "error500", "error429", "timeout", "unknown", "missing")
_QUALITY = ("invalid", "invalid_json", "schema", "truncated", "refused", "filtered")
_LINE = ("duplicated", "conflict")
GROUPS = (_DELIVERY, _QUALITY, _LINE)


def told(what: str) -> Fate:
    """The fate of a row for which `says` has this: a word for what becomes of it, or else its answer."""
    name = f"error{what}" if what in ("500", "429") else what
    if name in _DELIVERY:
        return Fate(delivery=name)
    return Fate(quality=name if name in _QUALITY[1:] else f"={what}")


class Fates:
    """Draws the fate of rows. One instance a batch; holds nothing but thresholds."""

    def __init__(self, settings: Settings) -> None:
        self._seed = settings.seed.to_bytes(8, "big", signed=True)
        self._groups = [_thresholds(settings, group) for group in GROUPS]
        self._quiet = not any(self._groups)
        self._says = [(orjson.dumps(text)[1:-1], told(what)) for text, what in settings.says]

    def draw(self, digest: bytes, custom_id: str, payload: bytes) -> Fate:
        """`payload` is the request as JSON: what `says` names is looked for in it."""
        for text, fate in self._says:
            if text in payload:
                return fate
        if self._quiet:
            return FINE
        drawn = sha256(self._seed + digest + custom_id.encode()).digest()
        quality = _pick(self._groups[1], drawn[8:16])
        if quality == "invalid":  # half of them are not JSON at all, the others are JSON that breaks the schema
            quality = "invalid_json" if drawn[24] & 1 else "schema"
        return Fate(_pick(self._groups[0], drawn[:8]), quality, _pick(self._groups[2], drawn[16:24]))


def _thresholds(settings: Settings, names: tuple[str, ...]) -> list[tuple[int, str]]:
    total, edges = 0.0, []
    for name in names:
        part = float(getattr(settings, name))
        if part:
            total += part
            edges.append((round(total * 2**64), name))
    return edges


def _pick(edges: list[tuple[int, str]], drawn: bytes) -> str:
    if not edges:
        return ""
    number = int.from_bytes(drawn, "big")
    return next((name for edge, name in edges if number < edge), "")
