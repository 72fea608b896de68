"""The prompt's template: Jinja2 in a sandbox, bounded in size and work, and a fast path for plain insertion.

The template is the operator's, rows are strangers' data: a row is only ever a value, never parsed as a template, and a
template is rendered once. Jinja's own sandbox stops the escapes (`__class__`, `str.format`) but not the bombs
(`"a" * 10**9`, nested loops), so every template is rewritten before it is compiled: each loop round and each macro call
pays from a budget, and so does every operation that can make a large value out of small ones. What cannot be priced
(most methods, `lipsum`, `random`) is not offered. The budget counts work, not seconds, so that the same row fails or
renders on every machine.
Written against Jinja2 3.1.6 (jinja.palletsprojects.com/en/stable/sandbox, read 2026-11-21).
"""

from __future__ import annotations

import difflib
import functools
import itertools
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, time
from decimal import Decimal
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from batchctl.model.errors import UsageError

if TYPE_CHECKING:
    from jinja2 import Template as JinjaTemplate
    from jinja2 import nodes

MAX_CHARS = 10_000_000
"""Longest rendered text. No provider takes a request this long."""

WORK = 20 * MAX_CHARS
"""The budget of one row: characters made, and the prices below."""

_ROUND = 1_000  # a loop round: at most 200,000 of them, well under a second
_CALL = 5_000  # a call: some 20 times as slow
_NODE = 200  # an item of a list or table that is looked through
_LONGEST_RANGE = 10_000
_LARGEST_BITS = 4_096
_WIDEST = 1_000

_METHODS: dict[type, frozenset[str]] = {
    str: frozenset(
        "capitalize casefold count endswith find index isalnum isalpha isascii isdecimal isdigit islower isnumeric "  # noqa: SIM905 - 36 lines otherwise
        "isspace istitle isupper join lower lstrip partition removeprefix removesuffix replace rfind rindex rpartition "
        "rsplit rstrip split splitlines startswith strip swapcase title upper".split()
    ),
    dict: frozenset({"get", "items", "keys", "values"}),
    list: frozenset({"count", "index"}),
    tuple: frozenset({"count", "index"}),
    float: frozenset({"is_integer"}),
}
# Filters of Jinja that are offered as they are; those in `_own_filters` are ours. Left out: those whose work cannot be
# priced (wordwrap, urlize), that are not the same every time (random), or that only make sense in HTML (safe, xmlattr).
_FILTERS = (  # noqa: SIM905 - 38 lines otherwise
    "abs batch capitalize center count d default dictsort filesizeformat first float groupby indent int items last "
    "length list lower map max min reject rejectattr reverse round select selectattr slice sort striptags title trim "
    "truncate unique upper urlencode wordcount"
).split()
_ON_TEXT = frozenset(
    {"capitalize", "center", "indent", "lower", "striptags", "title", "trim", "truncate", "upper", "wordcount"}
)

_NOTHING = "nothing was written"
_FEW = 5
_SHOWN_COLUMNS = 20


class Unrenderable(Exception):
    """This row cannot become a text. The reason names columns and lines, never what a row holds."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class ColumnRef:
    """The place in a text where a column's value goes."""

    name: str


class _Use(NamedTuple):
    name: str
    line: int
    optional: bool  # guarded by `default` or `is defined`: the source may lack it
    by_name: bool  # written as a name; False for row["a name"]


