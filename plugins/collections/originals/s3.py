"""Originals in a bucket of an S3-compatible store (https://docs.aws.amazon.com/AmazonS3/latest/API/).

A file is the object ``<prefix><collection>/<document>/<revision>``, other parts beside it with their name as
suffix. Its SHA-256 stands in the object's metadata and is compared whenever it is read.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import boto3  # type: ignore[import-untyped]
from boto3.s3.transfer import TransferConfig  # type: ignore[import-untyped]
from botocore.config import Config as BotoConfig  # type: ignore[import-untyped]
from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]
from pydantic import Field, SecretStr, field_validator, model_validator

from crawler.settings import Settings
from plugins.collections.originals import PARTS, SPOOL_AGE_S, Originals, Part, check_ids
from plugins.core.errors import Upstream

log = logging.getLogger(__name__)

T = TypeVar("T")

THREADS = 8
"""Requests at once."""
PART_BYTES = 16 * 2**20
"""Larger files are sent in parts of this size."""
BLOCK_BYTES = 2**20
AT_ONCE = 1000
"""Objects that one request lists or deletes: the most that S3 takes."""
CHECKSUM = "sha256"
UNAVAILABLE = "The storage of uploaded files is not available at the moment. Try again in a few seconds."
DAMAGED = "The uploaded file is not as it was stored. Tell the operator, or upload it again."
MISSING = {"404", "NoSuchKey", "NotFound"}


class S3Settings(Settings):
    bucket: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")
    """It must be there."""
    prefix: str = Field(default="", max_length=512, pattern=r"^([A-Za-z0-9_.-]+/)*$")
    """What the names of all objects begin with, ending in `/`: where the bucket is for others, too."""
    endpoint_url: str | None = None
    """The address of a server other than Amazon's: `https://s3.example.com`."""
    region: str = "us-east-1"
    """Its region; many servers have only this one."""
    access_key_id: str | None = None
    """With `secret_access_key`; without both, the environment, files and roles that boto3 looks at count
    (https://boto3.amazonaws.com/v1/documentation/api/latest/guide/credentials.html)."""
    secret_access_key: SecretStr | None = None
    """With `access_key_id`."""
    timeout_s: float = Field(default=30.0, gt=0, le=600)
    """How long the server may be silent."""

    @field_validator("endpoint_url")
    @classmethod
    def _is_an_address(cls, value: str | None) -> str | None:
        url = urlsplit(value or "https://unset")
        if url.scheme not in ("https", "http") or not url.hostname or "@" in url.netloc or url.query:
            raise ValueError("must be the server's address, without credentials: `https://s3.example.com`")
        return value

    @model_validator(mode="after")
    def _whole_key(self) -> S3Settings:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("`access_key_id` and `secret_access_key` belong together")
        return self


