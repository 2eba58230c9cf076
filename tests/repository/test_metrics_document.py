"""docs/metrics.md says what the code does: each definition word for word, each worked example to its last digit."""

from __future__ import annotations

import re

import numpy as np
import pytest

from retrieval_bench.core import Judged
from retrieval_bench.evaluation import metrics
from retrieval_bench.registry import METRICS, Entry
from tests.support.paths import ROOT

PAGE = ROOT / "docs" / "metrics.md"
GALLERY = "AABBC"

assert metrics  # importing it fills the registry


def worked(name: str, lines: list[str], k: int | None) -> float:
    """The value of a metric over queries written as `A: B A C A B`."""
    expected, retrieved, ranks = [], [], []
    for line in lines:
        label, _, found = line.partition(":")
        items = found.split()
        assert sorted(items) == sorted(GALLERY), line
        expected.append("ABC".index(label))
        retrieved.append(["ABC".index(item) for item in items])
        ranks.append([rank for rank, item in enumerate(items) if item == label])
    n_relevant = np.array([len(of_query) for of_query in ranks])
    padded = [of_query + [-1] * (n_relevant.max() - len(of_query)) for of_query in ranks]
    found = np.array(retrieved)
    # for grades: A and B are of one category, C is of another
    grades = np.where(found == np.array(expected)[:, None], 2, ((found < 2) == (np.array(expected) < 2)[:, None]) * 1)
    judged = Judged(np.array(expected), found, n_relevant, np.array(padded), grades, (grades == 1).sum(axis=1))
    return float(np.mean(METRICS[name].build(judged, k)))


@pytest.mark.parametrize("entry", METRICS.own(), ids=lambda entry: entry.name)
def test_the_page_says_what_the_code_does(entry: Entry) -> None:
    title = f"{entry.name}@k" if entry.facts["at_k"] else entry.name
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", PAGE.read_text(encoding="utf-8"), re.S | re.M)
    assert found is not None, f"docs/metrics.md has no section {title}"
    for fact in ("definition", "denominator", "ties", "empty", "ceiling"):
        assert entry.facts[fact]
        assert f"- {fact}: {entry.facts[fact]}\n" in found[1]
    example = re.search(r"```\n(.*?)\n(?:k = (\d+), )?value = ([\d.]+)\n```", found[1], re.S)
    assert example is not None
    k = int(example[2]) if example[2] else None
    assert (k is None) == (not entry.facts["at_k"])
    assert worked(entry.name, example[1].split("\n"), k) == pytest.approx(float(example[3]), abs=5e-7)


def test_the_page_describes_nothing_else() -> None:
    titles = re.findall(r"^## (.*)$", PAGE.read_text(encoding="utf-8"), re.M)
    assert titles.pop() == "Other libraries"
    assert len(titles) == len(METRICS.own())


SCORES, COMPARED = re.findall(
    r"^## Other libraries\n.*?```\n(.*?)```\n\n(\|.*?)\n\n", PAGE.read_text("utf-8"), re.S | re.M
)[0]


def compared(library: str) -> dict[str, float]:
    """Metric -> what the page says that this library gives in its example."""
    heads, _, *lines = ([cell.strip() for cell in line.strip("|").split("|")] for line in COMPARED.splitlines())
    column = heads.index(library)
    return {line[0]: float(line[column]) for line in lines if line[column] != "n/a"}


def example() -> tuple[list[str], list[str], np.ndarray]:
    """Names of the gallery and labels of the queries, and the (q, n) scores, of the page's example."""
    gallery, *lines = SCORES.splitlines()
    names = gallery.split()[1:]
    told = [dict(item.split() for item in line.partition(": ")[2].split(", ")) for line in lines]
    return names, [line[0] for line in lines], np.array([[float(of[name]) for name in names] for of in told])


def judgements() -> Judged:
    names, queries, scores = example()
    gallery = np.array(["ABC".index(name[0].upper()) for name in names])
    expected = np.array(["ABC".index(label) for label in queries])
    found = gallery[np.argsort(-scores, axis=1, kind="stable")]
    ranks = np.array([np.flatnonzero(row == label) for row, label in zip(found, expected, strict=True)])
    return Judged(expected, found, (gallery == expected[:, None]).sum(axis=1), ranks)


def test_the_example_of_other_libraries_is_what_the_code_gives() -> None:
    ours = metrics.scores(judgements(), (2, 3))
    told = compared("here")
    assert {name: ours[name] for name in told} == pytest.approx(told, abs=5e-5)


def test_the_example_is_what_trec_eval_gives() -> None:
    pytrec_eval = pytest.importorskip("pytrec_eval", reason="pytrec_eval comes with the development tools")
    names, queries, scores = example()
    run = {str(q): dict(zip(names, map(float, row), strict=True)) for q, row in enumerate(scores)}
    qrels = {str(q): {name: int(name[0].upper() == label) for name in names} for q, label in enumerate(queries)}
    asked = {"accuracy": "P_1", "precision@3": "P_3", "recall@2": "recall_2", "recall@3": "recall_3"}
    asked |= {"map@r": "map_cut_2", "map": "map", "mrr": "recip_rank"}
    measures = {"P.1,3", "recall.2,3", "map_cut.2", "map", "recip_rank"}
    found = pytrec_eval.RelevanceEvaluator(qrels, measures).evaluate(run)
    means = {name: np.mean([of_query[theirs] for of_query in found.values()]) for name, theirs in asked.items()}
    assert means == pytest.approx(compared("trec_eval"), abs=5e-5)


@pytest.mark.slow(reason="imports torch")
def test_the_example_is_what_pytorch_metric_learning_gives() -> None:
    calculator = pytest.importorskip(
        "pytorch_metric_learning.utils.accuracy_calculator", reason='needs pip install "retrieval-bench[train]"'
    )
    import torch

    names, _, scores = example()
    order = torch.tensor(np.argsort(-scores, axis=1, kind="stable"))
    gallery = torch.tensor(["abc".index(name[0]) for name in names])
    theirs = {"accuracy": "precision_at_1", "map@r": "mean_average_precision_at_r", "map": "mean_average_precision"}
    theirs["mrr"] = "mean_reciprocal_rank"

    def asked(k: int | None, by_label: bool) -> dict[str, float]:
        judge = calculator.AccuracyCalculator(
            include=tuple(theirs.values()),
            k=k,
            avg_of_avgs=by_label,
            knn_func=lambda query, k, reference, same: (torch.zeros(order[:, :k].shape), order[:, :k]),
            device=torch.device("cpu"),
        )
        expected = torch.tensor(judgements().expected)
        found = judge.get_accuracy(torch.zeros(3, 2), expected, torch.zeros(5, 2), gallery, False)
        return {ours: found[name] for ours, name in theirs.items()}

    means = asked(None, False) | {"class_mean_map@r": asked(None, True)["map@r"]}
    assert means == pytest.approx(compared("pytorch-metric-learning"), abs=5e-5)
    assert f"{asked(1, False)['map@r']:.4f}" == "0.3333"
