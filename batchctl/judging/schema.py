"""One JSON Schema: read and checked once, then asked about every answer.

jsonschema-rs decides whether a value is valid: on the official suite it is right where `jsonschema` is not (`pattern`
is ECMA-262, 19.99 is a multiple of 0.01), it is about a hundred times faster, and neither `^(a+)+$` nor `uniqueItems`
stops it. `jsonschema` checks the schema itself and words the explanations that a person reads.

No reference leaves the file. Both libraries fetch `http://` and read `file://` references unless told otherwise
(measured with jsonschema 4.26.0 and jsonschema-rs 0.60.3, November 2026), so three things stand in the way: the scan
here, a `retriever` that refuses, and an empty registry.

`format` is an annotation, as the standard has it since 2019-09: it is not enforced, in any draft.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote, urldefrag, urljoin

import jsonschema
import jsonschema_rs
import orjson
from referencing import Registry
from referencing.exceptions import Unresolvable

from batchctl.judging.strict_json import NotJson, deeper_than, parse
from batchctl.judging.text import around, printable
from batchctl.model.errors import UsageError

_NEWEST = "https://json-schema.org/draft/2020-12/schema"
_DRAFTS: dict[str, tuple[Any, type[jsonschema_rs.Validator]]] = {
    _NEWEST: (jsonschema.Draft202012Validator, jsonschema_rs.Draft202012Validator),
    "https://json-schema.org/draft/2019-09/schema": (
        jsonschema.Draft201909Validator,
        jsonschema_rs.Draft201909Validator,
    ),
    "http://json-schema.org/draft-07/schema": (jsonschema.Draft7Validator, jsonschema_rs.Draft7Validator),
    "http://json-schema.org/draft-06/schema": (jsonschema.Draft6Validator, jsonschema_rs.Draft6Validator),
    "http://json-schema.org/draft-04/schema": (jsonschema.Draft4Validator, jsonschema_rs.Draft4Validator),
}

_MAPS = frozenset(("properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"))
_VALUES = frozenset(("const", "enum", "default", "examples"))  # data, not schemas: a "$ref" in there is just a key
_IN_PLACE = frozenset(("allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas", "dependencies"))
_REFS = ("$ref", "$dynamicRef", "$recursiveRef")

_MAX_PATHS = 100_000
"""Ways through a schema's alternatives at one place of a value; jsonschema-rs takes about 30 ns for each."""
_MAX_WORDING = 1_024
"""The same, multiplied over the levels of a value: jsonschema-rs words every branch that failed, 0.5 ms for each."""
_EXPLAIN_BYTES = 64 * 1024
_EXPLAIN_DEPTH = 64
_EXPLAIN_STEPS = 5_000
"""Keywords `jsonschema` may look at for one explanation; about 10 us each."""

_MASK = "\x00"  # stands for the value in jsonschema-rs's messages, which otherwise repeat all of it


class Failure(NamedTuple):
    """The first thing wrong with a value. `kind` is the place in the schema, equal for failures of the same kind."""

    pointer: str
    message: str
    kind: str

    def __str__(self) -> str:
        return _worded(self.pointer, self.message)


class _TooLong(Exception):
    """An explanation took more steps than it is worth."""


