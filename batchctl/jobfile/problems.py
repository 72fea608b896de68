"""What is wrong in a job file, in words: the place, what was wanted, and what to write instead.

A value is shown only when it neither came from the environment nor looks like a secret.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Sequence
from datetime import date, time
from typing import Any, NamedTuple, get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from batchctl.jobfile.keys import Keys
from batchctl.jobfile.lines import Path as KeyPath
from batchctl.jobfile.secrets import looks_secret
from batchctl.model.errors import UsageError

_FEW = 5
_WANTED_ONE_OF = {
    "string_type": "text, in quotes",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "dict_type": "a table",
    "model_type": "a table",
    "tuple_type": "a list of tables",
    "too_short": "at least one value",
}
_PATTERNS = {
    "name": "1 to 40 of the characters a-z, 0-9 and -",
    "sample.pick": "first, random, longest or stratified:COLUMN",
    "model.key_env": "the name of an environment variable, such as OPENAI_API_KEY",
}
_EXAMPLES = {
    "source": 'source = { path = "messages.csv", id = "message_id" }',
    "prompt": 'prompt = { file = "prompt.md" }',
    "output": 'output = { schema = "schema.json" }',
    "model": 'model = { provider = "openai", name = "gpt-5-mini" }',
    "version": "version = 1",
    "name": 'name = "triage"',
}


class Problem(NamedTuple):
    path: KeyPath
    what: str
    hint: str
    where: str = ""
    code: str = "usage"
    missing: bool = False
    meant: str = ""  # the key that an unknown one probably should have been


def written_path(loc: tuple[str | int, ...], table: Any) -> KeyPath:
    """pydantic's location without what is not a key: the names of union members."""
    path: list[str | int] = []
    for part in loc:
        inside_list = isinstance(table, list) and isinstance(part, int) and part < len(table)
        if inside_list or (isinstance(table, dict) and part in table):
            table = table[part]
        elif part is loc[-1] and isinstance(table, dict):
            table = None  # a missing key
        else:
            continue
        path.append(part)
    return tuple(path)


def without_echoes(problems: Sequence[Problem]) -> list[Problem]:
    """Leave out a missing key that a misspelt one beside it was meant to be."""
    meant = {(*problem.path[:-1], problem.meant) for problem in problems if problem.meant}
    return [problem for problem in problems if not (problem.missing and problem.path in meant)]


def explain(error: ErrorDetails, path: KeyPath, hidden: set[KeyPath]) -> Problem:
    key = dotted(path)
    name = shown(key)
    kind = error["type"]
    context = error.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown(path)
    if kind == "missing":
        around = f"in {_table_name(path[:-1])}" if len(path) > 1 else "at the top"
        example = _EXAMPLES.get(key)
        hint = f"add {example}" if example else f"add `{shown(str(path[-1]))}` {around}"
        return Problem(path, f"`{name}` is missing", hint, missing=True)
    hint = "correct it"
    value = error.get("input")
    if kind == "literal_error":
        # pydantic words it for people: 'a', 'b' or 'c'
        choices = re.findall(r"'([^']*)'", str(context.get("expected", ""))) or [str(context.get("expected", ""))]
        want = ", ".join(choices[:-1]) + f" or {choices[-1]}" if len(choices) > 1 else choices[0]
        if path not in hidden and isinstance(value, str) and (near := _nearest(value, choices)):
            hint = f'did you mean "{near}"?'
    elif kind == "wanted":
        want = str(context["what"])
        for part in context["inside"]:
            value = value[part]
        path = (*path, *context["inside"])
        name = shown(dotted(path))
    elif kind == "string_pattern_mismatch":
        want = _PATTERNS.get(key, "another form")
    elif kind in {"greater_than_equal", "less_than_equal", "less_than"}:
        bound = {
            "greater_than_equal": ("ge", "at least"),
            "less_than_equal": ("le", "at most"),
            "less_than": ("lt", "less than"),
        }
        field, words = bound[kind]
        want = f"a whole number of {words} {context[field]:,}"
    else:
        want = _WANTED_ONE_OF.get(kind, "another kind of value")
        if kind in {"model_type", "dict_type"} and key in _EXAMPLES:
            hint = f"write it like {_EXAMPLES[key]}"
    return Problem(path, f"`{name}`: wanted {want}; got {got(value, hidden=path in hidden)}", hint)


