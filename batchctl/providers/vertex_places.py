"""Where Vertex jobs read and write: objects of a bucket, or tables of a BigQuery dataset. `[model] bucket` decides.

`bucket = "NAME"` or `"NAME/FOLDER"` (also after `gs://`) keeps an input object and a folder of result shards for each
job; `bucket = "bq://PROJECT.DATASET"` or `"bq://DATASET"` an input and an output table. Names are made of our mark, so
that no two jobs share one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from batchctl.model.errors import UsageError
from batchctl.providers.google_bigquery import Tables
from batchctl.providers.google_storage import Objects
from batchctl.providers.vertex_lines import lines_of, with_keys

FOLDER = "batchctl"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9](/[^#\[\]*?\s]+)?")
_DATASET = re.compile(r"(?:(?P<project>[a-z][a-z0-9.:-]*)\.)?(?P<dataset>[A-Za-z0-9_]{1,1024})")


class Place(Protocol):
    """One kind of storage. An address names an input; `results` is what `place_of` made of a job."""

    def check(self) -> None:
        """`UsageError` when the job file does not say where."""
        ...

    def put(self, chunk: Path, tag: str) -> str: ...
    def delete(self, address: str) -> None: ...
    def forget(self, output: str) -> None:
        """Delete what a job has written."""
        ...

    def configs(self, staged: str, tag: str) -> dict[str, Any]:
        """`inputConfig` and `outputConfig` of a job."""
        ...

    def lines(self, results: Mapping[str, Any]) -> Iterator[bytes]: ...


class Bucket:
    """Cloud Storage."""

    def __init__(self, name: str, objects: Objects) -> None:
        self._name = name.removeprefix("gs://").strip("/")
        self._objects = objects

    def check(self) -> None:
        if not _BUCKET.fullmatch(self._name):
            raise UsageError(
                "provider `vertex` needs a bucket for request and result files",
                where="[model] bucket",
                effect="nothing was written",
                hint='add bucket = "NAME", "NAME/FOLDER" or "bq://PROJECT.DATASET" under [model], in the job\'s region',
            )

    def put(self, chunk: Path, tag: str) -> str:
        self.check()
        address = f"gs://{self._name}/{FOLDER}/{tag}/input.jsonl"
        self._objects.put(chunk, address)
        return address

    def delete(self, address: str) -> None:
        self._objects.delete(address)

    def forget(self, output: str) -> None:
        self._objects.delete_folder(output)

    def configs(self, staged: str, tag: str) -> dict[str, Any]:
        self.check()
        output = {"outputUriPrefix": f"gs://{self._name}/{FOLDER}/{tag}/out"}
        return {
            "inputConfig": {"instancesFormat": "jsonl", "gcsSource": {"uris": [staged]}},
            "outputConfig": {"predictionsFormat": "jsonl", "gcsDestination": output},
        }

    def lines(self, results: Mapping[str, Any]) -> Iterator[bytes]:
        shards = self._objects.shards(results["output"], whole=results["whole"])
        lines = (line for blob in shards for line in lines_of(self._objects.content(blob)))
        return with_keys(lines, lambda: lines_of(self._objects.read(results["input"])))


class Dataset:
    """BigQuery. `project` is asked for when the job file names none."""

    def __init__(self, name: str, tables: Tables, project: Callable[[], str]) -> None:
        self._name = name.removeprefix("bq://")
        self._tables = tables
        self._project = project

    def check(self) -> None:
        if not _DATASET.fullmatch(self._name):
            raise UsageError(
                "this is no dataset of BigQuery",
                where="[model] bucket",
                effect="nothing was written",
                hint='write bucket = "bq://PROJECT.DATASET"',
            )

    def _table(self, tag: str, end: str) -> str:
        self.check()
        found = _DATASET.fullmatch(self._name)
        assert found is not None
        project = found["project"] or self._project()
        return f"bq://{project}.{found['dataset']}.{re.sub('[^A-Za-z0-9]', '_', tag)}_{end}"

    def put(self, chunk: Path, tag: str) -> str:
        address = self._table(tag, "in")
        self._tables.load(chunk, address, tag)
        return address

    def delete(self, address: str) -> None:
        self._tables.delete(address)

    def forget(self, output: str) -> None:
        self._tables.delete(output)

    def configs(self, staged: str, tag: str) -> dict[str, Any]:
        output = {"outputUri": self._table(tag, "out")}
        return {
            "inputConfig": {"instancesFormat": "bigquery", "bigquerySource": {"inputUri": staged}},
            "outputConfig": {"predictionsFormat": "bigquery", "bigqueryDestination": output},
        }

    def lines(self, results: Mapping[str, Any]) -> Iterator[bytes]:
        return self._tables.lines(results["output"], whole=results["whole"])


def inputs_of(job: Mapping[str, Any]) -> list[str]:
    """Where a job reads."""
    given = job.get("inputConfig")
    if not isinstance(given, dict):
        return []
    source, table = given.get("gcsSource"), given.get("bigquerySource")
    found = source.get("uris") if isinstance(source, dict) else None
    uris = found if isinstance(found, list) else []
    uris = [*uris, table.get("inputUri")] if isinstance(table, dict) else uris
    return [one for one in uris if isinstance(one, str)]


def output_of(job: Mapping[str, Any]) -> str | None:
    """Where a job has written: a folder, or a table; None when it says nothing."""
    info = job.get("outputInfo")
    if not isinstance(info, dict):
        return None
    folder, dataset = info.get("gcsOutputDirectory"), info.get("bigqueryOutputDataset")
    if isinstance(folder, str) and folder.startswith("gs://"):
        return folder
    table = info.get("bigqueryOutputTable")
    if isinstance(dataset, str) and dataset.startswith("bq://") and isinstance(table, str) and table:
        return f"{dataset}.{table.rpartition('.')[2]}"
    return None
