from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval_bench.core import BenchError, Dataset, Judged, Split
from retrieval_bench.evaluation.metrics import scores
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


def judged_columns(**changes: object) -> dict[str, object]:
    """Two queries of a gallery of 5: label 1 at ranks 0 and 3, label 2 at rank 4, of which 3 ranks were retrieved."""
    columns: dict[str, object] = {
        "expected": np.array([1, 2]),
        "retrieved": np.array([[1, 2, 0], [0, 1, 1]]),
        "n_relevant": np.array([2, 1]),
        "relevant_ranks": np.array([[0, 3], [4, -1]]),
    }
    return columns | {name: np.array(column) for name, column in changes.items()}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"expected": [[1, 2]]}, r"expected has shape \(1, 2\), expected \(2,\)"),
        ({"retrieved": [1, 2]}, r"retrieved has shape \(2,\), expected \(2, k\)"),
        ({"retrieved": [[1, 2, 0]]}, r"retrieved has shape \(1, 3\), expected \(2, k\)"),
        ({"n_relevant": [2, 1, 1]}, r"n_relevant has shape \(3,\), expected \(2,\)"),
        ({"relevant_ranks": [0, 4]}, r"relevant_ranks has shape \(2,\), expected \(2, R\)"),
        ({"expected": [1.0, 2.0]}, "expected is float64, expected whole numbers"),
        ({"retrieved": [[True, False, False]] * 2}, "retrieved is bool, expected whole numbers"),
        ({"expected": [1, -1]}, "query 1 has label -1; labels count from 0"),
        ({"retrieved": [[1, 2, 0], [0, 1, -2]]}, "query 1: retrieved holds -2; only -1 pads"),
        ({"n_relevant": [2, 0]}, "query 1 has nothing relevant in the gallery; leave it out"),
        ({"retrieved": [[1, 2, 0], [0, 2, 2]]}, "query 1 found 2 relevant items, but n_relevant is 1"),
        ({"relevant_ranks": [[0, -1], [4, -1]]}, "query 0: .* not hold a rank for every relevant item, but 1 for 2"),
        ({"relevant_ranks": [[0, 3], [3, 4]]}, "query 1: .* not hold a rank for every relevant item, but 2 for 1"),
        ({"relevant_ranks": [[0], [4]]}, "query 0: .* not hold a rank for every relevant item, but 1 for 2"),
        ({"relevant_ranks": [[0, 3], [-1, 4]]}, "query 1: relevant_ranks must hold the ranks first and then -1 alone"),
        ({"relevant_ranks": [[0, 3], [4, -2]]}, "query 1: relevant_ranks must hold the ranks first and then -1 alone"),
        ({"relevant_ranks": [[3, 0], [4, -1]]}, "query 0: relevant_ranks must ascend, no rank twice"),
        ({"relevant_ranks": [[0, 0], [4, -1]]}, "query 0: relevant_ranks must ascend, no rank twice"),
        ({"relevant_ranks": [[1, 3], [4, -1]]}, "query 0: relevant_ranks and retrieved disagree about which ranks"),
        ({"relevant_ranks": [[0, 2], [4, -1]]}, "query 0: relevant_ranks and retrieved disagree about which ranks"),
        ({"relevant_ranks": [[3, 4], [4, -1]]}, "query 0: relevant_ranks and retrieved disagree about which ranks"),
        ({"expected": "ab"}, r"expected is <U2, expected whole numbers"),
        ({"expected": np.array([2**63, 0], np.uint64)}, f"expected holds {2**63}; the largest number that it may hold"),
        ({"n_relevant": [2**63 - 1, 1]}, f"n_relevant holds {2**63 - 1}; the largest number that it may hold"),
        ({"relevant_ranks": [[0, 2**62], [4, -1]]}, f"relevant_ranks holds {2**62}; the largest number"),
    ],
)
def test_what_is_no_judgement_is_refused(changes: dict, said: str) -> None:
    with pytest.raises(BenchError, match=said) as caught:
        Judged(**judged_columns(**changes))
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("name", ["expected", "retrieved", "n_relevant"])
def test_a_judgement_without_its_arrays_is_refused(name: str) -> None:
    with pytest.raises(BenchError, match=f"{name} is None; give whole numbers"):
        Judged(**{**judged_columns(), name: None})


