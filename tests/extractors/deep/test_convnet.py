"""convnet: it learns, it repeats itself on any number of threads, and it takes what train splits can be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import retrieval_bench.extractors  # noqa: F401 - registers the methods
from retrieval_bench.core import BenchError, Setup, Split
from retrieval_bench.images.reading import ImageBytes, encode_png
from retrieval_bench.registry import EXTRACTORS
from tests.support.shop import shop, split


def convnet(threads: int = 1, seed: int = 0, **options: Any) -> Any:
    return EXTRACTORS["convnet"].build(Setup(seed=seed, threads=threads), **{"side": 32, "width": 8, **options})


def accuracy(extractor: Any, gallery: Split, query: Split) -> float:
    known, asked = (extractor.transform([part.images[row] for row in range(len(part))]) for part in (gallery, query))
    return float((gallery.labels[(asked @ known.T).argmax(1)] == query.labels).mean())


@pytest.mark.slow(reason="trains a network")
def test_it_learns_what_an_untrained_one_does_not_know() -> None:
    """Colour is the same for all; what differs is which way stripes run, from anywhere in the image."""

    def striped(labels: list[int], first: int) -> Split:
        images = []
        for row, label in enumerate(labels):
            rng = np.random.default_rng(first + row)
            axes = np.meshgrid(np.arange(48), np.arange(48), indexing="ij")
            angle = label * np.pi / 4
            wave = np.sin(0.9 * (axes[0] * np.cos(angle) + axes[1] * np.sin(angle)) + rng.uniform(0, 6))
            pixels = 128 + 50 * wave[:, :, None] + rng.normal(0, 40, (48, 48, 3)) + rng.uniform(-40, 40, 3)
            images.append(encode_png(np.clip(pixels, 0, 255).astype(np.uint8)))
        return Split(tuple(f"{first}/{row}" for row in range(len(labels))), np.array(labels), ImageBytes(images))

    labels = [label for label in (0, 2) for _ in range(12)]
    train, gallery, query = (striped(labels, first) for first in (0, 1000, 2000))
    trained = convnet(epochs=40).fit(train)
    assert accuracy(trained, gallery, query) > 0.9
    shuffled = Split(train.ids, np.random.default_rng(0).permutation(train.labels), train.images)
    assert accuracy(convnet(epochs=40).fit(shuffled), gallery, query) < accuracy(trained, gallery, query)


def test_threads_change_nothing_and_the_seed_does() -> None:
    train = shop(3, 4).train
    one, two, other = (convnet(*given, epochs=2).fit(train).weights_ for given in ((1, 0), (2, 0), (1, 1)))
    np.testing.assert_array_equal(one, two)
    assert (one != other).any()
    assert one.dtype == np.float32
    assert one.ndim == 1


@pytest.mark.parametrize("labels", [[0], [0, 0, 0], [0, 1, 2, 3, 4]])
def test_any_train_split_will_do(labels: list[int]) -> None:
    extractor = convnet(epochs=1).fit(split("train", labels))
    images = [np.zeros((1, 1, 3), np.uint8), np.full((9, 400, 3), 200, np.uint8)]
    features = extractor.transform(images)
    assert features.shape == (2, 256)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)


def test_it_tells_how_far_it_has_come() -> None:
    extractor, told = convnet(epochs=3), []
    extractor.progress = lambda what, done, total: told.append((what, done, total))
    extractor.fit(shop(2, 4).train)
    assert told[-1] == ("training, epoch 3 of 3", 3, 3)
    assert len(told) == 3


def test_options_that_cannot_be() -> None:
    with pytest.raises(BenchError, match="convnet: side=8 must be at least 16"):
        convnet(side=8)
    with pytest.raises(BenchError, match="convnet: epochs=-1 must be at least 0"):
        convnet(epochs=-1)
