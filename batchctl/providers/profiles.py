"""How servers that speak OpenAI's wire differ from OpenAI, as data: addresses, keys, endpoints, limits, names of settings.

Sources, read 2026-11-21: developers.openai.com/api/docs/guides/batch; MicrosoftDocs/azure-ai-docs,
articles/foundry/openai/includes (global-batch-limits.md, how-to-batch-content.md, batch/batch-rest.md of 2026-08); groq
1.7.0; docs.mistral.ai/resources/known-limitations and mistralai 3.7.0; docs.together.ai/docs/inference/batch and together
3.1.1. What a page does not say is our own bound and says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from batchctl.model.batches import BatchState, Limits

RESPONSES, CHAT, EMBEDDINGS, MODERATIONS = "/v1/responses", "/v1/chat/completions", "/v1/embeddings", "/v1/moderations"
STATES = dict.fromkeys(("validating", "in_progress", "finalizing", "cancelling"), BatchState.RUNNING)
STATES |= dict.fromkeys(("completed", "expired", "cancelled"), BatchState.ENDED) | {"failed": BatchState.REFUSED}

# Error codes that no waiting cures (developers.openai.com/api/docs/guides/error-codes, read 2026-11; the last is Groq's
# spend limit, with status 400: console.groq.com/docs/spend-limits, read 2026-11-21).
BILLING_CODES = frozenset(
    {
        "insufficient_quota",
        "credit_balance_exhausted",
        "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
        "billing_hard_limit_reached",
        "blocked_api_access",
    }
)
ACCOUNT_CODES = frozenset({"organization_restricted"})
"""Said with status 400 of an account that may do nothing (Groq, as users report it, 2026-11-21)."""


@dataclass(frozen=True, slots=True)
class Profile:
    """One kind of server.

    `states` are its words for the state of a batch, in lower case; `completed` and `expired` are its words for those two
    ends. `caps` are the names under which `/v1/chat/completions` takes the most tokens of an answer, the preferred one
    first. `paged`: its list of batches comes in pages; else it is whole. `methods`: a request line names method and url.
    """

    key_variable: str
    address: str
    address_variable: str
    endpoints: tuple[str, ...]
    limits: Limits
    retention: str
    regions: str = "not verified"
    lacks: tuple[str, ...] = ()
    fenced: bool = False
    paged: bool = True
    methods: bool = True
    purpose: str = "batch"
    caps: tuple[str, ...] = ("max_tokens", "max_completion_tokens")
    states: Mapping[str, BatchState] = field(default_factory=lambda: STATES)
    completed: str = "completed"
    expired: str = "expired"


OPENAI = Profile(
    key_variable="OPENAI_API_KEY",
    address="https://api.openai.com/v1",
    address_variable="OPENAI_BASE_URL",
    endpoints=(RESPONSES, CHAT, EMBEDDINGS, MODERATIONS),
    limits=Limits(
        requests=50_000,
        file_bytes=200_000_000,
        line_bytes=10_000_000,
        source="developers.openai.com/api/docs/guides/batch, read 2026-11-21 (line_bytes: our own bound)",
    ),
    retention="results 30 days",
    lacks=("promise zero data retention for batches",),
    fenced=True,
    caps=("max_completion_tokens", "max_tokens"),
)
COMPATIBLE = replace(
    OPENAI,
    address="",
    endpoints=(CHAT, RESPONSES, EMBEDDINGS, MODERATIONS),
    limits=replace(OPENAI.limits, source="those of OpenAI; of other servers of this wire not verified"),
    retention="results: not verified",
    lacks=("be relied on: what a server takes is not verified",),
    caps=("max_tokens", "max_completion_tokens"),
)
AZURE = Profile(
    key_variable="AZURE_OPENAI_API_KEY",
    address="",
    address_variable="AZURE_OPENAI_ENDPOINT",
    endpoints=(RESPONSES, CHAT),
    limits=Limits(
        requests=100_000,
        file_bytes=200_000_000,
        line_bytes=10_000_000,
        source="MicrosoftDocs/azure-ai-docs global-batch-limits.md, read 2026-11-21 (line_bytes: our own bound)",
    ),
    retention="inputs 30 days, results until they are deleted",
    regions="that of the resource; deployments of the kinds Global-Batch and DataZone-Batch",
    lacks=("embed in batch", "end a batch after 24 hours: it runs on until it is cancelled"),
    caps=("max_completion_tokens", "max_tokens"),
)
MISTRAL = Profile(
    key_variable="MISTRAL_API_KEY",
    address="https://api.mistral.ai/v1",
    address_variable="",
    endpoints=(CHAT, EMBEDDINGS, MODERATIONS),
    limits=Limits(
        requests=100_000,
        file_bytes=512_000_000,
        line_bytes=10_000_000,
        source="docs.mistral.ai/resources/known-limitations, read 2026-11-21; its batch page says 1,000,000 requests "
        "(line_bytes: our own bound)",
    ),
    retention="results 24 hours after the end",
    regions="by its address: api.mistral.ai, or its eu and us variants",
    lacks=("keep results longer than 24 hours",),
    methods=False,
    caps=("max_tokens",),
    states={
        **dict.fromkeys(("queued", "running", "cancellation_requested"), BatchState.RUNNING),
        **dict.fromkeys(("success", "timeout_exceeded", "cancelled"), BatchState.ENDED),
        "failed": BatchState.REFUSED,
    },
    completed="success",
    expired="timeout_exceeded",
)
TOGETHER = Profile(
    key_variable="TOGETHER_API_KEY",
    address="https://api.together.ai/v1",
    address_variable="TOGETHER_BASE_URL",
    endpoints=(CHAT,),
    limits=Limits(
        requests=50_000,
        file_bytes=100_000_000,
        line_bytes=10_000_000,
        source="docs.together.ai/docs/inference/batch/overview, read 2026-11-21",
    ),
    retention="results 7 days",
    lacks=("name a batch: it is found by its input file", "count rows while it runs"),
    paged=False,
    methods=False,
    purpose="batch-api",
    caps=("max_tokens",),
    states={
        **dict.fromkeys(("validating", "in_progress"), BatchState.RUNNING),
        **dict.fromkeys(("completed", "expired", "cancelled"), BatchState.ENDED),
        "failed": BatchState.REFUSED,
    },
)
VLLM = replace(
    COMPATIBLE,
    key_variable="",
    address_variable="",
    endpoints=(CHAT, EMBEDDINGS),
    limits=replace(OPENAI.limits, source="our own bounds: vLLM holds a whole file in memory"),
    retention="files until you delete them",
    regions="your own machine",
    lacks=(),
)
BY_HOST: Mapping[str, Profile] = {
    "api.groq.com": replace(
        COMPATIBLE,
        key_variable="GROQ_API_KEY",
        endpoints=(CHAT,),
        limits=Limits(
            requests=50_000,
            file_bytes=100_000_000,
            line_bytes=10_000_000,
            source="groq 1.7.0 types/batch_create_params.py, read 2026-11-21; its pages say 200 MB",
        ),
        retention="results 30 days",
        paged=False,
        caps=("max_completion_tokens", "max_tokens"),
    ),
    "api.doubleword.ai": replace(COMPATIBLE, key_variable="DOUBLEWORD_API_KEY", endpoints=(CHAT, EMBEDDINGS)),
}


def compatible(base_url: str) -> Profile:
    """What is known of the server at an address: one that has a name here, or any other of this wire."""
    return BY_HOST.get(urlsplit(base_url).hostname or "", COMPATIBLE)


LEAST_KEPT, MOST_KEPT = 7 * 86_400, 30 * 86_400
"""OpenAI takes from an hour to 30 days (API reference of files and batches, read 2026-11-21). A batch may take a day, and a
week without anybody looking must not cost answers that were paid for."""


def expiry(seconds: float | None) -> dict[str, Any]:
    """When OpenAI itself deletes a file, whoever forgets to: `[retention] remote_files` within bounds; nothing without it."""
    if seconds is None:
        return {}
    return {"anchor": "created_at", "seconds": int(min(max(seconds, LEAST_KEPT), MOST_KEPT))}
