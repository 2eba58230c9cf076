"""Fixtures that tests of several rooms use."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.shop import shelf_at


@pytest.fixture
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """One cache of features for all tests of a session, and never the user's."""
    monkeypatch.setenv("RETRIEVAL_BENCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """A folder of labelled images: 3 labels, split already."""
    return shelf_at(tmp_path / "shelf")
