"""Publishing one object to S3 or Google Cloud Storage, with a marker object last.

Both stores show an object whole or not at all, so replacing it is atomic for its readers. `NAME._SUCCESS`, written after
it, says which bytes it vouches for: a pipeline that waits for the marker compares its `sha256`. Nothing else at the
store is touched. Clients find their credentials themselves (environment, profile, metadata server).
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from batchctl.files import crash_point, open_private, sha256_of
from batchctl.model.errors import BatchctlError, NotAllowed, ProviderError, UsageError
from batchctl.tables.columns import Load, Loaded
from batchctl.tables.destinations import Destination
from batchctl.tables.writers import write_load

MARKER = "._SUCCESS"
CHUNK_BYTES = 8 << 20
CONTENT = {
    "csv": "text/csv; charset=utf-8",
    "jsonl": "application/x-ndjson",
    "parquet": "application/vnd.apache.parquet",
}
UNCHANGED = "the object is what it was, or has all the new rows"
_NOT_ALLOWED = {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "403", "401"}


def write(place: Destination, load: Load) -> Loaded:
    """Put the rows, then the marker. The file is built on disk first: memory does not grow with the rows."""
    path = load.spool / f"object.{place.form}"
    with open_private(path) as out:
        rows = write_load(place.form, out, load)
    facts = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
    crash_point("K19b")
    put = _s3 if place.kind == "s3" else _gs
    put(place, place.name, path, CONTENT[place.form])
    crash_point("K19c")
    marker = load.spool / "marker.json"
    said = {"schema": "batchctl/publication@1", "object": place.shown, "rows": rows, **facts, "columns": load.names}
    marker.write_bytes(json.dumps(said, ensure_ascii=False).encode() + b"\n")
    put(place, place.name + MARKER, marker, "application/json")
    path.unlink()
    return Loaded(rows, facts | {"marker": place.shown + MARKER})


def _s3(place: Destination, name: str, path: Path, content: str) -> None:
    import boto3
    from boto3.exceptions import S3UploadFailedError
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    try:
        boto3.client("s3").upload_file(str(path), place.bucket, name, ExtraArgs={"ContentType": content})
    except NoCredentialsError as error:
        raise _not_allowed(place, "no AWS credentials were found", "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and "
                           "AWS_SECRET_ACCESS_KEY") from error  # fmt: skip
    except (S3UploadFailedError, ClientError, BotoCoreError) as error:
        raised = error if isinstance(error, ClientError) else error.__context__
        code = str(raised.response.get("Error", {}).get("Code", "")) if isinstance(raised, ClientError) else ""
        if code in _NOT_ALLOWED:
            raise _not_allowed(place, f"S3 refuses: {code}", "the key needs s3:PutObject there") from error
        if code == "NoSuchBucket":
            raise _no_bucket(place) from error
        raise _unavailable(place, f"S3 cannot be used now: {code or type(error).__name__}") from error


def _gs(place: Destination, name: str, path: Path, content: str) -> None:
    from google.api_core.exceptions import Forbidden, GoogleAPICallError, NotFound, Unauthorized
    from google.auth.exceptions import GoogleAuthError
    from google.cloud import storage
    from google.cloud.storage.retry import DEFAULT_RETRY
    from requests.exceptions import RequestException

    try:
        client = storage.Client(project=os.environ.get("GOOGLE_CLOUD_PROJECT") or "-")  # uploads need no project
        blob = client.bucket(place.bucket).blob(name, chunk_size=CHUNK_BYTES)
        blob.upload_from_filename(str(path), content_type=content, retry=DEFAULT_RETRY)
    except (Forbidden, Unauthorized) as error:
        raise _not_allowed(
            place, "Google Cloud Storage refuses", "the account needs storage.objects.create and .delete there"
        ) from error
    except GoogleAuthError as error:
        raise _not_allowed(
            place, "no Google credentials were found", "`gcloud auth application-default login`, or a service account"
        ) from error
    except NotFound as error:
        raise _no_bucket(place) from error
    except (GoogleAPICallError, RequestException) as error:
        raise _unavailable(place, f"Google Cloud Storage cannot be used now: {type(error).__name__}") from error


def _not_allowed(place: Destination, what: str, hint: str) -> BatchctlError:
    return NotAllowed(what, where=place.shown, effect=UNCHANGED, hint=hint)


def _no_bucket(place: Destination) -> BatchctlError:
    return UsageError(
        f"there is no bucket `{place.bucket}`",
        where=place.shown,
        effect="nothing was published there",
        hint="create it",
    )


def _unavailable(place: Destination, what: str) -> BatchctlError:
    return ProviderError(what, where=place.shown, effect=UNCHANGED, hint="publish again later", code="target")