class Template:
    """A checked template. Make one with `load`; it keeps no state between rows."""

    def __init__(
        self,
        *,
        where: str,
        compiled: JinjaTemplate,
        uses: Sequence[_Use],
        whole_row: bool,
        parts: tuple[str | ColumnRef, ...] | None,
        columns: Sequence[str] | None,
        max_chars: int,
    ) -> None:
        used = dict.fromkeys(use.name for use in uses)
        self.where = where
        self.columns: tuple[str, ...] = tuple(sorted(columns)) if whole_row and columns is not None else tuple(used)
        """The columns it reads, by first use; all of the source's, by name, when `whole_row`."""
        self.whole_row = whole_row
        """It uses `row` as a whole, so every column is part of the text. `row` is then ordered by name."""
        self.constant = not used and not whole_row
        """Every row renders to the same text."""
        self.parts = parts
        """Constant, column, ..., constant when it only inserts columns (constants may be empty); else None."""
        self.max_chars = max_chars
        self._compiled = compiled
        # Only columns used by name become names: a column `range` must not hide the function elsewhere.
        self._named = tuple(dict.fromkeys(use.name for use in uses if use.by_name))
        self._required = tuple(dict.fromkeys(use.name for use in uses if not use.optional))

    @classmethod
    def load(cls, text: str, *, where: str, columns: Sequence[str] | None, max_chars: int = MAX_CHARS) -> Template:
        """Check and compile. `where` is the file's name for messages; `columns` None means unknown (JSONL)."""
        if len(text) > max_chars:
            raise UsageError(
                f"the template is longer than {max_chars:,} characters",
                where=where,
                effect=_NOTHING,
                hint="shorten it",
            )
        from jinja2 import TemplateSyntaxError

        environment = _environment_class()()
        try:
            tree = environment.parse(text)
            reading = _Reading(environment, where)
            reading.read(tree)
            _check_columns(reading.uses, columns, where)
            parts = _parts_of(tree)
            compiled = environment.compiled(tree)
        except TemplateSyntaxError as exc:
            raise _refused(exc.message or "syntax error", where, exc.lineno) from exc
        except (RecursionError, MemoryError, SyntaxError, ValueError) as exc:
            raise _refused("it is nested too deeply, or a number in it is too long", where, 1) from exc
        return cls(
            where=where,
            compiled=compiled,
            uses=reading.uses,
            whole_row=reading.whole_row,
            parts=parts,
            columns=columns,
            max_chars=max_chars,
        )

    def render(self, row: Mapping[str, Any]) -> str:
        """The text for this row. Raises `Unrenderable`: a missing column, an error in this row, or too long a text."""
        return self._by_jinja(row) if self.parts is None else self._by_insertion(row)

    def renderer(self) -> Callable[[Mapping[str, Any]], str]:
        """The fastest function that does what `render` does."""
        if self.parts is None:
            return self._by_jinja
        names = [part.name for part in self.parts if isinstance(part, ColumnRef)]
        constants = [part for part in self.parts if isinstance(part, str)]
        if not names:
            return self._by_insertion
        pick, join = itemgetter(*names), "".join
        pattern = [""] * (2 * len(names) + 1)
        pattern[::2] = constants
        max_chars, slow = self.max_chars, self._by_insertion

        # `join` itself refuses whatever is not text, so no value needs to be looked at before.
        def render_one(row: Mapping[str, Any]) -> str:
            try:
                text = join((pattern[0], pick(row), pattern[2]))
            except (KeyError, TypeError):
                return slow(row)
            return text if len(text) <= max_chars else slow(row)

        def render_many(row: Mapping[str, Any]) -> str:
            pieces = pattern.copy()
            try:
                pieces[1::2] = pick(row)
                text = join(pieces)
            except (KeyError, TypeError):
                return slow(row)
            return text if len(text) <= max_chars else slow(row)

        return render_one if len(names) == 1 else render_many

    def _by_insertion(self, row: Mapping[str, Any]) -> str:
        assert self.parts is not None
        pieces = []
        for part in self.parts:
            if isinstance(part, str):
                pieces.append(part)
            elif part.name in row:
                pieces.append(_column_text(part.name, row[part.name]))
            else:
                raise Unrenderable(f"column `{part.name}` is missing")
        text = "".join(pieces)
        if len(text) > self.max_chars:
            raise Unrenderable(f"the text is longer than {self.max_chars:,} characters")
        return text

    def _by_jinja(self, row: Mapping[str, Any]) -> str:
        if self.whole_row:
            values = {name: row[name] for name in sorted(row)}
        else:
            values = {name: row[name] for name in self.columns if name in row}
        for name in self._required:
            if name not in values:
                raise Unrenderable(f"column `{name}` is missing")
        from jinja2 import TemplateError

        pieces: list[str] = []
        size = 0
        try:
            names = {name: values[name] for name in self._named if name in values}
            context = self._compiled.new_context({**names, "row": values})
            for piece in self._compiled.root_render_func(context):
                size += len(piece)
                if size > self.max_chars:
                    raise Unrenderable(f"the text is longer than {self.max_chars:,} characters")
                pieces.append(piece)
        except Unrenderable as exc:
            raise Unrenderable(f"{self._line_of(exc)}{exc.reason}") from None
        except (
            TemplateError,
            ArithmeticError,
            AssertionError,  # how Jinja's `truncate` and `batch` refuse an argument
            AttributeError,
            LookupError,
            RecursionError,
            TypeError,
            ValueError,
        ) as exc:
            # Not chained and not quoted: the messages of these errors hold what is in the row.
            raise Unrenderable(f"{self._line_of(exc)}{_in_words(exc)}") from None
        return "".join(pieces)

    def _line_of(self, exc: BaseException) -> str:
        """`prompt.md:3: `: the innermost template line that the error passed through."""
        line = 0
        traceback = exc.__traceback__
        while traceback is not None:
            if traceback.tb_frame.f_globals.get("__file__") == self._compiled.filename:
                line = self._compiled.get_corresponding_lineno(traceback.tb_lineno)
            traceback = traceback.tb_next
        return f"{self.where}:{line}: " if line else ""


