"""What a line of a Bedrock job means: every recorded one, and whatever else may stand there."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchctl.judging.bedrock import bedrock_body, bedrock_http_error, bedrock_line
from batchctl.judging.extracted import Extracted
from batchctl.model.rows import Reason, Retry, Usage
from tests.conftest import SHARED

FIXTURES = SHARED / "contracts" / "fixtures-bedrock" / "outputs"
needs_fixtures = pytest.mark.skipif(not FIXTURES.is_dir(), reason="the wire fixtures are not beside the checkout")
N, T, C, V = Retry.NONE, Retry.TRANSIENT, Retry.CHANGE, Retry.NEVER
FIRE = "The printer is on fire."

# Each recorded line: recordId, answer, reason, retry, tokens in and out (None: the line has none).
LINES: dict[str, list[tuple[str, Any, Reason | None, Retry, tuple[int, int] | None]]] = {
    "anthropic_invoke": [
        ("ROW00000003", "A single pixel.", None, N, (21, 9)),
        ("ROW00000001", FIRE, None, N, (21, 9)),
        ("ROW00000004", None, Reason.PROVIDER, V, None),
        ("ROW00000002", '{"label":"billing","confidence":0.93}', None, N, (21, 9)),
    ],
    "converse": [
        ("ROW00000002", '{"label":"billing","confidence":0.9}', None, N, (12, 9)),
        ("ROW00000001", FIRE, None, N, (12, 9)),
        ("ROW00000003", None, Reason.PROVIDER, T, None),
    ],
    "llama_invoke": [("ROW00000001", FIRE, None, N, (18, 6))],
    "mistral_invoke": [("ROW00000001", f" {FIRE}", None, N, None), ("ROW00000002", FIRE, None, N, None)],
    "nova_invoke": [
        ("ROW00000001", FIRE, None, N, (12, 6)),
        ("ROW00000002", None, Reason.TRUNCATED, C, (300, 64)),
    ],
    "odd_lines": [
        ("ROW00000001", None, Reason.TRUNCATED, C, (21, 9)),
        ("ROW00000002", None, Reason.REFUSED, C, (21, 1)),
        ("ROW00000003", None, Reason.PROVIDER, T, None),
        ("ROW00000004", None, Reason.PROVIDER, T, None),
        ("ROW00000005", None, Reason.REFUSED, C, (12, 9)),
        (
            "A1B2C3D4E5F",
            "recordId invented by the service because the input line had none",
            None,
            N,
            (21, 9),
        ),
        ("ROW00000001", "duplicate of ROW00000001", None, N, (21, 9)),
        ("ROW00000006", "after thinking", None, N, (21, 9)),
        ("ROW00000007", None, Reason.MISSING, T, None),
    ],
    "titan_embed_v2_invoke": [
        ("ROW00000002", [0.01, -0.02, 0.03], None, N, (3, 0)),
        ("ROW00000003", None, Reason.PROVIDER, V, None),
    ],
}


@needs_fixtures
def test_every_recorded_file_is_listed() -> None:
    assert {path.name.removesuffix(".jsonl.out") for path in FIXTURES.glob("*.jsonl.out")} == set(LINES)


@needs_fixtures
@pytest.mark.parametrize("name", LINES)
def test_recorded_lines(name: str) -> None:
    lines = [one for one in (FIXTURES / f"{name}.jsonl.out").read_bytes().split(b"\n") if one]
    for line, (record_id, answer, reason, retry, tokens) in zip(lines, LINES[name], strict=True):
        found = bedrock_line(orjson.loads(line), "InvokeModel")
        assert (found.custom_id, found.reason, found.retry) == (record_id, reason, retry), found
        assert (found.value if isinstance(answer, list) else found.text) == answer
        assert found.usage == (None if tokens is None else Usage(*tokens))
        assert found.paid is (answer is not None or tokens is not None)


def converse(stop: str = "end_turn", blocks: Any = None, **usage: int) -> dict[str, Any]:
    content = [{"text": "yes"}] if blocks is None else blocks
    given = {"inputTokens": 10, "outputTokens": 2, **usage}
    return {"output": {"message": {"role": "assistant", "content": content}}, "stopReason": stop, "usage": given}


@pytest.mark.parametrize(
    ("stop", "reason", "retry"),
    [
        ("end_turn", None, N),
        ("stop_sequence", None, N),
        ("max_tokens", Reason.TRUNCATED, C),
        ("model_context_window_exceeded", Reason.TRUNCATED, C),
        ("guardrail_intervened", Reason.REFUSED, C),
        ("content_filtered", Reason.REFUSED, C),
        ("refusal", Reason.REFUSED, C),
        ("malformed_model_output", Reason.INVALID_JSON, C),
        ("malformed_tool_use", Reason.INVALID_JSON, C),
        ("something_new", Reason.PROVIDER, N),
    ],
)
def test_every_stop_reason_of_converse(stop: str, reason: Reason | None, retry: Retry) -> None:
    found = bedrock_body(converse(stop), "Converse")
    assert (found.reason, found.retry, found.paid) == (reason, retry, True)
    assert found.text == ("yes" if reason is None else None)


def test_every_stop_reason_of_the_installed_sdk_is_known() -> None:
    import boto3

    client = boto3.client("bedrock-runtime", region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b")
    for stop in client.meta.service_model.shape_for("StopReason").enum:
        found = bedrock_body(converse(stop), "Converse")
        assert "unknown" not in found.detail, stop


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({}, Usage(10, 2)),
        ({"totalTokens": 12, "cacheReadInputTokens": 4}, Usage(10, 2, 4)),
        ({"totalTokens": 19, "cacheReadInputTokens": 4, "cacheWriteInputTokens": 3}, Usage(17, 2, 4, 3)),
        ({"cacheReadInputTokenCount": 4}, Usage(14, 2, 4)),
        ({"inputTokens": -1}, None),
    ],
)
def test_input_tokens_are_all_of_them(usage: dict[str, int], expected: Usage | None) -> None:
    assert bedrock_body(converse(**usage), "Converse").usage == expected


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (converse(blocks=[]), Reason.INVALID_JSON),
        (converse(blocks=[{"reasoningContent": {}}, {"text": "yes"}]), None),
        (converse(blocks=[{"mystery": {}}]), Reason.PROVIDER),
        (converse(blocks=[{"text": 3}]), Reason.PROVIDER),
        ({"generation": "", "stop_reason": "stop"}, Reason.INVALID_JSON),
        ({"generation": "x", "stop_reason": "length"}, Reason.TRUNCATED),
        ({"generation": "x", "stop_reason": None}, Reason.PROVIDER),
        ({"outputs": []}, Reason.PROVIDER),
        ({"outputs": [{"text": "a", "stop_reason": "stop"}, {"text": "b", "stop_reason": "stop"}]}, Reason.CONFLICT),
        ({"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]}, None),
        ({"choices": [{"message": None, "finish_reason": "stop"}]}, Reason.PROVIDER),
        ({"embedding": "x"}, Reason.PROVIDER),
        ({"embedding": [1, "x"]}, Reason.PROVIDER),
        ({"embeddingsByType": {"binary": [1, 0]}, "inputTextTokenCount": 1}, None),
        ({"shape": "unheard of"}, Reason.PROVIDER),
        ([], Reason.PROVIDER),
    ],
)
def test_shapes(body: Any, reason: Reason | None) -> None:
    assert bedrock_body(body, "InvokeModel").reason == reason


def test_the_input_of_a_tool_is_the_answer() -> None:
    blocks = [{"text": "I will"}, {"toolUse": {"toolUseId": "t", "name": "t", "input": {"label": "yes"}}}]
    assert bedrock_body(converse("tool_use", blocks), "InvokeModel", "tool").text == '{"label":"yes"}'
    assert bedrock_body(converse("tool_use", blocks[:1]), "InvokeModel", "tool").reason is Reason.INVALID_JSON


@pytest.mark.parametrize(
    ("code", "retry"),
    [(408, T), (429, T), (500, T), (503, T), (400, V), (403, V), (404, V), (424, V), (0, N), (299, N)],
)
def test_the_number_of_an_error_decides(code: int, retry: Retry) -> None:
    found = bedrock_line({"recordId": "r", "error": {"errorCode": code, "errorMessage": "try again, 429"}}, "Converse")
    assert (found.reason, found.retry, found.paid) == (Reason.PROVIDER, retry, False)
    if code:
        assert bedrock_http_error(code, {"code": "X", "message": "m"}).retry is retry


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
OUTPUT = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(
        (
            "output",
            "stopReason",
            "usage",
            "generation",
            "stop_reason",
            "outputs",
            "choices",
            "embedding",
            "type",
            "content",
        ),
        JSON,
    ),
)
LINE = st.fixed_dictionaries({}, optional={"recordId": JSON, "modelOutput": OUTPUT | JSON, "error": JSON})


@given(line=LINE | JSON, mode=st.sampled_from(["native", "tool", "prompt"]))
def test_nothing_raises(line: Any, mode: str) -> None:
    for found in (bedrock_line(line, "Converse", mode), bedrock_http_error(400, line)):
        assert isinstance(found, Extracted)
        assert (found.reason is None) is (found.text is not None or found.value is not None)
