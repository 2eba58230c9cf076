"""The Grocery Store dataset: a small clone made up here, and the real one where it is at hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from retrieval_bench.core import BenchError
from retrieval_bench.datasets.grocery import grocery
from retrieval_bench.images.screening import screen
from retrieval_bench.registry import DATASETS, parse
from tests.support.nasty import photo
from tests.support.paths import SHARED

REAL = SHARED / "data" / "grocery"

CLASSES = """Class Name (str),Class ID (int),Coarse Class Name (str),Coarse Class ID (int),Iconic (str),Text (str)
Pink-Lady,0,Apple,0,/iconic/Pink-Lady.jpg,/iconic/Pink-Lady.txt
Gala,1,Apple,0,/iconic/Gala.jpg,/iconic/Gala.txt
Oatly,2,Oat-Milk,1,/iconic/Oatly.jpg,/iconic/Oatly.txt
"""
LISTS = {
    "train.txt": "train/Pink-Lady_001.jpg, 0, 0\ntrain/Gala_001.jpg, 1, 0\ntrain/Oatly_001.jpg, 2, 1\n",
    "val.txt": "val/Gala_001.jpg, 1, 0\n",
    "test.txt": "test/Oatly_001.jpg, 2, 1\n\ntest/Gala_001.jpg, 1, 0",
}


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The clone's root; the data lies in its folder `dataset`, with the line ends of the real one."""
    home = tmp_path / "dataset"
    home.mkdir()
    (home / "classes.csv").write_bytes(CLASSES.rstrip().replace("\n", "\r\n").encode())
    seed = 0
    for name, text in LISTS.items():
        (home / name).write_text(text)
        for line in text.split():
            if line.endswith(".jpg,"):
                photo(home / line.rstrip(","), seed)
                seed += 1
    for name in ("Pink-Lady", "Gala", "Oatly"):
        photo(home / "iconic" / f"{name}.jpg", seed)
        seed += 1
    (home / "iconic" / "Gala.txt").write_text("Sweet, sötlig.\n", "utf-8")
    return tmp_path


def test_the_published_lists(clone: Path) -> None:
    dataset = grocery(clone)
    assert dataset.label_names == ("Pink-Lady", "Gala", "Oatly")
    assert dataset.category_names == ("Apple", "Oat-Milk")
    assert dataset.train.ids == ("train/Pink-Lady_001.jpg", "train/Gala_001.jpg", "train/Oatly_001.jpg")
    assert dataset.gallery.ids == dataset.train.ids
    assert dataset.query.ids == ("test/Oatly_001.jpg", "test/Gala_001.jpg")
    assert dataset.query.labels.tolist() == [2, 1]
    assert dataset.query.categories is not None
    assert dataset.query.categories.tolist() == [1, 0]
    assert dataset.query.attributes["text"].tolist() == ["", "Sweet, sötlig."]
    assert screen(dataset)[1] == ()


def test_the_folder_with_the_data_is_a_root_too(clone: Path) -> None:
    assert grocery(clone / "dataset").fingerprint == grocery(clone).fingerprint


def test_the_catalogue_as_gallery(clone: Path) -> None:
    dataset = parse(DATASETS, "grocery:gallery=iconic").build(clone)
    assert dataset.gallery.ids == ("iconic/Pink-Lady.jpg", "iconic/Gala.jpg", "iconic/Oatly.jpg")
    assert dataset.gallery.labels.tolist() == [0, 1, 2]
    assert dataset.train.ids == grocery(clone).train.ids
    assert screen(dataset)[1] == ()


def test_the_val_list_as_queries(clone: Path) -> None:
    dataset = parse(DATASETS, "grocery:queries=val").build(clone)
    assert dataset.query.ids == ("val/Gala_001.jpg",)
    assert dataset.query.labels.tolist() == [1]
    assert dataset.gallery.ids == dataset.train.ids == grocery(clone).train.ids
    assert dataset.fingerprint != grocery(clone).fingerprint
    assert screen(dataset)[1] == ()


def test_only_the_published_lists_are_queries(clone: Path) -> None:
    with pytest.raises(BenchError, match=r"queries.*test.*val"):
        parse(DATASETS, "grocery:queries=train").build(clone)


def test_the_list_that_is_not_asked_for_may_be_gone(clone: Path) -> None:
    (clone / "dataset" / "test.txt").unlink()
    assert grocery(clone, queries="val").query.ids == ("val/Gala_001.jpg",)
    (clone / "dataset" / "val.txt").unlink()
    with pytest.raises(BenchError, match=r"val\.txt cannot be read.*git clone"):
        grocery(clone, queries="val")


def test_a_root_that_is_no_clone(tmp_path: Path) -> None:
    for root in (None, tmp_path, tmp_path / "none"):
        with pytest.raises(BenchError, match=r"git clone https://github\.com/marcusklasson/GroceryStoreDataset"):
            grocery(root)


def test_a_photo_that_is_gone_is_left_to_screening(clone: Path) -> None:
    (clone / "dataset/train/Gala_001.jpg").unlink()
    _, skipped = screen(grocery(clone))
    assert [(bad.split, bad.reason) for bad in skipped] == [("train", "missing file"), ("gallery", "missing file")]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("test.txt", "test/x.jpg, 1, 0\ntest/y.jpg; 1; 0\n", "test.txt, line 2: expected"),
        ("test.txt", "test/x.jpg, 1, 0\n\ntest/y.jpg, one, 0\n", "test.txt, line 3: expected"),
        ("test.txt", "test/x.jpg, 3, 0\n", "test.txt, line 1: product 3 in category 0 is not in classes.csv"),
        ("train.txt", "train/x.jpg, 1, 1\n", "train.txt, line 1: product 1 in category 1 is not in classes.csv"),
        ("classes.csv", CLASSES.replace(",2,", ",two,"), "classes.csv, line 4: expected"),
        ("classes.csv", CLASSES.replace(",2,", ",3,"), "the product numbers must run from 0"),
        ("classes.csv", CLASSES.replace(",1,/", ",2,/"), "the category numbers must run from 0"),
        ("classes.csv", "", "the product numbers must run from 0"),
    ],
)
def test_damaged_lists(clone: Path, name: str, text: str, message: str) -> None:
    (clone / "dataset" / name).write_text(text)
    with pytest.raises(BenchError, match=message):
        grocery(clone)


def test_a_list_that_is_gone(clone: Path) -> None:
    (clone / "dataset" / "test.txt").unlink()
    with pytest.raises(BenchError, match=r"test\.txt cannot be read.*git clone"):
        grocery(clone)


@pytest.mark.skipif(not REAL.is_dir(), reason="the Grocery Store photos are not beside this checkout")
def test_the_real_photos() -> None:
    dataset = grocery(REAL)
    assert {name: len(split) for name, split in dataset.splits.items()} == {
        "train": 2640,
        "gallery": 2640,
        "query": 2485,
    }
    assert len(dataset.label_names) == 81
    assert len(dataset.category_names) == 43
    assert set(dataset.query.labels) == set(dataset.gallery.labels) == set(range(81))
    assert all(dataset.gallery.attributes["text"])
    assert dataset.query.images[0].shape == (348, 348, 3)
    held_out = grocery(REAL, queries="val").query
    assert len(held_out) == 296
    assert not set(held_out.ids) & {*dataset.query.ids, *dataset.train.ids}
    catalogue = grocery(REAL, gallery="iconic")
    assert sorted(catalogue.gallery.labels) == list(range(81))
    assert [image.shape[2] for image in (catalogue.gallery.images[row] for row in range(81))] == [3] * 81