def _unknown(path: KeyPath) -> Problem:
    """Name the nearest key of this table; else the table where this key belongs; else all keys of this table."""
    *around, last = path
    key = str(last)
    allowed = _keys_of(_model_at(around))
    place = f"a key of {_table_name(around)}" if around else "a key of the job file"
    homes = [table for table, model in _tables() if key in _keys_of(model)]
    if near := _nearest(key, allowed):
        hint = f"did you mean `{near}`?"
    elif len(homes) == 1:
        hint = f"`{key}` belongs under {homes[0]}"
    else:
        hint = f"the keys here are {', '.join(allowed)}"
    return Problem(path, f"`{shown(key)}` is not {place}", hint, meant=near or "")


def _table_name(path: Sequence[str | int]) -> str:
    """`[model]` or `[[rules]]`, as the header in the file would be written."""
    name = shown(dotted([part for part in path if isinstance(part, str)]))
    return f"[[{name}]]" if path and isinstance(path[-1], int) else f"[{name}]"


def _keys_of(model: type[BaseModel] | None) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()] if model else []


def _model_at(path: Sequence[str | int]) -> type[BaseModel] | None:
    model: type[BaseModel] | None = Keys
    for part in path:
        if isinstance(part, int):
            continue
        fields = {field.alias or name: field for name, field in model.model_fields.items()} if model else {}
        model = next(_models_in(fields[part].annotation), None) if part in fields else None
    return model


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)


def _tables() -> Iterator[tuple[str, type[BaseModel]]]:
    for name, field in Keys.model_fields.items():
        for model in _models_in(field.annotation):
            is_list = "tuple" in str(field.annotation)
            yield (f"[[{name}]]" if is_list else f"[{name}]"), model


def _nearest(written: str, known: Sequence[str]) -> str | None:
    folded = {name.casefold(): name for name in known}
    found = difflib.get_close_matches(written.casefold().replace("-", "_"), folded, n=1) or difflib.get_close_matches(
        written.casefold(), folded, n=1
    )
    return folded[found[0]] if found else None


def dotted(path: Sequence[str | int]) -> str:
    """`rules[0].name`; a key that needs quotes in TOML keeps them."""
    out = ""
    for part in path:
        if isinstance(part, int):
            out += f"[{part}]"
        else:
            plain = re.fullmatch(r"[A-Za-z0-9_-]+", part)
            out += ("." if out else "") + (part if plain else json.dumps(part, ensure_ascii=False))
    return out


def shown(key: str) -> str:
    """A key as a message may show it."""
    if looks_secret(key):
        return "(not shown)"
    return key if len(key) <= 80 else f"{key[:77]}..."


def got(value: Any, *, hidden: bool) -> str:
    match value:
        case str() if hidden or looks_secret(value) or re.search(r"://[^/]*@", value):
            return "text that is not shown"
        case str():
            return json.dumps(value if len(value) <= 60 else f"{value[:57]}...", ensure_ascii=False)
        case bool():
            return "true" if value else "false"
        case int() | float():
            return "a very large number" if abs(value) >= 10**18 else f"{value}"  # nan is not large
        case dict():
            return "a table"
        case list():
            return "a list" if value else "an empty list"
        case date() | time():
            return "a date or time; put it in quotes"
        case _:
            return "something else"


def combined(problems: Sequence[Problem], where: str) -> UsageError:
    problems = sorted(dict.fromkeys(problems), key=_file_order)
    codes = {problem.code for problem in problems}
    code = codes.pop() if len(codes) == 1 else "usage"
    if len(problems) == 1:
        [only] = problems
        return UsageError(only.what, where=only.where, effect="nothing was sent", hint=only.hint, code=code)
    places = [f"{problem.where}: {problem.what}; {problem.hint}" for problem in problems[:_FEW]]
    if len(problems) > _FEW:
        places.append(f"and {len(problems) - _FEW:,} more")
    return UsageError(
        f"{where} has {len(problems):,} problems",
        where=places,
        effect="nothing was sent",
        hint="correct them and run the same command again",
        code=code,
    )


def _file_order(problem: Problem) -> tuple[bool, int]:
    line = re.search(r":([0-9]+)$", problem.where)
    return problem.where.startswith("--set"), int(line[1]) if line else 0
