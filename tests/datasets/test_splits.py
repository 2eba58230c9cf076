"""The splitting rule, what is noticed about splits, and --limit."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from retrieval_bench.core import BenchError, Dataset
from retrieval_bench.datasets.splits import content_split, divide, limit, observations, parse_shares
from tests.support.splits import a_dataset, a_split


def test_shares_are_read() -> None:
    assert parse_shares("70/15/15") == (70, 15, 15)
    assert parse_shares("0/50/50") == (0, 50, 50)
    assert parse_shares(" 98 / 1 / 1 ") == (98, 1, 1)


@pytest.mark.parametrize(
    "text",
    ["", "70/30", "70/15/15/0", "70/15/16", "100/0/0", "85/15/0", "85/0/15", "0.7/0.15/0.15", "-10/60/50", "a/b/c"],
)
def test_shares_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(BenchError, match="whole percent that sum to 100"):
        parse_shares(text)


def test_the_ends_of_the_intervals() -> None:
    def digest(fraction: float) -> str:
        return f"{int(fraction * 2**64):016x}" + "f" * 48

    shares = (50, 25, 25)
    at = {0.0: "train", 0.4999: "train", 0.5: "gallery", 0.7499: "gallery", 0.75: "query", 0.9999: "query"}
    for fraction, name in at.items():
        assert content_split(digest(fraction), shares) == name
    assert content_split("0" * 64, (0, 50, 50)) == "gallery"
    assert content_split("f" * 64, (98, 1, 1)) == "query"


def test_these_contents_go_where_they_always_went() -> None:
    """A change here moves everybody's images: it is a new rule and needs a new name."""
    names = [content_split(hashlib.sha256(bytes([i])).hexdigest(), (70, 15, 15)) for i in range(12)]
    assert names == [
        "train",
        "train",
        "query",
        "train",
        "query",
        "query",
        "train",
        "gallery",
        "gallery",
        "train",
        "train",
        "query",
    ]


def test_every_label_is_divided_in_the_same_proportions() -> None:
    for label in range(5):
        names = [content_split(hashlib.sha256(f"{label}/{i}".encode()).hexdigest(), (70, 15, 15)) for i in range(4000)]
        shares = [names.count(name) / 4000 for name in ("train", "gallery", "query")]
        np.testing.assert_allclose(shares, [0.7, 0.15, 0.15], atol=4 * 0.46 / np.sqrt(4000))


def test_divide_keeps_rows_together_and_in_order() -> None:
    whole = a_split("all", [0, 1, 0, 1, 2])
    splits = divide(whole, ["query", "train", "query", "gallery", "train"])
    assert {name: split.ids for name, split in splits.items()} == {
        "train": ("all/001", "all/004"),
        "gallery": ("all/003",),
        "query": ("all/000", "all/002"),
    }
    assert splits["train"].labels.tolist() == [1, 2]
    assert splits["train"].images.read(1) == b"all/004"


def test_nothing_odd_gives_no_notice() -> None:
    assert observations(a_dataset([0, 1], [0, 1], [0, 1])) == ()


def test_what_is_odd_is_noticed() -> None:
    no_train, no_gallery, no_query = observations(a_dataset([], [0, 1, 3], [0, 0, 2, 2]))
    assert "no train image" in no_train
    assert "1 labels have queries but no gallery image" in no_gallery
    assert "'label2'" in no_gallery
    assert "2 labels have gallery images but no query: 'label1', 'label3'" in no_query


def test_a_query_that_train_or_gallery_holds_byte_for_byte_is_noticed() -> None:
    dataset = Dataset(
        "test",
        train=a_split("train", [0, 1], [b"a", b"b"]),
        gallery=a_split("gallery", [0, 1], [b"c", b"d"]),
        query=a_split("query", [0, 0, 1, 1], [b"b", b"e", b"d", b"e"]),
        label_names=("x", "y"),
    )
    (notice,) = observations(dataset)
    assert "2 query images are byte for byte" in notice
    assert "'query/000', 'query/002'" in notice


