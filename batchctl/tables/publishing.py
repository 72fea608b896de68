"""One target, one way in: which module writes which kind. A client library is loaded only by the target that needs it."""

from __future__ import annotations

from batchctl.files import crash_point, make_directory, replacing
from batchctl.tables.columns import Load, Loaded
from batchctl.tables.destinations import Destination


def bring(place: Destination, load: Load) -> Loaded:
    """Make the target hold what `load` says: all of it or, on any error, what it held before."""
    if place.kind == "sqlite":
        from batchctl.tables import sqlite

        return sqlite.write(place, load)
    if place.kind == "postgresql":
        from batchctl.tables import postgres

        return postgres.write(place, load)
    if place.kind in ("s3", "gs"):
        from batchctl.tables import objects

        return objects.write(place, load)
    if place.kind == "bigquery":
        from batchctl.tables import bigquery

        return bigquery.write(place, load)
    return _file(place, load)


def _file(place: Destination, load: Load) -> Loaded:
    from batchctl.tables.writers import write_load

    make_directory(place.path.parent)
    with replacing(place.path, keep_mode=True) as out:
        rows = write_load(place.form, out, load)
        crash_point("K19b")
    return Loaded(rows, {"bytes": place.path.stat().st_size})
