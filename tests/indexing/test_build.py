"""An index is built in one pass over the gallery, whole or not at all."""

from __future__ import annotations

import errno
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from retrieval_bench.core import DISTRACTOR, BadImage, BenchError, Dataset
from retrieval_bench.images import decoding, reading
from retrieval_bench.images.reading import ImageBytes
from retrieval_bench.indexing import describing
from retrieval_bench.indexing.build import build
from retrieval_bench.indexing.index import StoredIndex
from retrieval_bench.system.cache import FeatureCache
from tests.support.faults import every_step
from tests.support.methods import MeanColor, spec
from tests.support.runs import plan
from tests.support.shop import shop


def with_bytes(dataset: Dataset, split: str, row: int, data: bytes) -> Dataset:
    """The dataset with other bytes for one image."""
    one = dataset.splits[split]
    encoded = [data if number == row else one.images.read(number) for number in range(len(one))]
    return replace(dataset, **{split: replace(one, images=ImageBytes(encoded))})  # type: ignore[arg-type]


@pytest.mark.slow(reason="learns a vocabulary")
def test_images_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    data = with_bytes(shop(), "gallery", 1, b"no image")
    data = with_bytes(with_bytes(data, "gallery", 2, data.gallery.images.read(2)[:100]), "query", 0, b"")
    with build(plan(with_bytes(data, "train", 0, b""), "color:words=4"), tmp_path / "own") as index:
        assert index.description.skipped == {"not an image": 1, "damaged": 1}
        assert index.description.notices == ("1 of 12 queries cannot be read and were not asked",)
        snapshot = index.snapshot()
        assert [item.id for item in snapshot.items(snapshot.numbers)] == [
            name for row, name in enumerate(data.gallery.ids) if row not in (1, 2)
        ]
        judged = index.judged("color:words=4")
        assert judged is not None
        assert judged.ids.tolist() == list(data.query.ids[1:])
        assert judged.n_relevant.tolist() == [1, 1, 3, 3, 3, 3, 3, 3, 3, 3, 3]
    nothing = replace(data, gallery=replace(data.gallery, images=ImageBytes([b""] * 12)))
    with pytest.raises(BenchError, match="none of the first images of the gallery, of 12, can be read"):
        build(plan(nothing, "phash"), tmp_path / "none")
    assert [one.name for one in tmp_path.iterdir()] == ["own"]


def test_distractors_are_items_without_label(tmp_path: Path) -> None:
    data = shop()
    labels = data.gallery.labels.copy()
    labels[:3] = 4
    data = replace(data, gallery=replace(data.gallery, labels=labels), label_names=(*data.label_names, DISTRACTOR))
    with build(plan(data, "phash"), tmp_path / "own") as index:
        assert [item.label for item in index.snapshot().items([1, 3, 4])] == [None, None, "product-1"]
        judged = index.judged("phash")
        assert judged is not None
        assert judged.n_relevant[:3].tolist() == [0, 0, 0]
        assert not judged.right[:3].any()


def test_an_image_may_show_several_things(tmp_path: Path) -> None:
    data = shop()
    others = np.full((12, 2), -1, np.int64)
    others[0] = 2, 3
    data = replace(data, gallery=replace(data.gallery, other_labels=others, other_categories=others * 0 - 1))
    with build(plan(data, "phash"), tmp_path / "own") as index:
        snapshot = index.snapshot()
        assert snapshot.item(1).other_labels == ("product-2", "product-3")
        assert snapshot.where(labels=["product-3"]).tolist() == [1, 10, 11, 12]
        assert snapshot.where(labels=["product-0"], not_labels=["product-2"]).tolist() == [2, 3]
        judged = index.judged("phash")
        assert judged is not None
        assert judged.n_relevant.tolist() == [3] * 6 + [4] * 6
        assert not index.verify().problems


def test_a_query_of_the_gallery_does_not_find_itself(tmp_path: Path) -> None:
    data = replace(shop(), query=shop().gallery, leave_one_out=True)
    with build(plan(data, "phash"), tmp_path / "own") as index:
        judged = index.judged("phash")
        assert judged is not None
        assert (judged.numbers[:, :11] != np.arange(1, 13)[:, None]).all()
        assert judged.numbers[:, 11].tolist() == [-1] * 12


