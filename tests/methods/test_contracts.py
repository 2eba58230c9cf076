"""What every way to join and every re-ranking step must keep to; a new one is found through its registry."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from retrieval_bench.core import BenchError, Dataset, Setup, Split
from retrieval_bench.experiment.prepare import Plan
from retrieval_bench.experiment.runner import run
from retrieval_bench.images.reading import ImageBytes, encode_png
from retrieval_bench.methods.parse import parse_method
from retrieval_bench.methods.pipeline import Pipeline
from retrieval_bench.records.files import load_rankings
from retrieval_bench.records.schema import Record
from retrieval_bench.registry import JOINS, STEPS, Entry, Spec
from tests.support.shop import shop

METHODS = [
    *(f"color+phash+{entry.name}" for entry in JOINS.own()),
    *(f"hsv+{entry.name}" for entry in STEPS.own()),
    *(f"phash+{entry.name}" for entry in STEPS.own()),
    *(f"color+hsv+{entry.name}" for entry in STEPS.own()),
    *(f"moments+{entry.name}" for entry in STEPS.own()),
    *(f"color+moments+phash+rrf+{entry.name}" for entry in STEPS.own()),
    *(f"crop-resistant+{entry.name}" for entry in STEPS.own() if not entry.build().averages),
]


def ranked(data: Dataset, method: str, out: Path, threads: int = 2) -> tuple[Record, dict[str, np.ndarray]]:
    source = Spec(Entry(data.name, lambda root: data, "for tests"), {})
    record = run(Plan((parse_method(method),), source, threads=threads, k=(1,)), out)
    assert record.rows[0].status == "ok", record.rows[0].error
    return record, load_rankings(out, record)


def with_odd_images(data: Dataset) -> Dataset:
    """The first image of gallery and query are of one pixel, the second are all of one colour."""
    odd = [encode_png(np.full((side, side, 3), 90, np.uint8)) for side in (1, 40)]

    def spoiled(split: Split) -> Split:
        images = [odd[row] if row < 2 else split.images.read(row) for row in range(len(split))]
        return replace(split, images=ImageBytes(images))

    return data.with_splits({"gallery": spoiled(data.gallery), "query": spoiled(data.query)})


@pytest.mark.parametrize("method", METHODS)
def test_everything_is_ranked_once_and_every_number_is_finite(tmp_path: Path, method: str) -> None:
    data = with_odd_images(shop(4, 3))
    record, arrays = ranked(data, method, tmp_path)
    indices, distances = arrays[f"{method}/indices"], arrays[f"{method}/distances"]
    np.testing.assert_array_equal(np.sort(indices, axis=1), np.tile(np.arange(12), (12, 1)))
    assert np.isfinite(distances).all()
    assert (np.diff(distances, axis=1) >= 0).all()
    for name, score in record.rows[0].scores.items():
        assert 0 <= score <= 1, name
    for name, figure in record.rows[0].times.items():
        assert figure.value is None or math.isfinite(figure.value), name


@pytest.mark.parametrize("method", METHODS)
def test_no_query_finds_itself_where_it_is_in_the_gallery(tmp_path: Path, method: str) -> None:
    data = shop(4, 3)
    own = Dataset(
        "loo", data.train, data.gallery, data.gallery, data.label_names, data.category_names, leave_one_out=True
    )
    indices = ranked(own, method, tmp_path)[1][f"{method}/indices"]
    np.testing.assert_array_equal(
        np.sort(indices, axis=1),
        [[-1, *(row for row in range(12) if row != query)] for query in range(12)],
    )


@pytest.mark.parametrize("method", METHODS)
def test_threads_change_no_bit(tmp_path: Path, method: str) -> None:
    one, two = (ranked(shop(4, 3), method, tmp_path / str(threads), threads)[1] for threads in (1, 2))
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)


@pytest.mark.parametrize("method", METHODS)
def test_a_gallery_smaller_than_every_shortlist_is_ranked(tmp_path: Path, method: str) -> None:
    data = shop(2, 2)
    two = data.with_splits({"gallery": data.gallery.take([0, 2])})
    indices = ranked(two, method, tmp_path)[1][f"{method}/indices"]
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