def test_a_judgement_with_rows_of_different_lengths_is_refused() -> None:
    with pytest.raises(BenchError, match="retrieved has rows of different lengths; pad them with -1"):
        Judged([1, 2], [[1], [1, 2]], [1, 1])
    with pytest.raises(BenchError, match=r"expected has shape \(\), expected \(1,\)"):
        Judged(1, [[1]], [1])


@pytest.mark.parametrize("kind", [TypeError, RuntimeError])
def test_a_judgement_of_what_numpy_cannot_read_is_refused(kind: type[Exception]) -> None:
    """As a tensor of torch that is on a GPU, or has a gradient."""

    class Tensor:
        def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
            raise kind("call detach first")

    said = r"n_relevant is a Tensor that NumPy cannot read \(call detach first\); give an array of NumPy"
    with pytest.raises(BenchError, match=said):
        Judged([1], [[1]], Tensor())
    with pytest.raises(BenchError, match="n_relevant is a masked array"):
        Judged([1], [[1]], np.ma.masked_array([1], [True]))


def test_small_whole_numbers_do_not_wrap_around() -> None:
    """uint8 250 + 10 is 4; int8 127 + 1 is -128."""
    many = Judged(np.array([0]), np.zeros((1, 10), int), np.array([250], np.uint8))
    assert scores(many, [10])["f1@10"] == 20 / 260
    ranked = Judged(np.array([0]), np.zeros((1, 128), int), np.array([128]), np.arange(128, dtype=np.int8)[None])
    assert scores(ranked, [1])["map"] == 1
    columns = {name: column.astype(np.int8) for name, column in judged_columns().items()}
    columns |= {"grades": np.array([[2, 1, 0], [0, 1, 0]], np.uint8), "n_partly": np.array([1, 1], np.uint8)}
    graded = Judged(**columns)
    assert {getattr(graded, name).dtype for name in columns} == {np.dtype(np.int64)}


def test_a_judgement_of_any_whole_numbers_is_taken() -> None:
    judged = Judged(**judged_columns())
    small = {name: column.astype(np.int8) for name, column in judged_columns().items()}
    assert Judged(**small).hits.tolist() == judged.hits.tolist()
    lists = {name: column.tolist() for name, column in judged_columns().items()}
    assert Judged(**lists).take([1]).relevant_ranks.tolist() == [[4, -1]]
    assert len(judged.take([])) == 0
    wider = judged_columns(relevant_ranks=[[0, 3, -1, -1], [4, -1, -1, -1]])
    assert Judged(**wider).relevant_ranks.shape == (2, 4)


@given(st.data())
@pytest.mark.slow(reason="many drawn rankings")
def test_ranks_are_taken_where_the_hits_agree_and_only_there(data: st.DataObject) -> None:
    row = data.draw(st.lists(st.booleans(), min_size=1, max_size=9).filter(any), "is each item of a ranking relevant")
    k = data.draw(st.integers(0, len(row) + 2), "how many are retrieved")
    real = np.flatnonzero(row)
    drawn = data.draw(st.permutations(range(len(row))), "in whose first places other ranks stand")
    others = np.sort(drawn[: len(real)])
    retrieved = np.pad(np.where(row, 7, 3), (0, 2), constant_values=-1)[None, :k]
    columns = np.array([7]), retrieved, np.array([len(real)])
    assert len(Judged(*columns, real[None])) == 1
    if others[others < k].tolist() == real[real < k].tolist():
        assert len(Judged(*columns, others[None])) == 1
    else:
        with pytest.raises(ValueError, match="disagree about which ranks"):
            Judged(*columns, others[None])


def test_labels_and_categories_must_have_names() -> None:
    data = shop()
    with pytest.raises(ValueError, match=r"train\.labels runs from 0 to 3 for 2 names"):
        Dataset("shop", data.train, data.gallery, data.query, data.label_names[:2], data.category_names)
    with pytest.raises(ValueError, match=r"train\.categories"):
        Dataset("shop", data.train, data.gallery, data.query, data.label_names, ())
