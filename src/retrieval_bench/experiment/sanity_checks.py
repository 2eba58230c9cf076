"""What must hold of any run, whatever its methods are: controls that bracket it, and rules that no honest run breaks.

Two failures of this field were seen by nobody for years because nothing looked: queries that find themselves, and
"recall" with two meanings. So every run computes its controls, asked for or not, and holds itself against rules.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from retrieval_bench.core import Ranking, Searcher, Split
from retrieval_bench.evaluation import metrics
from retrieval_bench.evaluation.relevance import judge, rank_gallery
from retrieval_bench.evaluation.ties import tie_bounds
from retrieval_bench.experiment.prepare import FROM_GALLERY, Trial
from retrieval_bench.extractors.controls import DIMENSIONS, Oracle
from retrieval_bench.methods.parse import bare_name
from retrieval_bench.records.schema import Record, Row
from retrieval_bench.registry import backend_on

MOST_QUERIES = 2_500
"""Controls rank no more queries than these, drawn by the seed: enough for what they are compared with."""

ENOUGH_QUERIES = 100
"""Rules about what is too unlikely to be true look at nothing smaller."""

FROM_A_FILE = "file"
"""The family of methods that read what another program found."""

CONTROLS = ("random", "constant", "chance", "duplicates", "oracle")


@dataclass(eq=False)
class ExactMatchSearcher:
    """Finds rows that are equal to the query at distance 0, and all others, in gallery order, at distance 1."""

    gallery: np.ndarray
    bytes: int = 0

    def __call__(self, queries: np.ndarray, k: int, exclude: np.ndarray | None = None) -> Ranking:
        """queries: (q,) of the gallery's kind. exclude: (q,)."""
        n = len(self.gallery)
        indices = np.full((len(queries), k), -1, np.int64)
        distances = np.full((len(queries), k), np.inf, np.float32)
        for row, query in enumerate(queries):
            equal = self.gallery == query
            order = np.argsort(~equal, kind="stable") if equal.any() else np.arange(n)
            if exclude is not None:
                order = order[order != exclude[row]]
            order = order[:k]
            indices[row, : len(order)] = order
            distances[row, : len(order)] = ~equal[order]
        return Ranking(indices, distances)


def controls(trial: Trial, seed: int, backend: str, device: str = "cpu") -> dict[str, dict[str, float]]:
    """Control -> metric -> score.

    random: a random vector an image, the same for images of the same bytes. constant: all at equal distance, so in the
    order of the gallery. chance: the mean over all such orders, without the votes; absent where the gallery is too
    large to be ranked whole. duplicates: an image of the same bytes first, then the others in order. oracle: sees the
    labels. random and oracle go through the backend of the run; all are of at most MOST_QUERIES queries.
    """
    data, build = trial.dataset, backend_on(backend, device)
    rows = sampled(trial, seed)
    query = data.query.take(rows)
    splits = data.gallery, query

    # One after the other, and each let go before the next: a million items take 64 numbers each.
    def random() -> tuple[Searcher, np.ndarray]:
        gallery, queries = (_random_vectors(split, seed) for split in splits)
        return build(gallery, "cosine"), queries

    def constant() -> tuple[Searcher, np.ndarray]:  # no query equals any gallery item
        return ExactMatchSearcher(np.zeros(len(data.gallery), np.int64)), np.ones(len(query), np.int64)

    def duplicates() -> tuple[Searcher, np.ndarray]:
        gallery, queries = (np.array(list(_digests(split)), np.bytes_) for split in splits)
        return ExactMatchSearcher(gallery), queries

    def oracle() -> tuple[Searcher, np.ndarray]:
        control = Oracle()
        gallery, queries = (control.transform_split(split) for split in splits)
        knows = getattr(control, "searcher", None)  # once it has seen an image of several labels
        return build(gallery, "hamming") if knows is None else knows(gallery), queries

    exclude = None if trial.exclude is None else trial.exclude[rows]
    found: dict[str, dict[str, float]] = {}
    for control in (random, constant, duplicates, oracle):
        name = control.__name__
        searcher, queries = control()
        ranking, relevant = rank_gallery(
            searcher, queries, query.label_sets, data.gallery.label_sets, trial.depth, exclude=exclude
        )
        ranks = None if relevant is None else relevant.ranks
        judged = judge(query.label_sets, data.gallery.label_sets, ranking, trial.n_relevant[rows], ranks)
        found[name] = metrics.scores(judged, trial.k)
        if name == "constant" and relevant is not None:
            bounds = tie_bounds(trial.n_relevant[rows], relevant.tie_starts, relevant.tie_sizes, trial.k)
            found["chance"] = {metric: bound.expected for metric, bound in bounds.items()}
        del searcher, queries
    return {name: found[name] for name in CONTROLS if name in found}


