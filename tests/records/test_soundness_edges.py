"""The first number that no sound record holds, and the last that one does."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval_bench.records.validation import fault

GALLERY, QUERIES = 4, 2


def arrays(**changes: list) -> dict[str, np.ndarray]:
    sound = {
        "gallery_ids": np.array([f"g{row}" for row in range(GALLERY)]),
        "gallery_labels": np.array([0, 1, 2, 2]),
        "label_names": np.array(["a", "b", "c"]),
        "query_ids": np.array(["q0", "q1"]),
        "query_labels": np.array([0, 2]),
        "n_relevant": np.array([1, 2]),
        "query_categories": np.array([0, 1]),
        "category_names": np.array(["x", "y"]),
        "sift/indices": np.array([[0, GALLERY - 1], [3, -1]]),
        "sift/distances": np.array([[0.0, 1.0], [0.5, np.inf]], np.float32),
    }
    return sound | {name.replace("__", "/"): np.array(value) for name, value in changes.items()}


def test_the_last_row_and_padding_are_sound() -> None:
    assert fault(arrays(), ["sift"]) == ""
    equal = {"sift__distances": [[0.5, 0.5], [np.inf, np.inf]]}
    assert fault(arrays(**equal), ["sift"]) == ""
    below_zero = {"sift__distances": [[-7, -2], [-1, 3]]}
    assert fault(arrays(**below_zero), ["sift"]) == ""
    nothing = {"sift__indices": [[0, 1], [-1, -1]], "sift__distances": [[0.0, 1.0], [np.inf, np.inf]]}
    assert fault(arrays(**nothing), ["sift"]) == ""


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sift__indices": [[0, GALLERY], [3, -1]]}, "rows that the gallery of 4 images does not have"),
        ({"sift__indices": [[0, 1], [3, -2]]}, "rows that the gallery of 4 images does not have"),
        ({"sift__indices": [[2, 2], [3, -1]]}, "sift/indices names an image twice for one query"),
        ({"query_labels": [0, 3]}, "query_labels holds labels that have no name"),
        ({"gallery_labels": [0, 1, 2, 3]}, "gallery_labels holds labels that have no name"),
        ({"query_labels": [0, -1]}, "query_labels holds labels that have no name"),
        ({"query_categories": [0, 2]}, "categories that have no name"),
        ({"sift__distances": [[0.0, np.nan], [0.5, np.inf]]}, "holds what is no number"),
        ({"sift__distances": [[0.0, 1.0], [np.inf, 0.5]]}, "sift/distances of the query 'q1' do not ascend"),
        ({"sift__distances": [[1.0, 0.5], [0.5, np.inf]]}, "sift/distances of the query 'q0' do not ascend"),
    ],
)
def test_one_beyond_is_told(changes: dict[str, list], said: str) -> None:
    assert said in fault(arrays(**changes), ["sift"])
