"""One index and one service over it for all tests of a worker; who changes items takes a copy."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from retrieval_bench.serving.service import SearchService
from tests.support.served import index_at, service_over, shelf_at


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
