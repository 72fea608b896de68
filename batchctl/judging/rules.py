"""Rules beyond the schema: CEL over `output` and `row`, shares over a whole run, and ready-made checks for text.

CEL is evaluated by `common-expression-language` (a Rust core: no loops, no calls out, regular expressions in linear
time), imported only when a job has an expression. Expressions are compiled once. A rule that cannot be evaluated for a
row (a field is missing, types do not fit) is broken for that row and says why: it never passes silently.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from fractions import Fraction
from typing import Any

import orjson

from batchctl.judging.cel_bounds import MOST_GROWTH, STEP, Spent, Steps, growth, with_steps
from batchctl.judging.cel_text import own_functions, reads, with_own_size
from batchctl.judging.text import printable
from batchctl.model.errors import UsageError

RERUN, REVIEW, WARN = "rerun", "review", "warn"
VARIABLES = ("output", "row")
_TYPES = (
    "bool",
    "bytes",
    "double",
    "duration",
    "dyn",
    "int",
    "list",
    "map",
    "null_type",
    "string",
    "timestamp",
    "type",
)
_NATIVE = (
    *("bool", "bytes", "contains", "double", "duration", "dyn", "endsWith", "getDate", "getDayOfMonth", "getDayOfWeek"),
    *(
        "getDayOfYear",
        "getFullYear",
        "getHours",
        "getMilliseconds",
        "getMinutes",
        "getMonth",
        "getSeconds",
        "has",
        "int",
    ),
    *("matches", "max", "min", "size", "startsWith", "string", "timestamp", "type", "uint"),
)
_POSITION = re.compile(r"<input>:([0-9]+):([0-9]+): (?:Syntax error: )?(.*)")
_TAG = re.compile(r"<[A-Za-z/!?]")


@dataclass(frozen=True, slots=True)
class Expression:
    """CEL as written, and its place for messages: `job.toml:14`, and the key."""

    text: str
    place: str
    key: str


@dataclass(frozen=True, slots=True)
class Check:
    """What must hold for a row (for those where `where` holds), and what a broken one leads to."""

    name: str
    check: Expression
    where: Expression | None
    on_fail: str


@dataclass(frozen=True, slots=True)
class ShareRule:
    """The largest share of a run's completed rows for which `where` may hold."""

    name: str
    where: Expression
    most: Fraction


@dataclass(frozen=True, slots=True)
class RuleBook:
    """All rules of a job as plain values, so that they can travel to another process. `sample`: share of good rows."""

    checks: tuple[Check, ...] = ()
    shares: tuple[ShareRule, ...] = ()
    max_chars: int | None = None
    html: bool = True
    echo: str | None = None
    when: Expression | None = None
    sample: Fraction = Fraction(0)

    def __bool__(self) -> bool:
        return bool(
            self.checks or self.shares or self.max_chars or not self.html or self.echo or self.when or self.sample
        )


@dataclass(frozen=True, slots=True)
class Finding:
    """What the rules say of one answer: the gravest consequence of a broken one, all of them in words, warnings apart.

    `shares` are the numbers of the share rules whose `where` holds.
    """

    consequence: str = ""
    detail: str = ""
    warning: str = ""
    shares: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Names:
    """The fields that exist, where that is known: of `output` by the schema, of `row` by the source."""

    output: Collection[str] | None = None
    row: Collection[str] | None = None
    free_text: bool = False  # there is no schema: `output` is the text itself


