"""How the emulator is told to behave: the `[emulator]` table of a job file, or a file of its own (TOML or JSON)."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from batchctl.emulator.faults import GROUPS, CallFault
from batchctl.emulator.reading import address, known_keys, refuse, seconds, share, whole, words
from batchctl.emulator.tariff import USD_PER_MILLION, tariff

_SPELLED = {"500": "error500", "429": "error429", "error500": "error500", "error429": "error429"}
_SHARES = (*(name for group in GROUPS for name in group), "reordered")
ADDRESSES = {
    "openai": "/v1",
    "openai-compatible": "/v1",
    "anthropic": "",
    "azure-openai": "/azure",
    "mistral": "/mistral",
    "together": "/together",
    "gemini": "",
    "vertex": "",
}
"""Where each provider's wire is, after the emulator's address: what `[model] base_url` names. Groq: `/groq/openai/v1`."""
RESULT_FAULTS = ("stranger", "null-id", "cut-last", "no-final-newline", "crlf", "blank", "u2028", "both-files")


@dataclass(frozen=True)
class Settings:
    """Times are real seconds; shares are parts of all rows, 0..1.

    `invalid`: answers that are not JSON or, half of them, break the schema; `invalid_json`, `schema`: one kind.
    `missing` rows are in neither file and are not billed; `unknown` rows are error lines with status 0 and no body.
    `conflict` rows appear twice with different answers. `results` are oddities put into every result file.
    `window` shorter than `latency` makes a batch expire with part of its rows done. `models` limits what exists.
    `cached` is the part of each row's input tokens read from a cache, `thinking` so many reasoning tokens in each answer;
    `says` gives requests that hold a text their answer, or the word for what becomes of them; the first that fits counts.
    `prices` is the tariff of the money meter, in USD per million tokens (`tariff.py`).
    `s3` is the address of an S3 server, which the Bedrock wire reads and writes (else AWS_ENDPOINT_URL_S3);
    `least_records` is the smallest job that wire takes.
    `gcs` is the address of a Cloud Storage server, which the Vertex wire reads and writes (else STORAGE_EMULATOR_HOST).
    `other_batches` puts that many batches of someone else into the list. `clock_offset` shifts the `Date` header.
    """

    latency: float = 0.0
    speed: float = 1.0
    seed: int = 0
    invalid: float = 0.0
    invalid_json: float = 0.0
    schema: float = 0.0
    truncated: float = 0.0
    refused: float = 0.0
    filtered: float = 0.0
    expired: float = 0.0
    error500: float = 0.0
    error429: float = 0.0
    timeout: float = 0.0
    unknown: float = 0.0
    missing: float = 0.0
    duplicated: float = 0.0
    conflict: float = 0.0
    reordered: float = 0.0
    results: tuple[str, ...] = ()
    calls: tuple[CallFault, ...] = ()
    enqueued_token_limit: int | None = None
    window: float = 86400.0
    models: tuple[str, ...] = ()
    other_batches: int = 0
    clock_offset: float = 0.0
    cached: float = 0.0
    thinking: int = 0
    says: tuple[tuple[str, str], ...] = ()
    s3: str = ""
    least_records: int = 100
    gcs: str = ""
    prices: tuple[str, ...] = tuple(USD_PER_MILLION.values())

    @property
    def takes_seconds(self) -> float:
        """Real seconds from create to end."""
        return self.latency / self.speed

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any], where: str = "job.toml [emulator]") -> Settings:
        """Read settings that a person wrote. Raises `UsageError` naming the key and, for a typo, the nearest one."""
        if not isinstance(mapping, Mapping):
            raise refuse(f"the emulator's settings must be a table, not {mapping!r}", where)
        fields = set(cls.__dataclass_fields__)
        known_keys(mapping, fields - {"error500", "error429"} | set(_SPELLED), where)
        read: dict[str, Any] = {}
        for key, value in mapping.items():
            name = _SPELLED.get(key, key)
            if name in _SHARES:
                read[name] = share(value, key, where)
            elif name in ("latency", "window"):
                read[name] = seconds(value, key, where)
            elif name == "speed":
                read[name] = seconds(value, key, where)
                if not read[name]:
                    raise refuse("`speed` must be above 0", where, "`speed = 60` makes a minute pass in a second")
            elif name == "results":
                read[name] = words(value, key, where, RESULT_FAULTS)
            elif name == "cached":
                read[name] = share(value, key, where)
            elif name == "says":
                if not isinstance(value, Mapping) or not all(isinstance(one, str) for one in value.values()):
                    raise refuse(
                        "`says` must be a table of texts", where, 'write `says = { "order 88213" = "refused" }`'
                    )
                read[name] = tuple((str(text), one) for text, one in value.items())
            elif name == "prices":
                read[name] = tariff(value, where)
            elif name == "models":
                read[name] = words(value, key, where)
            elif name in ("s3", "gcs"):
                read[name] = address(value, key, where)
            elif name == "calls":
                if not isinstance(value, list | tuple):
                    raise refuse("`calls` must be a list of tables", where, "write `[[emulator.calls]]`")
                read[name] = tuple(
                    CallFault.from_mapping(call, f"{where} calls[{number}]") for number, call in enumerate(value)
                )
            elif name == "clock_offset":
                negative = isinstance(value, int | float) and value < 0
                read[name] = -seconds(-value, key, where) if negative else seconds(value, key, where)
            elif name == "seed":
                if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 2**63:
                    raise refuse(f"`seed` must be a whole number, not {value!r}", where)
                read[name] = value
            elif value is not None:
                read[name] = whole(value, key, where)
        settings = cls(**read)
        for group in GROUPS:
            if sum(getattr(settings, name) for name in group) > 1 + 1e-9:
                raise refuse(f"the shares {', '.join(group)} add up to more than 1", where)
        return settings

    @classmethod
    def from_file(cls, path: Path) -> Settings:
        """Read a TOML or JSON file: settings at the top, `[[calls]]` below; a lone `[emulator]` table also fits."""
        try:
            text = path.read_bytes()
            mapping: Any = orjson.loads(text) if path.suffix == ".json" else tomllib.loads(text.decode())
        except OSError as error:
            raise refuse(f"cannot read the emulator's settings: {error.strerror}", str(path)) from error
        except ValueError as error:
            raise refuse(f"the emulator's settings cannot be parsed: {error}", str(path)) from error
        if isinstance(mapping, dict) and set(mapping) == {"emulator"}:
            mapping = mapping["emulator"]
        return cls.from_mapping(mapping, where=str(path))

    def stored(self) -> str:
        """What a batch keeps of the settings it was created under, so that whoever runs it writes the same bytes."""
        return orjson.dumps(asdict(replace(self, calls=()))).decode()

    @classmethod
    def restored(cls, text: str) -> Settings:
        raw = orjson.loads(text)
        lists = {name: tuple(raw[name]) for name in ("results", "prices", "models")}
        said = tuple((text, what) for text, what in raw["says"])
        return cls(**raw | lists | {"calls": (), "says": said})