class Schema:
    """A checked schema. `text` is the file as it is, `value` what it says, `digest` sha256 of its canonical JSON."""

    __slots__ = ("_draft", "_explainable", "_is_valid", "_paths", "_validate", "digest", "text", "value", "where")

    def __init__(self, text: bytes, value: dict[str, Any], where: str) -> None:
        """For `load` only: `value` is taken as checked except for what building the judge finds."""
        draft = _DRAFTS[_draft_of(value)]
        scan = _Scan(value, where)
        _check(value, draft[0], where)
        judge = _judge(value, draft[1], where)
        self.text = text
        self.value = value
        self.where = where
        self.digest = hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()
        self._is_valid = judge.is_valid
        self._validate = judge.validate
        self._draft = draft[0]
        self._paths = scan.paths
        self._explainable = not scan.name_patterns and text.count(b'"$schema"') <= 1

    @classmethod
    def load(cls, text: bytes, where: str) -> Schema:
        """Read and check a schema; `where` names its file in messages. `UsageError` says what, where and what to do.

        Refused: text that is not strict JSON or not an object, what its draft's own schema does not allow, an unknown
        draft, references that leave the file or lead nowhere, patterns that are not regular expressions, references
        that lead back to themselves without entering the value, and alternatives that multiply beyond judging.
        """
        try:
            value = parse(text)
        except NotJson as exc:
            raise _bad(f"the schema is not JSON: {exc.detail}", where, "", "correct the file") from exc
        if not isinstance(value, dict):
            raise _bad("the schema is not a JSON object", where, "", 'start with {"type": "object", ...}')
        return cls(text, value, where)

    def __reduce__(self) -> tuple[Callable[[bytes, str], Schema], tuple[bytes, str]]:
        """Judges are compiled code: another process loads the text again."""
        return Schema.load, (self.text, self.where)

    def problem(self, value: Any) -> str | None:
        """None for a valid value; otherwise where the first error is and what is wrong, bounded and escaped."""
        failure = self.failure(value)
        return None if failure is None else str(failure)

    def failure(self, value: Any) -> Failure | None:
        """Like `problem`, in parts."""
        try:
            if self._is_valid(value):
                return None
            if self._paths > 1 and self._wording_is_long(value):
                return Failure("", "does not match any of the schema's nested alternatives", "alternatives")
            self._validate(value)
        except jsonschema_rs.ValidationError as error:
            return Failure(
                _pointer(error.instance_path),
                error.message.replace(_MASK, _excerpt(error.instance)) if _MASK in error.message else error.message,
                _pointer(error.schema_path),
            )
        except (ValueError, TypeError) as error:  # deeper than its limit of 255, a lone surrogate, or no JSON value
            return Failure("", f"cannot be judged: {error}", "unreadable")
        return Failure("", "does not match the schema", "unknown")  # two answers to one question: the first one holds

    def explain(self, value: Any) -> str:
        """The likeliest error in the words of `jsonschema`, those of `problem` where that could take long; "" if valid.

        Bounded by construction, not by a clock: small values only, at most so many steps, and what can explode in
        Python (`pattern`, `uniqueItems`) or is wrong there (`multipleOf`) is decided by jsonschema-rs. A schema with
        `patternProperties`, which `jsonschema` matches with `re` in more than one place, is never explained by it.
        """
        failure = self.failure(value)
        if failure is None:
            return ""
        found = self._best_match(value) if self._explainable and _is_small(value) else None
        return found or str(failure)

    def _best_match(self, value: Any) -> str | None:
        steps = iter(range(_EXPLAIN_STEPS))
        keywords = {name: _bounded(function, steps) for name, function in self._draft.VALIDATORS.items()}
        keywords |= {name: _bounded(_decided(name, words), steps) for name, words in _DECIDED.items()}
        # Without "$schema", which would lead references to the whole schema back to the unbounded class.
        schema = {key: part for key, part in self.value.items() if key != "$schema"}
        explainer = jsonschema.validators.extend(self._draft, keywords)(schema, registry=Registry())
        try:
            error = jsonschema.exceptions.best_match(explainer.iter_errors(value))
        except (RecursionError, _TooLong, Unresolvable):
            return None
        return None if error is None else _worded(_pointer(error.absolute_path), error.message)

    def _wording_is_long(self, value: Any) -> bool:
        levels = 1
        while self._paths ** (levels + 1) <= _MAX_WORDING:
            levels += 1
        return deeper_than(value, levels)