class Program:
    """One compiled expression."""

    def __init__(self, expression: Expression, names: Names, variables: tuple[str, ...] = VARIABLES) -> None:
        import cel
        from cel import stdlib

        _silence()
        self.expression = expression
        try:
            used = cel.compile(expression.text).references()
        except ValueError as error:
            raise _not_cel(expression, str(error)) from None
        if growth(expression.text) > MOST_GROWTH:
            raise _grows(expression)
        self._run = _compiled(expression.text)
        found = reads(expression.text, variables)
        functions = {*_NATIVE, *(name.rpartition(".")[2] for name in stdlib.STDLIB_FUNCTIONS)}
        spaces = {name.partition(".")[0] for name in stdlib.STDLIB_FUNCTIONS if "." in name}
        for name in used["variables"]:
            if name not in (*variables, *_TYPES, *found.bound, *spaces):
                raise _unknown(expression, name, "a name", variables)
        for name in used["functions"]:
            if re.fullmatch("[A-Za-z][A-Za-z0-9]*", name) and name not in functions:
                raise _unknown(expression, name, "a function", sorted(functions))
        self.fields = {name: None if fields is None else set(fields) for name, fields in found.fields.items()}
        for variable, known in (("output", names.output), ("row", names.row)):
            for field, column in (found.fields.get(variable) or {}).items():
                if variable == "output" and names.free_text:
                    raise _no_fields(expression, column)
                if known is not None and field not in known:
                    raise _unknown(expression, field, f"a field of `{variable}`", known, column)

    def holds(self, context: Context) -> bool | str:
        """True or false; or in words why nobody can tell."""
        try:
            value = self._run(context)
        except Exception as error:  # whatever the library raises for these values
            return _why(error)
        return value if isinstance(value, bool) else "it is neither true nor false"


class Context:
    """CEL's functions and the variables that programs see. `put` gives a variable its value.

    Of the library's functions it has those whose names appear in the programs: after each `put` the library prepares
    every one of them anew, which takes as long as judging some rules.
    """

    def __init__(self, programs: Iterable[Program]) -> None:
        import cel
        from cel import stdlib

        self.steps = Steps()
        self.values = cel.Context(functions={**own_functions(), STEP: self.steps.step})
        text = "\n".join(one.expression.text for one in programs)
        for name, function in stdlib.STDLIB_FUNCTIONS.items():
            if name.rpartition(".")[2] in text:
                self.values.add_function(name, function)
        self.put: Callable[[str, Any], None] = self.values.add_variable


def _compiled(text: str) -> Callable[[Context], Any]:
    """An expression as a function of what it sees. Raises what the library raises, and `Spent` past its steps."""
    import cel

    counted = with_steps(text)
    execute = cel.compile(with_own_size(counted)).execute

    def run(context: Context) -> Any:
        return execute(context.values)

    def count(context: Context) -> Any:
        context.steps.begin()
        try:
            return execute(context.values)
        finally:  # an error of a step may have been passed over by `||`, and is worded by the library if not
            if context.steps.spent:
                raise Spent(context.steps.spent)

    return run if counted == text else count


