"""Anybody's folder of images: split by content, or split already."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from retrieval_bench.core import BenchError, Dataset
from retrieval_bench.datasets.folder import folder
from retrieval_bench.datasets.splits import content_split, content_splits
from retrieval_bench.images.fence import ALLOWED
from retrieval_bench.images.screening import screen
from retrieval_bench.registry import DATASETS, parse
from tests.support.nasty import not_utf8_name, photo, shop, write_all_bad


def where(dataset: Dataset) -> dict[str, str]:
    """id -> split"""
    return {item: name for name, split in dataset.splits.items() for item in split.ids}


def test_labels_are_the_folders_and_every_image_is_in_one_split(tmp_path: Path) -> None:
    dataset = folder(shop(tmp_path, {"mug": 40, "bag": 40}))
    assert dataset.label_names == ("bag", "mug")
    assert len(where(dataset)) == sum(map(len, dataset.splits.values())) == 80
    for split in dataset.splits.values():
        assert all(dataset.label_names[label] in item for item, label in zip(split.ids, split.labels, strict=True))
        assert list(split.ids) == sorted(split.ids)
        assert split.labels.dtype == np.int64
        assert split.images[0].shape == (40, 60, 3)
    assert dataset.notices == ()


def test_the_registry_reads_the_option(tmp_path: Path) -> None:
    shop(tmp_path, {"a": 10, "b": 10})
    dataset = parse(DATASETS, "folder:split=0/50/50").build(tmp_path)
    assert len(dataset.train) == 0
    assert any("no train image" in notice for notice in dataset.notices)
    with pytest.raises(BenchError, match="sum to 100"):
        folder(tmp_path, split="70/30")


def test_adding_removing_renaming_moves_no_image_of_a_label_that_needs_no_help(tmp_path: Path) -> None:
    shop(tmp_path, {"mug": 30, "bag": 30})
    before = where(folder(tmp_path))
    for seed in range(100, 140):
        photo(tmp_path / "mug" / f"new{seed}.png", seed)
        photo(tmp_path / "shoe" / f"new{seed}.png", seed + 100)
    after = where(folder(tmp_path))
    assert {item: after[item] for item in before} == before
    for item in list(before)[::3]:
        (tmp_path / item).unlink()
    rest = where(folder(tmp_path))
    assert {item: after[item] for item in rest} == rest
    (tmp_path / "bag").rename(tmp_path / "sack")
    renamed = where(folder(tmp_path))
    assert {item.replace("bag/", "sack/"): name for item, name in rest.items()} == renamed


def test_copies_share_a_split_whatever_their_name_and_label(tmp_path: Path) -> None:
    shop(tmp_path, {"mug": 30, "bag": 30})
    for path in sorted((tmp_path / "mug").iterdir()):
        (tmp_path / "bag" / f"copy_of_{path.name}").write_bytes(path.read_bytes())
    dataset = folder(tmp_path)
    split = where(dataset)
    assert all(split[item.replace("bag/copy_of_", "mug/")] == name for item, name in split.items())
    assert dataset.notices == ()


@settings(max_examples=25, deadline=None)
@given(old=st.sets(st.integers(0, 10**6), min_size=30, max_size=40), new=st.sets(st.integers(0, 10**6), max_size=10))
@example(old={0, 1, 2, 4, *range(6, 11), 12, 13, 14, *range(16, 23), 24, *range(26, 31), 32, *range(34, 38)}, new={3})
@pytest.mark.slow(reason="many drawn folders")
def test_stability_over_arbitrary_contents(tmp_path_factory, old: set[int], new: set[int]) -> None:
    """Nothing moves in a label to which contents alone give gallery and query images; of another, two at most."""
    root, whole = tmp_path_factory.mktemp("any"), {0, 1}

    def write(numbers: set[int]) -> None:
        for number in numbers:
            path = root / f"label{number % 2}" / f"{number}.jpg"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(str(number).encode())

    def by_content(label: int) -> set[str]:
        digests = [hashlib.sha256(str(number).encode()).hexdigest() for number in old | whole if number % 2 == label]
        return {content_split(digest, (34, 33, 33)) for digest in digests}

    write(old | whole)
    before = where(folder(root, split="34/33/33"))
    write(new)
    after = where(folder(root, split="34/33/33"))
    for label in (0, 1):
        moved = [item for item in before if item.startswith(f"label{label}/") and after[item] != before[item]]
        assert len(moved) <= (0 if {"gallery", "query"} <= by_content(label) else 2)


def test_a_layout_that_is_split_already(tmp_path: Path) -> None:
    shop(tmp_path / "train", {"a": 2, "b": 1})
    photo(tmp_path / "gallery/a/deep/er/x.jpg", 10)
    photo(tmp_path / "gallery/b/y.JPG", 11)
    photo(tmp_path / "query/b/y.jpg", 12)
    photo(tmp_path / "extra/c/z.jpg", 13)
    dataset = folder(tmp_path)
    assert dataset.gallery.ids == ("gallery/a/deep/er/x.jpg", "gallery/b/y.JPG")
    assert dataset.query.ids == ("query/b/y.jpg",)
    assert len(dataset.train) == 3
    assert dataset.label_names == ("a", "b")
    assert dataset.notices == (
        "folders beside train, gallery, query are ignored: 'extra'",
        "1 labels have gallery images but no query: 'a'",
    )


@pytest.mark.parametrize("with_folder", [False, True])
def test_train_may_be_absent_or_empty(tmp_path: Path, with_folder: bool) -> None:
    photo(tmp_path / "gallery/a/x.jpg", 0)
    photo(tmp_path / "gallery/b/x.jpg", 1)
    photo(tmp_path / "query/a/x.jpg", 2)
    photo(tmp_path / "query/b/x.jpg", 3)
    if with_folder:
        (tmp_path / "train").mkdir()
    dataset = folder(tmp_path)
    assert len(dataset.train) == 0
    assert [notice for notice in dataset.notices if "no train image" in notice] == list(dataset.notices)


def test_a_query_without_a_gallery_class_loads_and_is_noticed(tmp_path: Path) -> None:
    photo(tmp_path / "gallery/a/x.jpg", 0)
    photo(tmp_path / "query/a/x.jpg", 1)
    photo(tmp_path / "query/b/x.jpg", 2)
    dataset = folder(tmp_path)
    assert dataset.label_names == ("a", "b")
    assert any("1 labels have queries but no gallery image" in notice for notice in dataset.notices)


def test_a_query_that_is_in_the_gallery_byte_for_byte_is_noticed(tmp_path: Path) -> None:
    for item in ("gallery/a/x.jpg", "query/a/y.jpg"):
        photo(tmp_path / item, 0)
    photo(tmp_path / "gallery/b/x.jpg", 1)
    photo(tmp_path / "train/b/x.jpg", 1)
    assert any("1 query images are byte for byte" in notice for notice in folder(tmp_path).notices)


def test_an_empty_class_is_left_out_and_named(tmp_path: Path) -> None:
    shop(tmp_path, {"mug": 30, "bag": 30})
    (tmp_path / "shoe").mkdir()
    dataset = folder(tmp_path)
    assert dataset.label_names == ("bag", "mug")
    assert dataset.notices == ("1 label folders hold no image: 'shoe'",)


def test_what_is_no_image_is_ignored_and_counted(tmp_path: Path) -> None:
    shop(tmp_path, {"mug": 30, "bag": 30})
    for name in (".hidden.jpg", "notes.txt", "more.TXT", "Makefile", "sub/.DS_Store"):
        (tmp_path / "mug" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "mug" / name).touch()
    (tmp_path / "readme.md").touch()
    (tmp_path / ".cache").mkdir()
    photo(tmp_path / ".cache" / "x.jpg")
    photo(tmp_path / "loose.jpg")
    (tmp_path / ".listing").touch()
    dataset = folder(tmp_path)
    assert len(where(dataset)) == 60
    assert dataset.notices == ("8 files are ignored: 2 .txt, 3 hidden, 2 outside a label's folder, 1 without a suffix",)


def test_bad_files_are_left_to_screening(tmp_path: Path) -> None:
    shop(tmp_path, {"mug": 40, "bag": 40})
    reasons = write_all_bad(tmp_path / "mug")
    dataset = folder(tmp_path)
    assert len(where(dataset)) == 80 + len(reasons)
    screened, skipped = screen(dataset)
    assert {bad.id: bad.reason for bad in skipped} == {f"mug/{name}": reason for name, reason in reasons.items()}
    assert len(where(screened)) == 80


@pytest.mark.skipif(sys.platform != "linux", reason="file names of any bytes")
def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    shop(tmp_path, {"mug": 30, "bag": 30})
    label = tmp_path / os.fsdecode(b"th\xe9")
    label.mkdir()
    not_utf8_name(label)
    dataset = folder(tmp_path)
    assert "th\\xe9/caf\\xe9.jpg" in where(dataset)
    assert "th\\xe9" in dataset.label_names
    assert len(dataset.fingerprint) == 64
    assert screen(dataset)[1] == ()


def test_links_are_followed_and_circles_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ALLOWED, "1")
    shop(tmp_path / "elsewhere", {"mug": 30})
    root = shop(tmp_path / "root", {"bag": 30})
    (root / "mug").symlink_to(tmp_path / "elsewhere" / "mug")
    (root / "bag" / "one.png").symlink_to(tmp_path / "elsewhere" / "mug" / "mug_000.png")
    (root / "bag" / "up").symlink_to(root)
    (root / "bag" / "self").symlink_to(root / "bag")
    dataset = folder(root)
    assert len([item for item in where(dataset) if item.startswith("mug/")]) == 30
    assert "bag/one.png" in where(dataset)
    assert not any("self" in item or "up" in item for item in where(dataset))


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may list everything")
def test_a_folder_without_permission_is_named(tmp_path: Path) -> None:
    shop(tmp_path, {"mug": 30, "bag": 30})
    (tmp_path / "mug").chmod(0)
    try:
        with pytest.raises(BenchError, match="mug cannot be listed: Permission denied"):
            folder(tmp_path)
    finally:
        (tmp_path / "mug").chmod(0o700)


def test_without_a_root() -> None:
    with pytest.raises(BenchError, match="needs --data-root; expected is <root>/<label>"):
        folder(None)


@pytest.mark.parametrize("make", [lambda path: None, Path.touch, Path.mkdir])
def test_a_root_that_is_missing_or_a_file_or_empty(tmp_path: Path, make) -> None:
    make(tmp_path / "root")
    with pytest.raises(BenchError, match="<root>/<label>") as caught:
        folder(tmp_path / "root")
    assert str(tmp_path / "root") in str(caught.value)


def test_images_without_label_folders(tmp_path: Path) -> None:
    photo(tmp_path / "x.jpg")
    with pytest.raises(BenchError, match=r"no \.jpg/.* in a label's folder"):
        folder(tmp_path)


def test_one_class(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="labelled 'mug'; a comparison needs at least two labels"):
        folder(shop(tmp_path, {"mug": 60}))


def test_too_few_images_for_every_split_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"none of the 2 images .* ended up in .*no label has two images"):
        folder(shop(tmp_path, {"mug": 1, "bag": 1}))


@pytest.mark.parametrize("names", [("train", "test"), ("train", "val", "test"), ("gallery", "a"), ("train", "query")])
def test_folders_that_look_like_splits_are_not_taken_for_labels(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        shop(tmp_path / name, {"mug": 3, "bag": 3})
    with pytest.raises(BenchError, match="look like splits"):
        folder(tmp_path)


def test_a_label_may_be_called_train(tmp_path: Path) -> None:
    assert folder(shop(tmp_path, {"train": 30, "tram": 30})).label_names == ("train", "tram")


def test_every_label_of_two_images_has_an_answer(tmp_path: Path) -> None:
    counts = {f"label{number}": 2 + number % 9 for number in range(18)} | {"lone": 1}
    for options in ({}, {"split": "0/50/50"}, {"split": "98/1/1"}):
        dataset = folder(shop(tmp_path, counts), **options)
        for split in (dataset.gallery, dataset.query):
            assert set(split.labels.tolist()) >= set(range(18))


@settings(max_examples=40, deadline=None)
@given(st.sets(st.integers(0, 10**6), min_size=2, max_size=12), st.integers(0, 10**6))
def test_at_most_two_images_of_a_small_label_move_where_one_is_added(numbers: set[int], new: int) -> None:
    def splits(contents: set[int]) -> dict[str, str]:
        units = [hashlib.sha256(str(number).encode()).hexdigest() for number in sorted(contents)]
        return dict(zip(units, content_splits(units, ["mug"] * len(units), (70, 15, 15)), strict=True))

    def by_content(unit: str) -> str:
        return content_split(unit, (70, 15, 15))

    before, after = splits(numbers - {new}) if len(numbers - {new}) > 1 else {}, splits(numbers | {new})
    moved = [unit for unit in before if before[unit] != after[unit]]
    assert len(moved) <= 2
    if {by_content(unit) for unit in before} >= {"gallery", "query"}:
        assert moved == []
    for contents in (before, after):
        assert not contents or {"gallery", "query"} <= set(contents.values())


def test_what_labels_share_is_never_moved_away_from_its_copies(tmp_path: Path) -> None:
    for number in range(6):
        for label in ("mug", "bag"):
            photo(tmp_path / label / f"shared{number}.png", number)
        photo(tmp_path / "mug" / f"mug{number}.png", 100 + number)
    split = where(folder(tmp_path))
    for number in range(6):
        assert split[f"mug/shared{number}.png"] == split[f"bag/shared{number}.png"]


def nested(root: Path) -> Path:
    for number in range(8):
        for image in range(4):
            photo(root / ("acme" if number < 4 else "bolt") / f"sku{number}" / f"{image}.png", 10 * number + image)
    return root


def test_labels_that_lie_a_folder_deeper_are_offered(tmp_path: Path) -> None:
    dataset = folder(nested(tmp_path))
    assert dataset.label_names == ("acme", "bolt")
    assert dataset.notices[0] == (
        "all images lie in subfolders of the labels: labels are the 2 folders 'acme', 'bolt'; "
        "folder:label=leaf takes the 8 below, as 'acme/sku0' and 7 more"
    )
    leaf = folder(tmp_path, label="leaf")
    assert leaf.label_names == tuple(f"{'acme' if number < 4 else 'bolt'}/sku{number}" for number in range(8))
    assert leaf.category_names == ("acme", "bolt")
    assert leaf.query.categories is not None
    assert [leaf.label_names[row] for row in leaf.query.labels] == [
        f"{leaf.category_names[category]}/{item.split('/')[1]}"
        for category, item in zip(leaf.query.categories, leaf.query.ids, strict=True)
    ]
    assert not any("label=leaf" in notice for notice in leaf.notices)


def test_most_images_in_subfolders_are_told_and_few_are_not(tmp_path: Path) -> None:
    nested(tmp_path)
    photo(tmp_path / "acme" / "front.png", 999)
    assert folder(tmp_path).notices[0].startswith("32 of 33 images lie in subfolders of the labels")
    leaf = folder(tmp_path, label="leaf")
    assert leaf.label_names[0] == "acme"
    assert leaf.category_names == ("acme", "bolt")
    flat = shop(tmp_path / "flat", {"mug": 10, "bag": 10})
    photo(flat / "mug" / "deep" / "x.png", 1)
    assert not any("label=leaf" in notice for notice in folder(flat).notices)
    assert folder(shop(tmp_path / "plain", {"mug": 10, "bag": 10}), label="leaf").category_names == ()


def test_one_folder_above_all_labels_is_told_from_one_label(tmp_path: Path) -> None:
    nested(tmp_path / "images")
    with pytest.raises(BenchError, match=r"below 'images', the only folder .*label=leaf takes the 8 folders"):
        folder(tmp_path)
    assert folder(tmp_path, label="leaf").category_names == ("images/acme", "images/bolt")


def test_leave_one_out(tmp_path: Path) -> None:
    dataset = parse(DATASETS, "folder:split=leave-one-out").build(shop(tmp_path, {"mug": 3, "bag": 4, "lone": 1}))
    assert dataset.leave_one_out
    assert dataset.query.ids == dataset.gallery.ids
    assert len(dataset.query) == 8
    assert len(dataset.train) == 0
    (tmp_path / "mug" / "copy.png").write_bytes((tmp_path / "bag" / "bag_003.png").read_bytes())
    (notice,) = (n for n in folder(tmp_path, split="leave-one-out").notices if "byte for byte" in n)
    assert notice.startswith("2 query images are byte for byte in train or gallery, as another image")


@pytest.mark.parametrize(
    ("names", "offer", "sizes"),
    [
        (("train", "val", "test"), "train:train,val:gallery,test:query", [4, 4, 4]),
        (("Training", "Validation", "Test"), "Training:train,Validation:gallery,Test:query", [4, 4, 4]),
        (("train", "test"), "train:train+gallery,test:query", [4, 4, 4]),
        (("index", "query"), "index:gallery,query:query", [0, 4, 4]),
        (("database", "query"), "database:gallery,query:query", [0, 4, 4]),
        (("train", "index", "test"), "train:train,index:gallery,test:query", [4, 4, 4]),
        (("train", "query"), "train:train+gallery,query:query", [4, 4, 4]),
        (("test",), "test:both", [0, 4, 4]),
    ],
)
def test_folders_of_other_names_are_offered_as_a_mapping(
    tmp_path: Path, names: tuple[str, ...], offer: str, sizes: list[int]
) -> None:
    for number, name in enumerate(names):
        for label, seed in (("mug", 0), ("bag", 1)):
            for image in range(2):
                photo(tmp_path / name / label / f"{image}.png", 100 * number + 10 * seed + image)
    with pytest.raises(BenchError, match="look like splits") as caught:
        folder(tmp_path)
    assert f"--dataset folder:splits={offer}" in str(caught.value)
    dataset = parse(DATASETS, f"folder:splits={offer}").build(tmp_path)
    assert [len(split) for split in dataset.splits.values()] == sizes
    assert dataset.label_names == ("bag", "mug")


def test_split_folders_beside_others_are_seen_by_the_labels_that_they_share(tmp_path: Path) -> None:
    for name in ("train", "test"):
        shop(tmp_path / name, {"mug": 3, "bag": 3})
    (tmp_path / "annotations").mkdir()
    with pytest.raises(BenchError, match=r"'test', 'train' in .* look like splits"):
        folder(tmp_path)
    with pytest.raises(BenchError, match=r"splits= maps 'dev', and .* has no such folder"):
        folder(tmp_path, splits="train:train,dev:gallery")


def test_gallery_and_query_in_capitals_are_splits(tmp_path: Path) -> None:
    for number, name in enumerate(("Gallery", "Query")):
        photo(tmp_path / name / "a" / "x.png", number)
        photo(tmp_path / name / "b" / "x.png", 10 + number)
    assert folder(tmp_path).query.ids == ("Query/a/x.png", "Query/b/x.png")


def test_a_test_folder_that_is_gallery_and_query(tmp_path: Path) -> None:
    shop(tmp_path / "train", {"cup": 3})
    shop(tmp_path / "test", {"mug": 3, "bag": 3})
    dataset = folder(tmp_path, splits="train:train,test:both")
    assert dataset.leave_one_out
    assert [len(split) for split in dataset.splits.values()] == [3, 6, 6]


def test_leave_one_out_of_a_folder_that_is_split_already_is_refused(tmp_path: Path) -> None:
    for number, name in enumerate(("gallery", "query")):
        for label in ("a", "b"):
            photo(tmp_path / name / label / "x.png", number)
    with pytest.raises(BenchError, match="is split already, into 'gallery', 'query', so that split=leave-one-out"):
        folder(tmp_path, split="leave-one-out")


def test_a_folder_with_our_name_for_no_label_is_refused(tmp_path: Path) -> None:
    shop(tmp_path, {"cup": 3, "(distractor)": 3})
    with pytest.raises(BenchError, match=r"the label \(distractor\) is ours"):
        folder(tmp_path)


def test_a_mapping_that_leaves_out_all_it_names_is_no_layout(tmp_path: Path) -> None:
    """Else the folder that was to be left out would become a label."""
    for name in ("cats", "dogs", "val"):
        for number in range(3):
            photo(tmp_path / name / f"{number}.png", number)
    with pytest.raises(BenchError, match="leaves out all that it names, 'val'"):
        folder(tmp_path, splits="val:none")
