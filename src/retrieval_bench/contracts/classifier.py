"""The contract of a classifier, checked clause by clause on drawn vectors: `check_classifier("svm")`.

Among the labels one has a single row, and among the rows are zeros and two that are equal.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cached_property

import numpy as np

from retrieval_bench.classifiers.classifier import Classifier, fit_classifier
from retrieval_bench.contracts.clauses import BrokenClause, ClauseVerdict, verdicts
from retrieval_bench.registry import CLASSIFIERS, fill

LABELS, EACH, WIDTH = 8, 6, 24
THREADS = 2
ROUNDING = 1e-6
"""By which scores may depend on the other queries, as a share of the largest: BLAS rounds by shape."""


def check_classifier(name: str, seed: int = 0) -> tuple[ClauseVerdict, ...]:
    """Check a classifier.

    Args:
        name: as behind --classifiers.
        seed: of what it draws.

    Returns:
        One verdict a clause.

    Raises:
        BenchError: No classifier is called so.
    """
    fill()
    return tuple(verdicts(CLASSIFIERS[name].name, CLAUSES, ClassifierCase(name, seed), FIRST))


class ClassifierCase:
    """A classifier and what it learns from: rows about a centre for each label, which are not numbered one by one."""

    def __init__(self, name: str, seed: int) -> None:
        self.name, self.seed = name, seed
        rng = np.random.default_rng(0)
        self._labels = np.repeat(np.arange(LABELS) * 3 + 1, EACH)[EACH - 1 :]  # the first label has one row
        centres = rng.standard_normal((LABELS * 3 + 1, WIDTH))
        self._rows = (centres[self._labels] + 0.5 * rng.standard_normal((len(self._labels), WIDTH))).astype(np.float32)
        self._rows[5], self._rows[9] = 0, self._rows[8]

    @property
    def rows(self) -> np.ndarray:
        """(n, d) float32; a copy, so that no clause sees what another has written into it."""
        return self._rows.copy()

    @property
    def labels(self) -> np.ndarray:
        return self._labels.copy()

    @property
    def codes(self) -> np.ndarray:
        """(n, bytes) packed uint8: the signs of the rows."""
        return np.packbits(self._rows > 0, axis=1)

    def fresh(self, threads: int = 1) -> Classifier:
        """Another one, fitted."""
        return fit_classifier(self.name, self.rows, self.labels, seed=self.seed, threads=threads)

    @cached_property
    def fitted(self) -> Classifier:
        return self.fresh()


def _fits(case: ClassifierCase) -> str:
    try:
        told = json.dumps(dict(case.fitted.chosen), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise BrokenClause(f"`chosen` is no plain numbers and texts, which a record could hold ({error})") from None
    return f"chosen {told}" if case.fitted.chosen else "nothing to choose"


def _scores(case: ClassifierCase) -> str:
    scores = case.fitted.scores(case.rows)
    return f"{scores.dtype} (n, {scores.shape[1]}), all finite"


def _bits(case: ClassifierCase) -> str:
    codes = case.codes
    fitted = fit_classifier(case.name, codes, case.labels, seed=case.seed, threads=1, bits=True)
    fitted.scores(codes)
    return ""


def _alone(case: ClassifierCase) -> str:
    rows, whole = case.rows, case.fitted.scores(case.rows)
    alone = np.concatenate([case.fitted.scores(rows[row : row + 1]) for row in range(len(rows))])
    away = np.abs(alone - whole).max()
    if away > ROUNDING * max(np.abs(whole).max(), 1):
        raise BrokenClause(f"scores of a query alone are others than beside others, by up to {away:.3g}")
    return "alone and all at once, but for the last digits"


def _repeatable(case: ClassifierCase) -> str:
    before = case.fitted.scores(case.rows)
    for what, again in (
        ("scored again", case.fitted),
        ("fitted again", case.fresh()),
        (f"fitted again with {THREADS} threads", case.fresh(THREADS)),
    ):
        if not np.array_equal(again.scores(case.rows), before):
            raise BrokenClause(f"{what}: the scores are others; draw from `seed` alone")
    return "scored again, fitted again, with another number of threads: every bit is equal"


def _input_untouched(case: ClassifierCase) -> str:
    rows, labels = case.rows, case.labels
    fitted = fit_classifier(case.name, rows, labels, seed=case.seed, threads=1)
    if not (np.array_equal(rows, case.rows) and np.array_equal(labels, case.labels)):
        raise BrokenClause("fitting writes into the rows or the labels of train")
    fitted.scores(rows)
    if not np.array_equal(rows, case.rows):
        raise BrokenClause("scoring writes into the queries")
    return ""


CLAUSES: dict[str, Callable[[ClassifierCase], str]] = {
    "fits": _fits,
    "scores": _scores,
    "bits": _bits,
    "order-independent": _alone,
    "repeatable": _repeatable,
    "leaves its input alone": _input_untouched,
}
"""Clause -> what checks it."""
FIRST = ("fits",)
