"""One index and one service over it for all tests of a worker; who changes items takes a copy."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from retrieval_bench.serving.answering.service import SearchService
from tests.support.served import index_at, service_over, shelf_at, told_index_at


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shelf_at(tmp_path_factory.mktemp("served") / "shelf")


@pytest.fixture(scope="session")
def index_folder(tmp_path_factory: pytest.TempPathFactory, shelf: Path) -> Path:
    return index_at(tmp_path_factory.mktemp("served") / "index", shelf)


@pytest.fixture(scope="session")
def service(index_folder: Path) -> Iterator[SearchService]:
    made = service_over(index_folder, writable=False)
    yield made
    made.close()


@pytest.fixture
def own_service(index_folder: Path, tmp_path: Path) -> Iterator[SearchService]:
    shutil.copytree(index_folder, tmp_path / "index")
    made = service_over(tmp_path / "index")
    yield made
    made.close()


@pytest.fixture(scope="session")
def told_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index whose items have texts, and whose methods read pictures, texts or both."""
    pytest.importorskip("bm25s", reason='needs pip install "retrieval-bench[text]"')
    return told_index_at(tmp_path_factory.mktemp("told"))


@pytest.fixture(scope="session")
def told(told_folder: Path) -> Iterator[SearchService]:
    made = service_over(told_folder, writable=False)
    yield made
    made.close()
