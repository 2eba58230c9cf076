"""Records of several datasets to a leaderboard: ranks, what can be concluded over datasets, and what carries over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from retrieval_bench.choosing.candidates import Candidate, candidates_of
from retrieval_bench.choosing.dataset_properties import Property, known_properties, looked_at, told_by_record
from retrieval_bench.choosing.telling_apart import PairVerdict, TellingApart, tell_apart
from retrieval_bench.compare.diff import refuse_false_comparison
from retrieval_bench.core import BenchError, NotComparable, Sides
from retrieval_bench.evaluation.across_datasets import FEWEST_DATASETS, RankTests, rank_correlation, rank_tests
from retrieval_bench.evaluation.bootstrap import RESAMPLES
from retrieval_bench.evaluation.significance import holm
from retrieval_bench.records.schema import Record, Row
from retrieval_bench.report.evidence import Evidence

METRIC = "map@r"
FILES_OF_THE_USER = frozenset({"folder", "manifest", "webdataset"})
"""Datasets whose name does not say what they are: two of them need not be of one source."""

EVERYWHERE, SOMEWHERE, TURNS, OPEN = "everywhere", "never contradicted", "turns around", "open"
"""Of a pair: decided the same way in all datasets; in some, and in none the other way; in some one way and in some the
other; in none."""


@dataclass(frozen=True, eq=False)
class BoardDataset:
    """One dataset, of one record or several. rows: by method, controls aside. absent: methods of the board's records
    that it lacks. properties: by key. verdicts: what its queries say of each pair of methods, (first, second) ->
    verdict."""

    name: str
    record: Record
    evidences: tuple[Evidence, ...]
    rows: Mapping[str, Row]
    properties: Mapping[str, float]
    verdicts: Mapping[tuple[str, str], PairVerdict] = field(default_factory=dict)


@dataclass(frozen=True)
class BoardPair:
    """Two methods over all datasets. first_in, second_in: datasets whose queries decide for either. opens: the others.
    state: EVERYWHERE, ... p_holm: of the test over datasets; None with too few datasets. different: by that test."""

    first: str
    second: str
    first_in: tuple[str, ...]
    second_in: tuple[str, ...]
    opens: tuple[str, ...]
    state: str
    p_holm: float | None
    different: bool


@dataclass(frozen=True)
class FamilyStrength:
    """One family and one property. member: the method that stands for the family. strengths: of each dataset, the
    member's score minus the mean over all families' members. rho: rank correlation with the property; None with too few
    datasets. p_holm: after Holm's correction over all families and properties."""

    family: str
    member: str
    property: Property
    strengths: tuple[float, ...]
    low: float
    high: float
    rho: float | None = None
    p_holm: float | None = None


@dataclass(frozen=True, eq=False)
class Leaderboard:
    """All that is said. methods: in all datasets, the best mean rank first. scores: (datasets, methods). absent:
    method -> datasets that lack it. level: of intervals and tests."""

    metric: str
    datasets: tuple[BoardDataset, ...]
    methods: tuple[str, ...]
    families: Mapping[str, str]
    scores: np.ndarray
    tests: RankTests
    wins: Mapping[str, int]
    pairs: tuple[BoardPair, ...]
    strengths: tuple[FamilyStrength, ...]
    absent: Mapping[str, tuple[str, ...]]
    left_out: tuple[str, ...]
    warnings: tuple[str, ...]

    def mean_rank(self, method: str) -> tuple[float, float | None, float | None]:
        """The mean rank of a method, and its interval where there is one."""
        place = self.methods.index(method)
        reach = (None, None) if self.tests.reach is None else self.tests.reach[place].tolist()
        return float(self.tests.means[place]), reach[0], reach[1]