def as_text(value: Any) -> str:
    """What a value looks like in a text: as JSON has it, but text as it is and null as nothing.

    Raises `Unrenderable` for what has no JSON form (NaN, bytes, objects): its Python form would reach a model unseen.
    """
    if isinstance(value, str):
        return str.__str__(value)  # the text itself, whatever a subclass would print
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, float):
        if math.isfinite(value):
            return float.__repr__(value)
        raise Unrenderable("a value is NaN or infinite, which has no text")
    if isinstance(value, Decimal):
        return f"{value:f}" if value.is_finite() else _no_text(value)
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, dict | list | tuple):
        return as_json(value)
    return _no_text(value)


def as_json(value: Any, indent: int | None = None) -> str:
    """JSON as `as_text` inserts it: compact, non-ASCII kept, keys in their own order."""
    separators = (",", ":") if indent is None else (",", ": ")
    try:
        return json.dumps(
            value, ensure_ascii=False, allow_nan=False, separators=separators, indent=indent, default=_inside_json
        )
    except (TypeError, ValueError, RecursionError):
        raise Unrenderable("a value inside a list or table has no JSON form") from None


def _inside_json(value: Any) -> str:
    if isinstance(value, Decimal | date | time):
        return as_text(value)
    raise TypeError


def _no_text(value: Any) -> NoReturn:
    raise Unrenderable(f"a value of type {type(value).__name__} has no text")


def _column_text(name: str, value: Any) -> str:
    try:
        return as_text(value)
    except Unrenderable as exc:
        raise Unrenderable(f"column `{name}`: {exc.reason}") from None


def _in_words(exc: Exception) -> str:
    from jinja2 import UndefinedError
    from jinja2.exceptions import SecurityError

    match exc:
        case SecurityError():
            return "the sandbox refuses what the template does here"
        case UndefinedError():
            return "a name or field used here is missing in this row"
        case ZeroDivisionError():
            return "division by zero"
        case TypeError():
            return "a value of the wrong type"
        case RecursionError():
            return "nested too deeply"
        case _:
            return f"the template fails on this row ({type(exc).__name__})"


def _refused(message: str, where: str, line: int, hint: str = "correct the template") -> UsageError:
    return UsageError(
        f"the template cannot be used: {message.rstrip('.')}", where=f"{where}:{line}", effect=_NOTHING, hint=hint
    )


