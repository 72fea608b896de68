"""What the live lane learns from answers: limits out of headers, and how many calls may be under way."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import orjson
import pytest

from batchctl.model.batches import LiveAnswer, Room
from batchctl.providers.live import room_in
from batchctl.workflow.live import line_of
from batchctl.workflow.live_width import FIRST_WIDTH, Row, Width


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1s", 1.0), ("6m0s", 360.0), ("20ms", 0.02), ("1h2m3.5s", 3723.5), ("soon", None), ("", None)],
)
def test_room_out_of_openai_headers(text: str, seconds: float | None) -> None:
    headers = {"x-ratelimit-remaining-requests": "7", "x-ratelimit-reset-requests": text}
    assert room_in(headers) == Room(7, seconds)


def test_room_out_of_anthropic_headers() -> None:
    at = (datetime.now(UTC) + timedelta(seconds=100)).strftime("%Y-%m-%dT%H:%M:%SZ")
    room = room_in({"anthropic-ratelimit-requests-remaining": "0", "anthropic-ratelimit-requests-reset": at})
    assert room.requests == 0
    assert room.reset_seconds is not None
    assert 0 < room.reset_seconds <= 100
    assert room_in({"x-ratelimit-remaining-requests": "-1"}) == Room()


def answer(*room: float) -> LiveAnswer:
    return LiveAnswer(200, {}, 0.1, room=Room(int(room[0]), room[1]) if room else Room())


def row(width: Width) -> Row:
    return Row("one", b"", turn=width.turn)


def test_width_grows_with_answers_and_one_burst_of_refusals_halves_it_once() -> None:
    width = Width(64, None, 0.0)
    assert width.now == FIRST_WIDTH
    for _ in range(100):
        width.answered(row(width), answer())
    assert width.now == 64
    burst = [row(width) for _ in range(5)]
    for one in burst:
        width.refused(one, None)
    assert (width.now, width.refusals) == (32, 1)
    for one in burst:
        width.answered(one, answer())  # they left before the refusal: no sign of more room
    assert width.now == 32
    for _ in range(20):
        width.refused(row(width), None)
    assert width.now == 1


def test_width_waits_when_told_that_nothing_is_left() -> None:
    width = Width(64, 3, 1.0)
    assert width.now == 3
    width.answered(row(width), answer(1, 50.0))
    assert width.pause == 0
    width.answered(row(width), answer(0, 50.0))
    assert 40 < width.pause <= 50
    width.refused(row(width), 86_000.0)
    assert width.pause <= 60


def test_an_answer_is_one_line_with_its_own_bytes() -> None:
    raw = b'{\r\n  "a": 18446744073709551617,\n "b": "x\\ny"}'
    line = line_of("id-1", LiveAnswer(200, orjson.loads(raw), 0.1, raw, "req_1"))
    assert line.count(b"\n") == 1
    assert b"18446744073709551617" in line
    value = orjson.loads(line)
    assert (value["custom_id"], value["live"]["request_id"], value["live"]["body"]["b"]) == ("id-1", "req_1", "x\ny")
