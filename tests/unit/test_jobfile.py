"""The job file: what is accepted, and where and how each mistake is named."""

from __future__ import annotations

import json
import tomllib
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

from batchctl.jobfile import Job, from_text, json_schema, load
from batchctl.jobfile.keys import Keys
from batchctl.jobfile.lines import Lines
from batchctl.jobfile.secrets import looks_secret, names_credential
from batchctl.model.errors import Exit, UsageError

SMALLEST = """\
version = 1
name   = "triage"
source = { path = "messages.csv", id = "message_id" }
prompt = { file = "prompt.md" }
output = { schema = "schema.json" }
model  = { provider = "openai", name = "gpt-5-mini" }
"""

FULL = """\
version = 1                                   # of this format
name    = "support-triage"                    # [a-z0-9-], names the runs: support-triage-0001, ...

[source]
path      = "data/messages-*.parquet"         # .csv .tsv .jsonl .parquet (.gz, .zst); globs; s3://, gs://
id        = "message_id"                      # column or list of columns, always text
columns   = ["message_id", "subject", "body"] # read only these
where     = "row.lang != 'xx'"                # CEL
encoding  = "utf-8"
on_duplicate_id   = "error"                   # error | first | last
on_identical_text = "copy"                    # copy: pay once, copy the answer | send
max_rejects       = "0.1%"                    # more unusable rows than this stops prepare

[prompt]
file    = "prompt.md"                         # Jinja2, sandboxed; an unknown column is an error
system  = "system.md"
version = "v7"                                # a label people can read

[output]
schema  = "schema.json"                       # JSON Schema 2020-12; left out: free text
version = "3"
mode    = "native"                            # native structured output | tool | prompt
parse   = "strict"                            # strict | fences (strip a code fence, nothing else)

[model]
provider = "openai"
name     = "gpt-5-mini-2025-08-07"
endpoint = "/v1/responses"
params   = { max_output_tokens = 200 }        # passed through to the provider as they are
base_url = "http://127.0.0.1:8080/v1"         # https, or http on loopback only

[lane]
prefer           = "batch"                    # batch | live | background | auto
deadline         = "08:00 Europe/Zurich"      # clock time, ISO instant or duration ("5d")
on_ambiguous     = "auto"
on_deadline_risk = "wait"                     # wait | live-tail (cancel, collect, send the rest live) | stop
live_tail_max    = "5%"

[sample]                                      # dry-run
rows = 20                                     # 0: no dry-run gate
pick = "random"                               # first | random | longest | stratified:COLUMN
seed = 17
min_valid = "90%"
max_age   = "7d"

[limits]
budget    = "5.00 USD"
max_rows  = 20000
chunk_rows = 5000
chunk_bytes = "100MB"
in_flight = "auto"

[retry]
transient = 5
truncated = { attempts = 1, set = { max_output_tokens = 600 } }
invalid   = 0
refused   = 0

[[rules]]                                     # beyond the schema; CEL over `output` and `row`
name  = "refund needs an amount"
check = "output.label != 'refund' || output.amount > 0"
on_fail = "rerun"                             # rerun | review | warn
[[rules]]
name      = "share of other stays normal"
where     = "output.label == 'other'"
max_share = "12%"

[rules_builtin]
max_chars = 10000
html      = "reject"                          # reject | allow
echo      = "message_id"

[review]
when    = "output.confidence < 0.6"           # CEL
sample  = "1%"
refused = true

[[publish]]
to      = "out/labels.parquet"
mode    = "replace"
key     = ["message_id"]
include = ["message_id", "output.*", "_batchctl.*"]

[retention]
remote_files = "on-publish"
inputs  = "30d"
outputs = "365d"

[prices]
input = 0.25
output = 2.00

[[notify]]
on = ["done", "needs-attention", "budget", "deadline-risk"]
webhook = "${SLACK_WEBHOOK_URL}"
"""

NO_ENVIRONMENT: dict[str, str] = {}


