"""docs/records.md names each array that rankings.npz can hold, with its shape and type, and no other."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from retrieval_bench import evaluate
from retrieval_bench.core import Dataset
from retrieval_bench.experiment.runner import run
from retrieval_bench.records.files import load, load_rankings
from tests.support.paths import ROOT
from tests.support.runs import plan
from tests.support.shop import shop, split

PAGE = (ROOT / "docs" / "records.md").read_text(encoding="utf-8")
SECTION = PAGE.partition("\n## The arrays of rankings.npz\n")[2].partition("\n## ")[0]
ROWS = {
    name: (shape, kinds)
    for name, shape, kinds in re.findall(r"^\| `([^`]+)` \| (?:\(([^)]*)\) )?([^|]*) \|", SECTION, re.M)
}
METHODS = ("phash", "color", "random")


def documented(name: str) -> str:
    """The name by which the page calls an array: METHOD, CLASSIFIER and NAME stand for others."""
    name = re.sub(rf"^({'|'.join(METHODS)}|ranking:.*\.npz:method=phash)/", "METHOD/", name)
    name = re.sub(r"/heads/\w+/", "/heads/CLASSIFIER/", name)
    return re.sub(r"^query_attributes/.*", "query_attributes/NAME", name)


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[dict[str, np.ndarray], Dataset]]:
    """One with ties, classifiers, categories and attributes in numbers and text; one of leave-one-out, with no more;
    one with several labels an image, and grades; one with queries that have no answer; one of a ranking from a file."""
    data = shop(5, 3)
    query = data.query.take(range(14))
    told = {"blur_px": np.arange(14.0), "background": np.array(["wood", "cloth"] * 7)}
    query = type(query)(query.ids, query.labels, query.images, query.categories, told)
    data = data.with_splits({"query": query, "train": data.train.take(range(12))})
    images = split("gallery", [0, 0, 0, 1, 1, 2, 2, 2, 2], 1000)
    plain = type(images)(images.ids, images.labels, images.images)
    trained = split("train", [0, 0, 1, 1, 2], 500)
    trained = type(trained)(trained.ids, trained.labels, trained.images)
    alone = Dataset("loo", trained, plain, plain, ("a", "b", "c"), leave_one_out=True)
    some = shop(3, 2)
    several = some.with_splits(
        {
            name: replace(part, other_labels=(part.labels[:, None] + 1) % 3, other_categories=part.categories[:, None])
            for name, part in some.splits.items()
            if part.categories is not None
        }
    )
    lone = some.with_splits({"gallery": some.gallery.take(np.flatnonzero(some.gallery.labels != 1))})
    made = []
    stored = Path()
    cases = ((data, ("knn",), "label"), (alone, (), "label"), (several, (), "graded"), (lone, (), "label"))
    for number, (dataset, classifiers, relevance) in enumerate(cases):
        folder = tmp_path_factory.mktemp(f"record-{number}")
        stored = folder / "rankings.npz" if number == 0 else stored
        record = run(plan(dataset, *METHODS, classifiers=classifiers, relevance=relevance), folder)
        assert record.status == "finished"
        made.append((load_rankings(folder, record), dataset))
    folder = tmp_path_factory.mktemp("record-of-a-ranking")
    record = run(plan(data, f"ranking:{stored}:method=phash"), folder)
    made.append((load_rankings(folder, record), data))
    return made


@pytest.mark.slow(reason="makes five records")
def test_the_page_names_each_array_and_no_other(records: list[tuple[dict[str, np.ndarray], Dataset]]) -> None:
    written = {documented(name) for arrays, _ in records for name in arrays}
    assert written == set(ROWS)
    assert len(ROWS) >= 19


@pytest.mark.slow(reason="makes five records")
def test_shapes_and_types_are_as_the_page_says(records: list[tuple[dict[str, np.ndarray], Dataset]]) -> None:
    seen = []
    for arrays, dataset in records:
        n, labels = len(dataset.gallery), len(dataset.label_names)
        q = len(dataset.query) - len(arrays.get("unanswerable_ids", ()))
        seen.append((arrays, n, q, labels, len(np.unique(dataset.train.labels)), n))
    reference = ROOT / "results" / "reference" / "products"
    seen.append((load_rankings(reference, load(reference)), 400, 400, 100, 0, 100))
    for arrays, n, q, labels, classes, depth in seen:
        sizes = {"n": n, "q": q, "L": labels, "C": classes, "depth": depth, "largest R": arrays["n_relevant"].max()}
        sizes |= {"m": 1, "c": 2}  # of the record with several labels
        sizes |= {"u": 2}  # of the record with two queries of a label that the gallery lacks
        for name, array in arrays.items():
            if documented(name) not in ROWS:
                continue  # of the reference: a method that is none of METHODS
            shape, kinds = ROWS[documented(name)]
            kind = "text" if array.dtype.kind == "U" else str(array.dtype)
            assert kind in kinds.split(" or "), name
            if shape:
                assert array.shape == tuple(sizes[letter] for letter in shape.rstrip(",").split(", ")), name
            else:
                assert array.ndim == 1


def test_the_example_of_the_page_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    example = re.search(r"```python\n(.*?)```", SECTION, re.S)
    assert example is not None
    monkeypatch.chdir(ROOT)
    folder = Path("results", "reference", "products")
    printed: list[str] = []
    scope = {"print": lambda text: printed.append(str(text)), "evaluate": evaluate}
    exec(compile(example[1].replace("results/folder", folder.as_posix()), "records.md", "exec"), scope)
    assert printed[0].startswith("400 queries of 100 labels; 0 left out\naccuracy             0.792")
