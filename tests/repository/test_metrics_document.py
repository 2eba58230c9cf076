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
    judged = Judged(np.array(expected), np.array(retrieved), n_relevant, np.array(padded))
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
    assert len(titles) == len(METRICS.own())
