"""Nothing that reaches a terminal can drive it, and nothing is unbounded."""

from __future__ import annotations

import pytest

from batchctl.judging.text import around, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("Grüezi 日本 🙂 \u200d", "Grüezi 日本 🙂 \u200d"),
        ("a\u00a0b", "a\u00a0b"),
        ("a\nb\r\tc", "a\\nb\\r\\tc"),
        ("\x1b]52;c;x\x07", "\\x1b]52;c;x\\x07"),
        ("\x9b2J\x7f\x00", "\\x9b2J\\x7f\\x00"),
        ("\u202eexe\u2066\u200f\ufeff\u2028", "\\u202eexe\\u2066\\u200f\\ufeff\\u2028"),
        ("\ud800", "\\ud800"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_what_drives_a_terminal_is_escaped_and_the_rest_stays(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_text_is_cut_at_the_limit() -> None:
    assert len(printable("x" * 1_000_000, 50)) == 50
    assert printable("\x1b" * 50, 50).endswith("…")
    assert len(printable("\x1b" * 50, 50)) == 50
    assert printable("x" * 50, 50) == "x" * 50


def test_a_message_keeps_its_beginning_and_its_end() -> None:
    shown = around('"' + "x" * 1_000_000 + '" is longer than 10 characters', 100)
    assert shown.startswith('"xxx')
    assert shown.endswith("is longer than 10 characters")
    assert len(shown) <= 100
    assert len(around("\x1b" * 1_000_000, 100)) <= 100