def read(text: str, *, overrides: tuple[str, ...] = (), **environ: str) -> Job:
    return from_text(text, where="job.toml", overrides=overrides, environ=environ, base=Path("jobs"))


def refused(text: str, *, overrides: tuple[str, ...] = (), **environ: str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        read(text, overrides=overrides, **environ)
    assert caught.value.exit_code == Exit.USAGE
    assert caught.value.effect == "nothing was sent"
    # Nothing may come along that a traceback would print.
    assert caught.value.__cause__ is None or not isinstance(caught.value.__cause__, ValidationError)
    return caught.value


def everything_of(error: UsageError) -> str:
    return "\n".join([error.what, *error.where, error.effect, error.hint, repr(error)])


# What is accepted


def test_the_smallest_job_file_gets_the_documented_defaults() -> None:
    job = read(SMALLEST)
    assert (job.version, job.name, job.base, job.text) == (1, "triage", Path("jobs"), SMALLEST)
    assert (job.source.path, job.source.id, job.source.encoding) == (("messages.csv",), ("message_id",), "utf-8")
    assert (job.source.on_duplicate_id, job.source.on_identical_text) == ("error", "copy")
    assert job.source.max_rejects == Fraction(1, 1000)
    assert (job.output.schema_, job.output.mode, job.output.parse) == ("schema.json", "native", "strict")
    assert (job.model.endpoint, job.model.params) == (None, {})
    assert (job.lane.prefer, job.lane.on_ambiguous, job.lane.on_deadline_risk) == ("batch", "auto", "wait")
    assert (job.sample.rows, job.sample.pick, job.sample.seed) == (20, "random", 17)
    assert (job.sample.min_valid, job.sample.max_age) == (Fraction(9, 10), 7 * 86400)
    assert (job.limits.in_flight, job.limits.chunk_rows, job.limits.chunk_bytes) == (None, None, None)
    assert (job.retry.transient, job.retry.truncated, job.retry.invalid, job.retry.refused) == (5, None, 0, 0)
    assert job.review.refused
    assert (job.publish, job.rules, job.notify, job.emulator) == ((), (), (), {})


def test_a_job_is_frozen() -> None:
    job = read(SMALLEST)
    with pytest.raises(ValidationError, match="frozen"):
        job.name = "other"  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        job.model.name = "other"  # type: ignore[misc]


def test_written_forms_become_exact_values() -> None:
    job = read(
        SMALLEST.replace('"message_id"', '["shop", "message_id"]')
        + """
[limits]
max_rows = "20_000"
chunk_bytes = "1.5MiB"
in_flight = 4
[sample]
max_age = "1d 12h"
pick = "stratified:queue name"
[retry]
truncated = { set = { max_output_tokens = 600 } }
[emulator]
latency = "2s"
faults = [{ on = "create", do = "drop-after" }]
"""
    )
    assert job.source.id == ("shop", "message_id")
    assert (job.limits.max_rows, job.limits.chunk_bytes, job.limits.in_flight) == (20_000, 1_572_864, 4)
    assert (job.sample.max_age, job.sample.pick) == (129_600, "stratified:queue name")
    assert job.retry.truncated is not None
    assert (job.retry.truncated.attempts, job.retry.truncated.set) == (1, {"max_output_tokens": 600})
    assert job.emulator["faults"] == [{"on": "create", "do": "drop-after"}]


@pytest.mark.parametrize(
    ("written", "size"), [("100MB", 10**8), ("2 kb", 2000), ("1GiB", 2**30), (5, 5), ("7", 7), ("1_000B", 1000)]
)
def test_byte_sizes(written: str | int, size: int) -> None:
    assert read(f"{SMALLEST}[limits]\nchunk_bytes = {json.dumps(written)}\n").limits.chunk_bytes == size


def test_the_full_example_is_a_valid_job_once_everything_is_built() -> None:
    keys = Keys.model_validate(tomllib.loads(FULL))
    assert keys.limits.budget is not None
    assert keys.limits.budget.amount == Decimal("5.00")
    assert [rule.max_share for rule in keys.rules] == [None, Fraction(12, 100)]
    assert keys.retention is not None
    assert (keys.retention.remote_files, keys.retention.inputs) == ("on-publish", 30 * 86400)
    assert keys.publish[0].include == ("message_id", "output.*", "_batchctl.*")


def test_the_json_schema_is_one_and_accepts_the_examples() -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    validator.validate(tomllib.loads(FULL))
    validator.validate(tomllib.loads(SMALLEST))
    assert not validator.is_valid(tomllib.loads(SMALLEST.replace("path", "pth")))
    assert not validator.is_valid(tomllib.loads(SMALLEST.replace('"openai"', '"opnai"')))
    assert not validator.is_valid({**tomllib.loads(SMALLEST), "limits": {"budget": 5}})
    json.dumps(schema)


def test_every_key_in_the_json_schema_is_described() -> None:
    schema = json_schema()
    tables = [schema, *schema["$defs"].values()]
    assert len(tables) == 1 + len(Keys.model_fields) - len({"version", "name", "emulator"}) + len({"Truncated"})
    for table in tables:
        for name, key in table["properties"].items():
            # pydantic leaves a description out where the table it refers to begins with the same words.
            described = key if "description" in key else schema["$defs"][key["$ref"].rpartition("/")[2]]
            assert described["description"], f"{table['title']}.{name}"
        assert table["additionalProperties"] is False


# Files


def test_load_reads_a_file_and_knows_its_directory(tmp_path: Path) -> None:
    file = tmp_path / "job.toml"
    file.write_bytes(b"\xef\xbb\xbf" + SMALLEST.replace("\n", "\r\n").encode())
    job = load(file, environ=NO_ENVIRONMENT)
    assert (job.base, job.name) == (tmp_path, "triage")


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no job file"):
        load(tmp_path / "job.toml", environ=NO_ENVIRONMENT)
    with pytest.raises(UsageError, match="cannot be read"):
        load(tmp_path, environ=NO_ENVIRONMENT)


def test_a_file_that_is_not_utf8_is_refused_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "job.toml"
    file.write_bytes(SMALLEST.encode() + b"# caf\xe9\n")
    with pytest.raises(UsageError, match="not UTF-8") as caught:
        load(file, environ=NO_ENVIRONMENT)
    assert caught.value.where == (f"{file}:7",)


# Mistakes


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        (SMALLEST + "[limits\n", "job.toml:7:8", "expected ']' at the end of a table declaration"),
        (SMALLEST + "\nx = \n", "job.toml:8:5", "invalid value"),
        (SMALLEST + "name = 'x'\n", "job.toml:7:11", "cannot overwrite a value"),
        (SMALLEST + "[model.params]\n", "job.toml:7:14", "cannot declare model.params twice"),
        (SMALLEST + "x = [1,\n", "job.toml:7:8", "invalid value"),
        ("x = " + "[" * 100_000, "job.toml", "nested too deeply, or a number too long"),
        ("x = " + "1" * 5000, "job.toml", "nested too deeply, or a number too long"),
    ],
)
def test_bad_toml_is_named_with_line_and_column(text: str, place: str, message: str) -> None:
    error = refused(text)
    assert (error.where, error.what) == ((place,), f"the job file is not valid TOML: {message}")