class Rules:
    """A rule book, compiled. Raises `UsageError` for an expression that is wrong or names what does not exist."""

    def __init__(self, book: RuleBook, names: Names | None = None) -> None:
        names = names or Names()
        self.book = book
        self._checks = [
            (one, Program(one.check, names), None if one.where is None else Program(one.where, names))
            for one in book.checks
        ]
        self._shares = [Program(one.where, names) for one in book.shares]
        self._when = None if book.when is None else Program(book.when, names)
        if book.echo is not None and names.output is not None and book.echo not in names.output:
            raise _no_echo(book.echo, "the schema", names.output)
        if book.echo is not None and names.row is not None and book.echo not in names.row:
            raise _no_echo(book.echo, "the rows", names.row)
        self._text = bool(book.max_chars) or not book.html
        programs = [one for _, check, where in self._checks for one in (check, where) if one is not None]
        programs += self._shares + ([] if self._when is None else [self._when])
        self._output_fields = _joined(programs, "output")
        self._row_fields = _joined(programs, "row")
        self._uses_row = any("row" in one.fields for one in programs)
        self.needs_row = book.echo is not None or self._uses_row
        self._context = Context(programs) if programs else None
        self._all: Callable[[Any], Any] | None = None
        plain = [one.check.text for one in book.checks if one.where is None]
        self._plain = len(plain) == len(book.checks)
        if len(plain) > 1:  # one call for the usual case that all hold
            self._all = _compiled(" && ".join(f"({text}\n)" for text in plain))

    def find(self, output: Any, row: bytes | None) -> Finding:
        """What the rules say of an answer and the row (JSON) it belongs to."""
        values = orjson.loads(row) if row is not None and self.needs_row else {}
        broken: list[tuple[str, str]] = [(RERUN, words) for words in self._builtin(output, values)]
        warnings: list[str] = []
        shares: tuple[int, ...] = ()
        if self._context is not None:
            why = self._fill(output, values)
            for consequence, words in self._broken(why):
                if consequence == WARN:
                    warnings.append(words)
                else:
                    broken.append((consequence, words))
            if self._when is not None:
                holds = why or self._when.holds(self._context)
                if holds is not False:
                    broken.append((REVIEW, "[review] when" + ("" if holds is True else f": {holds}")))
            if not broken:
                shares = tuple(
                    place
                    for place, one in enumerate(self._shares)
                    if (why or one.holds(self._context)) is not False  # in doubt it counts
                )
        warning = "" if not warnings else "warning: " + "; ".join(warnings)
        if not broken:
            return _FINE if not warning and not shares else Finding("", "", warning, shares)
        gravest = RERUN if any(one == RERUN for one, _ in broken) else REVIEW
        return Finding(gravest, "; ".join(words for _, words in broken), warning, shares)

    def holding(self, output: Any, row: bytes) -> tuple[int, ...]:
        """The share rules whose `where` holds for an answer, whatever the other rules say."""
        if self._context is None:
            return ()
        why = self._fill(output, orjson.loads(row) if self.needs_row else {})
        holds = [why or one.holds(self._context) for one in self._shares]
        return tuple(place for place, one in enumerate(holds) if one is not False)

    def _fill(self, output: Any, values: dict[str, Any]) -> str:
        """Hand the fields that are read to the context; in words why that is not possible."""
        assert self._context is not None
        try:
            self._context.put("output", _only(output, self._output_fields))
            if self._uses_row:
                self._context.put("row", _only(values, self._row_fields))
        except (ValueError, TypeError, OverflowError) as error:
            return _why(error)
        return ""

    def _broken(self, why: str) -> list[tuple[str, str]]:
        """Consequence and words of each check that does not hold."""
        if not why and self._all is not None:
            try:
                hold = self._all(self._context) is True
            except Exception:
                hold = False  # which one cannot be evaluated, and why, is found below
            if hold and self._plain:
                return []
        context = self._context
        assert context is not None
        found = []
        for one, check, where in self._checks:
            asked = why or (True if where is None else where.holds(context))
            if asked is False:
                continue
            holds = check.holds(context) if asked is True else asked
            if holds is not True:
                found.append((one.on_fail, one.name + ("" if holds is False else f": cannot be evaluated: {holds}")))
        return found

    def _builtin(self, output: Any, values: dict[str, Any]) -> list[str]:
        book = self.book
        found = []
        if book.echo is not None:
            said = output.get(book.echo) if isinstance(output, dict) else None
            if _as_text(said) != _as_text(values.get(book.echo)):
                found.append(f"echo: `{book.echo}` of the answer is not that of the row")
        if self._text:
            longest, tag = _texts(output)
            if book.max_chars is not None and longest > book.max_chars:
                found.append(f"max_chars: a text of {longest:,} characters; {book.max_chars:,} are allowed")
            if tag and not book.html:
                found.append("html: the answer holds HTML")
        return found


_FINE = Finding()


def _joined(programs: list[Program], variable: str) -> frozenset[str] | None:
    """The fields of a variable that any of them reads; None: one of them uses it as a whole."""
    wanted: set[str] = set()
    for one in programs:
        fields = one.fields.get(variable, set())
        if fields is None:
            return None
        wanted |= fields
    return frozenset(wanted)


def _only(value: Any, fields: frozenset[str] | None) -> Any:
    """The fields that are read; converting a value for the library costs more than evaluating a rule on it."""
    if fields is None or not isinstance(value, dict) or len(value) <= 1:
        return value
    return {name: value[name] for name in fields if name in value}


