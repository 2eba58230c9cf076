"""Datasets in an S3 server, which runs in the process of the tests."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from retrieval_bench.core import BenchError
from retrieval_bench.datasets.folder import folder
from retrieval_bench.remote.limits import TIMEOUT
from retrieval_bench.remote.place import root_of
from tests.support.web import web_folder


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty bucket; its URL."""
    pytest.importorskip("s3fs", reason="S3 is read by s3fs, which is not installed")
    server = pytest.importorskip(
        "moto.server", reason="moto, the S3 server of this test, is not installed"
    ).ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setattr("retrieval_bench.remote.content_cache.cache_root", lambda: tmp_path / "downloads")
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().mkdir("photos")
    yield "s3://photos"
    server.stop()
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.slow(reason="the server's library takes seconds to load")
def test_a_folder_of_a_store(shelf: Path, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import s3fs

    store = s3fs.S3FileSystem()
    for path in shelf.rglob("*.png"):
        store.pipe_file(f"photos/shop/{path.relative_to(shelf).as_posix()}", path.read_bytes())
    expected = folder(shelf).fingerprint
    assert folder(root_of(f"{bucket}/shop")).fingerprint == expected
    monkeypatch.setattr(s3fs.S3FileSystem, "cat_file", None)  # the second time, no content is read
    assert folder(root_of(f"{bucket}/shop/")).fingerprint == expected
    with pytest.raises(BenchError, match="in a label's folder"):
        folder(root_of(f"{bucket}/none"))
    with web_folder(shelf) as web:
        gone = web.url
    monkeypatch.setenv("AWS_ENDPOINT_URL", gone)
    monkeypatch.setenv(TIMEOUT, "0.2")
    s3fs.S3FileSystem.clear_instance_cache()
    began = time.monotonic()
    with pytest.raises(BenchError, match="no whole answer"):
        folder(root_of("s3://photos/shop"))
    assert time.monotonic() - began < 20
