"""Every key of the job file, its type and its default. Descriptions become the JSON Schema that editors show."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict, model_validator
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode

from batchctl.jobfile.values import (
    BaseUrl,
    ByteSize,
    Count,
    DeadlineText,
    InFlight,
    JsonTable,
    Label,
    Price,
    Seconds,
    Share,
    Text,
    Texts,
    UntilPublishedOrSeconds,
    Usd,
    Webhook,
    wanted,
)

Provider = Literal[
    "openai",
    "azure-openai",
    "anthropic",
    "gemini",
    "vertex",
    "bedrock",
    "mistral",
    "together",
    "openai-compatible",
    "vllm",
    "emulator",
]
Endpoint = Literal[
    "/v1/responses", "/v1/chat/completions", "/v1/embeddings", "/v1/moderations", "Converse", "InvokeModel"
]

_Attempts = Annotated[int, Field(ge=0, le=100)]
_List = Strict(False)  # TOML has lists, frozen values have tuples


class _Table(BaseModel):
    """`hide_input_in_errors`: pydantic's own message must not carry a value into a traceback. `defer_build`: most tables
    are only ever read as parts of `Keys`, which is built once."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True, defer_build=True)


class Source(_Table):
    """The rows to work on."""

    path: Texts = Field(
        description="File, list of files or glob: .csv .tsv .jsonl .parquet (.gz, .zst), s3://, gs://; - is stdin."
    )
    id: Texts = Field(
        default=(), description="Column or columns that identify a row; left out: a digest of the row's content."
    )
    columns: Texts = Field(
        default=(), description="Read only these; left out: all that prompt, rules and publish need."
    )
    format: Literal["csv", "tsv", "jsonl", "parquet"] | None = Field(
        default=None, description="Left out: told by the file's suffix. Standard input needs it."
    )
    where: Text | None = Field(default=None, description="CEL over `row`: only these rows.")
    encoding: Text = Field(default="utf-8", description="Of CSV and TSV files.")
    on_duplicate_id: Literal["error", "first", "last"] = Field(
        default="error", description="When an id appears twice: stop, or keep the first or the last row."
    )
    on_identical_text: Literal["copy", "send"] = Field(
        default="copy", description="Rows whose request is identical: pay once and copy the answer, or send each."
    )
    max_rejects: Share = Field(
        default=Fraction(1, 1000),
        description="More unusable rows than this stops prepare.",
        json_schema_extra={"default": "0.1%"},
    )


class Prompt(_Table):
    """What is asked about each row."""

    file: Text = Field(description="Jinja2 template of the request's text, relative to the job file.")
    system: Text | None = Field(default=None, description="File with the system prompt.")
    version: Label | None = Field(default=None, description="A label people can read; the digest is stored beside it.")


class Output(_Table):
    """What an answer must look like."""

    schema_: Text | None = Field(
        default=None, alias="schema", description="File with a JSON Schema 2020-12; left out: free text."
    )
    version: Label | None = Field(default=None, description="A label people can read; the digest is stored beside it.")
    mode: Literal["native", "tool", "prompt"] = Field(
        default="native", description="How the schema is sent: structured output, a tool call, or words in the prompt."
    )
    parse: Literal["strict", "fences"] = Field(
        default="strict", description="strict: the answer is JSON; fences: one code fence around it is stripped."
    )


class Model(_Table):
    """Who answers. Credentials come from the environment, never from here."""

    provider: Provider = Field(description="Whose batch API.")
    name: Text = Field(description="The model, as the provider names it; a dated snapshot keeps a run reproducible.")
    endpoint: Endpoint | None = Field(
        default=None, description="Left out: the first that `batchctl providers` names for the provider."
    )
    params: JsonTable = Field(
        default_factory=dict,
        description="Passed to the provider as they are, but for names it has others for: output cap, reasoning effort.",
    )
    base_url: BaseUrl | None = Field(default=None, description="https, or http on loopback only.")
    region: Text | None = Field(default=None, description="bedrock: AWS region.")
    project: Text | None = Field(default=None, description="openai: project id; vertex: Google Cloud project.")
    location: Text | None = Field(default=None, description="vertex: location of the job, such as europe-west4.")
    bucket: Text | None = Field(
        default=None,
        description="bedrock, vertex: where request and result files are kept; for vertex also bq://PROJECT.DATASET.",
    )
    role_arn: Text | None = Field(default=None, description="bedrock: the role the service assumes.")
    api_version: Text | None = Field(default=None, description="azure-openai: API version.")
    organization: Text | None = Field(default=None, description="openai: organization id.")
    profile: Text | None = Field(default=None, description="A named profile that holds the credentials.")
    key_env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = Field(
        default=None, description="Name of the environment variable that holds the key, when it is not the usual one."
    )


