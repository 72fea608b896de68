"""What a strict reader takes and refuses, one trap a test."""

from __future__ import annotations

from typing import Any

import pytest

from batchctl.judging.strict_json import MAX_BYTES, NotJson, one_line, parse


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1}', {"a": 1}),
        (b'{"a": 1}', {"a": 1}),
        ('{"a": {"b": 1}, "c": [{"b": 2}]}', {"a": {"b": 1}, "c": [{"b": 2}]}),
        ('{"at": "10:30", "url": "https://x:1/"}', {"at": "10:30", "url": "https://x:1/"}),
        ('{"at": "10\\u003a30", "b": {"c": 1}}', {"at": "10:30", "b": {"c": 1}}),
        ('"{\\"a\\":1,\\"a\\":2}"', '{"a":1,"a":2}'),
        ("18446744073709551615", 2**64 - 1),
        ("-9223372036854775808", -(2**63)),
        ("0.1234567890123456789012345", 0.1234567890123456789012345),
        ('"99999999999999999999999999"', "99999999999999999999999999"),
        ("[" * 128 + "]" * 128, None),
        ('["' + "[" * 500 + '"]', ["[" * 500]),
        ('"\\u0000"', "\0"),
        ('"\u2028\u202e"', "\u2028\u202e"),
        (" \n[1]\r\n", [1]),
        ("null", None),
    ],
)
def test_valid_text_is_read_as_json_reads_it(text: str | bytes, value: Any) -> None:
    found = parse(text)
    if value is not None:
        assert found == value
        assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        (" \n\t", "empty"),
        ("Sure! Here it is: {}", "not JSON"),
        ('{"a": 1} I hope this helps', "unexpected content"),
        ('{"a": 1}{"a": 2}', "unexpected content"),
        ('```json\n{"a": 1}\n```', "not JSON"),
        ('{"a": 1', "not JSON"),
        ("{'a': 1}", "not JSON"),
        ("NaN", "not JSON"),
        ("[Infinity]", "not JSON"),
        ("1e999", "infinity"),
        ("9" * 5000, "infinity"),
        ('{"a": 1, "a": 2}', '"a" appears twice'),
        ('{"a": 1, "a": 1}', '"a" appears twice'),
        ('{"a": 1, "\\u0061": 2}', '"a" appears twice'),
        ('[{"x": {"b:c": 1, "b:c": 2}}]', '"b:c" appears twice'),
        ('{"t": "\\u003a", "a": {"k": 1, "k": 2}}', '"k" appears twice'),
        ('{"\x1b": 1}', "not JSON"),
        ('{"\\u001b[2J": 1, "\\u001b[2J": 2}', '"\\x1b[2J" appears twice'),
        ("18446744073709551616", "64 bits"),
        ("-9223372036854775809", "64 bits"),
        ('{"a": [1, 99999999999999999999999]}', "64 bits"),
        ("[" * 129 + "]" * 129, "128 levels"),
        ('{"a":' * 129 + "1" + "}" * 129, "128 levels"),
        ("[" * 100_000 + "]" * 100_000, "depth"),
        ("[" * 100_000, "not JSON"),
        ('"\\ud800"', "surrogate"),
        ('{"\\udc00": 1}', "surrogate"),
        ('"\ud800"', "surrogate"),
        (b'"\xed\xa0\x80"', "UTF-8"),
        (b"\xff\xfe", "UTF-8"),
        ("\ufeff{}", "byte order mark"),
        ("\0{}", "not JSON"),
        ('"a\nb"', "control character"),
    ],
)
def test_ambiguous_or_broken_text_is_refused_in_words(text: str | bytes, says: str) -> None:
    with pytest.raises(NotJson) as caught:
        parse(text)
    assert says.lower() in caught.value.detail.lower()
    assert len(caught.value.detail) <= 300
    assert caught.value.detail.isprintable()


def test_text_beyond_the_size_cap_is_refused_and_text_of_8_mb_is_read() -> None:
    assert len(parse('"' + "x" * 8_000_000 + '"')) == 8_000_000
    with pytest.raises(NotJson, match="16,777,216"):
        parse('"' + "x" * MAX_BYTES + '"')


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{"a": 1.50, "b": 1E2}', b'{"a": 1.50, "b": 1E2}'),
        ('\n{\n  "a": [\r\n    1,\r    2 ]\n}\n', b'{"a": [1,2 ]}'),
        ('{"a": "x\\n  y"}', b'{"a": "x\\n  y"}'),
        ('"\u2028"', '"\u2028"'.encode()),
    ],
)
def test_one_line_drops_breaks_between_tokens_and_changes_no_value(text: str, line: bytes) -> None:
    assert one_line(text) == line
    assert parse(line) == parse(text)
