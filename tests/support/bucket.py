"""A bucket of a real S3 API on loopback, found as the store's own tools find it: by the environment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest
from moto.server import ThreadedMotoServer

NAME = "bucket"


class Bucket(NamedTuple):
    """Its address, and a client of its store."""

    address: str
    client: Any


@contextmanager
def bucket() -> Iterator[Bucket]:
    """An empty bucket, as long as the block lasts."""
    import boto3

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "somebody",
            "AWS_SECRET_ACCESS_KEY": "a-secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            patch.setenv(name, value)
        client = boto3.client("s3")
        client.create_bucket(Bucket=NAME)
        yield Bucket(f"s3://{NAME}", client)
        # the servers of one process share what they hold
        for object_ in client.list_objects_v2(Bucket=NAME).get("Contents", ()):
            client.delete_object(Bucket=NAME, Key=object_["Key"])
        client.delete_bucket(Bucket=NAME)
    server.stop()