class _Reading:
    """One pass over a parsed template: which columns it uses and where, and what it must not do."""

    def __init__(self, environment: Any, where: str) -> None:
        self._environment = environment
        self._where = where
        self.uses: list[_Use] = []
        self.whole_row = False

    def read(self, tree: nodes.Template) -> None:
        self._visit(tree, set(), frozenset())
        self.uses.sort(key=lambda use: use.line)  # stable: within a line, the order of reading

    def _visit_all(self, found: Iterable[nodes.Node | None], bound: set[str], guarded: frozenset[str]) -> None:
        for node in found:
            if node is not None:
                self._visit(node, bound, guarded)

    def _visit(self, node: nodes.Node, bound: set[str], guarded: frozenset[str]) -> None:
        from jinja2 import nodes

        self._check(node)
        if isinstance(node, nodes.Getattr) and self._is_row(node.node, bound):
            self._use(node.attr, node, guarded, by_name=False)
            return
        if (name := self._column_of(node, bound)) is not None:
            self._use(name, node, guarded, by_name=isinstance(node, nodes.Name))
            return
        match node:
            case nodes.Name():
                if node.ctx != "load":
                    if node.name == "row":
                        raise _refused("`row` is the source's row", self._where, node.lineno, "use another name")
                    bound.add(node.name)
                elif node.name == "row" and "row" not in bound:
                    self.whole_row = True
            case nodes.For():
                self._visit(node.iter, bound, guarded)
                inner = {*bound, "loop"}
                self._visit(node.target, inner, guarded)
                self._visit_all([node.test, *node.body], inner, guarded)
                self._visit_all(node.else_, set(bound), guarded)
            case nodes.Macro() | nodes.CallBlock():
                inner = {*bound, "caller", "varargs", "kwargs"}
                if isinstance(node, nodes.Macro):
                    bound.add(node.name)
                    inner.add(node.name)
                else:
                    self._visit(node.call, bound, guarded)
                self._visit_all(node.defaults, bound, guarded)
                self._visit_all([*node.args, *node.body], inner, guarded)
            case nodes.With():
                self._visit_all(node.values, bound, guarded)
                inner = set(bound)
                self._visit_all([*node.targets, *node.body], inner, guarded)
            case nodes.AssignBlock():
                self._visit_all([node.filter, *node.body], set(bound), guarded)
                self._visit(node.target, bound, guarded)
            case nodes.FilterBlock():
                self._visit_all([node.filter, *node.body], set(bound), guarded)
            case nodes.Assign():
                self._visit(node.node, bound, guarded)
                self._visit(node.target, bound, guarded)
            case nodes.NSRef():
                pass
            case nodes.Call():
                # `row.items()` is the method: only here is an attribute of `row` not a column.
                # A name that is called is a function, elsewhere it is a column, even if it is called `range`.
                if isinstance(node.node, nodes.Getattr) and self._is_row(node.node.node, bound):
                    self._check(node.node)
                    self.whole_row = True
                elif not (isinstance(node.node, nodes.Name) and node.node.name in self._environment.globals):
                    self._visit(node.node, bound, guarded)
                self._visit_all([*node.args, *node.kwargs, node.dyn_args, node.dyn_kwargs], bound, guarded)
            case nodes.If() | nodes.CondExpr() | nodes.And() | nodes.Or():
                self._visit_all(node.iter_child_nodes(), bound, guarded | self._tested(node, bound))
            case nodes.Filter(name="default" | "d") | nodes.Test(name="defined" | "undefined"):
                inner_guarded = guarded
                if node.node is not None and (name := self._guardable(node.node, bound)) is not None:
                    inner_guarded = guarded | {name}
                self._visit_all([node.node], bound, inner_guarded)
                self._visit_all([*node.args, *node.kwargs, node.dyn_args, node.dyn_kwargs], bound, guarded)
            case _:
                self._visit_all(node.iter_child_nodes(), bound, guarded)

    def _use(self, name: str, node: nodes.Node, guarded: frozenset[str], *, by_name: bool) -> None:
        self.uses.append(_Use(name, node.lineno, name in guarded, by_name))

    def _is_row(self, node: nodes.Node, bound: set[str]) -> bool:
        from jinja2 import nodes

        return isinstance(node, nodes.Name) and node.name == "row" and "row" not in bound

    def _column_of(self, node: nodes.Node, bound: set[str]) -> str | None:
        """The column a node reads: `name` or `row["name"]`."""
        from jinja2 import nodes

        if isinstance(node, nodes.Getitem) and self._is_row(node.node, bound) and isinstance(node.arg, nodes.Const):
            return node.arg.value if isinstance(node.arg.value, str) else None
        if isinstance(node, nodes.Name) and node.ctx == "load" and node.name not in {*bound, "row"}:
            return node.name
        return None

    def _guardable(self, node: nodes.Node, bound: set[str]) -> str | None:
        from jinja2 import nodes

        if isinstance(node, nodes.Getattr) and self._is_row(node.node, bound):
            return node.attr
        return self._column_of(node, bound)

    def _tested(self, node: nodes.Node, bound: set[str]) -> frozenset[str]:
        """Names this node asks about with `is defined`: its branches may then use them."""
        from jinja2 import nodes

        condition = node.test if isinstance(node, nodes.If | nodes.CondExpr) else node
        tests = [condition] if isinstance(condition, nodes.Test) else []
        tests += condition.find_all(nodes.Test)
        names = (self._guardable(test.node, bound) for test in tests if test.name in {"defined", "undefined"})
        return frozenset(name for name in names if name is not None)

    def _check(self, node: nodes.Node) -> None:
        from jinja2 import nodes

        refused: str | None = None
        hint = "correct the template"
        match node:
            case nodes.Include() | nodes.Import() | nodes.FromImport() | nodes.Extends() | nodes.Block():
                word = {"FromImport": "from"}.get(type(node).__name__, type(node).__name__.lower())
                refused, hint = (
                    f"`{{% {word} %}}` is not offered: a prompt is one file",
                    "write the text into this file",
                )
            case nodes.ScopedEvalContextModifier() | nodes.EvalContextModifier():
                refused, hint = "`{% autoescape %}` is not offered", "use the filter `e` where text must be escaped"
            case nodes.Name(name="self"):
                refused, hint = "`self` is not offered", 'for a column of this name: `{{ row["self"] }}`'
            case nodes.Call(node=nodes.Getattr(attr="format" | "format_map" as name)):
                refused, hint = f"`.{name}()` is not offered", "use `~` to join texts, or the filter `format`"
            case nodes.Getattr(attr=name) if name.startswith("_"):
                refused, hint = (
                    f"the sandbox refuses `.{name}`",
                    f'for a column of this name: `{{{{ row["{name}"] }}}}`',
                )
            case nodes.Filter(name=name) if name not in self._environment.filters:
                refused, hint = f"there is no filter `{name}`", _did_you_mean(name, self._environment.filters)
            case nodes.Test(name=name) if name not in self._environment.tests:
                refused, hint = f"there is no test `{name}`", _did_you_mean(name, self._environment.tests)
        if refused is not None:
            raise _refused(refused, self._where, node.lineno, hint)


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean `{near[0]}`?" if near else "see the list of filters and tests in jinja.palletsprojects.com"


