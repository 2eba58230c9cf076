"""What methods are chosen by: no query of the dataset is in it, and a smaller part asks the same question."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval_bench.core import BenchError, Dataset
from retrieval_bench.tuning.validation import of_other, of_train, parts
from tests.support.splits import a_dataset, a_split

TEN = [label for label in range(10) for _ in range(4)]


def digests(dataset: Dataset, *names: str) -> set[str]:
    splits = dataset.splits
    return {splits[name].images.digest(row) for name in names for row in range(len(splits[name]))}


def test_labels_that_train_lacks_are_asked_for_by_labels_that_it_did_not_learn_from() -> None:
    whole = a_dataset(TEN, [10, 11, 10, 11], [10, 11])
    found = of_train(whole, 0)
    data = found.dataset
    assert not found.shares_labels
    assert set(data.train.labels) & set(data.query.labels) == set()
    assert set(data.query.labels) == set(data.gallery.labels)
    assert len(set(data.query.labels)) == 5
    assert digests(data, "train", "gallery", "query") <= digests(whole, "train")
    assert digests(data, "query") & digests(data, "train", "gallery") == set()


def test_where_the_shop_knows_its_products_other_pictures_of_them_ask() -> None:
    whole = a_dataset(TEN, TEN, list(range(10)))
    found = of_train(whole, 0)
    data = found.dataset
    assert found.shares_labels
    assert data.train.ids == data.gallery.ids
    assert np.bincount(data.query.labels).tolist() == [1] * 10
    assert digests(data, "query") & digests(data, "train") == set()
    assert digests(data, "train", "query") == digests(whole, "train")
    assert of_train(whole, 0).dataset.query.ids == data.query.ids
    assert of_train(whole, 1).dataset.query.ids != data.query.ids


def test_too_little_to_choose_by_is_one_sentence() -> None:
    with pytest.raises(
        BenchError, match="has 3 labels with two images or more; 8 are needed; name other data by --val"
    ):
        of_train(a_dataset([0, 0, 1, 1, 2, 2, 3], [4, 5], [4, 5]), 0)


def test_other_data_must_not_hold_a_query() -> None:
    whole = a_dataset(TEN, [10, 11, 10, 11], [10, 11])
    other = a_dataset([0], [0, 1, 2], [1, 2])
    stolen = a_split("x", [0, 1, 2], [b"new", b"newer", b"query/000"])
    other = other.with_splits({"gallery": stolen, "query": a_split("y", [1, 2])})
    with pytest.raises(BenchError, match="1 images of its gallery are queries of test"):
        of_other(whole, other)
    fine = a_dataset([0], [0, 1, 2], [1, 2])
    fine = fine.with_splits({"gallery": a_split("x", [0, 1, 2]), "query": a_split("y", [1, 2])})
    found = of_other(whole, fine)
    assert found.dataset is fine
    assert found.shares_labels is False


def test_parts_lie_within_each_other_and_the_last_is_all() -> None:
    data = of_train(a_dataset([label for label in range(40) for _ in range(4)], TEN, TEN[:10]), 3).dataset
    small, half, whole = parts(data, 3)
    assert whole is data
    for one, other in ((small, half), (half, whole)):
        assert one.train is other.train
        for name in ("gallery", "query"):
            assert set(one.splits[name].ids) < set(other.splits[name].ids)
    assert len(set(small.query.labels)) == 10
    kept = [row for row, label in enumerate(whole.gallery.labels) if label in set(half.query.labels)]
    assert list(half.gallery.ids) == [whole.gallery.ids[row] for row in kept]


def test_of_few_labels_there_is_the_whole_alone() -> None:
    data = of_train(a_dataset([label for label in range(6) for _ in range(4)], TEN, TEN[:10]), 0).dataset
    assert list(parts(data, 0)) == [data]