def leaderboard(evidences: Sequence[Evidence], metric: str = METRIC, look: int = 0) -> Leaderboard:
    """Compare methods over datasets.

    Args:
        evidences: records of at least two datasets; several may be of one dataset. With their datasets, for `look`.
        metric: what methods are ranked by, with its cutoff.
        look: gallery images of each dataset whose colour and texture are measured; 0: none.

    Raises:
        BenchError: There is one dataset only, or fewer than two methods are in all of them.
        NotComparable: The metric does not mean the same in all records.
    """
    refuse_other_meaning([evidence.record for evidence in evidences], metric)
    parted, warnings = _datasets(evidences)
    if len(parted) < 2:
        raise BenchError(
            "a leaderboard needs records of at least two datasets, and these are of one; `report` and `recommend` take "
            "records of one dataset"
        )
    left_out: list[str] = []
    found = []
    for name, own in parted.items():
        candidates, told = candidates_of(own, metric)
        left_out += [f"{sentence} ({name})" for sentence in told]
        chosen: dict[str, Candidate] = {}
        for one in candidates:
            if one.method in chosen and abs(one.quality - chosen[one.method].quality) > 1e-9:
                warnings.append(
                    f"{one.method} has {chosen[one.method].quality:.4f} and {one.quality:.4f} in two records of "
                    f"{name}; "
                    "the newer one counts."
                )
            chosen.setdefault(one.method, one)
        found.append((name, own, chosen))
    methods = [method for method in found[0][2] if all(method in chosen for _, _, chosen in found)]
    everything = dict.fromkeys(method for _, _, chosen in found for method in chosen)
    absent = {
        method: tuple(name for name, _, chosen in found if method not in chosen)
        for method in everything
        if method not in methods
    }
    if len(methods) < 2:
        near = sorted(absent, key=lambda method: len(absent[method]))[:3]
        lacks = "; ".join(f"{method} is not in {', '.join(absent[method])}" for method in near)
        raise BenchError(
            f"a leaderboard needs two methods that all {len(found)} datasets have, and there "
            f"{'is one' if methods else 'is none'}: {lacks}; run these, or leave a dataset out"
        )
    scores = np.array([[chosen[method].quality for method in methods] for _, _, chosen in found])
    order = np.argsort(rank_tests(methods, scores, resamples=1).means, kind="stable")
    methods, scores = [methods[place] for place in order], scores[:, order]
    tests = rank_tests(methods, scores)
    datasets = []
    for name, own, chosen in found:
        properties = told_by_record(own[0].record)
        if look:
            there = next((one.dataset for one in own if one.dataset is not None), None)
            properties |= {} if there is None else looked_at(there, look)
            if there is None:
                warnings.append(f"Colour and texture of {name} are not known: {own[0].no_dataset}")
        kept = [chosen[method] for method in methods]
        verdicts, silent = _verdicts(own, kept, metric, name)
        warnings += silent
        rows = {one.method: _row(own[one.record], one.method) for one in kept}
        datasets.append(BoardDataset(name, own[0].record, tuple(own), rows, properties, verdicts))
    warnings += _other_options(datasets, methods)
    families = {method: datasets[0].rows[method].family for method in methods}
    best = scores.max(axis=1, keepdims=True)
    return Leaderboard(
        metric=metric,
        datasets=tuple(datasets),
        methods=tuple(methods),
        families=families,
        scores=scores,
        tests=tests,
        wins=dict(zip(methods, (scores >= best - 1e-9).sum(axis=0).tolist(), strict=True)),
        pairs=tuple(_pairs(methods, datasets, tests)),
        strengths=tuple(_strengths(methods, families, scores, datasets)),
        absent=absent,
        left_out=tuple(left_out),
        warnings=tuple(dict.fromkeys(warnings)),
    )


def refuse_other_meaning(records: Sequence[Record], metric: str) -> None:
    """Raise NotComparable where a metric, or what counts as relevant, is not the same in all records."""
    first = records[0]
    base = metric.rpartition("@")[0] or metric

    def definition(record: Record) -> str:
        facts = record.metrics.get(metric) or record.metrics.get(base)
        return "" if facts is None else facts.definition

    for other in records[1:]:
        pairs = {
            "what counts as relevant": (first.settings.relevance, other.settings.relevance),
            "the split that methods learned from": (first.settings.learn_from, other.settings.learn_from),
            f"the definition of {metric}": (definition(first), definition(other)),
        }
        for what, (one, two) in pairs.items():
            if one and two and one != two:
                raise NotComparable(
                    f"not comparable: {what} differs between records of {first.dataset.spec} and {other.dataset.spec} "
                    f"({one} and {two}); run them the same way"
                )


def _datasets(evidences: Sequence[Evidence]) -> tuple[dict[str, list[Evidence]], list[str]]:
    """Name of a dataset -> its records, the newest first; and warnings."""
    by_data: dict[str, list[Evidence]] = {}
    for evidence in evidences:
        by_data.setdefault(evidence.record.dataset.fingerprint, []).append(evidence)
    parted: dict[str, list[Evidence]] = {}
    warnings: list[str] = []
    for own in by_data.values():
        own.sort(key=lambda one: one.record.created, reverse=True)
        for other in own[1:]:
            try:
                refuse_false_comparison(own[0].record, other.record, one_backend=False)
            except NotComparable as refusal:
                raise NotComparable(f"{own[0].name} and {other.name} cannot be mixed, {refusal}") from None
        parted[_free_name(own[0].record, parted)] = own
        for one in own:
            if one.record.status != "finished":
                warnings.append(f"The run of {one.name} did not finish ({one.record.status}).")
            warnings += [f"{one.name}: {sentence}" for sentence in one.record.violations]
    sources: dict[str, list[str]] = {}
    for name, own in parted.items():
        if own[0].record.dataset.name not in FILES_OF_THE_USER:
            sources.setdefault(own[0].record.dataset.name, []).append(name)
    warnings += [
        f"{' and '.join(names)} are of one source. They count as {len(names)} datasets, and are not independent: "
        "tests over datasets say more than there is."
        for names in sources.values()
        if len(names) > 1
    ]
    return parted, warnings


