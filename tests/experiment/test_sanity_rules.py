"""How far the rules reach that no honest run breaks: what lies just within them is not told, what lies beyond is."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval_bench.experiment import sanity_checks
from tests.support.records import record, row


def told(indices: list[list[int]], **controls: float) -> tuple[str, ...]:
    """What is said of a run of 100 queries; controls: their accuracies."""
    found = np.tile(np.array(indices, np.int64), (100 // len(indices), 1))
    run = record(
        row("sift", scores={"accuracy": 0.5}),
        ceilings={"accuracy": 1.0},
        controls={name: {"accuracy": value} for name, value in controls.items()},
        dataset={"images": {"train": 0, "gallery": 40, "query": 100}},
    )
    return sanity_checks.violations(
        run, {"n_relevant": np.full(100, 4), "query_labels": np.arange(100) // 4, "sift/indices": found}
    )


def test_padding_is_no_image_found_twice() -> None:
    assert told([[3, 1, -1, -1]]) == ()
    assert told([[3, 1, 3, -1], [0, 1, 2, 3]]) == ("sift: 50 queries found one gallery image twice",)


@pytest.mark.parametrize(("duplicates", "most"), [(0.1, 0.36), (0.0, 0.36), (0.3, 0.56)])
def test_random_vectors_may_be_lucky_but_not_knowing(duplicates: float, most: float) -> None:
    """Chance is 0.1, its deviation over 100 queries 0.03: 8 of these, 2 queries, and what duplicates give besides."""
    controls = {"chance": 0.1, "constant": 0.1, "duplicates": duplicates}
    assert told([[0, 1]], random=most - 0.005, **controls) == ()
    (sentence,) = told([[0, 1]], random=most + 0.005, **controls)
    assert sentence.startswith(f"random vectors reach accuracy {most + 0.005:.4f} where chance gives 0.1000")
