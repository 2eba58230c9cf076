"""What the words of `serve` open: indexes, a record, a dataset; and that an index is built once."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from retrieval_bench.core import BenchError
from retrieval_bench.experiment import runner
from retrieval_bench.indexing.description import DESCRIPTION_FILE
from retrieval_bench.indexing.index import StoredIndex
from retrieval_bench.methods.parse import parse_method
from retrieval_bench.serving.answering.opening import (
    HowToOpen,
    OpenedIndexes,
    cached_index,
    default_methods,
    open_dataset,
    open_indexes,
    open_record,
)
from tests.support.served import plan_of

pytestmark = [pytest.mark.slow(reason="builds indexes"), pytest.mark.usefixtures("own_cache")]

HOW = HowToOpen(threads=2)


def closed(opened: OpenedIndexes) -> list[tuple[str, bool, list[str]]]:
    """Name, whether it is writable, and methods of each index."""
    found = [(one.name, one.writable, [method.name for method in one.stored.methods]) for one in opened.indexes]
    for one in opened.indexes:
        one.stored.close()
    return found


def test_a_dataset_is_described_once(shelf: Path, caplog: pytest.LogCaptureFixture) -> None:
    plan = replace(plan_of(shelf), methods=tuple(map(parse_method, ("phash", "random"))))
    assert closed(open_dataset(plan, HOW)) == [("folder", True, ["phash"])]
    assert "random: left out" in caplog.text
    folder = cached_index(replace(plan, methods=(parse_method("phash"),)))
    before = (folder / DESCRIPTION_FILE).stat().st_mtime_ns
    assert closed(open_dataset(plan, HOW)) == [("folder", True, ["phash"])]
    assert (folder / DESCRIPTION_FILE).stat().st_mtime_ns == before
    assert cached_index(replace(plan, methods=(parse_method("dhash"),))) != folder
    assert cached_index(replace(plan, seed=1, methods=(parse_method("phash"),))) != folder


def test_a_record_is_served_by_its_methods(shelf: Path, tmp_path: Path) -> None:
    methods = tuple(map(parse_method, ("phash", "dhash", "oracle")))
    runner.run(replace(plan_of(shelf), methods=methods), tmp_path / "record")
    opened = open_record(tmp_path / "record", HOW)
    assert opened.record == tmp_path / "record"
    assert closed(opened) == [("folder", True, ["phash", "dhash"])]
    moved = Path(shutil.copytree(shelf, tmp_path / "moved"))
    assert closed(open_record(tmp_path / "record", replace(HOW, read_dataset=moved)))


def test_indexes_are_opened_side_by_side(index_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    other = Path(shutil.copytree(index_folder, tmp_path / index_folder.name))
    with StoredIndex.open(other, writable=True):
        found = closed(open_indexes([index_folder, other], HOW))
    assert [one[:2] for one in found] == [("index", True), ("index-2", False)]
    assert "reading only" in caplog.text
    assert [one[1] for one in closed(open_indexes([other], replace(HOW, read_only=True)))] == [False]
    (other / DESCRIPTION_FILE).write_text("{}", encoding="utf-8")
    with pytest.raises(BenchError, match="damaged"):
        open_indexes([index_folder, other], HOW)
    with StoredIndex.open(index_folder, writable=True):
        pass  # what was opened before the mistake was closed again


def test_the_default_line_up_has_no_controls() -> None:
    names = [str(method) for method in default_methods()]
    assert "sift" in names
    assert not {"random", "oracle"} & set(names)
