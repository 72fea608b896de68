"""The filters a template has, each paid for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any

from batchctl.template.budget import NODE, ROUND, WIDEST
from batchctl.template.values import Unrenderable, as_json, as_text

# Filters of Jinja that are offered as they are; those in `own_filters` are ours. Left out: those whose work cannot be
# priced (wordwrap, urlize), that are not the same every time (random), or that only make sense in HTML (safe, xmlattr).
FILTERS = (  # noqa: SIM905 - 38 lines otherwise
    "abs batch capitalize center count d default dictsort filesizeformat first float groupby indent int items last "
    "length list lower map max min reject rejectattr reverse round select selectattr slice sort striptags title trim "
    "truncate unique upper urlencode wordcount"
).split()
ON_TEXT = frozenset(
    {"capitalize", "center", "indent", "lower", "striptags", "title", "trim", "truncate", "upper", "wordcount"}
)


def own_filters() -> dict[str, Callable[..., Any]]:
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
            piece = paid_text(context, item)
            context.budget.spend(NODE + len(piece) + len(d))
            pieces.append(piece)
        return as_text(d).join(pieces)

    @pass_context
    def replace(context: Any, value: Any, old: str, new: str, count: int = -1) -> str:
        text = paid_text(context, value)
        context.budget.replace(text, as_text(old), as_text(new))
        return text.replace(as_text(old), as_text(new), -1 if count is None else count)

    @pass_context
    def total(context: Any, value: Iterable[Any], attribute: str | int | None = None, start: float = 0) -> Any:
        items = context.environment.call_filter("map", value, [], {"attribute": attribute}, context=context)
        result: Any = start
        for item in value if attribute is None else items:
            context.budget.spend(NODE)
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
        text = str(escape(paid_text(context, value)))
        context.budget.spend(len(text))
        return text

    @pass_context
    def concat(context: Any, *values: Any) -> str:
        return "".join([paid_text(context, value) for value in values])

    @pass_context
    def spend(context: Any, amount: int) -> None:
        context.budget.spend(amount)

    @pass_context
    def weigh(context: Any, value: Any) -> Any:
        return context.budget.spend_on(value)

    @pass_context
    def one_round(context: Any, value: Any) -> Any:
        context.budget.spend(ROUND)
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


def paid_text(context: Any, value: Any) -> str:
    """The text of a value inside a template, paid for before it is made."""
    from jinja2 import Undefined

    if type(value) is str:
        context.budget.spend(len(value))
        return value
    if isinstance(value, Undefined):
        return str(value)  # raises: a missing name has no text
    context.budget.spend_on(value)
    return as_text(value)


def priced_filter(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """One of Jinja's filters, paid for: its input, its numbers and its text."""
    from jinja2 import Undefined, pass_context
    from jinja2.utils import _PassArg

    passed = _PassArg.from_obj(function)

    @pass_context
    def priced(context: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
        if name in ON_TEXT and not isinstance(value, Undefined):
            value = paid_text(context, value)
        else:
            context.budget.spend_on(value)
        sizes = [*args, *kwargs.values()]
        if name in {"center", "indent", "batch", "slice", "round"}:
            for size in sizes:
                if isinstance(size, int | float) and not abs(size) <= WIDEST:
                    raise Unrenderable(f"`{name}` of more than {WIDEST:,}")
        if name == "indent":
            width = max(
                [4, *(size if isinstance(size, int) else len(size) for size in sizes if isinstance(size, int | str))]
            )
            context.budget.spend((value.count("\n") + 1) * width)
        if name in {"select", "reject", "selectattr", "rejectattr"}:
            # Each item may be looked up in each argument: `l | select("in", l)`.
            value = list(value)
            lengths = sum(len(size) for size in sizes if isinstance(size, str | list | tuple | dict | range))
            context.budget.spend((NODE + 10 * lengths) * len(value))
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
