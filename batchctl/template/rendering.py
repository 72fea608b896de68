"""A checked template, and rows as texts by it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from batchctl.model.errors import UsageError
from batchctl.template.budget import MAX_CHARS
from batchctl.template.reading import NOTHING, ColumnRef, Reading, Use, check_columns, parts_of, refused_template
from batchctl.template.sandbox import environment_class
from batchctl.template.values import Unrenderable, column_text

if TYPE_CHECKING:
    from jinja2 import Template as JinjaTemplate


class Template:
    """A checked template. Make one with `load`; it keeps no state between rows."""

    def __init__(
        self,
        *,
        where: str,
        compiled: JinjaTemplate,
        uses: Sequence[Use],
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
                effect=NOTHING,
                hint="shorten it",
            )
        from jinja2 import TemplateSyntaxError

        environment = environment_class()()
        try:
            tree = environment.parse(text)
            reading = Reading(environment, where)
            reading.read(tree)
            check_columns(reading.uses, columns, where)
            parts = parts_of(tree)
            compiled = environment.compiled(tree)
        except TemplateSyntaxError as exc:
            raise refused_template(exc.message or "syntax error", where, exc.lineno) from exc
        except (RecursionError, MemoryError, SyntaxError, ValueError) as exc:
            raise refused_template("it is nested too deeply, or a number in it is too long", where, 1) from exc
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
                pieces.append(column_text(part.name, row[part.name]))
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
