"""The provider contract, kept by the modules for OpenAI's neighbours against their wires in the emulator."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from openai.types import Batch

from batchctl.providers.azure import AzureBatch
from batchctl.providers.mistral import MistralBatch
from batchctl.providers.openai import OpenAIBatch
from batchctl.providers.profiles import AZURE, BY_HOST, CHAT, COMPATIBLE, MISTRAL, STATES, TOGETHER
from batchctl.providers.together import TogetherBatch
from tests.conformance.compatible import Neighbour, NeighbourContract


class Groq(Neighbour):
    root = base = "/groq/openai/v1"


@pytest.mark.slow
class TestGroq(NeighbourContract):
    vendor = Groq
    endpoints = (CHAT,)
    vendor_states = STATES
    model = "llama-3.3-70b-versatile"

    def made(self, url: str, key: str) -> Any:
        return OpenAIBatch(name="openai-compatible", profile=BY_HOST["api.groq.com"], base_url=url, api_key=key or None)

    def sdk_states(self) -> set[str]:
        return set(get_args(Batch.model_fields["status"].annotation))  # groq 1.7.0 has the same list


class Compatible(Neighbour):
    root = base = "/v1"


@pytest.mark.slow
class TestCompatible(NeighbourContract):
    vendor = Compatible
    endpoints = COMPATIBLE.endpoints
    vendor_states = STATES
    model = "some-model"

    def made(self, url: str, key: str) -> Any:
        return OpenAIBatch(name="openai-compatible", profile=COMPATIBLE, base_url=url, api_key=key or None)

    def sdk_states(self) -> set[str]:
        return set(get_args(Batch.model_fields["status"].annotation))


class Azure(Neighbour):
    root = "/azure/openai/v1"
    base = "/azure"
    live = "/responses"


class TestAzure(NeighbourContract):
    vendor = Azure
    endpoints = AZURE.endpoints
    vendor_states = STATES
    model = "my-deployment"

    def made(self, url: str, key: str) -> Any:
        return AzureBatch(base_url=url, api_key=key or None)

    def sdk_states(self) -> set[str]:
        return set(get_args(Batch.model_fields["status"].annotation))


class DatedAzure(Neighbour):
    root = "/azure/openai"
    base = "/azure"
    live = "/responses"
    query = "?api-version=2026-04-01"


@pytest.mark.slow
class TestDatedAzure(TestAzure):
    """With an API version: other paths, capitals in statuses, times as text."""

    vendor = DatedAzure
    words = {"completed": "Completed", "expired": "Expired", "cancelled": "Cancelled"}  # noqa: RUF012

    def made(self, url: str, key: str) -> Any:
        return AzureBatch(base_url=url, api_key=key or None, api_version="2026-04-01")


class Mistral(Neighbour):
    root = "/mistral/v1"
    base = "/mistral"
    batches_path = "/batch/jobs"
    repeated = ("input_files", "endpoint", "metadata")


class TestMistral(NeighbourContract):
    vendor = Mistral
    endpoints = MISTRAL.endpoints
    vendor_states = MISTRAL.states
    model = "mistral-small-latest"
    words = {"completed": "SUCCESS", "expired": "TIMEOUT_EXCEEDED", "cancelled": "CANCELLED"}  # noqa: RUF012

    def made(self, url: str, key: str) -> Any:
        return MistralBatch(base_url=url, api_key=key or None)

    def sdk_states(self) -> set[str]:
        """mistralai 3.7.0, `client/models/batchjobstatus.py`, read 2026-11-21."""
        words = "QUEUED RUNNING SUCCESS FAILED TIMEOUT_EXCEEDED CANCELLATION_REQUESTED CANCELLED"
        return set(words.lower().split())


class Together(Neighbour):
    root = "/together/v1"
    base = "/together"
    repeated = ("input_file_id", "endpoint")


class TestTogether(NeighbourContract):
    vendor = Together
    endpoints = TOGETHER.endpoints
    vendor_states = TOGETHER.states
    model = "meta-llama/Llama-3.3-70B-Instruct-Turbo"
    words = {"completed": "COMPLETED", "expired": "EXPIRED", "cancelled": "CANCELLED"}  # noqa: RUF012

    def made(self, url: str, key: str) -> Any:
        return TogetherBatch(base_url=url, api_key=key or None)

    def sdk_states(self) -> set[str]:
        """together 3.1.1, `types/batch_job.py`, read 2026-11-21."""
        return {"validating", "in_progress", "completed", "failed", "expired", "cancelled"}
