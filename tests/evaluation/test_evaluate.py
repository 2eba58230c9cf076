"""Anybody's ranking in three lines: the numbers of a run, from arrays of any kind."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval_bench import BenchError, Dataset, evaluate
from retrieval_bench.experiment.runner import run
from retrieval_bench.records.files import load_rankings
from retrieval_bench.records.schema import Record
from tests.support.runs import plan
from tests.support.shop import shop, split

GALLERY, QUERIES = ["cup", "cup", "hat", "bag", "hat"], ["hat", "cup", "bag", "pen"]
TEXT = np.dtypes.StringDType(na_object=None)
NAMES = sorted(set(QUERIES))
FOUND = [[0, 2, 3], [1, 0, 4], [4, 3, -1], [1, 2, 3]]
"""Four queries, of which nothing answers the last: hats at rank 2; cups at 1 and 2; the bag at 2."""


def alone(labels: list[int]) -> Dataset:
    """Every image of a gallery asks for the others of its label; the label of the last is its own alone."""
    images = split("gallery", [*labels, 5])
    names = tuple(f"product-{label}" for label in range(6))
    return Dataset("loo", split("train", [0, 1], 500), images, images, names, ("even", "odd"), leave_one_out=True)


Made = tuple[Record, dict[str, np.ndarray]]


@pytest.fixture(scope="module", params=["apart", "leave-one-out"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    data = shop(5, 4) if request.param == "apart" else alone([0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 3, 4, 4, 4])
    folder = tmp_path_factory.mktemp("record")
    record = run(plan(data, "phash", "color"), folder)
    return record, load_rankings(folder, record)


@pytest.mark.parametrize("method", ["phash", "color"])
def test_the_numbers_are_those_of_a_run(made: Made, method: str) -> None:
    record, arrays = made
    (row,) = (row for row in record.rows if row.method == method)
    found = evaluate(
        arrays[f"{method}/indices"], arrays["gallery_labels"], arrays["query_labels"], arrays.get("exclude")
    )
    assert "map" in found.scores
    assert found.scores == row.scores
    assert found.intervals == row.intervals
    assert found.unavailable == {}
    assert record.statistics is not None
    assert found.clusters == record.statistics.clusters
    assert found.left_out == 0


def test_a_search_that_finds_the_query_itself_is_scored_without_it(tmp_path: Path) -> None:
    labels = [0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 3, 4, 4, 4]
    record = run(plan(alone(labels), "color"), tmp_path)
    arrays = load_rankings(tmp_path, record)
    assert record.dataset.queries_left_out == 1
    own, every = np.arange(15), [*labels, 5]
    rankings = [[row for row in rows if row >= 0] for rows in arrays["color/indices"].tolist()]
    rankings.append(list(range(14)))  # of the query that the run left out
    itself_first = [[query, *rows] for query, rows in enumerate(rankings)]
    found = evaluate(itself_first, every, every, exclude=own)
    assert found.scores == record.rows[0].scores
    assert found.left_out == 1
    assert found.rows.tolist() == list(range(14))
    six = [rows[:6] for rows in itself_first]
    shallow = evaluate(six, every, every, exclude=own[:, None], k=[5])
    assert shallow.scores["recall@5"] == record.rows[0].scores["recall@5"]
    with pytest.raises(BenchError, match="k 6 is more than the 5 ranks that all queries have"):
        evaluate(six, every, every, exclude=own, k=[6])


def test_by_hand() -> None:
    found = evaluate(FOUND, GALLERY, QUERIES, k=[1, 2])
    assert found.left_out == 1
    assert found.rows.tolist() == [0, 1, 2]
    assert found.clusters == 3
    assert found.per_query["accuracy"].tolist() == [0, 1, 0]
    assert found.per_query["recall@2"].tolist() == [1 / 2, 1, 1]
    assert found.per_query["mrr"].tolist() == [1 / 2, 1, 1 / 2]
    assert found.per_query["map@r"].tolist() == pytest.approx([1 / 4, 1, 0])
    assert found.scores["accuracy"] == 1 / 3
    assert found.intervals["accuracy"].low < 1 / 3 < found.intervals["accuracy"].high
    assert set(found.unavailable) == {"map"}
    lines = str(found).split("\n")
    assert lines[0] == "3 queries of 3 labels; 1 left out"
    assert re.fullmatch(r"accuracy +0\.333  0\.032-0\.841", lines[1])
    assert len(lines) == 1 + len(found.scores)


def test_a_shallow_ranking_lacks_what_needs_more() -> None:
    found = evaluate([[0], [1], [4], [1]], GALLERY, QUERIES)
    assert set(found.unavailable) == {"map", "map@r", "class_mean_map@r"}
    assert {"accuracy", "recall@1", "mrr"} <= set(found.scores)
    assert not {"recall@5", "map", "map@r", "class_mean_map@r"} & set(found.scores)
    assert evaluate([[-1], [1], [4], [1]], GALLERY, QUERIES).per_query["mrr"].tolist() == [0, 1, 0]


def test_one_label_has_no_interval() -> None:
    found = evaluate([[0, 1], [1, 0]], ["cup", "hat"], ["cup", "cup"])
    assert found.clusters == 1
    assert found.intervals == {}
    assert found.scores["map"] == 3 / 4


def test_excluded_rows_are_neither_relevant_nor_found() -> None:
    hidden = [[1, 2], [1, -1], [-1, -1], [0, 0]]
    found = evaluate(FOUND, GALLERY, QUERIES, exclude=hidden)
    assert found.per_query["recall@1"].tolist() == [0, 1, 0]  # the cup that is left; one hat is left, at row 4
    assert found.scores["recall@1"] == 1 / 3
    gone = evaluate(FOUND, GALLERY, QUERIES, exclude=[-1, -1, 3, -1])
    assert gone.left_out == 2
    assert gone.rows.tolist() == [0, 1]


def test_what_one_query_loses_costs_no_other_its_ranks() -> None:
    """Query 4 loses two of four rows; the relevant row of query 3 stands at rank 3, once its own is taken out."""
    indices = [[7, 4, -1, -1], [2, 0, 6, 4], [-1] * 4, [2, 1, 6, 3], [2, 4, 5, 3]]
    hidden = [[0, 5], [4, 3], [4, 0], [7, 1], [3, 4]]
    found = evaluate(indices, [1, 0, 1, 0, 1, 0, 1, 1], [2, 0, 1, 0, 0], exclude=hidden)
    assert found.rows.tolist() == [1, 2, 3, 4]
    assert found.per_query["mrr"].tolist() == [0, 0, 1 / 3, 1 / 2]
    assert "recall@1" in found.scores
    assert "recall@5" not in found.scores


def test_a_query_that_lost_ranks_makes_what_needs_them_unavailable() -> None:
    gallery = [0, 1] * 6
    indices = [[0, 1, 3, 5, 7, 9], [1, 0, 2, 4, 6, 8]]  # the second lost none, and has all of its ranks
    found = evaluate(indices, gallery, [0, 0], exclude=[[0, 1], [-1, -1]])
    reason = "needs the first 5 ranks, and query 0 has 4 beside its excluded rows"
    assert found.unavailable["recall@5"] == reason
    assert not any(name.endswith("@5") for name in found.scores)
    assert "needs the first R items, and query 0 has R = 5 and 4 ranks" in found.unavailable["map@r"]
    for kind in (found.scores, found.per_query, found.intervals):
        assert not {"map@r", "class_mean_map@r", "recall@5"} & set(kind)
    assert found.per_query["mrr"].tolist() == [0, 1 / 2]
    ended = evaluate([[*indices[0][:5], -1], indices[1]], gallery, [0, 0], exclude=[[0, 1], [-1, -1]])
    assert ended.per_query["recall@5"].tolist() == [0, 4 / 6]  # it found nothing more: no rank is missing
    assert set(ended.unavailable) == {"map"}
    with pytest.raises(BenchError, match="no rank of query 1 beside its excluded rows; each query needs at least one"):
        evaluate([[0], [1]], gallery, [0, 0], exclude=[-1, 1])


def test_labels_that_differ_in_trailing_nul_characters_stay_apart() -> None:
    for kind in (list, tuple, lambda labels: np.array(labels, object), lambda labels: np.array(labels, TEXT)):
        found = evaluate([[0, 1]], kind(["a\0", "a"]), kind(["a"]))
        assert found.per_query["mrr"].tolist() == [1 / 2]


def test_objects_that_are_integers_of_numpy_are_labels() -> None:
    gallery = np.array([np.int64(3), np.uint8(4), 5], object)
    found = evaluate([[0, 1, 2]], gallery, np.array([np.int32(4)], object))
    assert found.per_query["mrr"].tolist() == [1 / 2]


@pytest.mark.parametrize(
    "code",
    [
        lambda labels: np.array(labels),
        lambda labels: np.array(labels, object),
        lambda labels: [NAMES.index(label) for label in labels],
        lambda labels: np.array([NAMES.index(label) for label in labels], np.uint8),
        lambda labels: np.array([NAMES.index(label) - 9 for label in labels], object),
        lambda labels: [NAMES.index(label) + 2**63 for label in labels],
    ],
    ids=["str", "object", "list", "uint8", "negative", "uint64"],
)
def test_labels_of_any_kind(code: Any) -> None:
    right = evaluate(FOUND, GALLERY, QUERIES)
    found = evaluate(np.array(FOUND, np.int16), code(GALLERY), code(QUERIES))
    assert found.scores == right.scores
    assert found.intervals == right.intervals


def test_large_numbers_are_not_merged() -> None:
    gallery, queries = np.array([2**60, 2**60 + 1]), np.array([2**60 + 1], np.uint64)
    assert evaluate([[0, 1]], gallery, queries).per_query["mrr"].tolist() == [1 / 2]


@given(st.data())
@pytest.mark.slow(reason="many drawn rankings")
def test_against_loops(data: st.DataObject) -> None:
    gallery = data.draw(st.lists(st.sampled_from("abc"), min_size=2, max_size=8), "gallery")
    queries = data.draw(st.lists(st.sampled_from("abcd"), min_size=1, max_size=4), "queries")
    width = data.draw(st.integers(1, len(gallery)), "width")
    orders = [data.draw(st.permutations(range(len(gallery)))) for _ in queries]
    hidden = [data.draw(st.integers(-1, len(gallery) - 1)) for _ in queries]
    wanted = [
        {row for row, label in enumerate(gallery) if label == query and row != own}
        for query, own in zip(queries, hidden, strict=True)
    ]
    rankings = [order[:width] for order in orders]
    kept = [[row for row in rows if row != own] for rows, own in zip(rankings, hidden, strict=True)]
    judged = [query for query in range(len(queries)) if wanted[query]]
    if not judged or not any(kept[query] for query in judged):
        with pytest.raises(BenchError, match=r"nothing to score|needs at least one found row"):
            evaluate(rankings, gallery, queries, hidden)
        return
    lost = max(width - len(kept[query]) for query in judged)
    if width - lost == 0 and width < len(gallery):
        with pytest.raises(BenchError, match="needs at least one found row"):
            evaluate(rankings, gallery, queries, hidden)
        return
    found = evaluate(rankings, gallery, queries, hidden, k=[1])
    assert found.rows.tolist() == judged
    assert found.left_out == len(queries) - len(judged)
    hits = [[row in wanted[query] for row in kept[query]] for query in judged]
    assert found.per_query["accuracy"].tolist() == [float(any(row[:1])) for row in hits]
    if all(len(kept[query]) == len(gallery) - (hidden[query] >= 0) for query in judged):
        precisions = [[sum(row[: i + 1]) / (i + 1) for i, hit in enumerate(row) if hit] for row in hits]
        assert found.per_query["map"].tolist() == pytest.approx([np.mean(row) for row in precisions])
    else:
        assert "map" in found.unavailable
    assert found.per_query["mrr"].tolist() == [1 / (row.index(True) + 1) if any(row) else 0 for row in hits]
    if "map@r" not in found.unavailable:
        relevant = [len(wanted[query]) for query in judged]
        precisions = [
            [sum(row[: i + 1]) / (i + 1) for i, hit in enumerate(row[:r]) if hit]
            for row, r in zip(hits, relevant, strict=True)
        ]
        assert found.per_query["map@r"].tolist() == pytest.approx(
            [sum(row) / r for row, r in zip(precisions, relevant, strict=True)]
        )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"indices": [0, 1]}, r"indices has shape \(2,\); it must have 2 dimensions"),
        ({"indices": [[0.0]] * 4}, "indices is float64; it must hold gallery rows as integers"),
        ({"indices": FOUND[:2]}, "indices has 2 rows for 4 query_labels"),
        ({"indices": [[5]] * 4}, "indices holds 5 for query 0; the gallery has 5 rows"),
        ({"indices": [[0], [1], [-2], [0]]}, "indices holds -2 for query 2"),
        ({"indices": [[0, 1], [-1, 1], [0, 1], [0, 1]]}, "indices has -1 before a found row for query 1"),
        ({"indices": [[0, 1], [1, 0], [0, 1], [3, 3]]}, "indices names a row twice for query 3"),
        ({"indices": [[-1]] * 4}, "holds no rank of any query"),
        ({"indices": np.empty((4, 0), int)}, "holds no rank of any query"),
        ({"gallery_labels": []}, r"gallery_labels has shape \(0,\); it must hold one label for each image"),
        ({"query_labels": [QUERIES]}, r"query_labels has shape \(1, 4\)"),
        ({"query_labels": [1, 2, 3, 4]}, "both must be integers, or both strings"),
        ({"query_labels": [1.0, 2.0, 3.0, 4.0]}, "query_labels is float64; labels must be integers or strings"),
        ({"query_labels": np.array(["a", 1, None, "b"], object)}, "query_labels holds 1 for image 1; labels must be"),
        ({"query_labels": ["a", 1, "b", "c"]}, "query_labels holds 1 for image 1; labels must be"),
        ({"query_labels": [1, 2, True, None]}, "query_labels holds True for image 2; labels must be"),
        (
            {"query_labels": np.array(["a", None, "b", "c"], TEXT)},
            "query_labels holds None for image 1; labels must be",
        ),
        ({"indices": [[0], [1], [2], [3, 4]]}, "indices has rows of different lengths; pad them with -1"),
        ({"query_labels": [[0], [1], [2], [3, 4]]}, "query_labels has rows of different lengths"),
        ({"exclude": [[0], [1], [2], [3, 4]]}, "exclude has rows of different lengths; pad the short ones with -1"),
        ({"exclude": [[], [], []]}, r"exclude has shape \(3, 0\)"),
        ({"query_labels": ["pen"] * 4}, "no query has an item of its label in the gallery; there is nothing to score"),
        ({"exclude": [1]}, r"exclude has shape \(1,\); it must be \(4,\) or \(4, m\)"),
        ({"exclude": [9, -1, -1, -1]}, "exclude names row 9 for query 0"),
        ({"k": [4]}, "k 4 is more than the 3 ranks"),
        ({"k": [0]}, "k is 0; it must be a whole number"),
        ({"k": 2}, r"k is 2; it must be a list of cutoffs, such as \[1, 5\]"),
        ({"k": "12"}, "k is '1'; it must be a whole number"),
    ],
)
def test_a_mistake_is_one_sentence(changes: dict[str, Any], said: str) -> None:
    given_ = {"indices": FOUND, "gallery_labels": GALLERY, "query_labels": QUERIES} | changes
    with pytest.raises(BenchError, match=said):
        evaluate(**given_)


def test_what_is_given_stays_as_it_is() -> None:
    found, gallery, own = np.array(FOUND), np.array(GALLERY), np.array([0, 1, -1, -1])
    evaluate(found, gallery, np.array(QUERIES), own)
    assert found.tolist() == FOUND
    assert gallery.tolist() == GALLERY
    assert own.tolist() == [0, 1, -1, -1]
