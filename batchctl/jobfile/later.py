"""Keys of the format whose feature is not in this version.

Ignoring one would change what a job does or costs without a word, so each is refused. Building the feature deletes its
line.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

_REMOTE = ("s3://", "gs://")


def _never(_: Any) -> bool:
    return False


def _is(*allowed: str) -> Callable[[Any], bool]:
    return lambda value: value in allowed


def _empty(value: Any) -> bool:
    return isinstance(value, list) and not value


def _local(value: Any) -> bool:
    return not any(path.startswith(_REMOTE) for path in ([value] if isinstance(value, str) else value))


class Later(NamedTuple):
    why: str
    remedy: str = "remove it"
    works: Callable[[Any], bool] = _never  # the values, as written, that already do what they say


NOT_AVAILABLE_YET: dict[str, Later] = {
    "source.path": Later("sources in object storage cannot be read", "copy the files here", works=_local),
}
