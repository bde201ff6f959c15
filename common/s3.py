"""Atomic writes to S3, by boto3. Arrow's stream would publish an incomplete object when its writer is interrupted.

Both reach the same place: what Arrow takes from the URI and the environment is handed to boto3.

Tested in tests/interop/test_s3.py.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any, BinaryIO, Protocol
from urllib.parse import parse_qs

from nextscene.common.filesystem import BadLocation, connect, split_query

# Limits of S3 for one request and for the parts of a file. A part is held in memory.
_ONE_REQUEST_BYTES = 5 << 30
_PART_BYTES = 64 << 20
_MAX_PARTS = 10_000
_CONNECTIONS = 64
_NO_SUCH_ETAG = '"00000000000000000000000000000000"'
_log = logging.getLogger(__name__)


class _ConditionFailed(OSError):
    """The store refused a conditional write, since the object is another one."""


class _NotImplemented(OSError):
    """The store has no conditional writes."""


class _Client(Protocol):
    """The calls of boto3's client that are used here."""

    def put_object(self, **request: Any) -> dict[str, Any]: ...
    def get_object(self, **request: Any) -> dict[str, Any]: ...
    def delete_object(self, **request: Any) -> dict[str, Any]: ...
    def create_multipart_upload(self, **request: Any) -> dict[str, Any]: ...
    def upload_part(self, **request: Any) -> dict[str, Any]: ...
    def complete_multipart_upload(self, **request: Any) -> dict[str, Any]: ...
    def abort_multipart_upload(self, **request: Any) -> dict[str, Any]: ...
    def get_paginator(self, name: str) -> Any: ...