@pytest.mark.parametrize(
    ("text", "place", "what", "hint"),
    [
        (SMALLEST.replace("source", "sorce"), 3, "`sorce` is not a key of the job file", "did you mean `source`?"),
        (SMALLEST.replace("path", "pth"), 3, "`pth` is not a key of [source]", "did you mean `path`?"),
        (
            SMALLEST + "max_rows = 3\n",
            7,
            "`max_rows` is not a key of the job file",
            "`max_rows` belongs under [limits]",
        ),
        (
            SMALLEST + "[output2]\n",
            7,
            "`output2` is not a key of the job file",
            "did you mean `output`?",
        ),
        (
            SMALLEST + "[sample]\nzebra = 1\n",
            8,
            "`zebra` is not a key of [sample]",
            "the keys here are rows, pick, seed, min_valid, max_age",
        ),
        (
            SMALLEST + "[[rules]]\nname = 'a'\ncheck = 'true'\n[[rules]]\nname = 'b'\nchek = 'true'\n",
            12,
            "`chek` is not a key of [[rules]]",
            "did you mean `check`?",
        ),
        (SMALLEST.replace("schema", "schema_"), 5, "`schema_` is not a key of [output]", "did you mean `schema`?"),
        (SMALLEST + "base = '.'\n", 7, "`base` is not a key of the job file", None),
        (SMALLEST + "text = 'x'\n", 7, "`text` is not a key of the job file", None),
    ],
)
def test_an_unknown_key_is_named_with_its_line_and_a_suggestion(text: str, place: int, what: str, hint: str) -> None:
    error = refused(text)
    assert (error.what, error.where) == (what, (f"job.toml:{place}",))
    assert hint is None or error.hint == hint


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[limits]\nmax_rows = 0", "`limits.max_rows`: wanted a whole number of at least 1; got 0"),
        ("[limits]\nmax_rows = true", "`limits.max_rows`: wanted a whole number of at least 1; got true"),
        (
            "[limits]\nchunk_bytes = '100 apples'",
            '`limits.chunk_bytes`: wanted a size of whole bytes, such as "100MB" or "64MiB"; got "100 apples"',
        ),
        (
            "[limits]\nin_flight = 'many'",
            '`limits.in_flight`: wanted "auto" or a whole number of at least 1; got "many"',
        ),
        ("[limits]\nbudget = 5", '`limits.budget`: wanted an amount such as "5.00 USD"; got 5'),
        ("[limits]\nbudget = '5 EUR'", '`limits.budget`: wanted an amount such as "5.00 USD"; got "5 EUR"'),
        ("[retry]\ntransient = 101", "`retry.transient`: wanted a whole number of at most 100; got 101"),
        ("[retry]\ntransient = '5'", '`retry.transient`: wanted a whole number; got "5"'),
        ("[retry]\ninvalid = -1", "`retry.invalid`: wanted a whole number of at least 0; got -1"),
        (
            "[sample]\nmin_valid = 0.9",
            '`sample.min_valid`: wanted a share from "0%" to "100%", such as "0.1%"; got 0.9',
        ),
        (
            "[sample]\nmin_valid = '101%'",
            '`sample.min_valid`: wanted a share from "0%" to "100%", such as "0.1%"; got "101%"',
        ),
        ("[sample]\nmax_age = 7", '`sample.max_age`: wanted a duration such as "90s", "6h" or "7d"; got 7'),
        ("[sample]\npick = 'best'", '`sample.pick`: wanted first, random, longest or stratified:COLUMN; got "best"'),
        ("[sample]\nrows = 1979-05-27", "`sample.rows`: wanted a whole number; got a date or time; put it in quotes"),
        ("[review]\nrefused = 'no'", '`review.refused`: wanted true or false; got "no"'),
        ("[lane]\non_ambiguous = 'ask'", '`lane.on_ambiguous`: wanted auto or hold; got "ask"'),
        ("emulator = 3", "`emulator`: wanted a table; got 3"),
        ("sample = 3", "`sample`: wanted a table; got 3"),
        ("rules = 3", "`rules`: wanted a list of tables; got 3"),
        (
            "[emulator]\nwhen = 07:00:00",
            "`emulator.when`: wanted what JSON can hold; got a date or time; put it in quotes",
        ),
        ("[emulator]\nx = [1, nan]", "`emulator.x[1]`: wanted a number that JSON can hold; got nan"),
        (
            "[emulator]\nx = 99999999999999999999",
            "`emulator.x`: wanted a whole number of at most 64 bits; got a very large number",
        ),
    ],
)
def test_a_wrong_value_names_key_wanted_and_got(line: str, message: str) -> None:
    error = refused(SMALLEST + line + "\n")
    assert error.what == message
    assert error.where == (f"job.toml:{7 + line.count(chr(10))}",)


