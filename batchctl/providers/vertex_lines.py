"""Whose a result line of Vertex is, when it does not say so.

Every request line carries `key`, which comes back beside the answer; that it does is shown by clients of the service, and
not stated for every kind of job. A line without it is joined by its echoed request: the texts and file addresses that
the model saw, because the rest of the echo is normalised. Requests with the same content may change places. A line that
matches nothing is passed on as it is and counts as a stranger; nothing is ever joined by position.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import orjson

_STARTS = (b'{"key":', b'{"key" :')


def lines_of(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Lines with their ends, out of blocks; memory holds one line. The last one gets an end if it has none."""
    rest = b""
    for block in blocks:
        lines = (rest + block).split(b"\n")
        rest = lines.pop()
        for line in lines:
            yield line + b"\n"
    if rest:
        yield rest + b"\n"


def with_keys(lines: Iterable[bytes], requests: Callable[[], Iterable[bytes]]) -> Iterator[bytes]:
    """Result lines, those without a key given theirs. `requests` reads the input lines again, when it must."""
    known: dict[bytes, list[str]] | None = None
    for line in lines:
        if line.startswith(_STARTS):
            yield line
            continue
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError:
            yield line
            continue
        request = value.get("request") if isinstance(value, dict) else None
        if not isinstance(request, dict) or any(isinstance(value.get(one), str) for one in ("key", "custom_id")):
            yield line
            continue
        if known is None:
            known = _by_content(requests())
        keys = known.get(fingerprint(request))
        yield (b'{"key":' + orjson.dumps(keys.pop(0)) + b"," + line.lstrip()[1:]) if keys else line


def _by_content(lines: Iterable[bytes]) -> dict[bytes, list[str]]:
    """Content of a request to the keys that carry it, in the order of the input."""
    found: dict[bytes, list[str]] = {}
    for line in lines:
        value = orjson.loads(line)
        found.setdefault(fingerprint(value["request"]), []).append(value["key"])
    return found


def fingerprint(request: dict[str, Any]) -> bytes:
    """A digest of what the model sees of a request: texts, data and file addresses, in order."""
    contents = request.get("contents")
    seen: list[Any] = [_content(request.get(name)) for name in ("systemInstruction", "system_instruction", "content")]
    seen.append([_content(one) for one in contents] if isinstance(contents, list) else contents)
    return hashlib.sha256(orjson.dumps(seen, option=orjson.OPT_SORT_KEYS)).digest()[:16]


def _content(content: Any) -> Any:
    parts = content.get("parts") if isinstance(content, dict) else None
    if not isinstance(parts, list):
        return None
    return [_part(part) for part in parts if isinstance(part, dict)]


def _part(part: dict[str, Any]) -> Any:
    if "text" in part:
        return part["text"]
    file = part.get("fileData", part.get("file_data"))
    if isinstance(file, dict):
        return ["file", file.get("fileUri", file.get("file_uri"))]
    data = part.get("inlineData", part.get("inline_data"))
    return ["data", data.get("data")] if isinstance(data, dict) else part
