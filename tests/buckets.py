"""Buckets of a test's own in the S3 server that the session runs."""

import uuid

import pytest
from pyarrow import fs


def new_bucket(server: str, patch: pytest.MonkeyPatch) -> str:
    """The URL of a folder in a new bucket, for which this process and its children now have the credentials."""
    patch.setenv("AWS_ACCESS_KEY_ID", "a-key")
    patch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret")
    bucket, options = f"bucket-{uuid.uuid4().hex[:8]}", f"endpoint_override={server}&scheme=http"
    maker, _ = fs.FileSystem.from_uri(f"s3://{bucket}?{options}&allow_bucket_creation=true")
    maker.create_dir(bucket)
    return f"s3://{bucket}/team?{options}"