def sampled(trial: Trial, seed: int) -> np.ndarray:
    """The rows of the queries that controls rank, ascending."""
    n = len(trial.dataset.query)
    return np.sort(np.random.default_rng(seed).permutation(n)[:MOST_QUERIES])


def _digests(split: Split) -> Iterator[str]:
    return (split.images.digest(row) for row in range(len(split)))


def _random_vectors(split: Split, seed: int) -> np.ndarray:
    """(n, DIMENSIONS) float32, the same for images of the same bytes."""
    vectors = np.empty((len(split), DIMENSIONS), np.float32)
    for row, digest in enumerate(_digests(split)):
        random = np.random.default_rng([seed, *bytes.fromhex(digest)[:16]])
        random.standard_normal(dtype=np.float32, out=vectors[row])
    return vectors


def closed_form(n_relevant: np.ndarray, labels: np.ndarray, record: Record) -> dict[str, float]:
    """The ceilings, without asking any metric: what they must be if a metric means what its definition says.

    n_relevant, labels: (q,) of the queries.
    """
    relevant = np.asarray(n_relevant, np.float64)
    highest: dict[str, float] = {}
    for name in record.ceilings:
        base, _, cutoff = name.partition("@")
        if base in ("precision", "recall", "f1") and cutoff.isdigit():
            reached = np.minimum(int(cutoff), relevant)
            out_of = {"precision": int(cutoff), "recall": relevant, "f1": (int(cutoff) + relevant) / 2}[base]
            highest[name] = float(np.mean(reached / out_of))
        elif base == "class_mean_recall" and cutoff.isdigit():
            reached = np.minimum(int(cutoff), relevant) / relevant
            highest[name] = float(np.mean([reached[labels == label].mean() for label in np.unique(labels)]))
        else:
            highest[name] = 1.0
    return highest


def violations(
    record: Record, arrays: Mapping[str, np.ndarray], *, sample: np.ndarray | None = None, learn_from: str | None = None
) -> tuple[str, ...]:
    """The rules that a run breaks, one sentence each; arrays: those of rankings.npz.

    sample: the rows of the queries that the controls ranked; all of them without it. learn_from: what the split holds
    that methods learn from (Split.content); without it nothing is said of what was learned from.
    """
    rows = [row for row in record.rows if row.status == "ok"]
    broken = [*_ceilings(record, arrays, sample)]
    for row in rows:
        broken += _impossible(row, record, arrays)
        broken += [f"{row.method}: {row.inconsistent}"] if row.inconsistent else []
        broken += _unlikely(row, record)
        learned_from = None if row.features is None else row.features.learned_from
        if learn_from is not None and learned_from not in (None, learn_from):
            broken.append(f"{row.method} learned from images that are not the {record.settings.learn_from} split")
    broken += _equal(rows, record, arrays)
    broken += _chance(rows, record)
    return tuple(broken)


def _ceilings(record: Record, arrays: Mapping[str, np.ndarray], sample: np.ndarray | None) -> Iterator[str]:
    """The oracle and the ceilings are what can be worked out without a ranking and without a metric."""
    n_relevant, labels = arrays["n_relevant"], arrays["query_labels"]
    for name, expected in closed_form(n_relevant, labels, record).items():
        if not math.isclose(record.ceilings[name], expected, abs_tol=1e-9):
            yield f"a perfect ranking has {name} {record.ceilings[name]:.6f} where its definition gives {expected:.6f}"
    oracle = record.controls.get("oracle", {})
    if sample is not None:
        n_relevant, labels = n_relevant[sample], labels[sample]
    for name, expected in closed_form(n_relevant, labels, record).items():
        if name in oracle and not math.isclose(oracle[name], expected, abs_tol=1e-9):
            yield f"the oracle, which knows every label, has {name} {oracle[name]:.6f} where {expected:.6f} is right"


