"""Scores held against the arrays beside them: those of classifiers, which predictions give, as those of rankings."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval_bench.compare.contradictions import contradictions
from retrieval_bench.records.schema import ClassifierFacts
from tests.support.planted import costs, planted

EXPECTED = np.arange(4)
PREDICTED = np.array([0, 1, 2, 2])
TRUE = {"accuracy": 0.75, "macro_f1": (1 + 1 + 2 / 3) / 4}


@pytest.mark.parametrize("name", TRUE)
def test_a_classifier_whose_predictions_give_another_score_is_told(name: str) -> None:
    found = planted({"sift": np.ones(4)}, EXPECTED, {"sift": costs(10)}, rankings=True)
    arrays = {**found.arrays, "sift/heads/knn/predicted": PREDICTED}

    def said(scores: dict[str, float]) -> dict[str, str]:
        facts = {"knn": ClassifierFacts(scores=scores), "svm": ClassifierFacts(error="it has learned nothing")}
        rows = tuple(row.model_copy(update={"classifiers": facts}) for row in found.record.rows)
        return contradictions(found.record.model_copy(update={"rows": rows}), arrays)

    assert said(TRUE) == {}
    assert said({}) == {}
    (told,) = said(TRUE | {name: 0.99}).values()
    assert told.startswith(
        f"[contradicted] knn {name} is 0.990000 in the record, and {TRUE[name]:.6f} by its predictions"
    )
