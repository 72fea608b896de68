"""Which provider module answers to which name. Importing this loads no vendor SDK."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from batchctl.model.errors import UsageError

if TYPE_CHECKING:
    from batchctl.providers.base import Provider

Settings = Mapping[str, Any]


def _openai(name: str, settings: Settings) -> Provider:
    from batchctl.providers.openai import OpenAIBatch

    return OpenAIBatch(
        name=name,
        organization=settings.get("organization"),
        project=settings.get("project"),
        keep_seconds=settings.get("keep_seconds"),
        **_reached(settings),
    )


def _compatible(name: str, settings: Settings) -> Provider:
    from batchctl.providers.openai import OpenAIBatch
    from batchctl.providers.profiles import COMPATIBLE, compatible

    address = settings.get("base_url") or os.environ.get(COMPATIBLE.address_variable)
    if not address:
        raise UsageError(
            "provider `openai-compatible` needs an address",
            where="[model] base_url",
            hint='add base_url = "https://.../v1" under [model]',
        )
    return OpenAIBatch(name=name, profile=compatible(address), **_reached(settings))


def _azure(name: str, settings: Settings) -> Provider:
    from batchctl.providers.azure import AzureBatch

    return AzureBatch(name=name, api_version=settings.get("api_version"), **_reached(settings))


def _mistral(name: str, settings: Settings) -> Provider:
    from batchctl.providers.mistral import MistralBatch

    return MistralBatch(name=name, **_reached(settings))


def _together(name: str, settings: Settings) -> Provider:
    from batchctl.providers.together import TogetherBatch

    return TogetherBatch(name=name, **_reached(settings))


def _vllm(name: str, settings: Settings) -> Provider:
    from batchctl.providers.vllm import VllmFiles

    return VllmFiles(name=name, folder=settings.get("folder"))


def _reached(settings: Settings) -> dict[str, Any]:
    """Where and with what key: the same settings for every server of OpenAI's kind."""
    return {name: settings.get(name) for name in ("base_url", "api_key", "key_name")}


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


def _bedrock(name: str, settings: Settings) -> Provider:
    from batchctl.providers.bedrock import BedrockBatch

    named = ("model", "region", "bucket", "role_arn", "profile", "base_url")
    given = {key: settings[key] for key in named if settings.get(key)}
    return BedrockBatch(name=name, **given)


def _vertex(name: str, settings: Settings) -> Provider:
    from batchctl.providers.vertex import VertexBatch

    named = ("model", "project", "location", "bucket", "base_url")
    given = {key: settings[key] for key in named if settings.get(key)}
    return VertexBatch(name=name, **given)


KNOWN: Mapping[str, Callable[[str, Settings], Provider]] = {
    "openai": _openai,
    "azure-openai": _azure,
    "anthropic": _anthropic,
    "bedrock": _bedrock,
    "gemini": _gemini,
    "vertex": _vertex,
    "mistral": _mistral,
    "together": _together,
    "openai-compatible": _compatible,
    "vllm": _vllm,
    "emulator": _openai,
}
AVAILABLE = tuple(KNOWN)


def provider_for(name: str, settings: Settings) -> Provider:
    """The provider `name` with the `[model]` settings of the job: model, base_url, api_key and what is its own."""
    if name not in KNOWN:
        raise UsageError(f"provider `{name}` is not known", where="[model] provider")
    return KNOWN[name](name, settings)