class _Scan:
    """Walks the schema once: refuses references that leave it and measures how alternatives multiply.

    `paths`: the most ways through `anyOf`, `$ref` and their like at one place of a value.
    `name_patterns`: whether any `patternProperties` is there.
    """

    def __init__(self, schema: dict[str, Any], where: str) -> None:
        self.where = where
        self.name_patterns = False
        self._draft = _draft_of(schema)
        self._named: dict[str, dict[str, Any]] = {"": schema}  # by id, or id and anchor
        self._known = {""} | set(_DRAFTS)
        self._refs: list[tuple[str, str, str]] = []  # pointer, base, reference
        self._id = "id" if "draft-04" in self._draft else "$id"
        self._nodes: dict[int, tuple[str, str, dict[str, Any]]] = {}
        self._walk(schema, "", "")
        for pointer, base, reference in self._refs:
            self._check_reference(pointer, base, reference)
        self._counted: dict[int, int] = {}
        self.paths = max(self._count(*node) for node in self._nodes.values())

    def _walk(self, schema: Any, pointer: str, base: str) -> None:
        if not isinstance(schema, dict):
            return
        identity = schema.get(self._id)
        if isinstance(identity, str):
            named = _resolved(base, identity)
            self._named.setdefault(named.removesuffix("#"), schema)
            base = urldefrag(named).url
            self._known.add(base)
        for word in ("$anchor", "$dynamicAnchor"):
            if isinstance(schema.get(word), str):
                self._named.setdefault(f"{base}#{schema[word]}", schema)
        self._nodes[id(schema)] = (pointer, base, schema)
        draft = schema.get("$schema")
        if isinstance(draft, str) and draft.rstrip("#") != self._draft:
            raise _bad(
                f"the schema names the draft `{printable(draft, 100)}`",
                self.where,
                f"{pointer}/$schema",
                "use one draft in one file: " + ", ".join(_DRAFTS),
            )
        for word in _REFS:
            reference = schema.get(word)
            if isinstance(reference, str):
                self._refs.append((f"{pointer}/{word}", base, reference))
        for key, part in schema.items():
            if key in _VALUES:
                continue
            self.name_patterns |= key == "patternProperties"
            for name, child in _children(key, part):
                self._walk(child, f"{pointer}/{name}", base)

    def _check_reference(self, pointer: str, base: str, reference: str) -> None:
        target = urldefrag(_resolved(base, reference)).url
        if target.rstrip("#") not in self._known:
            raise _bad(
                f"the schema refers to `{printable(reference, 100)}`, which is outside the file",
                self.where,
                pointer,
                "copy the definition under `$defs` and refer to it as `#/$defs/NAME`; batchctl fetches no schema",
            )

    def _count(self, pointer: str, base: str, node: dict[str, Any]) -> int:
        """Ways through the alternatives at `node`, without entering the value."""
        key = id(node)
        if key in self._counted:
            if not self._counted[key]:
                raise _bad(
                    "the schema refers back to itself at the same place of the value",
                    self.where,
                    pointer,
                    "refer to it from under `properties` or `items`, so that each step enters the value",
                )
            return self._counted[key]
        self._counted[key] = 0  # being counted
        inner = [
            child
            for word, part in node.items()
            if word in _IN_PLACE
            for _, child in _children(word, part)
            if id(child) in self._nodes
        ]
        target = self._target(base, node.get("$ref"))
        if target is not None:
            inner.append(target)
        total = sum(self._count(*self._nodes[id(child)]) for child in inner)
        if total > _MAX_PATHS:
            raise _bad(
                f"the schema's alternatives multiply to more than {_MAX_PATHS:,} at one place",
                self.where,
                pointer,
                "give the alternatives fewer levels of `anyOf`, `oneOf` and `allOf`",
            )
        self._counted[key] = max(total, 1)
        return self._counted[key]

    def _target(self, base: str, reference: Any) -> dict[str, Any] | None:
        """The schema a reference names; None when it is not one that the walk has seen."""
        if not isinstance(reference, str):
            return None
        url, fragment = urldefrag(_resolved(base, reference))
        if fragment and not fragment.startswith("/"):
            return self._named.get(f"{url}#{fragment}")
        found: Any = self._named.get(url)
        for step in unquote(fragment).split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            if isinstance(found, dict):
                found = found.get(name)
            elif isinstance(found, list) and name.isdecimal() and int(name) < len(found):
                found = found[int(name)]
            else:
                return None
        return found if id(found) in self._nodes else None


def _children(key: str, part: Any) -> Iterator[tuple[str, Any]]:
    """Schemas directly under a keyword, with the steps of a pointer that lead to each."""
    if isinstance(part, list):
        for number, child in enumerate(part):
            yield f"{_step(key)}/{number}", child
    elif isinstance(part, dict):
        if key in _MAPS:
            for name, child in part.items():
                yield f"{_step(key)}/{_step(name)}", child
        else:
            yield _step(key), part


