"""Which provider module answers to which name. Importing this loads no vendor SDK."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from batchctl.model.errors import UsageError
from batchctl.providers.base import Provider

Settings = Mapping[str, Any]


def _openai(name: str, settings: Settings) -> Provider:
    from batchctl.providers.openai import OpenAIBatch

    base_url = settings.get("base_url")
    if name == "openai-compatible" and not base_url:
        raise UsageError(
            "provider `openai-compatible` needs an address",
            where="[model] base_url",
            hint='add base_url = "https://.../v1" under [model]',
        )
    return OpenAIBatch(
        name=name,
        base_url=base_url,
        api_key=settings.get("api_key"),
        key_name=settings.get("key_name") or "OPENAI_API_KEY",
        organization=settings.get("organization"),
        project=settings.get("project"),
    )


def _anthropic(name: str, settings: Settings) -> Provider:
    from batchctl.providers.anthropic import AnthropicBatch

    return AnthropicBatch(
        name=name,
        base_url=settings.get("base_url"),
        api_key=settings.get("api_key"),
        key_name=settings.get("key_name") or "ANTHROPIC_API_KEY",
    )


def _gemini(name: str, settings: Settings) -> Provider:
    from batchctl.providers.gemini import GeminiBatch

    return GeminiBatch(
        name=name,
        base_url=settings.get("base_url"),
        api_key=settings.get("api_key"),
        key_name=settings.get("key_name") or "GEMINI_API_KEY",
        model=settings.get("model"),
    )


KNOWN: Mapping[str, Callable[[str, Settings], Provider]] = {
    "openai": _openai,
    "anthropic": _anthropic,
    "gemini": _gemini,
    "openai-compatible": _openai,
    "emulator": _openai,
}
AVAILABLE = tuple(KNOWN)


def provider_for(name: str, settings: Settings) -> Provider:
    """The provider `name` with the `[model]` settings of the job (model, base_url, organization, project, api_key)."""
    if name not in KNOWN:
        raise UsageError(f"provider `{name}` is not available yet", where="[model] provider", code="not_available_yet")
    return KNOWN[name](name, settings)