def _check_columns(uses: Sequence[_Use], columns: Sequence[str] | None, where: str) -> None:
    """Every column the template needs is in the source; when the source's columns are known."""
    if columns is None:
        return
    known = set(columns)
    unknown: dict[str, _Use] = {}
    for use in uses:
        if not use.optional and use.name not in known:
            unknown.setdefault(use.name, use)
    if not unknown:
        return
    has = ", ".join(columns[:_SHOWN_COLUMNS])
    if len(columns) > _SHOWN_COLUMNS:
        has += f" and {len(columns) - _SHOWN_COLUMNS:,} more"
    first = next(iter(unknown.values()))
    if len(unknown) == 1:
        what = f"the prompt uses `{_written(first)}`, but the source has no such column"
        places = [f"{where}:{first.line}; the source has: {has}"]
    else:
        what = f"the prompt uses {len(unknown):,} columns that the source does not have"
        places = [f"{where}:{use.line}: `{_written(use)}`" for use in list(unknown.values())[:_FEW]]
        if len(unknown) > _FEW:
            places.append(f"and {len(unknown) - _FEW:,} more")
        places.append(f"the source has: {has}")
    inner = _written(first)[3:-3]
    hint = f'add `{first.name}` to the source, or give it a default: `{{{{ {inner} | default("") }}}}`'
    if near := _nearest_column(first.name, columns):
        hint = f"did you mean `{_written_column(near)}`? Else {hint}"
    raise UsageError(what, where=places, effect=_NOTHING, hint=hint)


def _written(use: _Use) -> str:
    return f"{{{{ {use.name} }}}}" if use.by_name else f'{{{{ row["{use.name}"] }}}}'


def _written_column(name: str) -> str:
    plain = re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) and name != "row"
    return f"{{{{ {name} }}}}" if plain else f'{{{{ row["{name}"] }}}}'


def _nearest_column(name: str, columns: Sequence[str]) -> str | None:
    def folded(column: str) -> str:
        return re.sub(r"[\W_]+", "", column).casefold()

    by_folded = {folded(column): column for column in columns}
    near = difflib.get_close_matches(folded(name), by_folded, n=1)
    return by_folded[near[0]] if near else None


def _parts_of(tree: nodes.Template) -> tuple[str | ColumnRef, ...] | None:
    """Constants and columns alternating, beginning and ending with a constant; None when there is anything else."""
    from jinja2 import nodes

    parts: list[str | ColumnRef] = [""]
    for node in itertools.chain.from_iterable(_outputs(tree)):
        column: str | None = None
        match node:
            case nodes.TemplateData(data=constant) | nodes.Const(value=str() as constant):
                parts[-1] = f"{parts[-1]}{constant}"
            case nodes.Name(name=str() as name) if name != "row":
                column = name
            case nodes.Getitem(node=nodes.Name(name="row"), arg=nodes.Const(value=str() as name)):
                column = name
            case nodes.Getattr(node=nodes.Name(name="row"), attr=str() as name):
                column = name
            case _:
                return None
        if column is not None:
            parts += [ColumnRef(column), ""]
    return tuple(parts)


def _outputs(tree: nodes.Template) -> Iterator[Sequence[nodes.Node | None]]:
    """What each top-level node puts out; a None for one that is more than output."""
    from jinja2 import nodes

    for node in tree.body:
        yield node.nodes if isinstance(node, nodes.Output) else (None,)


