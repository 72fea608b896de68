"""PostgreSQL, S3, Google Cloud Storage, BigQuery: read with their own clients; twice is once; killed anywhere is once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import NewJob
from tests.publish import services
from tests.publish.services import BigQuery, Postgres, Rows, Service
from tests.publish.targets import COLUMNS, EVERY, read, target, write_one
from tests.support.commands import Commands
from tests.support.jobs import JobFolder
from tests.support.provider import Provider, ProviderThread

needs_postgres = pytest.mark.skipif(services.postgres_programs() is None, reason="PostgreSQL is not installed here")
SERVERS: dict[str, Callable[[], AbstractContextManager[Service]]] = {
    "s3": services.s3_server,
    "gs": services.gcs_server,
    "bigquery": services.bigquery_server,
}
BIG = 100_000
FEW_POINTS = ("K19m", "K19c", "K19d-job", "K19e")
POINTS = ("K19a", "K19b", "K19m", "K19c", "K19d", "K19d-job", "K19e", "K19f")


@pytest.fixture(scope="module")
def postgres_address() -> Iterator[str]:
    with services.postgres_server() as address:
        yield address


@pytest.fixture
def postgres(postgres_address: str) -> Postgres:
    service = Postgres(postgres_address)
    service.sql('DROP TABLE IF EXISTS "labels"')
    return service


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory, commands: Commands) -> Iterator[JobFolder]:
    """100,000 answered rows."""
    place = tmp_path_factory.mktemp("big")
    provider = ProviderThread(place / "provider")
    rows = [{"id": f"R-{number:06d}", "text": f"question number {number}"} for number in range(BIG)]
    job = JobFolder(place / "job", commands, provider, "big").write(rows=rows)
    before, commands.patience_seconds = commands.patience_seconds, 900.0  # a busy machine is not a failure
    job.run("run", "--wait", code=0)
    yield job
    commands.patience_seconds = before
    provider.stop()


@pytest.fixture(params=[pytest.param("postgresql", marks=needs_postgres), *SERVERS])
def service(request: pytest.FixtureRequest) -> Iterator[Service]:
    if request.param == "postgresql":
        yield request.getfixturevalue("postgres")
        return
    with SERVERS[request.param]() as one:
        yield one


def job_for(new_job: NewJob, provider: Provider, service: Service, **more: str) -> JobFolder:
    job = new_job(provider, limits="chunk_rows = 3", more=target(service.to, **{**service.more, **more}))
    job.env |= service.env
    return job


def test_published_twice_and_killed_anywhere_is_published_once(
    new_job: NewJob, provider: Provider, service: Service
) -> None:
    job = job_for(new_job, provider, service)
    job.run("run", "--wait", code=0)
    results = job.check_results([f"R-{number:03d}" for number in range(6)])
    wanted = service.rows()
    assert [one["id"] for one in wanted] == list(results)
    for one in wanted:
        mine = results[one["id"]]
        assert set(one) == set(COLUMNS)
        assert (one["label"], one["note"]) == (mine["output"]["label"], mine["output"]["note"])
        assert (one["_batchctl_attempt"], one["_batchctl_batch_id"]) == (1, mine["batch_id"])
        if isinstance(one["_batchctl_created_at"], datetime):
            assert one["_batchctl_created_at"].isoformat()[:19] == mine["created_at"][:19]
    job.run("publish", code=0)
    assert service.rows() == wanted
    assert service.whole()
    killed_and_carried_on(job, service, wanted, FEW_POINTS if service.light else ("K19c",))
    assert {one["state"] for one in job.check_results().values()} == {"published"}


def killed_and_carried_on(
    job: JobFolder, service: Service, wanted: Sequence[Any], points: Sequence[str], *argv: str
) -> None:
    """At each point: the target has other rows, publishing is killed there, and the same command carries on."""
    reached = 0
    for point in points:
        service.put_old()
        job.sql("UPDATE chunk SET published = NULL")
        job.sql("UPDATE tally SET state = 'completed' WHERE state = 'published'")
        reached += job.run("publish", *argv, BATCHCTL_CRASH_AT=point).killed
        now = service.rows()
        assert now == wanted or [one["id"] for one in now] == ["old"], point
        assert not service.is_vouched_for_wrongly(), point
        job.run("publish", *argv, code=0)
        assert service.rows() == wanted, point
        assert service.whole(), point
        assert job.check_balance()["published"] == len(wanted)
        assert not list(job.state.glob("*publish.part"))
    assert reached >= max(1, len(points) - 3), "too few of the points were passed"


class LocalFile(Service):
    """A file beside the job."""

    def __init__(self, path: Path) -> None:
        self.to = str(path)
        self.env: dict[str, str] = {}
        self.path = path

    def rows(self) -> Rows:
        return read(self.path)

    def put_old(self) -> None:
        write_one(self.path, "old")


@pytest.mark.slow
@pytest.mark.parametrize("suffix", EVERY)
def test_100_000_rows_into_a_file_twice_and_killed_at_every_step(big: JobFolder, tmp_path: Path, suffix: str) -> None:
    into_twice_and_killed(big, LocalFile(tmp_path / f"labels{suffix}"))


@pytest.mark.slow
def test_100_000_rows_twice_and_killed_at_every_step(big: JobFolder, service: Service) -> None:
    into_twice_and_killed(big, service)


def into_twice_and_killed(big: JobFolder, service: Service) -> None:
    spec = f"publish=[{{to='{service.to}', key='id', include=['id', 'output.*', '_batchctl.*']}}]"
    big.env |= service.env
    big.run("publish", "--set", spec, code=0)
    wanted = service.rows()
    assert [one["id"] for one in wanted] == [f"R-{number:06d}" for number in range(BIG)]
    big.run("publish", "--set", spec, code=0)
    assert service.rows() == wanted
    killed_and_carried_on(big, service, wanted, POINTS, "--set", spec)


@needs_postgres
def test_an_upsert_into_a_table_of_others(new_job: NewJob, provider: Provider, postgres: Postgres) -> None:
    """The table keeps its own columns, its other rows, its view, and what is not changed is not touched."""
    postgres.sql("CREATE TABLE labels (id varchar(20), label text, owner text DEFAULT 'team')")
    postgres.sql("CREATE VIEW mine AS SELECT * FROM labels")
    postgres.sql("INSERT INTO labels VALUES ('X', 'kept', 'me'), ('R-001', 'old', 'me')")
    job = job_for(new_job, provider, postgres, mode='"upsert"', include='["id", "output.*"]')
    job.run("run", "--wait", code=0)
    rows = {one["id"]: one for one in postgres.rows()}
    assert sorted(rows) == [*(f"R-{number:03d}" for number in range(6)), "X"]
    assert rows["X"] == {"id": "X", "label": "kept", "owner": "me", "note": None}
    assert rows["R-001"]["owner"] == "me"
    assert rows["R-001"]["label"] != "old"
    assert rows["R-000"]["owner"] == "team"
    touched = postgres.sql("SELECT xmin, id FROM labels ORDER BY id")
    assert job.run("publish", "--json", code=0).json["targets"][0]["state"] == "as it was"
    again = job.run("publish", "--all", "--json", code=0).json["targets"][0]
    assert (again["rows"], again["added"], again["changed"], again["removed"]) == (6, 0, 0, 0)
    assert postgres.sql("SELECT xmin, id FROM labels ORDER BY id") == touched
    postgres.sql("DROP VIEW mine")
    only_what_is_new_and_then_every_row(job, postgres, lambda: postgres.sql("DROP TABLE labels"))


def only_what_is_new_and_then_every_row(job: JobFolder, service: Service, drop: Callable[[], Any]) -> None:
    """A second run of one more row sends that row; with the table gone, a third sends every row."""
    for number, rows in ((6, 1), (7, 8)):
        with (job.path / "rows.csv").open("a") as file:
            file.write(f"R-{number:03d},one more\n")
        done = job.run("run", "--wait", "--json", code=0)
        [sent] = done.json["targets"]
        assert (sent["rows"], sent["everything"]) == (rows, number == 7)
        assert {f"R-{one:03d}" for one in range(number + 1)} <= {one["id"] for one in service.rows()}
        drop()
    assert "is not there any more" in done.err


@needs_postgres
def test_what_postgresql_refuses(new_job: NewJob, provider: Provider, postgres: Postgres) -> None:
    job = job_for(new_job, provider, postgres, include='["id", "output.*"]')
    job.run("run", "--wait", code=0)
    for statement, said in (
        (
            "CREATE TABLE labels (id bigint, label text)",
            "column `id` is bigint there, which would change text such as 007",
        ),
        ("CREATE TABLE labels (id text, label varchar(2))", "string data right truncation (line 1, column label)"),
        ("CREATE TABLE labels (id text, owner text NOT NULL)", "not null violation (owner)"),
        ("CREATE TABLE labels (label text)", "no column `id`, which is to be the key"),
    ):
        postgres.sql("DROP TABLE labels")
        postgres.sql(statement)
        done = job.run("publish", code=2)
        assert said in done.err, done
        assert "R-000" not in done.err
        assert postgres.sql("SELECT count(*) FROM labels") == [(0,)]
    gone = job.run("publish", "--set", "publish=[{to='postgresql://127.0.0.1:1/x', key='id'}]", code=10)
    assert "PostgreSQL cannot be used now" in gone.err


@needs_postgres
def test_a_value_postgresql_cannot_store_is_named(new_job: NewJob, provider: Provider, postgres: Postgres) -> None:
    rows = [{"id": "R-000", "text": "fine"}, {"id": "R-001", "text": "a\0b"}]
    job = new_job(provider, rows=rows, more=target(postgres.to, key='["id"]', include='["id", "text", "output.*"]'))
    done = job.run("run", "--wait", code=2)
    assert "column `text` of row 2 holds a NUL character" in done.err


def test_bigquery_finds_its_job_again_when_an_answer_is_lost(new_job: NewJob, provider: Provider) -> None:
    with services.bigquery_server() as service:
        assert isinstance(service, BigQuery)
        job = job_for(new_job, provider, service, mode='"upsert"')
        service.tables["labels"] = [{"id": "R-001", "owner": "me"}, {"id": "X"}]
        for lost in ("PUT /upload/", "POST /bigquery"):
            service.lose = lost
            done = job.run("run", "--wait", code=10)
            assert "the same job is found" in done.err
        job.run("run", code=0)
        assert len(service.applied) == 2, "one load and one merge, however often it was tried"
        rows = {one["id"]: one for one in service.rows()}
        assert sorted(rows) == [*(f"R-{number:03d}" for number in range(6)), "X"]
        assert rows["R-001"]["owner"] == "me"
        assert list(service.tables) == ["labels"]
        service.fail = "_load"
        assert "BigQuery refuses the rows: invalid" in job.run("publish", "--all", code=2).err
        job.run("publish", code=0)
        only_what_is_new_and_then_every_row(job, service, service.tables.clear)


@pytest.mark.parametrize("kind", ["s3", "bigquery"])
def test_a_missing_bucket_or_dataset_is_said(new_job: NewJob, provider: Provider, kind: str) -> None:
    with SERVERS[kind]() as service:
        elsewhere = service.to.replace("//bucket/", "//other-bucket/").replace("/data/", "/other/")
        job = new_job(provider, more=target(elsewhere))
        job.env |= service.env
        done = job.run("run", "--wait", code=2)
        assert "there is no " in done.err, done
