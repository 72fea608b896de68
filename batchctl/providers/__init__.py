"""Which provider module answers to which name. Importing this loads no vendor SDK."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchctl.model.errors import UsageError
from batchctl.providers.base import Provider

AVAILABLE = ("openai", "openai-compatible", "emulator")


def provider_for(name: str, settings: Mapping[str, Any]) -> Provider:
    """The provider `name` with the `[model]` settings of the job (base_url, organization, project, api_key)."""
    from batchctl.providers.openai import OpenAIBatch

    base_url = settings.get("base_url")
    if name == "openai-compatible" and not base_url:
        raise UsageError(
            "provider `openai-compatible` needs an address",
            where="[model] base_url",
            hint='add base_url = "https://.../v1" under [model]',
        )
    if name in AVAILABLE:
        return OpenAIBatch(
            name=name,
            base_url=base_url,
            api_key=settings.get("api_key"),
            key_name=settings.get("key_name") or "OPENAI_API_KEY",
            organization=settings.get("organization"),
            project=settings.get("project"),
        )
    raise UsageError(f"provider `{name}` is not available yet", where="[model] provider", code="not_available_yet")