def test_a_misspelt_choice_gets_a_suggestion() -> None:
    error = refused(SMALLEST.replace('"openai"', '"opnai"'))
    assert error.what.startswith("`model.provider`: wanted openai, azure-openai, ")
    assert error.what.endswith('; got "opnai"')
    assert (error.where, error.hint) == (("job.toml:6",), 'did you mean "openai"?')


@pytest.mark.parametrize("name", ["", "Triage", "a_b", "a b", "ä", "a" * 41, "a\n"])
def test_a_job_name_is_short_and_plain(name: str) -> None:
    error = refused(SMALLEST.replace('"triage"', json.dumps(name, ensure_ascii=False)))
    assert error.what.startswith("`name`: wanted 1 to 40 of the characters a-z, 0-9 and -; got ")
    assert error.where == ("job.toml:2",)


@pytest.mark.parametrize(
    ("key", "line", "what", "where", "hint"),
    [
        ("version", 0, "`version` is missing", "job.toml", "add version = 1"),
        ("name", 1, "`name` is missing", "job.toml", 'add name = "triage"'),
        ("prompt", 3, "`prompt` is missing", "job.toml", 'add prompt = { file = "prompt.md" }'),
    ],
)
def test_a_missing_key_is_named(key: str, line: int, what: str, where: str, hint: str) -> None:
    lines = SMALLEST.splitlines(keepends=True)
    assert lines[line].startswith(key)
    error = refused("".join(lines[:line] + lines[line + 1 :]))
    assert (error.what, error.where, error.hint) == (what, (where,), hint)


