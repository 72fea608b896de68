"""What is known of single models in batch: by which endpoints they are asked, and whether they can be held to a schema.

What no page says is NOT_VERIFIED, never a guess. Whether a key may use a model only the provider knows: `providers check`.

Facts, read 2026-11-21: developers.openai.com/api/docs/guides/structured-outputs (from gpt-4o-mini and gpt-4o-2024-08-06 on;
fewer for fine-tuned models); platform.claude.com/docs/en/build-with-claude/structured-outputs;
ai.google.dev/gemini-api/docs/batch-api; docs.aws.amazon.com/bedrock/latest/userguide/structured-output;
docs.mistral.ai/inference/conversations/structured-output, which does not speak of batch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from batchctl.providers import bedrock_body
from batchctl.providers.profiles import EMBEDDINGS, MODERATIONS

YES, NO, NOT_VERIFIED = "yes", "no", "not verified"
_NO_TEXT = re.compile(r"image|tts|ocr|voxtral|banana|sora|whisper|audio|realtime|transcribe")
"""Models whose answers are not text: nothing here could judge them."""
_NO_ANSWER = re.compile(r"embed|moderation")
_OPENAI = (
    (r"^ft:|-pro\b|deep-research|search", NOT_VERIFIED),
    (r"^(?:gpt-3|gpt-4$|gpt-4-|gpt-4o-2024-05-13$|gpt-4\.5|o1-(?:mini|preview))", NO),
    (r"^(?:gpt-4o|gpt-4\.1|gpt-[5-9]|o[1-9])", YES),
)
_SCHEMA: dict[str, tuple[tuple[str, str], ...]] = {
    "openai": _OPENAI,
    "azure-openai": _OPENAI,
    "anthropic": (
        (r"^claude-(?:opus|sonnet|haiku)-4-[5-9]|claude-(?:opus|sonnet|haiku|fable|mythos)-[5-9]", YES),
        (r"^claude-[123]", NO),
    ),
    "gemini": ((r"^gemini-(?:2\.[05]|[3-9])", YES),),
    "vertex": ((r"^gemini-(?:2\.[05]|[3-9])", YES),),
}


DOUBTS = {
    "bedrock": "schema: the newest page says that batches take one, an older page that they do not; the dry run asks live",
}
"""Where sources disagree, by provider."""


@dataclass(frozen=True, slots=True)
class Known:
    """`structured_output`: YES, NO (the schema is then put into words or judged here only) or NOT_VERIFIED."""

    endpoints: tuple[str, ...]
    structured_output: str


def answers_in_text(model: str) -> bool:
    """Whether a model is of the kind that batchctl is for."""
    return _NO_TEXT.search(model) is None


def known_of(provider: str, model: str, endpoints: tuple[str, ...]) -> Known:
    """What is known of a model; `endpoints` are those its provider has for it."""
    if _NO_ANSWER.search(model):
        own = EMBEDDINGS if "embed" in model else MODERATIONS
        return Known((own,) if own in endpoints else endpoints, NO)
    left = tuple(one for one in endpoints if one not in (EMBEDDINGS, MODERATIONS))
    if provider == "bedrock":
        return Known(left, YES if bedrock_body.takes_schema(model) else NO)
    name = model.rpartition("/")[2]
    found = next((word for start, word in _SCHEMA.get(provider, ()) if re.search(start, name)), NOT_VERIFIED)
    return Known(left, found)
