"""Jinja2's sandbox with a price on everything that can make much out of little."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from batchctl.template.budget import CALL, LONGEST_RANGE, ROUND, Budget, longest_range
from batchctl.template.filters import FILTERS, own_filters, paid_text, priced_filter
from batchctl.template.values import Unrenderable

if TYPE_CHECKING:
    from jinja2 import nodes

METHODS: dict[type, frozenset[str]] = {
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


@functools.cache
def environment_class() -> Any:
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
            self.budget = Budget()

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
                self._through("spend ", nodes.Const((ROUND if isinstance(node, nodes.For) else CALL) + constant)),
                lineno=node.lineno,
            )

        def _through(self, name: str, first: nodes.Node, *more: nodes.Expr) -> nodes.Filter:
            assert isinstance(first, nodes.Expr)
            return nodes.Filter(first, name, list(more), [], None, None, lineno=first.lineno)

    @pass_context
    def finalize(context: Any, value: Any) -> str:
        # Taking the context also keeps Jinja from working out `{{ "a" | center(10**9) }}` while it compiles.
        return paid_text(context, value)

    def contained(value: Any, sequence: Any) -> bool:
        if not isinstance(sequence, str | dict) and len(sequence) > LONGEST_RANGE:
            raise Unrenderable(f"`is in` a list of more than {LONGEST_RANGE:,}")
        return value in sequence

    class Environment(ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset({"+", "*", "**", "%"})
        context_class = PaidContext

        def __init__(self) -> None:
            super().__init__(undefined=StrictUndefined, autoescape=False, optimized=False, finalize=finalize)
            self.filters = {name: priced_filter(name, self.filters[name]) for name in FILTERS} | own_filters()
            self.tests = {**self.tests, "in": contained}
            self.globals = {"range": longest_range, "dict": dict, "namespace": Namespace, "joiner": Joiner}
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
            __context.budget.spend(ROUND)
            owner = getattr(__obj, "__self__", None)
            name = getattr(__obj, "__name__", "")
            if isinstance(owner, str) and name in METHODS[str]:
                __context.budget.call(owner, name, args)
                if name == "join":
                    return __context.environment.filters["join"](__context, *args, d=owner)
            elif not (
                isinstance(__obj, Macro | LoopContext | Joiner)
                or isinstance(owner, LoopContext)
                or any(__obj is function for function in __self._functions)
                or name in METHODS.get(type(owner), ())
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