def test_an_image_is_read_and_decoded_once_for_all_methods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: Counter[bytes] = Counter()
    really = decoding.decoded

    def counted(data: bytes, how: decoding.Decoding) -> decoding.Decoded:
        seen[data] += 1
        return really(data, how)

    data = shop()
    build(plan(data, "phash", "hsv", "phash+hsv+rrf"), tmp_path / "first").close()  # loads what it needs
    monkeypatch.setattr(describing, "decoded", counted)
    cached = plan(data, "phash", "hsv", "phash+hsv+rrf", cache=FeatureCache(tmp_path / "cache"))
    build(cached, tmp_path / "own").close()
    assert set(seen.values()) == {1}
    assert len(seen) == len(data.gallery) + len(data.query)
    build(replace(cached, methods=cached.methods[:2]), tmp_path / "again").close()
    assert set(seen.values()) == {1}  # the cache knew all
    files = [tmp_path / name / "features" / "0" / "1-0.bin" for name in ("own", "again", "first")]
    assert len({file.read_bytes() for file in files}) == 1


@pytest.mark.slow(reason="learns a vocabulary")
def test_who_learns_from_the_gallery_decodes_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: Counter[bytes] = Counter()
    really = decoding.decoded

    def counted(data: bytes, how: decoding.Decoding) -> decoding.Decoded:
        seen[data] += 1
        return really(data, how)

    for module in (describing, reading):
        monkeypatch.setattr(module, "decoded", counted)
    data = shop()
    with build(plan(data, "sift:words=4", "phash+hsv", learn_from="gallery"), tmp_path / "own") as index:
        assert index.methods[0].name == "sift:words=4[gallery]"
        assert {method.facts.learned_from for method in index.methods} == {data.gallery.content}
        assert sum(seen[data.gallery.images.read(row)] for row in range(12)) == 12


@pytest.mark.parametrize(("dtype", "size"), [("float32", 4), ("float16", 2), ("int8", 1)])
def test_numbers_are_kept_as_asked_and_bits_as_bits(tmp_path: Path, dtype: str, size: int) -> None:
    data = shop(3, 3)
    with build(plan(data, "phash", "hsv", "phash+hsv"), tmp_path / "own", dtype=dtype) as index:  # type: ignore[arg-type]
        phash, hsv, joined = index.methods
        width = hsv.facts.arrays[0].width
        assert (phash.bytes_per_item, hsv.bytes_per_item) == (8, size * width)
        assert joined.bytes_per_item == 8 + size * width
        snapshot = index.snapshot()
        query = data.gallery.images[4]
        for method in index.methods:
            found = snapshot.search(method.text, method.describe([query]), 9)
            assert found.indices[0, 0] == 5
            assert found.distances[0, 0] <= (1e-3 if method.text != "phash+hsv" else 0)
        assert not index.verify().problems


def test_what_is_there_is_replaced_only_where_that_is_asked_for(tmp_path: Path) -> None:
    one = plan(shop(), "phash")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "dear.jpg").touch()
    with pytest.raises(BenchError, match="is there already; name another, or replace an index by --overwrite"):
        build(one, tmp_path / "photos")
    with pytest.raises(BenchError, match="is no index, so --overwrite does not replace it"):
        build(one, tmp_path / "photos", overwrite=True)
    (tmp_path / "own").mkdir()
    build(one, tmp_path / "own").close()
    with StoredIndex.open(tmp_path / "own", check_recipe=False) as reader:
        build(plan(shop(3, 3), "phash"), tmp_path / "own", overwrite=True).close()
        assert len(reader.snapshot()) == 12  # it goes on with what it has opened
    with StoredIndex.open(tmp_path / "own", check_recipe=False) as index:
        assert len(index.snapshot()) == 9


class Stops(MeanColor):
    def transform(self, images: Sequence[np.ndarray]) -> np.ndarray:
        if len(images) > 3:  # the probes are described, the gallery is not
            raise KeyboardInterrupt
        return super().transform(images)


def test_what_is_not_finished_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        build(plan(shop(), spec("stops", Stops)), tmp_path / "own")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow(reason="an index is built for each step that fails")
def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    told: list[str] = []
    one = plan(shop(2, 2), "phash")

    def attempt() -> None:
        try:
            build(one, home / "own").close()
        except BenchError as error:
            told.append(str(error))

    for disk in every_step(home, attempt, errno.ENOSPC):
        if disk.broken not in ("unlink", "rmdir"):  # what cannot be removed is not in the way
            assert (home / "own").exists() or "own: cannot be written (No space left on device)" in told[-1]
            for name in home.iterdir():
                assert name.name == "own"
        if (home / "own").exists():
            with StoredIndex.open(home / "own", check_recipe=False) as index:
                assert not index.verify().problems
            shutil.rmtree(home / "own")
    assert len(told) > 5


def test_an_image_that_becomes_unreadable_is_no_crash(tmp_path: Path) -> None:
    with build(plan(shop(), "phash"), tmp_path / "own") as index:
        item = index.snapshot().item(1)
        with pytest.raises(BadImage, match="the dataset has it"):
            index.read(item)
