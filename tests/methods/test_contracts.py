"""What every way to join and every re-ranking step must keep to; a new one is found through its registry."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from retrieval_bench.core import BenchError, Dataset, Ranking, Setup, Split
from retrieval_bench.experiment.prepare import Plan, Trial, prepare
from retrieval_bench.experiment.quality import quality
from retrieval_bench.experiment.runner import run
from retrieval_bench.images.reading import ImageBytes, encode_png
from retrieval_bench.methods.parse import parse_method
from retrieval_bench.methods.pipeline import Pipeline
from retrieval_bench.methods.reranking.step import LearningStep
from retrieval_bench.records.files import load_rankings
from retrieval_bench.records.schema import Record
from retrieval_bench.registry import JOINS, STEPS, Entry
from retrieval_bench.system.cache import FeatureCache
from retrieval_bench.system.progress import silent
from tests.support.runs import plan
from tests.support.shop import shop

pytestmark = pytest.mark.slow(reason="a whole run for each way to join and re-rank")

PICTURES = [entry.name for entry in STEPS.own() if not isinstance(entry.build(), LearningStep)]
"""The steps that need no texts."""

METHODS = [
    *(f"color+phash+{entry.name}" for entry in JOINS.own()),
    *(f"hsv+{name}" for name in PICTURES),
    *(f"phash+{name}" for name in PICTURES),
    *(f"color+hsv+{name}" for name in PICTURES),
    *(f"moments+{name}" for name in PICTURES),
    *(f"color+moments+phash+rrf+{name}" for name in PICTURES),
    *(f"crop-resistant+{entry.name}" for entry in STEPS.own() if not entry.build().averages and entry.name in PICTURES),
]


def with_odd_images(data: Dataset) -> Dataset:
    """The first image of gallery and query are of one pixel, the second are all of one colour."""
    odd = [encode_png(np.full((side, side, 3), 90, np.uint8)) for side in (1, 40)]

    def spoiled(split: Split) -> Split:
        images = [odd[row] if row < 2 else split.images.read(row) for row in range(len(split))]
        return replace(split, images=ImageBytes(images))

    return data.with_splits({"gallery": spoiled(data.gallery), "query": spoiled(data.query)})


def with_odd_queries() -> Dataset:
    return with_odd_images(shop(4, 3))


def asked_of_itself() -> Dataset:
    data = shop(4, 3)
    return Dataset(
        "loo", data.train, data.gallery, data.gallery, data.label_names, data.category_names, leave_one_out=True
    )


def two_in_the_gallery() -> Dataset:
    data = shop(2, 2)
    return data.with_splits({"gallery": data.gallery.take([0, 2])})


@pytest.fixture(scope="module")
def a_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Record, dict[str, np.ndarray]]]:
    """A whole run of a method with odd images, two threads and no cache; one a method, whoever asks."""

    @functools.cache
    def of(method: str) -> tuple[Record, dict[str, np.ndarray]]:
        out = tmp_path_factory.mktemp("run")
        record = run(plan(with_odd_queries(), method, k=(1,)), out)
        assert record.rows[0].status == "ok", record.rows[0].error
        return record, load_rankings(out, record)

    return of


@pytest.fixture(scope="module")
def ranked(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Ranking]:
    """What a method finds in a dataset: the pass for quality alone, as the runs above have shown the rest.

    Methods share their parts, so one cache a dataset and number of threads saves what others have computed.
    """

    @functools.cache
    def prepared(build: Callable[[], Dataset], threads: int) -> tuple[Plan, Trial]:
        asked = plan(build(), threads=threads, k=(1,), cache=FeatureCache(tmp_path_factory.mktemp("cache")))
        return asked, prepare(asked)

    def of(build: Callable[[], Dataset], method: str, threads: int = 2) -> Ranking:
        asked, trial = prepared(build, threads)
        pipeline = Pipeline(parse_method(method), asked.setup, "exact")
        return quality(pipeline, trial, asked.setup, asked.cache, silent).ranking

    return of


@pytest.mark.parametrize("method", METHODS)
def test_everything_is_ranked_once_and_every_number_is_finite(a_run: Any, method: str) -> None:
    record, arrays = a_run(method)
    indices, distances = arrays[f"{method}/indices"], arrays[f"{method}/distances"]
    np.testing.assert_array_equal(np.sort(indices, axis=1), np.tile(np.arange(12), (12, 1)))
    assert np.isfinite(distances).all()
    assert (np.diff(distances, axis=1) >= 0).all()
    for name, score in record.rows[0].scores.items():
        assert 0 <= score <= 1, name
    for name, figure in record.rows[0].times.items():
        assert figure.value is None or math.isfinite(figure.value), name


@pytest.mark.parametrize("method", METHODS)
def test_no_query_finds_itself_where_it_is_in_the_gallery(ranked: Any, method: str) -> None:
    np.testing.assert_array_equal(
        np.sort(ranked(asked_of_itself, method).indices, axis=1),
        [[-1, *(row for row in range(12) if row != query)] for query in range(12)],
    )


@pytest.mark.parametrize("method", METHODS)
def test_threads_change_no_bit(a_run: Any, ranked: Any, method: str) -> None:
    arrays, one = a_run(method)[1], ranked(with_odd_queries, method, threads=1)
    np.testing.assert_array_equal(one.indices, arrays[f"{method}/indices"])
    np.testing.assert_array_equal(one.distances, arrays[f"{method}/distances"])


@pytest.mark.parametrize("method", METHODS)
def test_a_gallery_smaller_than_every_shortlist_is_ranked(ranked: Any, method: str) -> None:
    indices = ranked(two_in_the_gallery, method).indices
    np.testing.assert_array_equal(np.sort(indices, axis=1), np.tile([0, 1], (4, 1)))


@pytest.mark.parametrize("step", [entry.name for entry in STEPS.own() if entry.build().averages])
@pytest.mark.parametrize("method", ["crop-resistant", "color+crop-resistant+vote"])
def test_what_has_no_vector_has_no_mean_and_says_so_before_anything_is_extracted(method: str, step: str) -> None:
    with pytest.raises(BenchError) as told:
        Pipeline(parse_method(f"{method}+{step}"), Setup(), "exact")
    assert str(told.value) == (
        f"{method}+{step}: crop-resistant is compared in a way of its own, not as a vector, so that there is no mean "
        f"for {step} to search with; drop {step} or crop-resistant"
    )


@pytest.mark.parametrize(
    ("entry", "option"),
    [
        (entry, name)
        for entry in (*JOINS.own(), *STEPS.own())
        for name, parameter in entry.options.items()
        if isinstance(parameter.default, int)
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_counts_below_one_are_refused_in_one_sentence(entry: Entry, option: str) -> None:
    with pytest.raises(BenchError, match=rf"{entry.name}.*{option}=-1"):
        entry.build(**{option: -1})