class S3Bucket:
    """A bucket to write to. Failures are OSErrors; a missing key is FileNotFoundError for readers."""

    def __init__(self, name: str, client: _Client) -> None:
        self._name = name
        self._client = client
        self._conditional: bool | None = None
        """True if the store supports conditional writes; None until one was tried."""

    # ---- whole files -------------------------------------------------------------------------------------------

    def upload(self, key: str, file: BinaryIO) -> None:
        """Upload a local file, from its beginning. If interrupted, the object at `key` is unchanged."""
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        if size > _ONE_REQUEST_BYTES:
            self._upload_parts(key, file, size)
        else:
            with _as_oserror():
                self._client.put_object(Bucket=self._name, Key=key, Body=file, ContentLength=size)

    def delete(self, key: str) -> None:
        """Delete the object; it need not exist."""
        with _as_oserror():
            self._client.delete_object(Bucket=self._name, Key=key)

    def _upload_parts(self, key: str, file: BinaryIO, size: int) -> None:
        """Upload in parts (multipart), each held in memory."""
        part_bytes = max(_PART_BYTES, -(-size // _MAX_PARTS))
        with _as_oserror():
            upload: dict[str, Any] = {"Bucket": self._name, "Key": key}
            upload["UploadId"] = self._client.create_multipart_upload(**upload)["UploadId"]
            try:
                parts: list[dict[str, Any]] = []
                while piece := file.read(part_bytes):
                    number = len(parts) + 1
                    made = self._client.upload_part(**upload, PartNumber=number, Body=piece)
                    parts.append({"PartNumber": number, "ETag": made["ETag"]})
                self._client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
            except BaseException:
                self._abort(upload)
                raise

    def _abort(self, upload: dict[str, Any]) -> None:
        """Abort an upload, which the store would bill for otherwise. If this fails too, the next run aborts it."""
        try:
            with _as_oserror():
                self._client.abort_multipart_upload(**upload)
        except OSError as fault:
            _log.info("an unfinished upload of %s is left: %s", upload["Key"], fault)

    def abort_uploads(self, prefix: str, ours: Callable[[str], bool]) -> None:
        """Abort all unfinished uploads below `prefix` whose keys are `ours`: killed writers left them.

        A credential may lack the right to list them; then log a warning.
        """
        try:
            with _as_oserror():
                pages = self._client.get_paginator("list_multipart_uploads").paginate(Bucket=self._name, Prefix=prefix)
                for upload in [upload for page in pages for upload in page.get("Uploads", ())]:
                    if ours(upload["Key"]):
                        left = {"Key": upload["Key"], "UploadId": upload["UploadId"]}
                        self._client.abort_multipart_upload(Bucket=self._name, **left)
        except OSError as fault:
            _log.warning(
                "s3://%s/%s: uploads that killed runs left cannot be looked for (%s); a lifecycle rule of the bucket"
                " can abort them",
                self._name,
                prefix,
                fault,
            )

    def read_with_age(self, key: str) -> tuple[bytes, float | None]:
        """Return a small object and its age in seconds by the store's own clock; None if the store sends no time."""
        try:
            with _as_oserror():
                found = self._client.get_object(Bucket=self._name, Key=key)
                return found["Body"].read(), _age_of(found)
        except _ConditionFailed as absent:
            raise FileNotFoundError(key) from absent

    # ---- one writer at a time ----------------------------------------------------------------------------------

    def create(self, key: str, data: bytes) -> bool:
        """Write `data` unless `key` exists; return whether it was. Two writers of the same bytes both succeed."""
        return self._put_if(key, data, {"IfNoneMatch": "*"})

    def compare_and_swap(self, key: str, before: bytes, after: bytes) -> bool:
        """Write `after` if the object contains `before`; return whether it was written."""
        try:
            now, etag = self._get(key)
        except FileNotFoundError:
            return False
        if now == after:
            return True  # an earlier try wrote it, and its response was lost
        return now == before and self._put_if(key, after, {"IfMatch": etag})

    def _put_if(self, key: str, data: bytes, condition: dict[str, str]) -> bool:
        try:
            self._put(key, data, {} if self._conditional is False else condition)
            if self._conditional is None:
                self._conditional = self._refuses(key, data)
        except _ConditionFailed:
            return self._holds(key, data)  # also on the second try of a write whose response was lost
        except _NotImplemented:
            self._conditional = False
            self._put(key, data, {})
        if not self._conditional:
            _warn_once(self._name)
            return self._holds(key, data)
        return True

    def _refuses(self, key: str, data: bytes) -> bool:
        """Return whether the store refuses conditional writes that must fail. They write what is there already."""
        for condition in ({"IfNoneMatch": "*"}, {"IfMatch": _NO_SUCH_ETAG}):
            try:
                self._put(key, data, condition)
            except _ConditionFailed:
                continue
            return False
        return True

    def _put(self, key: str, data: bytes, condition: dict[str, str]) -> None:
        with _as_oserror():
            self._client.put_object(Bucket=self._name, Key=key, Body=data, **condition)

    def _holds(self, key: str, data: bytes) -> bool:
        try:
            return self._get(key)[0] == data
        except FileNotFoundError:
            return False

    def _get(self, key: str) -> tuple[bytes, str]:
        try:
            with _as_oserror():
                found = self._client.get_object(Bucket=self._name, Key=key)
                return found["Body"].read(), found["ETag"]
        except _ConditionFailed as absent:
            raise FileNotFoundError(key) from absent


@lru_cache(maxsize=256)
def open_bucket(uri: str) -> S3Bucket:
    """Return the bucket of an s3:// URI, with the endpoint, region and so on that Arrow uses. Raise BadLocation."""
    filesystem, path = connect(uri)
    options: dict[str, Any] = filesystem.__reduce__()[1][0]  # what Arrow took from the URI and the environment
    query = parse_qs(split_query(uri)[1].removeprefix("?"))
    if "tls_ca_dir_path" in query:
        raise BadLocation(f"{split_query(uri)[0]}: tls_ca_dir_path is not supported; give tls_ca_file_path")
    endpoint: str = options["endpoint_override"]
    if endpoint and "://" not in endpoint:
        endpoint = f"{options['scheme']}://{endpoint}"
    verify = query.get("tls_verify_certificates") != ["false"] and (options["tls_ca_file_path"] or None)
    return _bucket(path.partition("/")[0], endpoint, options["region"], options["scheme"] != "http", verify)


@lru_cache(maxsize=64)
def _bucket(name: str, *place: Any) -> S3Bucket:
    return S3Bucket(name, _client(*place))


@lru_cache(maxsize=16)
def _client(endpoint: str, region: str, tls: bool, verify: bool | str | None) -> _Client:
    import boto3
    from botocore.config import Config

    config = Config(
        s3={"addressing_style": "path" if endpoint else "auto"},
        ignore_configured_endpoint_urls=True,
        proxies={},  # as Arrow, which uses no proxy of the environment
        retries={"mode": "standard", "total_max_attempts": 3},
        max_pool_connections=_CONNECTIONS,
        # Many stores other than AWS do not know the newer checksums.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    client: _Client = boto3.session.Session().client(
        "s3", config=config, region_name=region or None, endpoint_url=endpoint or None, use_ssl=tls, verify=verify
    )
    return client


def clear_connections() -> None:
    """Forget all connections, in a forked child: it must not share those of its parent."""
    for found in (open_bucket, _bucket, _client):
        found.cache_clear()


os.register_at_fork(after_in_child=clear_connections)


def _age_of(found: Mapping[str, Any]) -> float | None:
    """Return the age in whole seconds. Both times are the store's."""
    date = found["ResponseMetadata"]["HTTPHeaders"].get("date", "")
    try:
        return float((parsedate_to_datetime(date) - found["LastModified"]).total_seconds())
    except (ValueError, TypeError, KeyError):
        return None


@lru_cache(maxsize=64)
def _warn_once(bucket: str) -> None:
    _log.warning(
        "s3://%s has no conditional writes: of runs that are started at the same moment, two may not see each other;"
        " start one at a time",
        bucket,
    )


@contextmanager
def _as_oserror() -> Iterator[None]:
    """Raise OSError with the store's message for an error of boto3, or the outcome of a condition."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        details = error.response.get("Error", {})
        code, status = details.get("Code", ""), error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if code in ("PreconditionFailed", "NoSuchKey") or status == 412:
            raise _ConditionFailed from error
        text = f"{code}: {details.get('Message', '')} ({error.operation_name})"
        if code == "NotImplemented" or status == 501:
            raise _NotImplemented(text) from error
        raise OSError(text) from error
    except BotoCoreError as error:
        raise OSError(str(error)) from error
