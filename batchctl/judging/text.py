"""Text from outside made fit to be shown: bounded, on one line, and unable to drive a terminal.

Everything a provider or a model wrote passes here before it enters a detail or a message. Escapes are visible, not
reversible: they are for people, the original stays in the stored result.
"""

from __future__ import annotations

import re

DETAIL_LIMIT = 300
"""Characters in a `detail`; the whole answer is in the stored result."""

# C0 and DEL and C1 control characters; soft hyphen, Arabic letter mark, Mongolian vowel separator, zero width space,
# direction marks, line and paragraph separator, bidi embeddings and overrides, word joiner and invisible operators, bidi
# isolates, byte order mark; interlinear annotation marks; lone surrogates; invisible tag characters and variation
# selectors of plane 14. Zero width joiner and non-joiner stay: Persian, Hindi and emoji are written with them.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u2064\u2066-\u2069\ufeff"
    "\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f\U000e0100-\U000e01ef]"
)
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _escape(match: re.Match[str]) -> str:
    char = match.group()
    code = ord(char)
    if char in _SHORT:
        return _SHORT[char]
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def printable(text: str, limit: int = DETAIL_LIMIT) -> str:
    """`text` with control, bidi and surrogate characters escaped, at most `limit` characters, cut at its end."""
    cut = text[: limit + 1]
    if not cut.isascii() or not cut.isprintable():
        cut = _UNSAFE.sub(_escape, cut)
    return cut if len(cut) <= limit else cut[: limit - 1] + "…"


def around(text: str, limit: int = DETAIL_LIMIT) -> str:
    """Like `printable`, but cut in the middle: a validator's message starts with the value and ends with the rule."""
    if len(text) > limit:
        tail = limit // 2
        text = f"{printable(text[: limit - tail], limit - tail)} … {printable(text[-tail:], 4 * tail)[-tail + 3 :]}"
    shown = printable(text, 10 * limit)
    if len(shown) <= limit:
        return shown
    tail = limit // 2
    return f"{shown[: limit - tail - 3]} … {shown[-tail:]}"