class Lane(_Table):
    """When and how requests travel."""

    prefer: Literal["batch", "live", "background", "auto"] = Field(default="batch", description="Which lane to use.")
    deadline: DeadlineText | None = Field(
        default=None,
        description="Clock time with zone, ISO instant or duration; counted from when the run was prepared.",
    )
    on_ambiguous: Literal["auto", "hold"] = Field(
        default="auto",
        description="A submission whose answer was lost: look it up and settle it, or always ask a person.",
    )
    on_deadline_risk: Literal["wait", "live-tail", "stop"] = Field(
        default="wait", description="wait; or cancel, collect and send the rest live; or stop."
    )
    live_tail_max: Share | None = Field(default=None, description="Largest share of rows that may be sent live.")


class Sample(_Table):
    """The dry run: a few rows, live, before anything large is sent."""

    rows: Annotated[int, Field(ge=0, le=100_000)] = Field(default=20, description="0: no dry run is asked for.")
    pick: Annotated[str, Field(pattern=r"^(?:first|random|longest|stratified:[^\s].*)$")] = Field(
        default="random", description="first, random, longest or stratified:COLUMN."
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(default=17, description="Same seed, same sample.")
    min_valid: Share = Field(
        default=Fraction(9, 10),
        description="A smaller share of valid answers stops submit.",
        json_schema_extra={"default": "90%"},
    )
    max_age: Seconds = Field(
        default=7 * 86400,
        description="After this long a passed dry run no longer counts.",
        json_schema_extra={"default": "7d"},
    )


class Limits(_Table):
    """Bounds. The provider's own limits always hold as well."""

    budget: Usd | None = Field(default=None, description="Hard stop over all attempts and lanes.")
    max_rows: Count | None = Field(default=None, description="A source with more rows is refused.")
    chunk_rows: Count | None = Field(default=None, description="Requests in one chunk, at most.")
    chunk_bytes: ByteSize | None = Field(default=None, description="Bytes in one chunk, at most.")
    in_flight: InFlight = Field(
        default=None,
        description="Chunks at the provider at once; auto learns from its refusals.",
        json_schema_extra={"default": "auto"},
    )
    calls_at_once: Count | None = Field(
        default=None, description="Live calls under way at once, at most; left out: 64, and fewer after refusals."
    )


class Truncated(_Table):
    """What to do about answers that hit the output limit."""

    attempts: _Attempts = Field(default=1, description="Further attempts.")
    set: JsonTable = Field(default_factory=dict, description="Params of these attempts only.")


def _attempts_alone(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        return {"attempts": value}
    if isinstance(value, dict):
        return value
    raise wanted("a whole number, or a table such as { attempts = 1, set = { max_output_tokens = 600 } }")


class Retry(_Table):
    """Further attempts per row and kind of failure."""

    transient: _Attempts = Field(
        default=5, description="The same request may well succeed: overload, timeout, expired."
    )
    truncated: Annotated[Truncated, BeforeValidator(_attempts_alone, json_schema_input_type=int | Truncated)] | None = (
        Field(default=None, description="The answer hit the output limit; left out: no further attempt.")
    )
    invalid: _Attempts = Field(
        default=0,
        description="Unusable answers, until a person is asked (1 is always allowed); needs a changed prompt, schema, "
        "model or params.",
    )
    refused: _Attempts = Field(default=0, description="The model refused; 0: a person is asked at once.")


class Rule(_Table):
    """A check beyond the schema."""

    name: Text = Field(description="What a report calls it.")
    check: Text | None = Field(default=None, description="CEL over `output` and `row`: must be true.")
    where: Text | None = Field(
        default=None, description="CEL: the rows that `max_share` counts, or that `check` is about."
    )
    on_fail: Literal["rerun", "review", "warn"] = Field(default="rerun", description="What a broken check leads to.")
    max_share: Share | None = Field(
        default=None, description="Largest share of completed rows for which `where` may hold."
    )

    @model_validator(mode="after")
    def _one_of_two(self) -> Rule:
        """A rule looks at single rows, or at the run."""
        if (self.check is None) == (self.max_share is None):
            raise wanted("either a `check`, or a `where` with a `max_share`")
        if self.check is None and self.where is None:
            raise wanted("a `where` beside `max_share`: the rows that are counted")
        return self


class RulesBuiltin(_Table):
    """Ready-made checks for text that people will see."""

    max_chars: Count | None = Field(default=None, description="Longest text anywhere in an answer.")
    html: Literal["reject", "allow"] | None = Field(default=None, description="Whether answers may hold HTML.")
    echo: Text | None = Field(default=None, description="A field of the answer that must equal the row's column.")


class Review(_Table):
    """Which rows wait for a person."""

    when: Text | None = Field(default=None, description="CEL over `output` and `row`.")
    sample: Share | None = Field(default=None, description="Share of completed rows as well.")
    refused: bool = Field(default=True, description="Whether refusals go to a person.")


class Publish(_Table):
    """One destination of completed rows."""

    to: Text = Field(
        description=".jsonl .csv .parquet .sqlite, postgresql://, s3://, gs://, bigquery://; {run} in it: that run alone."
    )
    mode: Literal["replace", "upsert"] = Field(default="replace", description="Atomic replacement, or by key.")
    key: Texts = Field(default=(), description="Columns that identify a row at the destination; upsert needs them.")
    include: Texts = Field(
        default=(),
        description="Columns to write; output.* and _batchctl.* are groups; left out: id, output.*, _batchctl.*",
    )


class Retention(_Table):
    """How long texts are kept."""

    remote_files: UntilPublishedOrSeconds | None = Field(
        default=None, description="Files at the provider: on-publish, or an age, which OpenAI is told at upload."
    )
    inputs: Seconds | None = Field(default=None, description="Local request texts.")
    outputs: Seconds | None = Field(default=None, description="Local answers.")


class Prices(_Table):
    """USD per million tokens, for a model whose price is not known or is another for you."""

    input: Price = Field(description="Per million input tokens, in batch.")
    output: Price = Field(description="Per million output tokens, in batch.")
    cached: Price | None = Field(
        default=None, description="Per million input tokens read from a cache; left out: as input."
    )
    cache_write: Price | None = Field(
        default=None, description="Per million input tokens written to a cache; left out: as input."
    )
    live_input: Price | None = Field(default=None, description="Per million input tokens, live (the dry run).")
    live_output: Price | None = Field(default=None, description="Per million output tokens, live.")


class Notify(_Table):
    """Whom to tell."""

    on: Annotated[tuple[Literal["done", "needs-attention", "budget", "deadline-risk"], ...], _List] = Field(
        min_length=1, description="Events."
    )
    webhook: Webhook | None = Field(default=None, description="Address to post to; from the environment: ${NAME}.")
    command: Texts = Field(default=(), description="Program and arguments; the event comes as JSON on its stdin.")

    @model_validator(mode="after")
    def _one_way(self) -> Notify:
        if (self.webhook is None) == (not self.command):
            raise wanted("either webhook or command")
        return self


class Keys(_Table):
    """A batchctl job file: a table of rows, a prompt, a model and what the answers must look like."""

    version: Literal[1] = Field(description="Of this format.")
    name: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,40}$")] = Field(description="Names the runs: NAME-0001, ...")
    source: Source = Field(description="The rows to work on.")
    prompt: Prompt = Field(description="What is asked about each row.")
    output: Output = Field(default_factory=Output, description="What an answer must look like.")
    model: Model = Field(description="Who answers.")
    lane: Lane = Field(default_factory=Lane, description="When and how requests travel.")
    sample: Sample = Field(default_factory=Sample, description="The dry run.")
    limits: Limits = Field(default_factory=Limits, description="Bounds on rows, money and chunks.")
    retry: Retry = Field(default_factory=Retry, description="Further attempts per kind of failure.")
    rules: Annotated[tuple[Rule, ...], _List] = Field(default=(), description="Checks beyond the schema.")
    rules_builtin: RulesBuiltin | None = Field(default=None, description="Ready-made checks.")
    review: Review = Field(default_factory=Review, description="Which rows wait for a person.")
    publish: Annotated[tuple[Publish, ...], _List] = Field(default=(), description="Destinations of completed rows.")
    retention: Retention | None = Field(default=None, description="How long texts are kept.")
    prices: Prices | None = Field(default=None, description="For a model whose price is not known.")
    notify: Annotated[tuple[Notify, ...], _List] = Field(default=(), description="Whom to tell.")
    emulator: JsonTable = Field(default_factory=dict, description="Latency and faults of the local stand-in.")


class Job(Keys):
    """A job file as read: its keys, and where its paths start."""

    base: Path
    """The directory that relative paths in the job file start from."""
    text: str
    """The file's own text, `${NAME}` unexpanded, so that no value from the environment is copied into a run."""
    overrides: tuple[str, ...] = ()
    """What `--set` changed, as given; not in `text`."""


class _Schema(GenerateJsonSchema):
    # The defaults that JSON cannot hold (shares) are given as they are written, by json_schema_extra.
    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012


def json_schema() -> dict[str, Any]:
    """JSON Schema 2020-12 of the whole job file."""
    mode: JsonSchemaMode = "validation"
    schema = Keys.model_json_schema(schema_generator=_Schema, mode=mode)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "batchctl job file"}
