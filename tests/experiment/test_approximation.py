"""Rows that a backend of their own searches: what they find beside exact search, and what nobody may ask of them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from retrieval_bench.core import BenchError, Ranking
from retrieval_bench.evaluation.exact_recall import recall_of_exact
from retrieval_bench.experiment.approximation import CutOff
from retrieval_bench.experiment.runner import run
from retrieval_bench.methods.parse import parse_method, with_backends
from retrieval_bench.records.files import load_rankings
from retrieval_bench.records.schema import find_row
from retrieval_bench.registry import BACKENDS, parse
from retrieval_bench.report import backends
from retrieval_bench.report.table import markdown, terminal
from retrieval_bench.search.reference import NumpyIndex
from tests.support.command import call
from tests.support.runs import plan
from tests.support.shop import shop

# --- names ------------------------------------------------------------------------------------------------------------


def test_a_method_may_name_what_searches() -> None:
    method = parse_method("color+hog on faiss:hnsw:ef=32")
    assert str(method) == "color+hog on faiss:hnsw:ef=32"
    assert str(method.without_backend) == "color+hog"
    assert method.approximate
    assert not parse_method("color on int8").approximate
    assert parse_method("minilm[text] on numpy").sides.query == "text"
    with pytest.raises(BenchError, match="unknown backend 'fais'"):
        parse_method("color on fais:hnsw")


def test_every_method_meets_every_backend_and_controls_none() -> None:
    methods = [parse_method(name) for name in ("color", "random", "hsv on numpy")]
    found = with_backends(methods, [parse(BACKENDS, name) for name in ("exact", "int8")], "exact")
    assert list(map(str, found)) == ["color", "color on int8", "random", "hsv on numpy"]


@pytest.mark.parametrize(
    ("words", "rows"),
    [
        (("--backend", "int8", "--backends", "faiss:flat"), "color, color on faiss:flat"),
        (("--backend", "int8", "--backends", "faiss:flat,int8"), "color on faiss:flat, color"),
        (("--backend", "exact", "--backends", "int8"), "color, color on int8"),
        (("--backends", "int8"), "color on int8"),
    ],
)
def test_the_backend_that_is_named_is_among_those_compared(tmp_path: Path, words: tuple[str, ...], rows: str) -> None:
    told = call("run", "--methods", "color", *words, "--dry-run", "--limit", 20, "--out", tmp_path / "record")
    assert told.exit_code == 0, told.output
    assert re.search(r"^ *methods +(.*)$", told.output, re.M)[1] == rows


# --- recall -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("distance", ["cosine", "euclidean", "hamming"])
def test_recall_counts_a_row_as_near_as_the_last(distance) -> None:
    rng = np.random.default_rng(0)
    if distance == "hamming":
        gallery = rng.integers(0, 256, (40, 2)).astype(np.uint8)
    else:
        gallery = rng.standard_normal((40, 6)).astype(np.float32)
    gallery[20:] = gallery[:20]  # each row twice: every last place is a tie, or the one behind it is
    queries, k = gallery[:7], 5
    exact = NumpyIndex(gallery, distance)(queries, k)
    twins = (exact.indices + 20) % 40
    np.testing.assert_array_equal(recall_of_exact(exact.indices, exact, queries, gallery, distance), 1)
    np.testing.assert_array_equal(recall_of_exact(twins, exact, queries, gallery, distance), 1)
    half = np.where(np.arange(k) < 2, exact.indices, -1)
    np.testing.assert_allclose(recall_of_exact(half, exact, queries, gallery, distance), 0.4)
    far = NumpyIndex(gallery, distance)(queries, 40).indices[:, -k:]
    np.testing.assert_array_equal(recall_of_exact(far, exact, queries, gallery, distance), 0)


def test_what_may_find_nothing_misses_nothing() -> None:
    nothing = Ranking(np.full((1, 3), -1), np.full((1, 3), np.inf, np.float32))
    rows = np.ones((1, 2), np.float32)
    np.testing.assert_array_equal(recall_of_exact(nothing.indices, nothing, rows, rows, "cosine"), [1])


def test_an_index_is_never_asked_for_more_than_the_depth() -> None:
    asked = []

    def inner(queries, k, exclude=None):
        asked.append(k)
        return Ranking(np.zeros((len(queries), k), np.int64), np.zeros((len(queries), k), np.float32))

    found = CutOff(inner, 4)(np.ones((2, 3), np.float32), 10)
    assert asked == [4]
    assert (found.indices[:, 4:] == -1).all()
    assert np.isinf(found.distances[:, 4:]).all()


# --- runs -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def record_and_folder(tmp_path_factory):
    pytest.importorskip("faiss", reason='needs pip install "retrieval-bench[ann]"')
    folder = tmp_path_factory.mktemp("record")
    names = ("hsv", "hsv on faiss:flat", "hsv on faiss:ivf:lists=4:probes=1", "hsv on int8", "hsv+hog on faiss:hnsw")
    return run(plan(shop(), *names), folder), folder


def test_a_search_that_misses_nothing_has_the_scores_of_exact_search(record_and_folder) -> None:
    record, folder = record_and_folder
    assert [row.status for row in record.rows] == ["ok"] * 5
    exact, flat = (find_row(record.rows, name) for name in ("hsv", "hsv on faiss:flat"))
    assert flat.approximation.found == 1
    assert flat.approximation.exact == {name: exact.scores[name] for name in ("accuracy", "map@r")}
    assert all(one.mean == 0 for one in flat.approximation.differences.values())
    arrays = load_rankings(folder, record)
    depth = flat.approximation.depth
    np.testing.assert_array_equal(arrays["hsv/indices"][:, :depth], arrays["hsv on faiss:flat/indices"][:, :depth])
    assert find_row(record.rows, "hsv on int8").approximation is None
    assert exact.times["search_throughput_1_thread"].value > 0


def test_one_that_misses_some_says_how_many_and_what_that_costs(record_and_folder) -> None:
    record, _ = record_and_folder
    exact, ivf = (find_row(record.rows, name) for name in ("hsv", "hsv on faiss:ivf:lists=4:probes=1"))
    assert ivf.approximation.found < 1
    for name, one in ivf.approximation.differences.items():
        assert one.mean == pytest.approx(ivf.scores[name] - exact.scores[name])
        assert one.low <= one.mean <= one.high


def test_no_classifier_learns_again_for_another_search(tmp_path: Path) -> None:
    record = run(plan(shop(), "hsv", "hsv on int8", classifiers=("knn",)), tmp_path / "record")
    assert [list(row.classifiers) for row in record.rows] == [["knn"], []]


def test_a_name_with_on_in_it_is_no_backend(record_and_folder) -> None:
    record, _ = record_and_folder
    odd = record.rows[0].model_copy(update={"method": "embeddings:lights on faiss.npy"})
    assert backends.grid(record.model_copy(update={"rows": (odd,)})) == [backends.HEADS]


def test_the_table_shows_them_beside_each_other(record_and_folder) -> None:
    record, _ = record_and_folder
    lines = backends.grid(record)
    assert [line[0] for line in lines[1:]] == [row.method for row in record.rows]
    assert all(len(line) == len(backends.HEADS) for line in lines)
    assert "hsv on faiss:flat" in terminal(record, 100)
    assert "the share that is found" in markdown(record)


def test_a_method_without_a_vector_fails_alone(tmp_path: Path) -> None:
    pytest.importorskip("faiss", reason='needs pip install "retrieval-bench[ann]"')
    record = run(plan(shop(), "hsv", "crop-resistant on faiss:flat"), tmp_path / "record")
    assert [row.status for row in record.rows] == ["ok", "failed"]
    assert "keeps no single vector for faiss to search" in record.rows[1].error.sentence


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("hsv+hog+rrf on int8", "keeps no single vector for int8 to search"),
        ("hsv+qe=5 on faiss:flat", "re-ranking goes through what exact search finds; drop qe or on faiss:flat"),
    ],
)
def test_what_no_backend_can_search_is_refused(tmp_path: Path, name: str, sentence: str) -> None:
    with pytest.raises(BenchError, match=sentence):
        run(plan(shop(), name), tmp_path / "record")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("run", "--backend", "faiss:hnsw", "--backends", "exact"), "name all of them in --backends"),
        (("run", "--backends", ","), "--backends names no backend"),
        (("run", "--backends", "exact,fais:hnsw"), "unknown backend 'fais'"),
        (("index", "build", "--methods", "color on int8", "--out", "x"), "only `run` searches on a backend"),
    ],
)
def test_a_wrong_backend_is_refused_before_anything_runs(words: tuple[str, ...], sentence: str) -> None:
    told = call(*words)
    assert told.exit_code == 2
    assert sentence in " ".join(told.output.split())
