from __future__ import annotations

import numpy as np
import pytest

from retrieval_bench.core import Setup, Split
from retrieval_bench.extractors.controls import Oracle
from retrieval_bench.images.reading import ImageBytes
from retrieval_bench.registry import EXTRACTORS


def labelled(labels: list[int]) -> Split:
    n = len(labels)
    return Split(tuple(map(str, range(n))), np.array(labels, np.int64), ImageBytes([b""] * n))


def test_oracle_codes_are_equal_exactly_where_labels_are() -> None:
    labels = [0, 1, 2, 1, 2**40, 0, 2**62]
    codes = Oracle().transform_split(labelled(labels))
    assert codes.shape == (7, 8)
    assert codes.dtype == np.uint8
    distances = np.unpackbits(codes[:, None] ^ codes[None], axis=2).sum(axis=2)
    np.testing.assert_array_equal(distances == 0, np.equal.outer(labels, labels))


def test_oracle_codes_of_many_labels_are_all_different_and_well_mixed() -> None:
    codes = Oracle().transform_split(labelled(list(range(5000))))
    assert len(np.unique(codes, axis=0)) == 5000
    assert np.unpackbits(codes, axis=1).mean(axis=0) == pytest.approx(0.5, abs=0.05)


def test_oracle_takes_no_images() -> None:
    with pytest.raises(TypeError, match="transform_split"):
        EXTRACTORS["oracle"].build(Setup()).transform([np.zeros((2, 2, 3), np.uint8)])


def test_random_depends_on_pixels_shape_and_seed_and_on_nothing_else() -> None:
    image = np.zeros((4, 6, 3), np.uint8)
    touched = image.copy()
    touched[3, 5, 2] = 1
    images = [image, touched, image.reshape(6, 4, 3), image.copy()]
    rows = EXTRACTORS["random"].build(Setup(seed=1)).transform(images)
    assert len(np.unique(rows, axis=0)) == 3
    np.testing.assert_array_equal(rows[0], rows[3])
    assert not np.array_equal(rows, EXTRACTORS["random"].build(Setup(seed=2)).transform(images))


def test_random_finds_neighbours_by_chance() -> None:
    # Four neighbouring brightnesses to a label: a method that saw brightness would nearly always be right.
    rows = EXTRACTORS["random"].build(Setup()).transform([np.full((1, 2, 3), v, np.uint8) for v in range(256)])
    similar = rows @ rows.T / np.outer(np.linalg.norm(rows, axis=1), np.linalg.norm(rows, axis=1))
    np.fill_diagonal(similar, -2)
    labels = np.arange(256) // 4
    assert (labels[similar.argmax(axis=1)] == labels).mean() < 0.08
