"""Rows done by column give the very bytes that they give one by one."""

from __future__ import annotations

import orjson
import pyarrow as pa
from hypothesis import example, given, settings
from hypothesis import strategies as st

from batchctl.chunks import arrays
from batchctl.chunks.splice import Insertion, cut, escape
from batchctl.tables.texts import Texts
from batchctl.template import ColumnRef, Template
from batchctl.workflow.requests import batch_encoder, column_encoder, row_encoder

texts = st.text(max_size=12) | st.text(alphabet='ab"\\\n\r\t\x00\x08\x0c\x1f\x7f\u2028\u2029é😀,{}', max_size=12)
names = st.lists(st.text(alphabet="abc_", min_size=1, max_size=4) | texts, min_size=1, max_size=4, unique=True)


def array(values: list[str], skipped: int) -> pa.StringArray:
    """As a part of a longer one, which is how columns come."""
    made = arrays.texts([one.encode() for one in [*["x\n"] * skipped, *values, '"end']])
    return made.slice(skipped, len(values))


@given(values=st.lists(texts, max_size=8), skipped=st.integers(0, 3))
@example(values=["", "", ""], skipped=1)
def test_a_column_is_escaped_as_each_of_its_texts(values: list[str], skipped: int) -> None:
    made = arrays.escaped(array(values, skipped))
    made.validate(full=True)
    assert made.to_pylist() == [orjson.dumps(one)[1:-1].decode() for one in values]
    assert arrays.without_line_ends(made).to_pylist() == [escape(one).decode() for one in values]


@settings(max_examples=300)
@given(data=st.data(), columns=names, rows=st.integers(0, 5), skipped=st.integers(0, 2))
def test_rows_of_text_become_the_same_requests_by_column_and_one_by_one(
    data: st.DataObject, columns: list[str], rows: int, skipped: int
) -> None:
    cells = [data.draw(st.lists(texts, min_size=rows, max_size=rows)) for _ in columns]
    table = Texts(tuple(columns), tuple(array(one, skipped) for one in cells))
    used = data.draw(st.lists(st.sampled_from(columns), min_size=1, max_size=4))
    constants = data.draw(st.lists(texts, min_size=len(used) + 1, max_size=len(used) + 1))
    insertion = Insertion(tuple(map(escape, constants)), tuple(used))

    def render(row: dict[str, str]) -> str:
        return constants[0] + "".join(row[name] + after for name, after in zip(used, constants[1:], strict=True))

    splice = cut(lambda name, holes: orjson.dumps({"custom_id": name, "input": holes[0]}), [render], insertion)
    limit = data.draw(st.just(10**6) | st.integers(40, 120))
    by_column = column_encoder(splice, limit)(table)
    listed = list(table)
    assert listed == [dict(zip(columns, row, strict=True)) for row in zip(*cells, strict=True)]
    by_batch = batch_encoder(splice, limit)(listed)
    one_by_one = [row_encoder(splice, limit)(row) for row in listed]
    good = [one for one in one_by_one if isinstance(one, tuple)]
    assert by_batch.unusable.keys() == {place for place, one in enumerate(one_by_one) if not isinstance(one, tuple)}
    found = [by_batch] if by_column is None else [by_batch, by_column]
    assert by_column is not None or limit < 10**6
    for one in found:
        made = zip(one.texts.to_pylist(), one.requests, one.middles.to_pylist(), strict=True)
        assert [(text.encode(), request, middle.encode()) for text, request, middle in made] == good


def test_a_prompt_that_only_inserts_columns_is_known_as_such() -> None:
    template = Template.load('Say "{{ a }}"\n{{ row["b c"] }}!', where="prompt.md", columns=["a", "b c"])
    assert template.parts == ('Say "', ColumnRef("a"), '"\n', ColumnRef("b c"), "!")
