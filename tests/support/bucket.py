"""A bucket of an S3 server: the one that S3_ENDPOINT_URL names (with S3_ACCESS_KEY_ID and
S3_SECRET_ACCESS_KEY), or else of one in this process."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import boto3  # type: ignore[import-untyped]
from moto.server import ThreadedMotoServer
from pydantic import SecretStr

from plugins.collections.originals.s3 import S3Settings

PREFIX = "collections/"


class Endpoint(NamedTuple):
    url: str
    access_key_id: str
    secret_access_key: str
    real: bool = False

    def settings(self, bucket: str, **settings: Any) -> S3Settings:
        given = {
            "bucket": bucket,
            "prefix": PREFIX,
            "endpoint_url": self.url,
            "access_key_id": self.access_key_id,
            "secret_access_key": SecretStr(self.secret_access_key),
            "timeout_s": 10,
        }
        return S3Settings(**{**given, **settings})

    @contextmanager
    def bucket(self) -> Iterator[Any]:
        """A new bucket, as boto3's resource; taken away in the end."""
        made = boto3.session.Session().resource(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=self.access_key_id,
            aws_secret_access_key=self.secret_access_key,
        )
        found = made.Bucket(f"originals-{uuid.uuid4().hex[:12]}")
        found.create()
        try:
            yield found
        finally:
            for upload in found.multipart_uploads.all():
                upload.abort()
            found.objects.all().delete()
            found.delete()


@contextmanager
def endpoint() -> Iterator[Endpoint]:
    """A server, ended in any case."""
    if url := os.environ.get("S3_ENDPOINT_URL"):
        yield Endpoint(url, os.environ["S3_ACCESS_KEY_ID"], os.environ["S3_SECRET_ACCESS_KEY"], real=True)
        return
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield Endpoint(f"http://{host}:{port}", "tests", "secret-of-tests")
    finally:
        server.stop()
