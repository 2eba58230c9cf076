"""Which candidates the queries can tell apart: by the paired comparisons of the run, and by no other statistic.

Of one record, the pairs that it holds are taken: those of the letters in its table. Of several, or by a metric that the
record has not compared, every pair is compared query by query as `run` does it, with Holm's correction over all pairs;
that takes the rankings beside the records. Holm's correction is over all pairs, and not over those of the best alone,
because the same queries say which is the best. Two rows that neither way compares are told apart only where their own
intervals do not overlap: that is the square-and-add interval of the difference with the widest of all correlations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from retrieval_bench.choosing.candidates import Candidate
from retrieval_bench.choosing.power import error_of_interval, products_needed, standard_error
from retrieval_bench.compare.reload import Values, from_arrays
from retrieval_bench.core import BenchError
from retrieval_bench.evaluation.bootstrap import LEVEL, RESAMPLES
from retrieval_bench.evaluation.significance import compare
from retrieval_bench.records.schema import Pair
from retrieval_bench.report.evidence import Evidence

_Key = tuple[int, str]


@dataclass(frozen=True)
class PairVerdict:
    """What the queries say of two candidates.

    mean: quality of the first minus that of the second; low, high: its interval, None where nothing is known. p_holm:
    None where the two were not compared query by query. different: whether they differ significantly. needed: products
    with which the difference seen would be significant in four of five trials, those that there are included; None
    where it is significant already, or where that cannot be said.
    """

    mean: float
    low: float | None
    high: float | None
    p_holm: float | None
    different: bool
    needed: float | None = None

    @property
    def turned(self) -> PairVerdict:
        """The same of the second and the first."""
        low, high = (None if end is None else -end for end in (self.high, self.low))
        return replace(self, mean=-self.mean, low=low, high=high)


@dataclass(frozen=True)
class TellingApart:
    """verdicts: by (record, method) of both. level: of the intervals. clusters: how many products there are."""

    verdicts: Mapping[tuple[_Key, _Key], PairVerdict]
    level: float
    clusters: int | None

    def between(self, one: Candidate, other: Candidate) -> PairVerdict:
        """What the queries say of two candidates."""
        first, second = _key(one), _key(other)
        if (first, second) in self.verdicts:
            return self.verdicts[first, second]
        if (second, first) in self.verdicts:
            return self.verdicts[second, first].turned
        mean = one.quality - other.quality
        if one.low is None or one.high is None or other.low is None or other.high is None:
            return PairVerdict(mean, None, None, None, False)
        low, high = one.low - other.high, one.high - other.low
        return PairVerdict(mean, low, high, None, low > 0 or high < 0)


def tell_apart(evidences: Sequence[Evidence], candidates: Sequence[Candidate], metric: str) -> TellingApart:
    """Compare all candidates by one metric.

    Args:
        evidences: the records, at least one.
        candidates: rows of theirs, at least one.
        metric: by which, with its cutoff.

    Raises:
        BenchError: Neither comparisons nor rankings nor intervals say anything of this metric.
    """
    records = [evidence.record for evidence in evidences]
    how = next((record.statistics for record in records if record.statistics is not None), None)
    level = LEVEL if how is None else how.level
    clusters = None if how is None else how.clusters
    seen = _seen(evidences, candidates, metric)
    verdicts: dict[tuple[_Key, _Key], PairVerdict] = {}
    if seen is not None and (len(records) > 1 or metric not in records[0].comparisons):
        clusters = len(np.unique(seen.clusters))
        keys = list(seen.columns)
        columns = np.column_stack(list(seen.columns.values()))
        names = [str(number) for number in range(len(keys))]
        pairs = compare(
            *(names, columns, seen.clusters), resamples=RESAMPLES, level=level, seed=records[0].settings.seed
        )
        whole = [((keys[int(pair.first)], keys[int(pair.second)]), pair) for pair in pairs]
        verdicts = _verdicts(whole, seen, clusters, level)
    else:
        for place, record in enumerate(records):
            if metric in record.comparisons and record.statistics is not None:
                held = record.comparisons[metric].pairs
                kept = [(((place, pair.first), (place, pair.second)), pair) for pair in held]
                verdicts |= _verdicts(kept, seen, record.statistics.clusters, record.statistics.level)
    found = TellingApart(verdicts, level, clusters)
    known = [found.between(candidates[0], other).low for other in candidates[1:]]
    if known and all(low is None for low in known):
        raise BenchError(
            f"nothing says which rows differ in {metric}: the records have neither its intervals nor their rankings; "
            "run again with this version, or --prefer a metric that is a mean over queries, such as map@r"
        )
    return found


@dataclass(frozen=True, eq=False)
class _Seen:
    """clusters: (q,) the label of each query; columns: candidate -> (q,) its values."""

    clusters: np.ndarray
    columns: Mapping[_Key, np.ndarray]


def _key(one: Candidate) -> _Key:
    return one.record, one.method


def _seen(evidences: Sequence[Evidence], candidates: Sequence[Candidate], metric: str) -> _Seen | None:
    """What each query scored by each candidate; None where that is not known of all, for the same queries."""
    values: list[Values] = []
    for evidence in evidences:
        found = from_arrays(evidence.arrays, evidence.record)
        if found is None or (values and found.query_ids != values[0].query_ids):
            return None
        values.append(found)
    columns = {}
    for one in candidates:
        column = values[one.record].by_method.get(one.method, {}).get(metric)
        if column is None:
            return None
        columns[_key(one)] = column
    return _Seen(values[0].clusters, columns)


def _verdicts(
    pairs: Sequence[tuple[tuple[_Key, _Key], Pair]], seen: _Seen | None, clusters: int, level: float
) -> dict[tuple[_Key, _Key], PairVerdict]:
    """Verdicts of one family of pairs, over which Holm's correction was made."""
    alpha = 1 - level
    open_pairs = max(1, sum(pair.p_holm > alpha for _, pair in pairs))
    found = {}
    for (first, second), pair in pairs:
        different = pair.p_holm <= alpha
        if seen is not None and first in seen.columns and second in seen.columns:
            error = standard_error(seen.columns[first] - seen.columns[second], seen.clusters)
        else:
            error = error_of_interval(pair.low, pair.high, clusters, level)
        # The first of the pairs that Holm's correction leaves open would have to be significant at this level.
        needed = None if different else products_needed(pair.mean, error, clusters, alpha / open_pairs)
        found[first, second] = PairVerdict(pair.mean, pair.low, pair.high, pair.p_holm, different, needed)
    return found