def test_a_key_missing_in_a_table_is_placed_at_the_table() -> None:
    error = refused(SMALLEST.replace(', name = "gpt-5-mini"', ""))
    assert (error.what, error.where, error.hint) == (
        "`model.name` is missing",
        ("job.toml:6",),
        "add `name` in [model]",
    )
    error = refused(SMALLEST.replace('prompt = { file = "prompt.md" }\n', "") + "[prompt]\nversion = 'v1'\n")
    assert (error.what, error.where) == ("`prompt.file` is missing", ("job.toml:6",))


def test_text_in_place_of_a_table_shows_how_it_is_written() -> None:
    error = refused(SMALLEST.replace('{ file = "prompt.md" }', '"prompt.md"'))
    assert error.what == '`prompt`: wanted a table; got "prompt.md"'
    assert error.hint == 'write it like prompt = { file = "prompt.md" }'


def test_another_version_is_the_only_thing_said() -> None:
    error = refused(SMALLEST.replace("version = 1", "version = 2") + "new_thing = 3\n")
    assert error.what == "this job file has version 2; this batchctl reads version 1"
    assert (error.where, error.hint) == (("job.toml:1",), "install a newer batchctl")
    assert refused(SMALLEST.replace("version = 1", 'version = "1"')).what == '`version`: wanted 1; got "1"'


def test_several_problems_are_told_at_once_in_file_order_and_five_are_shown() -> None:
    error = refused(
        SMALLEST.replace("path", "pth")
        + "[limits]\nmax_rows = 0\nchunk_rows = 0\nzebra = 1\n[retry]\ntransient = 1.5\ninvalid = -1\nrefused = -1\n"
    )
    assert error.what == "job.toml has 7 problems"
    assert [place.split(" ", 1)[0] for place in error.where[:5]] == [
        "job.toml:3:",
        "job.toml:8:",
        "job.toml:9:",
        "job.toml:10:",
        "job.toml:12:",
    ]
    assert error.where[0] == "job.toml:3: `pth` is not a key of [source]; did you mean `path`?"
    assert error.where[5] == "and 2 more"
    assert error.code == "usage"


def test_stdin_needs_a_format() -> None:
    error = refused(SMALLEST.replace('"messages.csv"', '"-"'))
    assert (error.where, error.hint) == (("job.toml:3",), 'add format = "jsonl" to [source]')
    assert read(SMALLEST.replace('"messages.csv"', '"-", format = "jsonl"')).source.format == "jsonl"