def _resolved(base: str, reference: str) -> str:
    """`urljoin`, which knows no `urn:` and loses the base of a bare fragment there."""
    if reference.startswith("#"):
        return urldefrag(base).url + reference
    return urljoin(base, reference)


def _draft_of(schema: Mapping[str, Any]) -> str:
    named = schema.get("$schema", _NEWEST)
    draft = named.rstrip("#") if isinstance(named, str) else ""
    return draft if draft in _DRAFTS else _NEWEST  # an unknown one is refused by the scan, with its place


def _check(schema: dict[str, Any], draft: Any, where: str) -> None:
    """Against the draft's own schema. Patterns are left to the judge: `jsonschema` takes them for Python's."""
    try:
        draft.check_schema(schema, format_checker=jsonschema.FormatChecker(formats=()))
    except jsonschema.SchemaError as exc:
        raise _bad(
            f"the schema is not valid: {around(exc.message, 200)}",
            where,
            _pointer(exc.absolute_path),
            "correct the keyword, or check the draft that `$schema` names",
        ) from exc
    except RecursionError as exc:
        raise _bad("the schema is nested too deeply", where, "", "move inner parts to `$defs`") from exc


def _judge(schema: dict[str, Any], draft: type[jsonschema_rs.Validator], where: str) -> jsonschema_rs.Validator:
    try:
        return draft(schema, retriever=_refuse, mask=_MASK, validate_formats=False)
    except jsonschema_rs.ValidationError as exc:
        message = around(exc.message.replace(_MASK, _excerpt(exc.instance)), 200)
        raise _bad(
            f"the schema cannot be used: {message}",
            where,
            _pointer(exc.instance_path),
            "correct the pattern or the reference",
        ) from exc
    except (ValueError, jsonschema_rs.ReferencingError) as exc:
        raise _bad(f"the schema cannot be used: {around(str(exc), 200)}", where, "", "correct the file") from exc


def _refuse(uri: str) -> Any:
    raise ValueError(f"batchctl fetches no schema: {printable(uri, 100)}")


def _bad(what: str, where: str, pointer: str, hint: str) -> UsageError:
    return UsageError(what, where=f"{where}#{printable(pointer, 200)}", effect="nothing was sent", hint=hint)


def _worded(pointer: str, message: str) -> str:
    return around(f"{printable(pointer, 120) or '(whole answer)'}: {message}")


def _pointer(path: Any) -> str:
    return "".join([f"/{_step(step)}" for step in path])


def _step(name: Any) -> str:
    return str(name).replace("~", "~0").replace("/", "~1")


def _excerpt(value: Any) -> str:
    """A value as JSON, for a message: the beginning of it, so that its cost does not grow with the value."""
    if isinstance(value, str):
        value = value if len(value) <= 60 else value[:60] + "…"
    try:
        shown = orjson.dumps(value)
    except TypeError:  # wider than 64 bits or otherwise no JSON
        return printable(str(value), 80)
    return shown.decode() if len(shown) <= 80 else shown[:80].decode("utf-8", "ignore") + "…"


def _is_small(value: Any) -> bool:
    if deeper_than(value, _EXPLAIN_DEPTH):
        return False
    try:
        return len(orjson.dumps(value)) < _EXPLAIN_BYTES
    except TypeError:  # lone surrogates, or no JSON value
        return False


def _bounded(function: Any, steps: Iterator[int]) -> Any:
    def check(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
        if next(steps, None) is None:
            raise _TooLong
        yield from function(validator, value, instance, schema) or ()

    return check


_DECIDED = {
    "pattern": "{instance!r} does not match {value!r}",
    "uniqueItems": "{instance!r} has non-unique elements",
    "multipleOf": "{instance!r} is not a multiple of {value!r}",
}


def _decided(keyword: str, words: str) -> Any:
    """A keyword of `jsonschema` whose answer is jsonschema-rs's."""

    def check(_: Any, value: Any, instance: Any, __: Any) -> Iterator[Any]:
        if not jsonschema_rs.is_valid({keyword: value}, instance):
            yield jsonschema.ValidationError(words.format(instance=instance, value=value))

    return check
