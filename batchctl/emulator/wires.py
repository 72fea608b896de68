"""Every wire the emulator speaks: the one place to enter another. The first that owns a path answers it."""

from __future__ import annotations

from collections.abc import Mapping

from batchctl.emulator.anthropic_wire import AnthropicBatches, AnthropicWire
from batchctl.emulator.azure_wire import AzureBatches, AzureWire
from batchctl.emulator.bedrock_batch import BedrockBatches
from batchctl.emulator.bedrock_wire import BedrockWire
from batchctl.emulator.bigquery_wire import BigQueryWire
from batchctl.emulator.gcs_front import GcsFront
from batchctl.emulator.gemini_wire import GeminiBatches, GeminiWire
from batchctl.emulator.groq_wire import GroqBatches, GroqWire
from batchctl.emulator.mistral_wire import MistralBatches, MistralWire
from batchctl.emulator.openai_wire import OpenAIBatches, OpenAIWire
from batchctl.emulator.process import BatchWire
from batchctl.emulator.s3_front import S3Front
from batchctl.emulator.together_wire import TogetherBatches, TogetherWire
from batchctl.emulator.vertex_batch import VertexBatches
from batchctl.emulator.vertex_wire import VertexWire
from batchctl.emulator.wire import Context, Wire


def all_wires(context: Context) -> list[Wire]:
    """For the server. OpenAI's stands last: it owns all of `/v1/` that is left."""
    return [
        AnthropicWire(context),
        AzureWire(context),
        BedrockWire(context),
        GeminiWire(context),
        GroqWire(context),
        MistralWire(context),
        S3Front(context),
        TogetherWire(context),
        VertexWire(context),
        GcsFront(context),
        BigQueryWire(context),
        OpenAIWire(context),
    ]


def batch_wires() -> Mapping[str, BatchWire]:
    """For the worker, by the name kept with each batch."""
    return {
        AnthropicWire.name: AnthropicBatches(),
        AzureWire.name: AzureBatches(),
        BedrockWire.name: BedrockBatches(),
        GroqWire.name: GroqBatches(),
        MistralWire.name: MistralBatches(),
        TogetherWire.name: TogetherBatches(),
        GeminiWire.name: GeminiBatches(),
        OpenAIWire.name: OpenAIBatches(),
        VertexWire.name: VertexBatches(),
    }