@pytest.mark.parametrize(
    "address",
    [
        "http://example.com/v1",
        "ftp://127.0.0.1",
        "https://user:geheim@example.com/v1",
        "https://example.com/v1?key=geheim",
        "https://",
        "https://host:port/",
        "http://127.0.0.1.example.com/",
        "example.com",
    ],
)
def test_an_address_that_would_leak_is_refused(address: str) -> None:
    error = refused(SMALLEST.replace('"gpt-5-mini"', f'"gpt-5-mini", base_url = "{address}"'))
    assert error.what.startswith("`model.base_url`: wanted an address such as")
    assert "user:geheim" not in everything_of(error)


@pytest.mark.parametrize(
    "address", ["https://example.com/v1", "http://127.0.0.1:8080/v1", "http://[::1]:1/", "http://localhost"]
)
def test_addresses(address: str) -> None:
    job = read(SMALLEST.replace('"gpt-5-mini"', f'"gpt-5-mini", base_url = "{address}"'))
    assert job.model.base_url == address


def test_values_that_say_the_default_are_accepted() -> None:
    job = read(
        SMALLEST
        + "rules = []\npublish = []\n[lane]\nprefer = 'batch'\non_deadline_risk = 'wait'\non_ambiguous = 'hold'\n"
        + "[review]\nrefused = false\n[retry]\ntruncated = { set = { max_output_tokens = 9 } }\n"
    )
    assert not job.review.refused
    for mode in ("tool", "prompt"):
        assert read(SMALLEST.replace('"schema.json"', f'"schema.json", mode = "{mode}"')).output.mode == mode


# Environment


def test_a_variable_is_inserted_as_text_and_never_expanded_again() -> None:
    text = SMALLEST.replace("gpt-5-mini", "$${X}-${NAME}-$5")
    job = read(text, NAME='say "hi" ${OTHER} = 1')
    assert job.model.name == '${X}-say "hi" ${OTHER} = 1-$5'
    assert job.text == text


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (None, "is not set"),
        ("", "is empty"),
        ("  ", "is empty"),
        ("geheim\n", "holds a line break or another control character"),
        ("gehe\x00im", "holds a line break or another control character"),
        ('"geheim"', "has quotes around its value, probably pasted in"),
        ("'geheim'", "has quotes around its value, probably pasted in"),
        (" geheim", "begins or ends with a space"),
    ],
)
def test_a_bad_variable_is_named_and_its_value_is_not_shown(value: str | None, fault: str) -> None:
    text = SMALLEST + "\n[model.params]\n".replace("[model.params]", "[emulator]") + 'x = ["a", "${TOKEN_X}"]\n'
    error = refused(text, **({} if value is None else {"TOKEN_X": value}))
    assert error.what == f"`emulator.x[1]` needs the environment variable TOKEN_X, which {fault}"
    assert error.where == ("job.toml:9",)
    assert "geheim" not in everything_of(error)


def test_a_wrong_value_from_the_environment_is_not_shown() -> None:
    for text in (SMALLEST.replace('"openai"', '"${V}"'), SMALLEST + "[sample]\nmax_age = '${V}'\npick = 'x${V}'\n"):
        error = refused(text, V="geheim")
        assert "wanted" in everything_of(error)
        assert "geheim" not in everything_of(error)


def test_a_secret_does_not_come_in_through_the_environment() -> None:
    error = refused(SMALLEST.replace("gpt-5-mini", "${OPENAI_API_KEY}"), OPENAI_API_KEY="sk-proj-geheim1234567890")
    assert error.what == "`model.name` takes OPENAI_API_KEY, which holds what looks like a secret"
    assert "geheim" not in everything_of(error)


@pytest.mark.parametrize("written", ["${", "${}", "${A-B}", "${1A}", "${A"])
def test_a_broken_reference_is_refused(written: str) -> None:
    error = refused(SMALLEST.replace("gpt-5-mini", written), A="x")
    assert (error.what, error.where) == ("`model.name` has a `${` that names no variable", ("job.toml:6",))


# Secrets