class _Budget:
    """What one row may still cost."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = WORK

    def spend(self, amount: int) -> None:
        self.left -= amount
        if self.left < 0:
            raise Unrenderable("the template does too much work on this row")

    def spend_on(self, value: Any) -> Any:
        """Pay for looking through a value, however often its parts are shared; returns it."""
        from jinja2.utils import Namespace

        pending = [value]
        while pending:
            match pending.pop():
                case str() as text:
                    self.spend(len(text) + 1)
                case dict() as table:
                    self.spend(_NODE * (len(table) + 1))
                    pending.extend(table.values())
                    pending.extend(table.keys())
                case list() | tuple() as items:
                    self.spend(_NODE * (len(items) + 1))
                    pending.extend(items)
                case range() as numbers:
                    self.spend(_NODE * (len(numbers) + 1))
                case Namespace() as namespace:
                    pending.append(object.__getattribute__(namespace, "_Namespace__attrs"))
                case _:
                    self.spend(1)
        return value

    def operate(self, operator: str, left: Any, right: Any) -> None:
        """Pay for `left operator right` before it is done."""
        if isinstance(left, int) and isinstance(right, int):
            bits = {
                "+": max(left.bit_length(), right.bit_length()) + 1,
                "*": left.bit_length() + right.bit_length(),
                "**": left.bit_length() * max(0, right),
            }.get(operator, 0)
            if bits > _LARGEST_BITS:
                raise Unrenderable("the template makes a number that is too large")
        elif operator == "*":
            for sequence, times in ((left, right), (right, left)):
                if isinstance(sequence, str | list | tuple) and isinstance(times, int):
                    before = self.left
                    self.spend_on(sequence)
                    self.spend((before - self.left) * max(0, times))
        elif operator == "+":
            self.spend_on(left)
            self.spend_on(right)
        elif operator == "%" and isinstance(left, str):
            self.format(left, right)

    def format(self, pattern: str, values: Any) -> None:
        """A width can be written as digits or taken from a value (`%*d`); neither may make a text out of nothing."""
        for width in re.findall(r"%(?:\([^)]*\))?[-#0 +]*([0-9]+|\*)?(?:\.([0-9]+|\*))?", pattern):
            if any(part == "*" or len(part) > 4 or (part and int(part) > _WIDEST) for part in width):
                raise Unrenderable(f"a width of more than {_WIDEST:,} in a format")
        self.spend(len(pattern) * 2)
        self.spend_on(values)

    def replace(self, text: str, old: str, new: str) -> None:
        self.spend(len(text) + text.count(old) * len(new))

    def call(self, text: str, method: str, args: Sequence[Any]) -> None:
        """Pay for a method of a text."""
        self.spend(5 * len(text))
        if method == "replace" and len(args) >= 2 and isinstance(args[0], str) and isinstance(args[1], str):
            self.replace(text, args[0], args[1])


def _longest_range(*bounds: int) -> range:
    numbers = range(*bounds)
    # Not len(): it overflows for what this is here to stop.
    if numbers and abs(numbers[-1] - numbers[0]) // abs(numbers.step) >= _LONGEST_RANGE:
        raise Unrenderable(f"a range of more than {_LONGEST_RANGE:,} numbers")
    return numbers


def _own_filters() -> dict[str, Callable[..., Any]]:
    """Filters whose cost is known only from the inside, or whose HTML manners do not suit a prompt.

    The ones with a space in their name cannot be written in a template; `_Pricing` puts them in.
    """
    from jinja2 import pass_context
    from markupsafe import escape

    @pass_context
    def join(context: Any, value: Iterable[Any], d: str = "", attribute: str | int | None = None) -> str:
        items = context.environment.call_filter("map", value, [], {"attribute": attribute}, context=context)
        pieces = []
        for item in value if attribute is None else items:
            piece = _paid_text(context, item)
            context.budget.spend(_NODE + len(piece) + len(d))
            pieces.append(piece)
        return as_text(d).join(pieces)

    @pass_context
    def replace(context: Any, value: Any, old: str, new: str, count: int = -1) -> str:
        text = _paid_text(context, value)
        context.budget.replace(text, as_text(old), as_text(new))
        return text.replace(as_text(old), as_text(new), -1 if count is None else count)

    @pass_context
    def total(context: Any, value: Iterable[Any], attribute: str | int | None = None, start: float = 0) -> Any:
        items = context.environment.call_filter("map", value, [], {"attribute": attribute}, context=context)
        result: Any = start
        for item in value if attribute is None else items:
            context.budget.spend(_NODE)
            if not isinstance(item, int | float | Decimal) or not isinstance(result, int | float | Decimal):
                raise TypeError
            context.budget.operate("+", result, item)
            result = result + item  # type: ignore[operator]
        return result

    @pass_context
    def format_(context: Any, value: str, *args: Any, **kwargs: Any) -> str:
        context.budget.format(value, [*args, *kwargs.values()])
        result = value % (kwargs or args)
        context.budget.spend(len(result))
        return result

    @pass_context
    def tojson(context: Any, value: Any, indent: int | None = None) -> str:
        if indent is not None and not 0 <= indent <= 16:
            raise Unrenderable("`tojson` indents by at most 16")
        context.budget.spend_on(value)
        text = as_json(value, indent)
        context.budget.spend(len(text))
        return text

    @pass_context
    def escaped(context: Any, value: Any) -> str:
        text = str(escape(_paid_text(context, value)))
        context.budget.spend(len(text))
        return text

    @pass_context
    def concat(context: Any, *values: Any) -> str:
        return "".join([_paid_text(context, value) for value in values])

    @pass_context
    def spend(context: Any, amount: int) -> None:
        context.budget.spend(amount)

    @pass_context
    def weigh(context: Any, value: Any) -> Any:
        return context.budget.spend_on(value)

    @pass_context
    def one_round(context: Any, value: Any) -> Any:
        context.budget.spend(_ROUND)
        return value

    return {
        "join": join,
        "replace": replace,
        "sum": total,
        "format": format_,
        "tojson": tojson,
        "string": concat,
        "e": escaped,
        "escape": escaped,
        "forceescape": escaped,
        "concat ": concat,
        "spend ": spend,
        "weigh ": weigh,
        "round ": one_round,
    }


def _paid_text(context: Any, value: Any) -> str:
    """The text of a value inside a template, paid for before it is made."""
    from jinja2 import Undefined

    if type(value) is str:
        context.budget.spend(len(value))
        return value
    if isinstance(value, Undefined):
        return str(value)  # raises: a missing name has no text
    context.budget.spend_on(value)
    return as_text(value)


def _priced(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """One of Jinja's filters, paid for: its input, its numbers and its text."""
    from jinja2 import Undefined, pass_context
    from jinja2.utils import _PassArg

    passed = _PassArg.from_obj(function)

    @pass_context
    def priced(context: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
        if name in _ON_TEXT and not isinstance(value, Undefined):
            value = _paid_text(context, value)
        else:
            context.budget.spend_on(value)
        sizes = [*args, *kwargs.values()]
        if name in {"center", "indent", "batch", "slice", "round"}:
            for size in sizes:
                if isinstance(size, int | float) and not abs(size) <= _WIDEST:
                    raise Unrenderable(f"`{name}` of more than {_WIDEST:,}")
        if name == "indent":
            width = max(
                [4, *(size if isinstance(size, int) else len(size) for size in sizes if isinstance(size, int | str))]
            )
            context.budget.spend((value.count("\n") + 1) * width)
        if name in {"select", "reject", "selectattr", "rejectattr"}:
            # Each item may be looked up in each argument: `l | select("in", l)`.
            value = list(value)
            lengths = sum(len(size) for size in sizes if isinstance(size, str | list | tuple | dict | range))
            context.budget.spend((_NODE + 10 * lengths) * len(value))
        first: dict[Any, tuple[Any, ...]] = {
            _PassArg.context: (context,),
            _PassArg.eval_context: (context.eval_ctx,),
            _PassArg.environment: (context.environment,),
            None: (),
        }
        result = function(*first[passed], value, *args, **kwargs)
        if isinstance(result, str):
            context.budget.spend(len(result))
            return str(result)
        return result

    return priced


@functools.cache
def _environment_class() -> Any:
    """The sandbox. A class made on first use, because its bases cost an import that `--help` does not need."""
    from jinja2 import StrictUndefined, nodes, pass_context
    from jinja2.exceptions import SecurityError
    from jinja2.runtime import Context, LoopContext, Macro
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from jinja2.utils import Joiner, Namespace
    from jinja2.visitor import NodeTransformer

    class PaidContext(Context):
        """One row's rendering; there is one context for each, since blocks and imports are refused."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.budget = _Budget()

    class Pricing(NodeTransformer):
        """Puts the payments into a parsed template."""

        def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
            self.generic_visit(node)
            node.body.insert(0, self._payment(node))
            if node.test is not None:
                node.test = self._through("round ", node.test)
            return node

        def visit_Macro(self, node: nodes.Macro) -> nodes.Node:  # noqa: N802
            self.generic_visit(node)
            node.body.insert(0, self._payment(node))
            return node

        def visit_CallBlock(self, node: nodes.CallBlock) -> nodes.Node:  # noqa: N802
            self.generic_visit(node)
            node.body.insert(0, self._payment(node))
            return node

        def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
            self.generic_visit(node)
            return self._through("concat ", *node.nodes)

        def visit_List(self, node: nodes.List) -> nodes.Node:  # noqa: N802
            self.generic_visit(node)
            return self._through("weigh ", node)

        def visit_Dict(self, node: nodes.Dict) -> nodes.Node:  # noqa: N802
            self.generic_visit(node)
            return self._through("weigh ", node)

        def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802
            self.generic_visit(node)
            return self._through("weigh ", node) if node.ctx == "load" else node

        def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802
            self.generic_visit(node)
            node.expr = self._through("weigh ", node.expr)
            for operand in node.ops:
                operand.expr = self._through("weigh ", operand.expr)
            return node

        def visit_Test(self, node: nodes.Test) -> nodes.Node:  # noqa: N802
            self.generic_visit(node)
            if node.name not in {"defined", "undefined"}:
                node.node = self._through("weigh ", node.node)
                node.args = [self._through("weigh ", argument) for argument in node.args]
            return node

        def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
            self.generic_visit(node)
            if isinstance(node.arg, nodes.Slice):
                node.node = self._through("weigh ", node.node)
            return node

        def visit_Getattr(self, node: nodes.Getattr) -> nodes.Node:  # noqa: N802
            """`row.name` is `row["name"]`: as an attribute, a column called `items` would be a method."""
            self.generic_visit(node)
            if isinstance(node.node, nodes.Name) and node.node.name == "row":
                return nodes.Getitem(node.node, nodes.Const(node.attr), "load", lineno=node.lineno)
            return node

        def visit_Call(self, node: nodes.Call) -> nodes.Node:  # noqa: N802
            method = node.node
            self.generic_visit(node)
            if isinstance(method, nodes.Getattr):
                node.node = method  # `row.items()` stays the method
            return node

        def _payment(self, node: nodes.For | nodes.Macro | nodes.CallBlock) -> nodes.Node:
            constant = sum(len(data.data) for part in node.body for data in _template_data(part))
            return nodes.ExprStmt(
                self._through("spend ", nodes.Const((_ROUND if isinstance(node, nodes.For) else _CALL) + constant)),
                lineno=node.lineno,
            )

        def _through(self, name: str, first: nodes.Node, *more: nodes.Expr) -> nodes.Filter:
            assert isinstance(first, nodes.Expr)
            return nodes.Filter(first, name, list(more), [], None, None, lineno=first.lineno)

    @pass_context
    def finalize(context: Any, value: Any) -> str:
        # Taking the context also keeps Jinja from working out `{{ "a" | center(10**9) }}` while it compiles.
        return _paid_text(context, value)

    def contained(value: Any, sequence: Any) -> bool:
        if not isinstance(sequence, str | dict) and len(sequence) > _LONGEST_RANGE:
            raise Unrenderable(f"`is in` a list of more than {_LONGEST_RANGE:,}")
        return value in sequence

    class Environment(ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset({"+", "*", "**", "%"})
        context_class = PaidContext

        def __init__(self) -> None:
            super().__init__(undefined=StrictUndefined, autoescape=False, optimized=False, finalize=finalize)
            self.filters = {name: _priced(name, self.filters[name]) for name in _FILTERS} | _own_filters()
            self.tests = {**self.tests, "in": contained}
            self.globals = {"range": _longest_range, "dict": dict, "namespace": Namespace, "joiner": Joiner}
            self._functions = tuple(self.globals.values())

        def compiled(self, tree: nodes.Template) -> Any:
            priced = Pricing().visit(tree)
            priced.set_environment(self)
            return self.template_class.from_code(self, self.compile(priced, filename="<template>"), dict(self.globals))

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            context.budget.operate(operator, left, right)
            result = super().call_binop(context, operator, left, right)
            if isinstance(result, str):
                context.budget.spend(len(result))
            return result

        def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
            __context.budget.spend(_ROUND)
            owner = getattr(__obj, "__self__", None)
            name = getattr(__obj, "__name__", "")
            if isinstance(owner, str) and name in _METHODS[str]:
                __context.budget.call(owner, name, args)
                if name == "join":
                    return __context.environment.filters["join"](__context, *args, d=owner)
            elif not (
                isinstance(__obj, Macro | LoopContext | Joiner)
                or isinstance(owner, LoopContext)
                or any(__obj is function for function in __self._functions)
                or name in _METHODS.get(type(owner), ())
            ):
                raise SecurityError("not offered")
            result = super().call(__context, __obj, *args, **kwargs)
            return __context.budget.spend_on(result) if isinstance(result, dict | Namespace) else result

        def getitem(self, obj: Any, argument: Any) -> Any:
            """As in Jinja, but `x["items"]` of a table is never its method."""
            if isinstance(obj, dict):
                try:
                    return obj[argument]
                except (KeyError, TypeError):
                    return self.undefined(obj=obj, name=str(argument))
            return super().getitem(obj, argument)

    return Environment


def _template_data(node: nodes.Node) -> Iterator[nodes.TemplateData]:
    from jinja2 import nodes

    if isinstance(node, nodes.TemplateData):
        yield node
    yield from node.find_all(nodes.TemplateData)
