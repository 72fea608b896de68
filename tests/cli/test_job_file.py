"""Everything that can be wrong with a job and the files it names. Exit 2, the line, what to write instead."""

import pytest

from tests.cli.conftest import Golden
from tests.cli.desk import JOB, Desk

BROKEN = {
    "not-toml": 'version = 1\nname = "triage\n',
    "not-utf8": b'version = 1\nname = "\xff"\n',
    "empty": "",
    "another-version": JOB.replace("version = 1", "version = 2"),
    "unknown-table": JOB.replace("prompt =", "promt ="),
    "unknown-key": JOB + "[limits]\nmax_row = 5\n",
    "misplaced-key": JOB + "[limits]\nmin_valid = '90%'\n",
    "wrong-type": JOB + "[limits]\nmax_rows = 'many'\n",
    "wrong-value": JOB.replace('"emulator"', '"openia"'),
    "a-rule-about-nothing": JOB + '[[rules]]\nname = "a"\n',
    "a-key": JOB.replace('"gpt-5-mini"', '"gpt-5-mini", api_key = "sk-proj-abcdefgh12345678"'),
    "variable-not-set": JOB.replace('"gpt-5-mini"', '"${MODEL}"'),
    "plain-http": JOB.replace('"gpt-5-mini"', '"gpt-5-mini", base_url = "http://example.com/v1"'),
}


def test_broken_job_files(desk: Desk, golden: Golden) -> None:
    for content in BROKEN.values():
        desk.write("job.toml", content)
        desk.fails(2, "prepare")
    golden("job-file")
    assert "sk-proj" not in "".join(done.err for done in desk.history)
    assert not desk.state.exists(), "a job that cannot be read leaves no trace"


def test_missing_and_broken_prompt_and_schema(desk: Desk, golden: Golden) -> None:
    prompt, schema = ((desk.path / name).read_text() for name in ("prompt.md", "schema.json"))
    (desk.path / "prompt.md").rename(desk.path / "promt.md")
    desk.fails(2, "prepare")
    (desk.path / "promt.md").unlink()
    desk.fails(2, "prepare")
    for text in (
        "Label {{ subjct }}",
        "Label {{ subject ",
        "Label {% for word in body %}{{ word }}",
        "{{ body.__class__ }}",
        "{{ body | shout }}",
    ):
        desk.write("prompt.md", text)
        desk.fails(2, "prepare")
    desk.write("prompt.md", b"\xff\xfe")
    desk.fails(2, "prepare")
    desk.write("prompt.md", prompt)
    (desk.path / "schema.json").unlink()
    desk.fails(2, "prepare")
    for text in (
        "{",
        "[]",
        '{"type": "objct"}',
        '{"properties": {"a": {"$ref": "http://example.com/a.json"}}}',
        '{"properties": {"a": {"$ref": "#/$defs/a"}}}',
        '{"properties": {"a": {"pattern": "("}}}',
    ):
        desk.write("schema.json", text)
        desk.fails(2, "prepare")
    golden("prompt-and-schema")
    desk.write("schema.json", schema)
    desk.run("prepare", code=0)


@pytest.mark.parametrize("column", ["mesage_id", "nothing"])
def test_an_id_column_that_is_not_there(desk: Desk, column: str) -> None:
    desk.job(('id = "message_id"', f'id = "{column}"'))
    done = desk.fails(2, "prepare")
    assert f"there is no column `{column}` to take source ids from" in done.err
    assert "messages.csv has: message_id, subject, body" in done.err
    assert ("did you mean `message_id`?" in done.err) == (column == "mesage_id")


def test_a_prompt_that_uses_a_column_left_out(desk: Desk) -> None:
    desk.job(('id = "message_id"', 'id = "message_id", columns = ["message_id", "subject"]'))
    done = desk.fails(2, "prepare")
    assert "the prompt uses `{{ body }}`" in done.err


def test_a_changed_prompt_under_its_old_label(desk: Desk, golden: Golden) -> None:
    desk.job(('file = "prompt.md"', 'file = "prompt.md", version = "v1"'))
    desk.run("run", "--wait", "--json", code=0)
    desk.write("prompt.md", "Another question: {{ body }}")
    desk.history.clear()
    desk.fails(2, "prepare")
    desk.job(('file = "prompt.md"', 'file = "prompt.md", version = "v2"'))
    desk.fails(6, "prepare")
    desk.run("prepare", "--keep-done", code=0)
    desk.run("prepare", "--resend-changed", code=0)
    golden("changed-prompt")
    assert desk.billed()["rows_billed"] == 3