SECRETS = [
    "sk-geheim0123456789abcdefXYZ",
    "sk-ant-api03-geheim",
    "sk-proj-geheim",
    "AIzaGEHEIMgeheim0123456789abcdef",
    "AKIAGEHEIM0123456789",
    "ghp_geheim0123456789abc",
    "Bearer geheim0123456789",
]


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        (SMALLEST.replace("gpt-5-mini", "SECRET"), 6, "`model.name` holds what looks like a secret"),
        (SMALLEST.replace('"openai"', '"SECRET"'), 6, "`model.provider` holds what looks like a secret"),
        (SMALLEST + "[emulator]\nx = [{ y = 'SECRET' }]\n", 8, "`emulator.x[0].y` holds what looks like a secret"),
        (SMALLEST + "# SECRET\n", 7, "this line holds what looks like a secret"),
        (SMALLEST + "'SECRET' = 1\n", 7, "`(not shown)` holds what looks like a secret"),
    ],
)
def test_a_secret_in_the_file_is_refused_and_never_shown(secret: str, text: str, line: int, what: str) -> None:
    error = refused(text.replace("SECRET", secret))
    assert (error.what, error.where) == (what, (f"job.toml:{line}",))
    assert "environment" in error.hint
    assert "geheim" not in everything_of(error).lower()


@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_in_broken_toml_or_an_override_is_not_shown(secret: str) -> None:
    for error in (
        refused(SMALLEST + f"x = {secret}\n"),
        refused(SMALLEST + f"[emulator]\nx = {{ '{secret}' = 1, '{secret}' = 2 }}\n"),
        refused(SMALLEST, overrides=(f"model.name={secret}",)),
        refused(SMALLEST, overrides=(f"{secret}=1",)),
        refused(SMALLEST, overrides=(secret,)),
    ):
        assert "geheim" not in everything_of(error).lower()


@pytest.mark.parametrize("key", ["api_key", "token", "client_secret", "PASSWORD", "aws-secret-access-key", "hf_token"])
def test_a_key_that_would_hold_a_credential_is_refused_whatever_it_holds(key: str) -> None:
    error = refused(SMALLEST + f"[emulator]\n{key} = 'geheim'\n")
    assert (error.what, error.where) == (f"`emulator.{key}` would put a credential into the job file", ("job.toml:8",))
    assert "geheim" not in everything_of(error)


@pytest.mark.parametrize("key", ["max_output_tokens", "max_tokens", "stop_token_ids", "key", "tokens", "key_env"])
def test_keys_that_only_sound_like_credentials_pass(key: str) -> None:
    assert not names_credential(key)


@pytest.mark.parametrize(
    "text", ["sk-messages-october-2026.csv", "data/sk-messages-2026-*.parquet", "task-12345678901234567890", "risk-1"]
)
def test_names_that_only_begin_like_keys_pass(text: str) -> None:
    assert not looks_secret(text)


# Overrides


def test_an_override_is_read_as_toml_else_as_text() -> None:
    job = read(
        SMALLEST,
        overrides=(
            "model.name=gpt-5",
            "limits.max_rows=20_000",
            'model.params."odd key".x=[1, "b"]',
            "sample.min_valid=80%",
            "prompt.version=2026-11-21",
            "output.version=a = 1",
        ),
    )
    assert (job.model.name, job.limits.max_rows) == ("gpt-5", 20_000)
    assert job.model.params == {"odd key": {"x": [1, "b"]}}
    assert (job.sample.min_valid, job.prompt.version) == (Fraction(4, 5), "2026-11-21")
    assert job.output.version == "a = 1"
    assert (job.text, job.overrides[0]) == (SMALLEST, "model.name=gpt-5")


