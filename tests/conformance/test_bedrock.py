"""The provider contract, kept by the Bedrock module against the emulator and a real S3 server; and what is its own."""

from __future__ import annotations

from typing import Any

import pytest

from batchctl.providers import aws
from batchctl.providers.bedrock import STATES, BedrockBatch
from batchctl.providers.bedrock_body import CONVERSE
from tests.conformance.contract import CANARY, ProviderContract
from tests.conftest import NewProvider
from tests.support.bedrock import CLAUDE, REGION, ROLE, S3, BedrockEmulated


class TestBedrock(ProviderContract):
    endpoints = (CONVERSE,)
    vendor_states = STATES
    model = CLAUDE
    words = {"completed": "Completed", "expired": "PartiallyCompleted", "cancelled": "Stopped"}  # noqa: RUF012
    id_field = "recordId"
    modes = ("native", "prompt")
    harvest = {"expired": 2, "cancelled": 2}  # noqa: RUF012

    def build(self, server: BedrockEmulated | str | None, *, key: str = CANARY, role: str = ROLE) -> BedrockBatch:
        url = server.url if isinstance(server, BedrockEmulated) else server or "http://127.0.0.1:1"
        return BedrockBatch(
            model=CLAUDE,
            region=REGION,
            bucket=server.bucket if isinstance(server, BedrockEmulated) else "bucket",
            role_arn=role,
            base_url=url,
            s3_url=f"{url}/s3",
            access_key="AKIDEXAMPLE" if key else "",
            secret_key=key,
        )

    def elsewhere(self, server: Any) -> BedrockBatch:
        """Keys change every hour under a role; the account and the region are who it is."""
        return self.build(server, role=ROLE.replace("123456789012", "210987654321"))

    def sdk_states(self) -> set[str]:
        import boto3

        client = boto3.client("bedrock", region_name=REGION, aws_access_key_id="a", aws_secret_access_key="b")
        return set(client.meta.service_model.shape_for("ModelInvocationJobStatus").enum)

    def shorten_timeouts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(aws, "ANSWER_SECONDS", 0.5)

    @pytest.fixture
    def server(self, new_provider: NewProvider, s3: S3) -> BedrockEmulated:
        return BedrockEmulated(new_provider(s3=s3.url, least_records=5), s3.bucket())

    @pytest.fixture
    def slow_server(self, new_provider: NewProvider, s3: S3) -> BedrockEmulated:
        return BedrockEmulated(new_provider(s3=s3.url, least_records=5, latency="1h"), s3.bucket())
