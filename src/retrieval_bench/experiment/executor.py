"""Who carries out what a run asks for: this process, or a worker process that may end without ending the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from retrieval_bench.experiment.prepare import Plan
from retrieval_bench.methods.parse import Method
from retrieval_bench.records.schema import Comparison, Record, Row, Statistics
from retrieval_bench.system.progress import Progress


@dataclass(frozen=True, eq=False)
class Opened:
    """The data made ready.

    Args:
        record: as it is before its first row.
        arrays: those that all methods share.
        half_loaded: a library could be loaded in part alone, while a GPU was looked for.
    """

    record: Record
    arrays: Mapping[str, np.ndarray]
    half_loaded: bool = False


@dataclass(frozen=True, eq=False)
class MethodOutcome:
    """What became of one method.

    Args:
        row: its row of the record, failed or not.
        arrays: those of rankings.npz, by their names there; none where the method failed.
        per_query: metric -> (q,) float64, a value for each query; none where the method failed.
        libraries: what the loaded libraries said of themselves afterwards, as fields of `Environment`.
    """

    row: Row
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    per_query: Mapping[str, np.ndarray] = field(default_factory=dict)
    libraries: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Controlled:
    """The controls of a run, and what its rules need besides.

    Args:
        scores: control -> metric -> score; none where they could not be computed.
        failure: why not, as "KeyError: 'x'"; "" where they could.
        sample: the rows of the queries that the controls ranked. None: all of them.
        learned_from: what the split holds that methods learn from (`Split.content`). None: nobody could say.
    """

    scores: Mapping[str, Mapping[str, float]]
    failure: str
    sample: np.ndarray | None
    learned_from: str | None


class Executor(Protocol):
    """Asked in this order: `open` once, `evaluate` for each method, then `compare` and `controls`."""

    def open(self, plan: Plan, progress: Progress) -> Opened:
        """Make the data ready.

        Args:
            plan: what is to be run.
            progress: called often.

        Returns:
            The record before its first row, and the arrays that all methods share.

        Raises:
            BenchError: The data cannot be used.
        """

    def evaluate(self, method: Method, progress: Progress) -> MethodOutcome:
        """Evaluate one method of the plan.

        Args:
            method: which.
            progress: called often.

        Returns:
            Its row and what belongs to it. Whatever goes wrong is a failed row.
        """

    def compare(
        self, values: Mapping[str, Mapping[str, np.ndarray]], labels: np.ndarray, how: Statistics, progress: Progress
    ) -> dict[str, Comparison]:
        """Compare every two methods.

        Args:
            values: method -> metric -> (q,) float64, a value for each query.
            labels: (q,) of the queries, which are resampled label by label.
            how: how intervals and comparisons are computed.
            progress: called often.

        Returns:
            Metric -> all pairs.
        """

    def controls(self, progress: Progress) -> Controlled:
        """Compute the controls of the run, after all methods, so that they compile and load nothing for these.

        Args:
            progress: called often.

        Returns:
            The controls. Whatever goes wrong is their `failure`.
        """
