"""Bad images are found once, left out, listed, and too many of them stop the run."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from retrieval_bench.core import BenchError, Dataset, Split
from retrieval_bench.images.reading import ImageFiles, encode_png
from retrieval_bench.images.screening import SkippedImage, refuse_too_many, screen
from tests.support.nasty import photo, picture, write_all_bad
from tests.support.splits import counted_dataset


def test_a_good_dataset_stays_itself() -> None:
    dataset = counted_dataset([], train=[], gallery=["x0", "x1"], query=["y0", "y1"])
    assert screen(dataset) == (dataset, ())


def test_bad_images_are_left_out_of_every_split_and_decoded_once() -> None:
    decoded: list[str] = []
    both = ["x0", "bad0", "x1", "x0"]
    dataset = counted_dataset(decoded, train=both, gallery=both, query=["bad1", "y1"])
    screened, skipped = screen(dataset, threads=2)
    assert sorted(decoded) == ["bad0", "bad1", "x0", "x1", "y1"]
    assert skipped == (
        SkippedImage("train", "train/1", "damaged", "bad0 is damaged"),
        SkippedImage("gallery", "gallery/1", "damaged", "bad0 is damaged"),
        SkippedImage("query", "query/0", "damaged", "bad1 is damaged"),
    )
    assert screened.gallery.ids == ("gallery/0", "gallery/2", "gallery/3")
    assert screened.train.labels.tolist() == [0, 1, 0]
    assert screened.query.ids == ("query/1",)
    assert screened.notices == ()


def test_a_second_run_decodes_only_what_was_bad() -> None:
    decoded: list[str] = []
    dataset = counted_dataset(decoded, train=["x0"], gallery=["x0", "x1", "bad1"], query=["y0"])
    looks: dict[str, tuple[int, int, int]] = {}
    first = screen(dataset, looks)
    assert looks == {"x0": (3, 4, 0), "x1": (3, 4, 0), "y0": (3, 4, 0)}
    decoded.clear()
    second = screen(dataset, looks)
    assert decoded == ["bad1"]
    assert first[1] == second[1]
    assert first[0].fingerprint == second[0].fingerprint


def test_what_was_found_is_handed_over_when_it_is_interrupted() -> None:
    dataset = counted_dataset([], train=["x0"], gallery=["x0", "x1", "x2"], query=["y0"])
    kept: dict[str, tuple[int, int, int]] = {}

    def progress(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        screen(dataset, {}, 1, progress, kept.update)
    assert kept == {"x0": (3, 4, 0), "x1": (3, 4, 0)}


def test_progress_ends_at_the_number_of_contents_in_the_calling_thread() -> None:
    calls: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        assert threading.current_thread() is threading.main_thread()
        calls.append((done, total))

    dataset = counted_dataset([], train=["x0"], gallery=["x0", "x1"], query=["y0", "bad1"])
    screen(dataset, {"x1": (3, 4, 0)}, 2, progress)
    assert calls == [(2, 4), (3, 4), (4, 4)]


def test_a_label_that_lost_its_gallery_is_noticed() -> None:
    dataset = counted_dataset([], train=[], gallery=["x0", "bad1", "bad-2", "x2"], query=["y0", "y1", "y2"])
    screened, skipped = screen(dataset)
    assert len(skipped) == 2
    assert screened.notices == ("label 'b' has no usable gallery image, so its queries have nothing to find",)


@pytest.mark.parametrize(
    ("gallery", "query", "sentence"),
    [(["bad0", "bad1"], ["x0"], "the gallery split holds no image"), (["x0", "bad1"], ["y0"], "labelled 'a'")],
)
def test_where_no_dataset_is_left_the_bad_images_are_named(gallery: list[str], query: list[str], sentence: str) -> None:
    with pytest.raises(BenchError, match=sentence) as caught:
        screen(counted_dataset([], train=[], gallery=gallery, query=query))
    assert "damaged" in str(caught.value)
    assert "gallery/" in str(caught.value)


def test_our_own_bugs_keep_their_traceback() -> None:
    dataset = counted_dataset([], train=[], gallery=["x0", "x1"], query=["y0"])
    dataset.query.images.contents[0] = None  # type: ignore[attr-defined]
    with pytest.raises(AttributeError):
        screen(dataset)


@pytest.mark.parametrize("threads", [1, 3])
def test_real_files_of_every_bad_kind(tmp_path: Path, threads: int) -> None:
    reasons = write_all_bad(tmp_path)
    names = [*sorted(reasons), "good.png", "other.png"]
    photo(tmp_path / "good.png", 0)
    photo(tmp_path / "other.png", 1)
    (tmp_path / "query.png").write_bytes(encode_png(picture(2)))
    labels = np.arange(len(names)) % 2
    held = Split(tuple(names), labels, ImageFiles([tmp_path / name for name in names]))
    query = Split(("query.png",), np.array([0]), ImageFiles([tmp_path / "query.png"]))
    screened, skipped = screen(Dataset("test", held.take([]), held, query, ("a", "b")), threads=threads)
    assert {bad.id: bad.reason for bad in skipped} == reasons
    assert [bad.id for bad in skipped] == sorted(reasons)
    assert all(bad.detail for bad in skipped)
    assert screened.gallery.ids == ("good.png", "other.png")


def test_links_that_dangle_each_say_where_to(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.jpg").symlink_to(f"{name}-gone.jpg")
    photo(tmp_path / "good.png")
    paths = [tmp_path / name for name in ("good.png", "one.jpg", "two.jpg")]
    held = Split(("good", "one", "two"), np.array([0, 1, 1]), ImageFiles(paths))
    query = Split(("query",), np.array([1]), ImageFiles([photo(tmp_path / "q.png", 1)]))
    _, skipped = screen(Dataset("test", held.take([]), held, query, ("a", "b")))
    assert [bad.detail for bad in skipped] == ["it points to one-gone.jpg", "it points to two-gone.jpg"]


def test_one_percent_is_allowed_and_more_is_refused() -> None:
    bad = [
        SkippedImage("gallery", f"g/{i}", reason, "...")
        for i, reason in enumerate(["damaged", "damaged", "empty file"])
    ]
    refuse_too_many([], 0, 0.0)
    refuse_too_many(bad[:1], 100, 0.01)
    refuse_too_many(bad, 3, 1.0)
    with pytest.raises(BenchError) as caught:
        refuse_too_many(bad, 299, 0.01)
    assert str(caught.value) == (
        "3 of 299 images cannot be used (2 damaged, 1 empty file), more than --max-bad 0.01 allows; "
        "repair or remove them, or raise --max-bad; the first: g/0 (damaged), g/1 (damaged), g/2 (empty file)"
    )
    with pytest.raises(BenchError):
        refuse_too_many(bad[:1], 99, 0.01)
    refuse_too_many(bad[:1] * 29, 100, 0.29)  # where 0.29 * 100 < 29
