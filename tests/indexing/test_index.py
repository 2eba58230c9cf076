"""An index finds what a run finds, whatever was added to it and taken from it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from retrieval_bench.core import BenchError, Dataset, Ranking, Split
from retrieval_bench.experiment.prepare import prepare
from retrieval_bench.experiment.quality import quality
from retrieval_bench.images.reading import ImageBytes, encode_png
from retrieval_bench.indexing.build import build
from retrieval_bench.indexing.index import TAKEN, NewItem, StoredIndex
from retrieval_bench.methods.parse import parse_method
from retrieval_bench.methods.pipeline import Pipeline
from retrieval_bench.registry import fill
from retrieval_bench.system.progress import silent
from tests.support.runs import plan
from tests.support.shop import picture, shop

fill()
METHODS = ("phash", "color", "sift:words=16+color", "phash+color+rrf", "sift:words=16+verify=20")
LABELS, EACH = 4, 4


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One index that tests copy before they change it."""
    folder = tmp_path_factory.mktemp("index") / "shop"
    build(plan(shop(LABELS, EACH), *METHODS), folder).close()
    return folder


@pytest.fixture
def index(built: Path, tmp_path: Path) -> Iterator[StoredIndex]:
    """A copy of one's own, open for writing."""
    shutil.copytree(built, tmp_path / "own")
    with StoredIndex.open(tmp_path / "own", writable=True, check_recipe=False) as opened:
        yield opened


def run_over(dataset: Dataset, method: str) -> Ranking:
    """What the queries of a dataset find in a run."""
    one = plan(dataset, method)
    trial = prepare(one)
    return quality(Pipeline(parse_method(method), one.setup, "exact"), trial, one.setup, one.cache, silent).ranking


def asked(index: StoredIndex, dataset: Dataset, method: str, k: int) -> Ranking:
    """What they find in the index, as rows of the items that are there."""
    queries = [dataset.query.images[row] for row in range(len(dataset.query))]
    snapshot = index.snapshot()
    found = snapshot.search(method, index.method(method).describe(queries), k)
    rows = np.append(np.searchsorted(snapshot.numbers, found.indices.ravel()), 0)[:-1].reshape(found.indices.shape)
    return Ranking(np.where(found.indices >= 0, rows, -1), found.distances)


def with_gallery(dataset: Dataset, kept: list[int], more: list[tuple[str, int, np.ndarray]]) -> Dataset:
    """The dataset with some rows of its gallery, and pictures behind them."""
    gallery = dataset.gallery.take(kept)
    images = ImageBytes(
        [*(gallery.images.read(row) for row in range(len(gallery))), *(encode_png(pixels) for _, _, pixels in more)]
    )
    labels = np.array([*gallery.labels, *(label for _, label, _ in more)], np.int64)
    ids = (*gallery.ids, *(name for name, _, _ in more))
    return replace(dataset, gallery=Split(ids, labels, images))


def same(one: Ranking, other: Ranking) -> bool:
    k = min(one.indices.shape[1], other.indices.shape[1])
    return np.array_equal(one.indices[:, :k], other.indices[:, :k]) and (
        one.distances[:, :k].tobytes() == other.distances[:, :k].tobytes()
    )


@pytest.mark.slow(reason="four runs a method")
@pytest.mark.parametrize("method", METHODS)
def test_it_finds_what_a_run_finds_to_the_last_bit(index: StoredIndex, method: str) -> None:
    data = shop(LABELS, EACH)
    assert same(asked(index, data, method, 16), run_over(data, method))
    more = [("new/a", 2, picture(2, 5000)), ("new/b", 0, picture(0, 5001)), ("new/c", 2, picture(2, 5000))]
    added = index.add([NewItem(name, pixels, label=f"product-{label}") for name, label, pixels in more])
    assert (added.numbers, added.refused) == ((17, 18, 19), {})
    assert same(asked(index, data, method, 19), run_over(with_gallery(data, list(range(16)), more), method))
    removed = index.remove([data.gallery.ids[0], data.gallery.ids[9], "new/b"])
    kept = [row for row in range(16) if row not in (0, 9)]
    fewer = with_gallery(data, kept, [more[0], more[2]])
    assert same(asked(index, data, method, 16), run_over(fewer, method))
    index.undo(removed)
    index.undo(added.operation or 0)
    assert same(asked(index, data, method, 16), run_over(data, method))


def test_ids_are_given_once(index: StoredIndex) -> None:
    taken = index.snapshot().item(3).id
    added = index.add([NewItem(taken, picture(0, 1)), NewItem("x", picture(0, 1)), NewItem("x", picture(0, 2))])
    assert (added.numbers, added.refused) == ((17,), {TAKEN: (taken, "x")})
    with pytest.raises(BenchError, match="has no item 'nobody'; nothing was removed"):
        index.remove(["x", "nobody"])
    assert index.snapshot().by_id("x") is not None