def _as_text(value: Any) -> str | None:
    """An id as text, whether the source or the answer has it as text or as a number."""
    if isinstance(value, str) or value is None:
        return value
    return orjson.dumps(value).decode()


def _texts(output: Any) -> tuple[int, bool]:
    """The longest text anywhere in an answer, and whether one of them holds HTML."""
    longest, tag = 0, False
    waiting = [output]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            longest = max(longest, len(value))
            tag = tag or _TAG.search(value) is not None
        elif isinstance(value, dict):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, list):
            waiting += value
    return longest, tag


def _why(error: Exception) -> str:
    """The library's complaint, short and fit to be shown; it may quote the answer."""
    if isinstance(error, KeyError):
        return f"there is no `{printable(str(error.args[0]) if error.args else '', 60)}`"
    text = str(error).replace("siz_", "size").split("\n")[0]
    return printable(text.split(". ")[0].split(": CEL does not")[0], 160)


def _silence() -> None:
    """The library logs a failing function's message, which may quote row text, to whoever listens."""
    logger = logging.getLogger("cel")
    if logger.propagate:
        logger.propagate = False
        logger.addHandler(logging.NullHandler())


def _not_cel(expression: Expression, said: str) -> UsageError:
    match = _POSITION.search(said)
    where, why = "", said.split("\n")[0]
    if match:
        where, why = f", column {match[2]}", match[3]
        if match[1] != "1":
            where = f", line {match[1]}{where}"
        why = re.sub(r" expecting \{.*", "", why).replace("'<EOF>'", "the end")
    return UsageError(
        f"{expression.key} is not valid CEL: {printable(why, 160)}",
        where=f"{expression.place}{where}: {printable(expression.text, 200)}",
        effect="no answer is judged before it is corrected",
        hint="CEL is described at cel.dev; for example: output.label != 'refund' || output.amount > 0",
        code="rule",
    )


def _grows(expression: Expression) -> UsageError:
    return UsageError(
        f"{expression.key}: what `map` makes here can become {growth(expression.text):,} times what goes in",
        where=f"{expression.place}: {printable(expression.text, 200)}",
        effect="no answer is judged before it is corrected",
        hint=f"{MOST_GROWTH} times are allowed: use the bound name less often inside `map`, or fewer of them",
        code="rule",
    )


def _unknown(
    expression: Expression, name: str, what: str, known: Collection[str], column: int | None = None
) -> UsageError:
    if column is None:
        match = re.search(rf"\b{re.escape(name)}\b", expression.text)
        column = 1 if match is None else match.start() + 1
    near = get_close_matches(name, list(known), 1)
    listed = ", ".join(list(known)[:30]) or "nothing"
    return UsageError(
        f"{expression.key}: `{printable(name, 60)}` is not {what}",
        where=f"{expression.place}, column {column}: {printable(expression.text, 200)}",
        effect="no answer is judged before it is corrected",
        hint=(f"did you mean `{near[0]}`? " if near else "") + f"there is: {listed}",
        code="rule",
    )


def _no_fields(expression: Expression, column: int) -> UsageError:
    return UsageError(
        f"{expression.key}: answers are free text, which has no fields",
        where=f"{expression.place}, column {column}: {printable(expression.text, 200)}",
        effect="no answer is judged before it is corrected",
        hint="`output` is the text itself, or give [output] a schema",
        code="rule",
    )


def _no_echo(name: str, where: str, known: Collection[str]) -> UsageError:
    near = get_close_matches(name, list(known), 1)
    return UsageError(
        f"[rules_builtin] echo: {where} has no `{name}`"
        if where == "the schema"
        else f"echo: {where} have no `{name}`",
        where="[rules_builtin] echo",
        effect="no answer is judged before it is corrected",
        hint=(f"did you mean `{near[0]}`? " if near else "") + f"there is: {', '.join(list(known)[:30])}",
        code="rule",
    )