@pytest.mark.parametrize(
    ("override", "where", "what", "hint"),
    [
        ("model.nam=x", "--set model.nam", "`nam` is not a key of [model]", "did you mean `name`?"),
        ("modl.name=x", "--set modl.name", "`modl` is not a key of the job file", "did you mean `model`?"),
        ("model.name", "--set model.name", "`--set` wants key=value", None),
        ("=x", "--set ", "`--set` wants key=value", None),
        ("a b=x", "--set a b", "`--set` wants key=value", None),
        ("model.name.x=1", "--set model.name.x", "`model.name.x` cannot be set: it is not inside a table", None),
        ("sample.rows=-1", "--set sample.rows", "`sample.rows`: wanted a whole number of at least 0; got -1", None),
        (
            "retention.inputs=30",
            "--set retention.inputs",
            '`retention.inputs`: wanted a duration such as "90s", "6h" or "7d"; got 30',
            None,
        ),
    ],
)
def test_a_wrong_override_is_named_as_one(override: str, where: str, what: str, hint: str | None) -> None:
    error = refused(SMALLEST, overrides=(override,))
    assert (error.what, error.where) == (what, (where,))
    assert hint is None or error.hint == hint


# Lines


def test_every_key_of_an_awkward_file_has_its_line() -> None:
    text = '''\
# [not.a.table]
a = "x # no ] comment"   # b = 1
"odd key".'sub' = 1
[ t . u ]
multi = """
[no.table]
x = 1 \\""" """
lists = [
  1, [2,
  3], { k = "}", "l m" = [ 4 ] },   # comment ]
]
[[r]]
n = 1
[r.s]
d = 1979-05-27T07:32:00Z
[[r]]
n = \'\'\'
'' ]
\'\'\'
[r.s]
d = 2
'''
    tomllib.loads(text)
    lines = Lines(text)
    expected: dict[tuple[Any, ...], int] = {
        ("a",): 2,
        ("odd key", "sub"): 3,
        ("t", "u"): 4,
        ("t", "u", "multi"): 5,
        ("t", "u", "lists"): 8,
        ("t", "u", "lists", 0): 9,
        ("t", "u", "lists", 1, 1): 10,
        ("t", "u", "lists", 2, "k"): 10,
        ("t", "u", "lists", 2, "l m"): 10,
        ("r",): 12,
        ("r", 0, "n"): 13,
        ("r", 0, "s"): 14,
        ("r", 0, "s", "d"): 15,
        ("r", 1): 16,
        ("r", 1, "n"): 17,
        ("r", 1, "s", "d"): 21,
        ("r", 1, "s", "absent"): 20,
    }
    assert {path: lines.line_of(path) for path in expected} == expected
    assert lines.line_of(("absent",)) is None


@pytest.mark.parametrize(
    ("text", "start", "wanted"),
    [
        ("08:00 Europe/Zurich", "2026-11-21T06:59:00Z", "2026-11-21T07:00:00Z"),
        ("08:00 Europe/Zurich", "2026-11-21T07:00:00Z", "2026-11-22T07:00:00Z"),
        ("08:00 Europe/Zurich", "2026-07-21T07:00:00Z", "2026-07-22T06:00:00Z"),
        ("23:30 UTC", "2026-11-21T23:29:59Z", "2026-11-21T23:30:00Z"),
        ("2026-11-22T08:00:00+01:00", "2026-11-21T07:00:00Z", "2026-11-22T07:00:00Z"),
        ("5d", "2026-11-21T07:00:00Z", "2026-11-26T07:00:00Z"),
        ("1h 30m", "2026-11-21T07:00:00Z", "2026-11-21T08:30:00Z"),
    ],
)
def test_a_deadline_is_one_moment(text: str, start: str, wanted: str) -> None:
    found = read(SMALLEST + f'[lane]\ndeadline = "{text}"\n').lane.deadline
    assert found is not None
    assert found.after(datetime.fromisoformat(start)) == datetime.fromisoformat(wanted)


@pytest.mark.parametrize(
    "text", ["08:00", "25:00 UTC", "08:00 Nowhere/City", "2026-11-22T08:00:00", "soon", "08:00 ../etc"]
)
def test_a_deadline_that_is_no_moment_is_refused(text: str) -> None:
    assert "lane.deadline" in everything_of(refused(SMALLEST + f'[lane]\ndeadline = "{text}"\n'))
