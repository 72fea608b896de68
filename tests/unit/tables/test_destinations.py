"""`[[publish]] to` taken apart, values fitted into columns, and what a missing client says."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from batchctl.model.errors import UsageError
from batchctl.tables import postgres
from batchctl.tables.columns import Column, Kind, Load, Misfit, fitted
from batchctl.tables.destinations import destination

BASE = Path("/jobs")


@pytest.mark.parametrize(
    ("to", "address", "table"),
    [
        ("postgresql://me@db/shop?table=public.labels", "postgresql://me@db/shop", ("public", "labels")),
        (
            "postgres://db:5433/shop?sslmode=require&table=labels",
            "postgresql://db:5433/shop?sslmode=require",
            ("labels",),
        ),
        ("postgresql://db/shop#labels", "postgresql://db/shop", ("labels",)),
        ("postgresql://db/shop", "postgresql://db/shop", ("my_job",)),
        ("postgresql://", "postgresql://", ("my_job",)),
        ("postgresql:///shop?service=x", "postgresql:///shop?service=x", ("my_job",)),
    ],
)
def test_postgresql_addresses(to: str, address: str, table: tuple[str, ...]) -> None:
    place = destination(to, BASE, "my_job")
    assert (place.kind, place.address, place.table, place.shown) == ("postgresql", address, table, to)


def test_files_objects_and_tables() -> None:
    assert destination("out/x.parquet", BASE, "j").path == BASE / "out/x.parquet"
    assert destination("/abs/x.CSV", BASE, "j").form == "csv"
    assert destination("out/tick-ets.sqlite", BASE, "j").table == ("tick_ets",)
    assert destination("out/all.db#tickets", BASE, "j").table == ("tickets",)
    place = destination("s3://bucket/a/b.jsonl", BASE, "j")
    assert (place.kind, place.bucket, place.name, place.form) == ("s3", "bucket", "a/b.jsonl", "jsonl")
    for to in ("bigquery://my-project/data/labels", "bigquery://my-project.data.labels"):
        assert destination(to, BASE, "j").table == ("my-project", "data", "labels")


@pytest.mark.parametrize(
    "to",
    [
        "postgresql://me:geheim@db/x",
        "postgresql://db/x?password=geheim",
        'postgresql://db/x?table=a";DROP TABLE b',
        "postgresql://db/x?table=a.b.c",
        "gs://bucket/folder/",
        "s3:///x.csv",
        "bigquery://p/d/t`x",
        "x.csv#table",
        "x.txt",
        "x",
    ],
)
def test_what_is_no_target(to: str) -> None:
    with pytest.raises(UsageError) as caught:
        destination(to, BASE, "j")
    assert caught.value.hint
    assert "geheim" not in str(vars(caught.value))


@pytest.mark.parametrize(
    ("kind", "value", "cell"),
    [
        (Kind.TEXT, "007", "007"),
        (Kind.TEXT, 7, "7"),
        (Kind.TEXT, 2**70, str(2**70)),
        (Kind.TEXT, {"a": 1}, '{"a":1}'),
        (Kind.JSON, "x", '"x"'),
        (Kind.INTEGER, 3.0, 3),
        (Kind.NUMBER, 3, 3.0),
        (Kind.BOOLEAN, True, True),
        *((kind, None, None) for kind in Kind),
    ],
)
def test_values_that_fit(kind: Kind, value: object, cell: object) -> None:
    assert fitted(value, Column("c", kind)) == cell
    assert type(fitted(value, Column("c", kind))) is type(cell)


@pytest.mark.parametrize(
    ("kind", "value"),
    [(Kind.INTEGER, 3.5), (Kind.INTEGER, 2**63), (Kind.INTEGER, True), (Kind.INTEGER, "3"), (Kind.NUMBER, True),
     (Kind.NUMBER, "3"), (Kind.BOOLEAN, 1)],
)  # fmt: skip
def test_values_that_do_not(kind: Kind, value: object) -> None:
    with pytest.raises(Misfit, match="column `c` is for"):
        fitted(value, Column("c", kind))


def test_without_psycopg_it_says_what_to_install_and_what_still_works(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    load = Load((Column("id"),), (), False, lambda: iter(()), "m-1", tmp_path)
    with pytest.raises(UsageError) as caught:
        postgres.write(destination("postgresql://db/x", BASE, "j"), load)
    assert caught.value.hint == 'pip install "batchctl[postgres]"'
    assert "every other kind of target works without it" in caught.value.effect