def _impossible(row: Row, record: Record, arrays: Mapping[str, np.ndarray]) -> Iterator[str]:
    indices = arrays[f"{row.method}/indices"]
    own = arrays.get("exclude")
    if own is not None:
        themselves = int(((indices == own[:, None]) & (own[:, None] >= 0)).any(axis=1).sum())
        if themselves:
            yield f"{row.method}: {themselves} queries found themselves"
    ordered = np.sort(indices, axis=1)
    twice = int(((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any(axis=1).sum())
    if twice:
        yield f"{row.method}: {twice} queries found one gallery image twice"
    above = [name for name, score in row.scores.items() if score > record.ceilings.get(name, 1.0) + 1e-9]
    if above:
        name = above[0]
        yield (
            f"{row.method}: {name} {row.scores[name]:.6f} is above what the oracle reaches, "
            f"{record.ceilings.get(name, 1.0):.6f}"
        )


def _unlikely(row: Row, record: Record) -> Iterator[str]:
    """Every query hits, but hardly more than once, and the ranking is bad: each found one certain item, as itself."""
    precision_of_all = row.scores.get("map", row.scores.get("map@r"))
    random = record.controls.get("random", {})
    if precision_of_all is None or not random or record.dataset.images.query < ENOUGH_QUERIES:
        return
    for k in record.settings.k:
        name = f"hit_rate@{k}"
        few = k * row.scores[f"precision@{k}"] <= 2.5
        if 5 <= k <= 10 and row.scores[name] == 1.0 and few and precision_of_all <= 0.3 and random[name] < 0.5:
            yield f"{row.method}: {name} is 1 while map is {precision_of_all:.3f}: every query finds one certain image"
            return


def _equal(rows: list[Row], record: Record, arrays: Mapping[str, np.ndarray]) -> Iterator[str]:
    """Methods that share no extractor, or networks with other weights, have no reason to agree to the last digit."""
    if record.dataset.images.query < ENOUGH_QUERIES:
        return
    ordinary = [row for row in rows if row.family != "control"]
    for one, other in combinations(ordinary, 2):
        if FROM_A_FILE in (one.family, other.family):
            continue  # it may hold what the other method computes
        if one.scores != other.scores or one.scores.get("map@r", 1.0) in (0.0, 1.0) or not _differ(one, other):
            continue
        first, second = (arrays[f"{row.method}/distances"] for row in (one, other))
        if one.family == other.family == "deep" and not np.array_equal(first, second):
            continue  # one network in two runtimes ranks alike, at distances that differ in their last bits
        yield f"{one.method} and {other.method} have equal scores to the last digit: one of them is not what it says"


def _differ(one: Row, other: Row) -> bool:
    """Do two rows rest on different things? Options alone may change nothing."""
    shas = [(row.weights or {}).get("sha256") for row in (one, other)]
    if all(shas) and shas[0] != shas[1]:
        return True
    return not _extractors(one) & _extractors(other)


def _extractors(row: Row) -> set[str]:
    name = bare_name(row.method).replace("[untrained]", "").removesuffix(FROM_GALLERY)
    return {re.split("[:=@]", part, maxsplit=1)[0] for part in name.split("+")}


def _chance(rows: list[Row], record: Record) -> Iterator[str]:
    random, chance = record.controls.get("random"), record.controls.get("chance")
    n = record.dataset.images.query
    if random is None or chance is None or n < ENOUGH_QUERIES:
        return
    level = chance["accuracy"]
    duplicates = record.controls["duplicates"]["accuracy"] - record.controls["constant"]["accuracy"]
    counted = min(n, MOST_QUERIES)
    if random["accuracy"] > level + max(duplicates, 0.0) + 8 * math.sqrt(level * (1 - level) / counted) + 2 / counted:
        yield (
            f"random vectors reach accuracy {random['accuracy']:.4f} where chance gives {level:.4f}: "
            "queries find what they cannot know, such as themselves"
        )
    # An interval that reaches down to chance; three methods of two families, as one kind alone may honestly fail. With
    # few labels every interval reaches far, so a method halfway between chance and 1 is never helpless.
    ordinary = [row for row in rows if row.family != "control" and "accuracy" in row.intervals]
    helpless = [
        row for row in ordinary if row.intervals["accuracy"].low <= level and row.scores["accuracy"] < (1 + level) / 2
    ]
    families = {row.family for row in ordinary}
    if len(ordinary) >= 3 and len(families) >= 2 and len(helpless) == len(ordinary):
        yield f"none of {len(ordinary)} methods does better than chance: labels and images do not belong together"
