"""What must never stand in a job file, because the file is copied into every run and shared with colleagues.

The shapes are those of common keys; a private format nobody has seen passes. Keys come from the environment.
"""

from __future__ import annotations

import re

_NEVER = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"sk-(?:ant|proj|svcacct|admin|or|live|test)-[A-Za-z0-9_-]{4,}"  # OpenAI, Anthropic and their neighbours
    r"|AIza[0-9A-Za-z_-]{12,}"  # Google
    r"|(?:AKIA|ASIA)[0-9A-Z]{12,}"  # AWS
    r"|gh[pousr]_[0-9A-Za-z]{16,}|xox[abposr]-[0-9A-Za-z-]{10,}|hf_[0-9A-Za-z]{16,}|r8_[0-9A-Za-z]{16,}"
    r"|Bearer [A-Za-z0-9._~+/-]{8,}=*"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY"
    r")"
)
# A plain `sk-` is also how a Slovak file name begins: look for one long word with a digit, and no file suffix after it.
_PLAIN_KEY = re.compile(r"(?<![A-Za-z0-9])sk-[A-Za-z0-9_-]{12,}(?![\w.*/-])")
_CREDENTIAL_NAME = re.compile(
    r"(?:.*_)?(?:api_?key|secret|secrets|password|passwd|passphrase|secret_key|access_key|access_key_id|private_key"
    r"|credential|credentials|authorization)"
    r"|(?:(?:access|auth|bearer|session|refresh|api|id|security|hf|github|oauth)_)?token"
)


def _is_plain_key(match: re.Match[str]) -> bool:
    return any(len(word) >= 12 and re.search("[0-9]", word) for word in re.split("[_-]", match[0]))


def looks_secret(value: str) -> bool:
    """Whether the text holds something shaped like a key of a known service."""
    return bool(_NEVER.search(value)) or any(map(_is_plain_key, _PLAIN_KEY.finditer(value)))


def names_credential(key: str) -> bool:
    """Whether a key by this name would hold a credential: `api_key`, `client_secret`; not `max_output_tokens`."""
    return bool(_CREDENTIAL_NAME.fullmatch(re.sub(r"[\s-]", "_", key).lower()))
