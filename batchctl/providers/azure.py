"""Azure OpenAI: OpenAI's wire at an address of one's own, where `model` is the name of a batch deployment.

By default the v1 API (`https://RESOURCE.openai.azure.com/openai/v1/`), with `[model] api_version` the dated one
(`/openai/batches?api-version=...`), whose live calls name the deployment in the path. The key is `AZURE_OPENAI_API_KEY`;
without one, `AZURE_OPENAI_AD_TOKEN` is an Entra token. Jobs are not expired after 24 hours: they run on until
cancelled. Whether deleting an input keeps a late create from running is not documented, so it is no fence here.

Facts: MicrosoftDocs/azure-ai-docs, articles/foundry/openai/includes/batch/batch-{rest,python}.md (2026-08), and
`lib/azure.py` of openai 3.54.0, read 2026-11-21.
"""

from __future__ import annotations

import os
from typing import Any

from batchctl.model.batches import Post
from batchctl.providers.http import Key
from batchctl.providers.openai import OpenAIBatch
from batchctl.providers.profiles import AZURE

TOKEN_VARIABLE = "AZURE_OPENAI_AD_TOKEN"  # noqa: S105  (the name of a variable)
KEEP_SECONDS = 30 * 86_400  # the most; at least 14 days


class AzureBatch(OpenAIBatch):
    """One Azure OpenAI resource. `base_url` is its endpoint, with or without the path of the API."""

    knows_model: Any = None  # its list has models, not the deployments that requests name

    def __init__(
        self,
        *,
        name: str = "azure-openai",
        base_url: str | None = None,
        api_key: str | None = None,
        key_name: str | None = None,
        api_version: str | None = None,
    ) -> None:
        self._version = api_version or os.environ.get("OPENAI_API_VERSION") or None
        super().__init__(name=name, profile=AZURE, base_url=base_url, api_key=api_key, key_name=key_name)
        token = os.environ.get(TOKEN_VARIABLE)
        self._bearer = not self._key.value and bool(token)
        if self._bearer:
            self._key = Key(name, TOKEN_VARIABLE, token)

    def _address(self, given: str) -> str:
        if not given:
            return ""
        resource = given.rstrip("/").removesuffix("/v1").removesuffix("/openai")
        return f"{resource}/openai" if self._version else f"{resource}/openai/v1"

    def _kept_for(self) -> dict[str, Any]:
        """A resource takes 10,000 input files that expire, and only 500 that do not."""
        return {} if self._version else {"expires_after": {"anchor": "created_at", "seconds": KEEP_SECONDS}}

    def live_post(self, endpoint: str) -> Post | None:
        return None if self._version else super().live_post(endpoint)  # a dated path has the deployment in it

    def _client(self, key: str) -> Any:
        if not self._version:
            return super()._client(key)
        import openai

        given: dict[str, Any] = {"azure_ad_token": key} if self._bearer else {"api_key": key}
        return self._stripped(openai.AzureOpenAI(api_version=self._version, max_retries=0, **given, **self._manners()))
