from __future__ import annotations

import numpy as np
import pytest

from retrieval_bench.core import BenchError, Dataset, Judged, Split
from retrieval_bench.images.reading import ImageBytes
from tests.support.shop import shop, split


def test_fingerprint_follows_ids_labels_and_bytes() -> None:
    data = shop()
    assert data.fingerprint == shop().fingerprint
    renamed = data.with_splits({"query": split("query", data.query.labels.tolist(), 3000)})
    assert renamed.fingerprint != data.fingerprint
    q = data.query
    relabelled = data.with_splits({"query": Split(q.ids, np.roll(q.labels, 1), q.images, q.categories)})
    assert relabelled.fingerprint != data.fingerprint
    swapped = ImageBytes(q.images.encoded[::-1])
    repainted = data.with_splits({"query": Split(q.ids, q.labels, swapped, q.categories)})
    assert repainted.fingerprint != data.fingerprint


def test_fingerprint_follows_label_names() -> None:
    data = shop()
    names = tuple(f"other-{name}" for name in data.label_names)
    other = Dataset("shop", data.train, data.gallery, data.query, names, data.category_names)
    assert other.fingerprint != data.fingerprint


def test_take_keeps_columns_together() -> None:
    data = shop()
    part = data.query.take([5, 0, 7])
    assert part.ids == (data.query.ids[5], data.query.ids[0], data.query.ids[7])
    assert part.labels.tolist() == data.query.labels[[5, 0, 7]].tolist()
    np.testing.assert_array_equal(part.images[2], data.query.images[7])
    assert part.categories is not None
    assert part.categories.tolist() == data.query.categories[[5, 0, 7]].tolist()


def test_a_query_must_be_unseen() -> None:
    data = shop()
    with pytest.raises(BenchError, match="in query and in gallery"):
        data.with_splits({"query": data.gallery})
    with pytest.raises(BenchError, match="in query and in train"):
        data.with_splits({"query": data.train})


def test_leave_one_out_may_share_the_gallery() -> None:
    data = shop()
    shared = Dataset(
        "loo", data.train, data.gallery, data.gallery, data.label_names, data.category_names, leave_one_out=True
    )
    assert shared.query.ids == shared.gallery.ids


def test_leave_one_out_still_may_not_share_train() -> None:
    data = shop()
    with pytest.raises(BenchError, match="in query and in train"):
        Dataset(
            "loo", data.gallery, data.gallery, data.gallery, data.label_names, data.category_names, leave_one_out=True
        )


def test_ids_are_unique_within_a_split() -> None:
    data = shop()
    with pytest.raises(BenchError, match="occurs twice in gallery"):
        data.with_splits({"gallery": data.gallery.take([0, 0, 1])})


def test_one_label_is_refused() -> None:
    with pytest.raises(BenchError, match="at least two labels"):
        shop(n_labels=1)


@pytest.mark.parametrize("name", ["gallery", "query"])
def test_an_empty_split_is_refused(name: str) -> None:
    data = shop()
    with pytest.raises(BenchError, match=f"the {name} split holds no image"):
        data.with_splits({name: data.splits[name].take([])})


def test_train_may_be_empty() -> None:
    data = shop()
    assert len(data.with_splits({"train": data.train.take([])}).train) == 0


def test_columns_must_have_one_entry_an_image() -> None:
    with pytest.raises(ValueError, match="labels has shape"):
        Split(("a",), np.zeros(2, np.int64), ImageBytes([b"x"]))


def test_judged_hits_and_take() -> None:
    judged = Judged(np.array([1, 2]), np.array([[1, 2, -1], [1, 2, 2]]), np.array([1, 2]))
    assert judged.hits.tolist() == [[True, False, False], [False, True, True]]
    twice = judged.take([1, 1, 0])
    assert twice.expected.tolist() == [2, 2, 1]
    assert len(twice) == 3


def test_labels_and_categories_must_have_names() -> None:
    data = shop()
    with pytest.raises(ValueError, match=r"train\.labels runs from 0 to 3 for 2 names"):
        Dataset("shop", data.train, data.gallery, data.query, data.label_names[:2], data.category_names)
    with pytest.raises(ValueError, match=r"train\.categories"):
        Dataset("shop", data.train, data.gallery, data.query, data.label_names, ())
