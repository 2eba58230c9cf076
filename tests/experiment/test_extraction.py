from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from retrieval_bench.core import BenchError, Split
from retrieval_bench.experiment.extraction import CHUNK, Extracted, Watched, checked, extract
from retrieval_bench.images.reading import ImageBytes
from retrieval_bench.system.cache import FeatureCache
from tests.support.methods import MeanColor
from tests.support.shop import shop, split


def run(
    extractor: object, part: Split, cache: FeatureCache | None = None, threads: int = 2, seen: list | None = None
) -> Extracted:
    def progress(done: int, total: int) -> None:
        if seen is not None:
            seen.append((done, total))

    return extract(extractor, part, threads=threads, cache=cache or FeatureCache(None), key="0" * 64, progress=progress)


def test_features_are_in_row_order_for_every_thread_count() -> None:
    part = shop(6, 7).gallery
    wanted = MeanColor().transform([part.images[row] for row in range(len(part))])
    for threads in (1, 2, 5):
        np.testing.assert_array_equal(run(MeanColor(), part, threads=threads).features, wanted)


def test_an_image_that_occurs_twice_is_computed_once() -> None:
    part = shop().gallery
    images = ImageBytes([part.images.read(0)] * len(part))
    extractor = MeanColor()
    found = run(extractor, Split(part.ids, part.labels, images))
    assert extractor.seen == found.computed == 1
    assert found.features.shape == (len(part), 3)
    assert np.unique(found.features, axis=0).shape == (1, 3)


def test_what_is_stored_is_not_computed(tmp_path: Path) -> None:
    cache, part = FeatureCache(tmp_path), shop(4, 6).gallery
    first = run(MeanColor(), part.take(range(10)), cache)
    assert (first.computed, first.from_cache) == (10, 0)
    extractor = MeanColor()
    second = run(extractor, part, cache)
    assert (second.computed, second.from_cache, extractor.seen) == (14, 10, 14)
    np.testing.assert_array_equal(second.features, run(MeanColor(), part).features)


def test_what_was_computed_before_an_error_is_stored(tmp_path: Path) -> None:
    class Breaks(MeanColor):
        lock = threading.Lock()

        def transform(self, images: Sequence[np.ndarray]) -> np.ndarray:
            with self.lock:
                if self.seen >= 2 * CHUNK:
                    raise KeyboardInterrupt
                return super().transform(images)

    cache, part = FeatureCache(tmp_path), shop(6, 7).gallery
    with pytest.raises(KeyboardInterrupt):
        run(Breaks(), part, cache, threads=1)
    assert run(MeanColor(), part, cache).from_cache >= CHUNK


def test_progress_ends_at_the_total() -> None:
    seen: list[tuple[int, int]] = []
    part = shop(5, 5).gallery
    run(MeanColor(), part, seen=seen)
    assert seen[-1] == (25, 25)
    assert seen == sorted(seen)


def test_a_method_that_looks_at_labels_gets_the_split() -> None:
    class Labels(MeanColor):
        def transform_split(self, part: Split) -> np.ndarray:
            return part.labels[:, None].astype(np.float32)

    part = split("x", [3, 1, 2])
    assert run(Labels(), part).features.tolist() == [[3], [1], [2]]


def test_nan_and_broken_contracts_are_refused() -> None:
    with pytest.raises(BenchError, match="NaN or infinite"):
        checked(np.array([[np.nan]], np.float32), 1, "cosine")
    for features in (np.zeros((2, 3)), np.zeros(3, np.float32), np.zeros((1, 3), np.float32)):
        with pytest.raises(ValueError, match="the extractor returned"):
            checked(features, 2, "cosine")
    with pytest.raises(ValueError, match="expected uint8"):
        checked(np.zeros((2, 8), np.float32), 2, "hamming")


def test_features_of_different_lengths_are_refused() -> None:
    class Uneven(MeanColor):
        def transform(self, images: Sequence[np.ndarray]) -> np.ndarray:
            self.seen += 1
            return np.zeros((len(images), self.seen), np.float32)

    with pytest.raises(ValueError, match="different shapes"):
        run(Uneven(), shop(6, 7).gallery, threads=1)


def test_watched_images_are_the_same_images_and_are_counted() -> None:
    images, seen = shop().train.images, []
    watched = Watched(images, seen.append)
    np.testing.assert_array_equal(watched[3], images[3])
    np.testing.assert_array_equal(watched[3], images[3])
    assert seen == [1, 2]
    assert (watched.read(1), watched.digest(1), len(watched)) == (images.read(1), images.digest(1), len(images))
    assert watched.take([2, 1]).digest(0) == images.digest(2)