def _free_name(record: Record, taken: Mapping[str, object]) -> str:
    """The specification; of a folder or list of the user also where it lies; with a number where that is not enough."""
    facts = record.dataset
    name = facts.spec
    if facts.name in FILES_OF_THE_USER and facts.root:
        name = facts.root.rstrip("/").rpartition("/")[2] or name
    if record.settings.limit is not None:
        name = f"{name}, limit {record.settings.limit}"
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name} ({number})"
    return free


def _row(evidence: Evidence, method: str) -> Row:
    return next(row for row in evidence.record.rows if row.method == method)


def _verdicts(
    own: Sequence[Evidence], kept: Sequence[Candidate], metric: str, name: str
) -> tuple[dict[tuple[str, str], PairVerdict], list[str]]:
    """What one dataset's queries say of each pair; empty, and why, where they say nothing."""
    try:
        telling: TellingApart = tell_apart(own, kept, metric)
    except BenchError:
        return {}, [
            (
                f"Of {name} it is not known which differences are significant in {metric}: its records hold neither "
                "comparisons nor rankings; it counts for the ranks alone."
            )
        ]
    return {(one.method, other.method): telling.between(one, other) for one, other in combinations(kept, 2)}, []


def _other_options(datasets: Sequence[BoardDataset], methods: Sequence[str]) -> list[str]:
    """Sentences on methods of one name that were not the same method everywhere."""
    told = []
    for method in methods:
        rows = [one.rows[method] for one in datasets]
        known = [row.params for row in rows if row.params]
        names = sorted({key for one in known for key in one if any(one.get(key) != other.get(key) for other in known)})
        if names:
            told.append(f"{method} had not the same options in all datasets ({', '.join(names)} differ).")
        ready = [row.weights["sha256"] for row in rows if row.weights and row.weights.get("sha256")]
        learned = any(row.features is not None and row.features.fit != "nothing to learn" for row in rows)
        if len(set(ready)) > 1 and not learned:
            told.append(f"{method} had not the same weights in all datasets.")
        if len({str(Sides(row.query, row.gallery)) for row in rows}) > 1:
            told.append(f"{method} does not compare the same in all datasets (pictures, texts, both).")
    return told


def _pairs(methods: Sequence[str], datasets: Sequence[BoardDataset], tests: RankTests) -> list[BoardPair]:
    over = {(pair.first, pair.second): pair for pair in tests.pairs}
    found = []
    for first, second in combinations(methods, 2):
        ways: dict[str, list[str]] = {"first": [], "second": [], "open": []}
        for one in datasets:
            verdict = one.verdicts.get((first, second))
            decided = verdict is not None and verdict.different
            way = "open" if verdict is None or not decided else "first" if verdict.mean > 0 else "second"
            ways[way].append(one.name)
        if ways["first"] and ways["second"]:
            state = TURNS
        elif not ways["first"] and not ways["second"]:
            state = OPEN
        else:
            state = SOMEWHERE if ways["open"] else EVERYWHERE
        tested = over.get((first, second))
        found.append(
            BoardPair(
                *(first, second, tuple(ways["first"]), tuple(ways["second"]), tuple(ways["open"]), state),
                p_holm=None if tested is None else tested.p_holm,
                different=tested is not None and tested.different,
            )
        )
    return found


def _strengths(
    methods: Sequence[str], families: Mapping[str, str], scores: np.ndarray, datasets: Sequence[BoardDataset]
) -> list[FamilyStrength]:
    """Every family that has a method here, with every property that is known and varies."""
    members: dict[str, str] = {}
    for method in methods:  # the best mean rank first
        members.setdefault(families[method], method)
    known = known_properties([dict(one.properties) for one in datasets])
    if len(members) < 2 or not known:
        return []
    columns = scores[:, [methods.index(member) for member in members.values()]]
    strengths = columns - columns.mean(axis=1, keepdims=True)
    found, chances = [], []
    for wanted in known:
        values = np.array([one.properties[wanted.key] for one in datasets])
        order = np.argsort(values, kind="stable")
        half = len(order) // 2
        for place, (family, member) in enumerate(members.items()):
            own = strengths[:, place]
            rho = None
            if len(datasets) >= FEWEST_DATASETS:
                rho, p = rank_correlation(values, own, RESAMPLES, 0)
                chances.append(p)
            low, high = float(own[order[:half]].mean()), float(own[order[-half:]].mean())
            found.append(FamilyStrength(family, member, wanted, tuple(own.tolist()), low, high, rho))
    if chances:
        corrected = holm(np.array(chances)).tolist()
        found = [
            FamilyStrength(*(one.family, one.member, one.property, one.strengths, one.low, one.high, one.rho), p_holm)
            for one, p_holm in zip(found, corrected, strict=True)
        ]
    return found
