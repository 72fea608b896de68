"""`providers`: what holds for each provider and model, with its source, and never more than a source says."""

from __future__ import annotations

from decimal import Decimal

import pytest

from batchctl.model.errors import UsageError
from batchctl.prices import find
from batchctl.providers import AVAILABLE
from batchctl.workflow.providers import providers
from tests.support.jobs import JobFolder


@pytest.mark.parametrize("name", AVAILABLE)
def test_every_provider_says_what_holds_for_it_and_its_models(name: str) -> None:
    report = providers(name)
    (row,) = report.facts["providers"]
    assert row == next(one for one in providers().facts["providers"] if one["provider"] == name)
    assert all(row[key] for key in ("requests", "file_bytes", "line_bytes", "source", "retention", "regions"))
    assert row["cannot"] or name == "emulator"
    for one in report.facts["models"]:
        assert one["batch"] == "yes"
        assert one["structured_output"] in ("yes", "no", "not verified")
        assert one["endpoints"]
        price = find(name, one["model"], "batch")
        assert price is not None
        assert Decimal(one["usd_per_million"]["input"]) * 1_000_000 == price.rates.input
        assert (one["prices_from"], one["prices_date"] or "") == (price.source, price.date)
        assert f"\n{one['model']} " in (report.data or "")


@pytest.mark.parametrize(
    ("provider", "model", "schema", "endpoints"),
    [
        ("openai", "gpt-5-mini", "yes", ["/v1/responses", "/v1/chat/completions"]),
        ("openai", "gpt-4o-2024-05-13", "no", ["/v1/responses", "/v1/chat/completions"]),
        ("openai", "gpt-5.2-pro", "not verified", ["/v1/responses", "/v1/chat/completions"]),
        ("openai", "text-embedding-3-small", "no", ["/v1/embeddings"]),
        ("openai", "omni-moderation-latest", "no", ["/v1/moderations"]),
        ("anthropic", "claude-haiku-4-5-20251001", "yes", ["/v1/messages"]),
        ("anthropic", "claude-opus-4-1", "not verified", ["/v1/messages"]),
        ("anthropic", "claude-3-haiku-20240307", "no", ["/v1/messages"]),
        ("gemini", "gemini-2.5-flash", "yes", ["generateContent"]),
        ("vertex", "gemini-embedding-001", "no", ["embedContent"]),
        ("bedrock", "us.anthropic.claude-haiku-4-5-20251001-v1:0", "yes", ["Converse", "InvokeModel"]),
        ("bedrock", "meta.llama3-1-8b-instruct-v1:0", "no", ["Converse", "InvokeModel"]),
        ("bedrock", "amazon.titan-embed-text-v2:0", "no", ["InvokeModel"]),
        ("mistral", "mistral-small-latest", "not verified", ["/v1/chat/completions"]),
        ("openai-compatible", "anything", "not verified", ["/v1/chat/completions", "/v1/responses"]),
    ],
)
def test_one_model(provider: str, model: str, schema: str, endpoints: list[str]) -> None:
    (one,) = providers(provider, model).facts["models"]
    assert (one["structured_output"], one["endpoints"]) == (schema, endpoints)


def test_what_no_source_says_is_not_verified() -> None:
    (one,) = providers("together", "some/model").facts["models"]
    assert (one["batch"], one["structured_output"], one["usd_per_million"]) == ("not verified", "not verified", None)
    assert "batch not verified" in (providers("together").data or "")


def test_a_provider_that_is_none_is_told_which_there_are() -> None:
    with pytest.raises(UsageError) as raised:
        providers("opneai")
    assert "anthropic" in raised.value.hint


def test_the_command(job: JobFolder) -> None:
    said = job.run("providers", "anthropic", "claude-haiku-4-5", "--json", code=0).json
    assert (said["schema"], said["exit"]) == ("batchctl/providers@1", 0)
    assert [one["provider"] for one in said["providers"]] == ["anthropic"]
    assert [one["model"] for one in said["models"]] == ["claude-haiku-4-5"]
    assert job.run("providers", "anthropic", code=0).out.startswith("anthropic\n")