def test_limit_is_even_over_labels_and_keeps_them_together() -> None:
    labels = [0] * 9 + [1] * 2 + [2] * 5
    small = limit(a_dataset(labels, labels, labels), 8)
    for split in small.splits.values():
        assert np.bincount(split.labels).tolist() == [3, 2, 3]
        of_zero = sorted(hashlib.sha256(f"{split.ids[0][:-3]}{row:03}".encode()).hexdigest() for row in range(9))
        assert sorted(split.images.digest(row) for row in range(3)) == of_zero[:3]
    assert small.notices == ("limited to 8 images per split: 24 of 48 images are used",)


def test_limit_takes_the_same_by_content_whatever_the_order_and_the_names_of_rows() -> None:
    dataset = a_dataset([0, 1], [0, 0, 0, 1, 1, 1], [0, 1])
    turned = dataset.with_splits({"gallery": dataset.gallery.take([5, 4, 3, 2, 1, 0])})
    kept = limit(dataset, 2).gallery
    assert sorted(limit(turned, 2).gallery.ids) == sorted(kept.ids)
    renamed = replace(dataset.gallery, ids=tuple(f"{9 - row}" for row in range(6)))
    again = limit(dataset.with_splits({"gallery": renamed}), 2).gallery
    assert [again.images.digest(row) for row in range(2)] == [kept.images.digest(row) for row in range(2)]


@pytest.mark.parametrize("cameras", [4, 3])
def test_limit_keeps_the_proportions_of_attributes(cameras: int) -> None:
    """Names go by camera, as where each was written to a folder of its own: one camera must not be all that is left."""
    labels = [label for label in range(100) for _ in range(cameras)]
    rows = np.arange(len(labels))
    known = {
        "camera": (rows % cameras).astype(str).astype(object),
        "light": np.where(rows % 7 == 0, "dark", "day").astype(object),
        "serial": rows.astype(np.float64),
    }
    dataset = a_dataset(labels, labels, labels)
    query = replace(dataset.query, attributes=known)
    small = limit(dataset.with_splits({"query": query}), 100).query
    counts = np.unique(small.attributes["camera"].astype(str), return_counts=True)[1]
    assert counts.tolist() == pytest.approx([100 / cameras] * cameras, abs=3)
    assert np.mean(small.attributes["light"] == "dark") == pytest.approx(1 / 7, abs=0.03)
    assert np.bincount(small.labels).tolist() == [1] * 100


def test_limit_below_the_number_of_labels_keeps_the_same_labels_and_answerable_ones_first() -> None:
    dataset = a_dataset([0, 1, 2, 3, 4], [1, 2, 4, 4], [0, 0, 1, 2, 3, 4])
    small = limit(dataset, 3)
    for split in small.splits.values():
        assert sorted(split.labels.tolist()) == [1, 2, 4]


def test_limit_that_cuts_nothing_changes_nothing() -> None:
    dataset = a_dataset([0, 1], [0, 1, 1], [0, 1])
    assert limit(dataset, 3) is dataset


@pytest.mark.parametrize("n", [-1, 0, 1])
def test_limit_leaves_two_labels(n: int) -> None:
    with pytest.raises(BenchError, match="at least 2"):
        limit(a_dataset([0, 1], [0, 1], [0, 1]), n)


def test_limit_with_leave_one_out_keeps_pairs() -> None:
    shared = a_split("all", [0, 0, 0, 1, 1, 1, 2, 2, 2, 3])
    dataset = Dataset("test", a_split("train", [0]), shared, shared, ("a", "b", "c", "d"), leave_one_out=True)
    small = limit(dataset, 5)
    assert small.query.ids == small.gallery.ids
    assert np.bincount(small.query.labels).tolist() == [2, 2, 1]
    assert small.notices == ("limited to 5 images per split: 6 of 11 images are used",)
    with pytest.raises(BenchError, match="at least 4"):
        limit(dataset, 3)


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=30),
    st.lists(st.integers(0, 5), min_size=1, max_size=30),
    st.integers(2, 12),
)
def test_limit_leaves_no_answerable_query_without_an_answer(gallery: list[int], query: list[int], n: int) -> None:
    assume(len({*gallery, *query}) > 1)
    dataset = a_dataset([0, 1, 2, 3, 4, 5], gallery, query)
    small = limit(dataset, n)
    assert all(len(split) == min(n, len(dataset.splits[name])) for name, split in small.splits.items())
    answerable = set(small.query.labels.tolist()) & set(gallery)
    assert answerable <= set(small.gallery.labels.tolist())
