"""Items that have a text and no picture: joins find them by their texts; they are counted, or left out and counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retrieval_bench.core import BenchError, Dataset
from retrieval_bench.datasets.manifest import manifest, read_list
from retrieval_bench.experiment.prepare import prepare
from retrieval_bench.experiment.runner import run
from retrieval_bench.records.files import load_rankings
from tests.support.command import call
from tests.support.runs import plan
from tests.support.shop import picture

WORDS = ("red mug stripes", "green bowl round", "blue cup dots", "yellow plate flat")
JOINS = ("color+tfidf", "color+tfidf+rrf", "color+tfidf+early", "color+tfidf+concat", "phash+tfidf", "phash+bm25+rrf")


def shelf(folder: Path, without: tuple[str, ...]) -> Dataset:
    """Four labels with three items in each split; those of `without` have no picture."""
    lines = ["id,path,label,split,title"]
    for split in ("train", "gallery", "query"):
        for label, words in enumerate(WORDS):
            for number in range(3):
                item = f"{split}-{label}-{number}"
                path = "" if item in without else f"{item}.png"
                if path:
                    first = {"train": 0, "gallery": 3, "query": 6}[split]
                    Image.fromarray(picture(label, first + number)).save(folder / path)
                lines.append(f"{item},{path},{label},{split},{words} {split} {number}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return manifest(folder)


def test_joins_find_them_by_their_texts(tmp_path: Path) -> None:
    pytest.importorskip("bm25s", reason='needs pip install "retrieval-bench[text]"')
    without = ("train-1-0", "gallery-2-1", "query-0-2")
    data = shelf(tmp_path, without)
    record = run(plan(data, *JOINS, "color"), tmp_path / "record")
    assert [row.status for row in record.rows] == ["ok"] * len(record.rows)
    assert any(
        "without a picture: 1 of 12 in train, 1 of 12 in gallery, 1 of 12 in query" in n for n in record.dataset.notices
    )
    assert not record.dataset.skipped
    rankings = load_rankings(tmp_path / "record", record)
    bare, asked = data.gallery.ids.index("gallery-2-1"), np.flatnonzero(data.query.labels == 2)
    for row in record.rows[:-1]:
        ranks = [rankings[f"{row.method}/indices"][query].tolist().index(bare) for query in asked]
        assert np.median(ranks) < 5, row.method  # three of twelve show what is asked for
        found = rankings[f"{row.method}/indices"][data.query.ids.index("query-0-2")][:2]
        assert (data.gallery.labels[found] == 0).any(), row.method
    alone = record.rows[-1]
    assert alone.features is not None
    assert alone.features.zero_rows == 2


def test_where_pictures_alone_are_compared_they_are_left_out_and_counted(tmp_path: Path) -> None:
    trial = prepare(plan(shelf(tmp_path, ("gallery-2-1", "query-0-2")), "color"))
    assert len(trial.dataset.gallery) == len(trial.dataset.query) == 11
    assert any("left out, as pictures alone are looked at: 1 of 12 in gallery" in n for n in trial.dataset.notices)
    assert len(read_list(tmp_path).split) == 34
    assert "2 of 36 items have no picture" in read_list(tmp_path).notices[0]


def test_they_are_no_copies_of_each_other(tmp_path: Path) -> None:
    data = shelf(tmp_path, ("gallery-2-0", "gallery-2-1", "query-2-0"))
    digests = {split.images.digest(row) for split in data.splits.values() for row in range(len(split))}
    assert len(digests) == 36
    assert data.gallery.take([6, 7]).images.digest(1) == data.gallery.images.digest(7)


def test_a_method_that_looks_at_pictures_has_none_to_look_at(tmp_path: Path) -> None:
    data = shelf(tmp_path, tuple(f"query-{label}-{number}" for label in range(4) for number in range(3)))
    record = run(plan(data, "color", "tfidf", "color+tfidf+rrf"), tmp_path / "record")
    assert [row.status for row in record.rows] == ["failed", "ok", "failed"]
    assert "no item has a picture to look at" in record.rows[0].error.sentence


@pytest.mark.parametrize("cells", [",,0,gallery,a mug", "one,,0,gallery,"])
def test_an_item_without_a_picture_needs_an_id_and_a_text(tmp_path: Path, cells: str) -> None:
    (tmp_path / "manifest.csv").write_text(f"id,path,label,split,title\n{cells}\n", encoding="utf-8")
    with pytest.raises(BenchError, match="line 2: path is missing, which only an item with an id and a title"):
        manifest(tmp_path)


def test_other_commands_say_what_they_leave_out(tmp_path: Path) -> None:
    shelf(tmp_path, ("gallery-2-1",))
    told = call("data", "prepare", "manifest", "--data-root", tmp_path)
    assert told.exit_code == 0
    assert "11 images; and 1 items without a picture" in " ".join(told.output.split())