class S3(Originals[S3Settings]):
    """Files in a bucket of an S3-compatible store; one is fetched here while somebody reads it."""

    def __init__(self, settings: S3Settings, data_dir: Path) -> None:
        super().__init__(settings, data_dir)
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="s3")
        self._client: Any = None
        self._opening = asyncio.Lock()

    async def put(
        self, collection_id: str, document_id: str, revision: str, spooled: Path, part: Part = "original"
    ) -> None:
        key = self._key(collection_id, document_id, revision, part)
        await self._call(lambda client: self._put(client, key, spooled))

    def _put(self, client: Any, key: str, spooled: Path) -> None:
        extra = {"Metadata": {CHECKSUM: _sha256(spooled)}}
        client.upload_file(str(spooled), self.settings.bucket, key, ExtraArgs=extra, Config=_TRANSFER)
        spooled.unlink(missing_ok=True)

    async def copy(self, collection_id: str, document_id: str, revision: str, to: str) -> bool:
        source = self._key(collection_id, document_id, revision)
        target = self._key(collection_id, document_id, to)
        return await self._call(lambda client: self._copy(client, source, target))

    def _copy(self, client: Any, source: str, target: str) -> bool:
        bucket = self.settings.bucket
        try:
            client.copy_object(Bucket=bucket, Key=target, CopySource={"Bucket": bucket, "Key": source})
        except ClientError as error:
            if _code(error) in MISSING:
                return False
            raise
        return True

    @asynccontextmanager
    async def open(
        self, collection_id: str, document_id: str, revision: str, part: Part = "original"
    ) -> AsyncIterator[Path | None]:
        key = self._key(collection_id, document_id, revision, part)
        path = self.spool_dir / f"s3-{uuid.uuid4().hex}"
        try:
            found = await self._call(lambda client: self._fetch(client, key, path))
            yield path if found else None
        finally:
            await asyncio.to_thread(path.unlink, missing_ok=True)

    def _fetch(self, client: Any, key: str, path: Path) -> bool:
        """Write the object into the file; False when there is none."""
        try:
            found = client.get_object(Bucket=self.settings.bucket, Key=key)
        except ClientError as error:
            if _code(error) in MISSING:
                return False
            raise
        digest, size = hashlib.sha256(), 0
        with closing(found["Body"]) as body, path.open("wb") as file:
            for block in body.iter_chunks(BLOCK_BYTES):
                digest.update(block)
                size += file.write(block)
        told = found["Metadata"].get(CHECKSUM, digest.hexdigest())
        if size != found["ContentLength"] or told != digest.hexdigest():
            log.error("An original in the bucket is not as it was stored: %s", key)
            raise Upstream(DAMAGED)
        return True

    async def remove(self, collection_id: str, document_id: str, revision: str) -> None:
        keys = [self._key(collection_id, document_id, revision, part) for part in PARTS]
        await self._call(lambda client: self._delete(client, keys))

    async def revisions(self, collection_id: str, document_id: str) -> set[str]:
        prefix = self._prefix(collection_id, document_id)
        return await self._call(
            lambda client: {
                name.removeprefix(prefix).partition(".")[0] for name, _ in self._list(client, prefix)
            }
        )

    async def drop(self, collection_id: str) -> None:
        prefix = self._prefix(collection_id)
        await self._call(
            lambda client: self._delete(client, [name for name, _ in self._list(client, prefix)])
        )

    async def documents(self, older_than_s: float) -> list[tuple[str, str]]:
        return await self._call(lambda client: self._documents(client, older_than_s))

    def _documents(self, client: Any, older_than_s: float) -> list[tuple[str, str]]:
        touched: dict[tuple[str, str], datetime] = {}
        for name, modified in self._list(client, self.settings.prefix):
            match name.removeprefix(self.settings.prefix).split("/"):
                case [collection_id, document_id, _]:
                    ids = (collection_id, document_id)
                    touched[ids] = max(modified, touched.get(ids, modified))
        before = datetime.now(UTC) - timedelta(seconds=older_than_s)
        return [ids for ids, modified in touched.items() if modified < before]

    async def sweep_spool(self) -> None:
        """Also the parts of large files whose sender died."""
        await super().sweep_spool()
        await self._call(self._abort_old)

    def _abort_old(self, client: Any) -> None:
        before = datetime.now(UTC) - timedelta(seconds=SPOOL_AGE_S)
        pages = client.get_paginator("list_multipart_uploads")
        for page in pages.paginate(Bucket=self.settings.bucket, Prefix=self.settings.prefix):
            for upload in page.get("Uploads", ()):
                if upload["Initiated"] < before:
                    client.abort_multipart_upload(
                        Bucket=self.settings.bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                    )

    async def ping(self) -> None:
        await self._call(lambda client: client.head_bucket(Bucket=self.settings.bucket))

    async def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._client is not None:
            await asyncio.to_thread(self._client.close)

    def _list(self, client: Any, prefix: str) -> Iterator[tuple[str, datetime]]:
        """Each object's name and when it was written."""
        pages = client.get_paginator("list_objects_v2")
        page_of = {"PageSize": AT_ONCE}
        for page in pages.paginate(Bucket=self.settings.bucket, Prefix=prefix, PaginationConfig=page_of):
            for found in page.get("Contents", ()):
                yield found["Key"], found["LastModified"]

    def _delete(self, client: Any, names: list[str]) -> None:
        for start in range(0, len(names), AT_ONCE):
            wanted = [{"Key": name} for name in names[start : start + AT_ONCE]]
            answer = client.delete_objects(
                Bucket=self.settings.bucket, Delete={"Objects": wanted, "Quiet": True}
            )
            if answer.get("Errors"):
                log.warning("%d originals could not be deleted", len(answer["Errors"]))
                raise Upstream(UNAVAILABLE, retry_after_s=2)

    async def _call(self, request: Callable[[Any], T]) -> T:
        """The answer to a request, made in a thread of ours.

        Raises:
            Upstream: The store cannot be reached, or refuses.
        """
        async with self._opening:
            if self._client is None:
                self._client = await asyncio.get_running_loop().run_in_executor(self._pool, self._connect)
        with explained():
            return await asyncio.get_running_loop().run_in_executor(self._pool, request, self._client)

    def _connect(self) -> Any:
        settings, secret = self.settings, self.settings.secret_access_key
        with explained():
            return boto3.session.Session().client(
                "s3",
                endpoint_url=settings.endpoint_url,
                region_name=settings.region,
                aws_access_key_id=settings.access_key_id,
                aws_secret_access_key=secret.get_secret_value() if secret else None,
                config=BotoConfig(
                    connect_timeout=min(settings.timeout_s, 5.0),
                    read_timeout=settings.timeout_s,
                    retries={"mode": "standard", "max_attempts": 3},
                    max_pool_connections=THREADS,
                    s3={"addressing_style": "path" if settings.endpoint_url else "auto"},
                ),
            )

    def _key(self, collection_id: str, document_id: str, revision: str, part: Part = "original") -> str:
        name = revision if part == "original" else f"{revision}.{part}"
        check_ids(revision)
        return f"{self._prefix(collection_id, document_id)}{name}"

    def _prefix(self, *ids: str) -> str:
        check_ids(*ids)
        return f"{self.settings.prefix}{'/'.join(ids)}/"


_TRANSFER = TransferConfig(multipart_threshold=PART_BYTES, multipart_chunksize=PART_BYTES, use_threads=False)


@contextmanager
def explained() -> Iterator[None]:
    """Errors of the store as ours; their texts name hosts and keys.

    Raises:
        Upstream: In place of them.
    """
    try:
        yield
    except (BotoCoreError, ClientError, boto3.exceptions.Boto3Error) as error:
        log.warning("The storage of originals failed: %s", _reason(error))
        raise Upstream(UNAVAILABLE, retry_after_s=2) from error


def _reason(error: Exception) -> str:
    """What went wrong, without names: S3's own code, or the class."""
    return (_code(error) if isinstance(error, ClientError) else "") or type(error).__name__


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
