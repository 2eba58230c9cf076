"""What classifiers make of a method's features: learned from train, judged on the queries, timed one by one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from retrieval_bench.classifiers.classifier import fit_classifier
from retrieval_bench.classifiers.metrics import judge_classifier
from retrieval_bench.core import BenchError, Split
from retrieval_bench.records.schema import ClassifierFacts, TimeFigure
from retrieval_bench.system.timing import Stopwatch, latencies

log = logging.getLogger("retrieval_bench")


@dataclass(frozen=True, eq=False)
class Classified:
    """What one classifier did.

    arrays: by name "classes", "scores" and "predicted" as in `classifiers.Classifier`; empty if it failed.
    """

    facts: ClassifierFacts
    arrays: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Learnable:
    """Features of a split as a classifier takes them: rows (n, d) float32, or (n, bytes) packed uint8 where `bits`."""

    rows: np.ndarray
    labels: np.ndarray
    bits: bool


def classify(
    name: str, train: Learnable, query: Learnable, *, seed: int, threads: int, timed: Sequence[int]
) -> Classified:
    """Fit the classifier `name` and judge it. Whatever goes wrong is told in its facts and ends nothing else.

    timed: rows of `query` that are classified one at a time for the clock.
    """
    try:
        return _classified(name, train, query, seed=seed, threads=threads, timed=timed)
    except (Exception, SystemExit) as error:  # the method's own numbers and the other classifiers owe nothing to it
        return _failed(name, error)


def _failed(name: str, error: BaseException) -> Classified:
    """What is kept of a classifier that failed. A BenchError is a whole sentence; anything else is our bug."""
    if isinstance(error, BenchError):
        log.error("%s", error)
        return Classified(ClassifierFacts(error=str(error)))
    sentence = f"{name} failed: {type(error).__name__}: {error}"
    log.error("%s", sentence, exc_info=error)
    return Classified(ClassifierFacts(error=sentence))


def _classified(
    name: str, train: Learnable, query: Learnable, *, seed: int, threads: int, timed: Sequence[int]
) -> Classified:
    with Stopwatch() as fitting:
        classifier = fit_classifier(name, train.rows, train.labels, seed=seed, threads=threads, bits=train.bits)
    scores = classifier.scores(query.rows)
    times = latencies((("predict", lambda item: classifier.predict(query.rows[timed[item]][None])),), len(timed))
    facts = ClassifierFacts(
        scores=judge_classifier(query.labels, scores, classifier.classes),
        times={
            "fit": TimeFigure(value=fitting.seconds, unit="s"),
            **{what: TimeFigure(**asdict(figure)) for what, figure in times.items() if what.startswith("predict")},
        },
        chosen=dict(classifier.chosen),
    )
    return Classified(
        facts,
        {
            "classes": classifier.classes,
            "scores": scores.astype(np.float32),
            "predicted": classifier.classes[scores.argmax(axis=1)],
        },
    )


def unseen(train: Split, query: Split) -> np.ndarray:
    """Rows of train that are no query: (n,) int64. A classifier that learned from a query would know its answer."""
    asked = {query.images.digest(row) for row in range(len(query))}
    return np.flatnonzero([train.images.digest(row) not in asked for row in range(len(train))])


def classify_all(
    names: Sequence[str],
    learn: Callable[[], tuple[Learnable, Learnable]],
    *,
    seed: int,
    threads: int,
    timed: Sequence[int],
    progress: Callable[[str, int, int], None],
) -> dict[str, Classified]:
    """Every classifier in turn. learn: gives train and query; an error of it is every classifier's."""
    try:
        train, query = learn()
    except Exception as error:
        failed = _failed("what the classifiers learn from", error)
        return dict.fromkeys(names, failed)
    done = {}
    for number, name in enumerate(names):
        progress(name, number, len(names))
        done[name] = classify(name, train, query, seed=seed, threads=threads, timed=timed)
    progress(names[-1], len(names), len(names))
    return done
