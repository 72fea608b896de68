"""One look at a parsed template: the columns it reads, what it must not do, whether it only inserts columns."""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from batchctl.model.errors import UsageError

if TYPE_CHECKING:
    from jinja2 import nodes

NOTHING = "nothing was written"
_FEW = 5
_SHOWN_COLUMNS = 20


@dataclass(frozen=True, slots=True)
class ColumnRef:
    """The place in a text where a column's value goes."""

    name: str


class Use(NamedTuple):
    name: str
    line: int
    optional: bool  # guarded by `default` or `is defined`: the source may lack it
    by_name: bool  # written as a name; False for row["a name"]


def refused_template(message: str, where: str, line: int, hint: str = "correct the template") -> UsageError:
    return UsageError(
        f"the template cannot be used: {message.rstrip('.')}", where=f"{where}:{line}", effect=NOTHING, hint=hint
    )


class Reading:
    """One pass over a parsed template: which columns it uses and where, and what it must not do."""

    def __init__(self, environment: Any, where: str) -> None:
        self._environment = environment
        self._where = where
        self.uses: list[Use] = []
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
                        raise refused_template(
                            "`row` is the source's row", self._where, node.lineno, "use another name"
                        )
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
        self.uses.append(Use(name, node.lineno, name in guarded, by_name))

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
            raise refused_template(refused, self._where, node.lineno, hint)


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean `{near[0]}`?" if near else "see the list of filters and tests in jinja.palletsprojects.com"


def check_columns(uses: Sequence[Use], columns: Sequence[str] | None, where: str) -> None:
    """Every column the template needs is in the source; when the source's columns are known."""
    if columns is None:
        return
    known = set(columns)
    unknown: dict[str, Use] = {}
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
    raise UsageError(what, where=places, effect=NOTHING, hint=hint)


def _written(use: Use) -> str:
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


def parts_of(tree: nodes.Template) -> tuple[str | ColumnRef, ...] | None:
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
