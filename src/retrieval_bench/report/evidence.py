"""What a report is made from: a record, its rankings and, where the data is at hand, names and images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from retrieval_bench.compare.contradictions import contradictions, marked
from retrieval_bench.compare.reload import dataset_of, judged
from retrieval_bench.core import BenchError, Dataset, Judged, printable
from retrieval_bench.evaluation.query_metadata import Known, known_in, known_of
from retrieval_bench.records.files import load, load_rankings
from retrieval_bench.records.schema import Record, Row
from retrieval_bench.records.sweeps import OptionSweep, load_all
from retrieval_bench.report.names import Names, renamed

CONTROL = "control"


@dataclass(frozen=True, eq=False)
class Evidence:
    """A record and what belongs to it.

    name: what the record is called on the page. arrays: of rankings.npz; empty where they are missing, and
    `no_arrays` then says why. dataset: as it was in the run; None where it is not at hand, and `no_dataset` says why.
    sweeps: those that lie beside the record and are of its data.
    """

    name: str
    record: Record
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    no_arrays: str = ""
    dataset: Dataset | None = None
    no_dataset: str = ""
    sweeps: tuple[OptionSweep, ...] = ()

    @property
    def finished(self) -> list[Row]:
        """Rows of methods that did not fail."""
        return [row for row in self.record.rows if row.status == "ok"]

    @property
    def contestants(self) -> list[Row]:
        """The same without the controls: what somebody could choose."""
        return [row for row in self.finished if row.family != CONTROL]

    def has_ranking(self, method: str) -> bool:
        return f"{method}/indices" in self.arrays

    def judged(self, method: str) -> Judged:
        """What this method found, as metrics see it; KeyError where there is no ranking of it."""
        return judged(self.arrays, method)

    def renamed(self, names: Names) -> Evidence:
        """The same, with every method called by its short name: rows, comparisons and arrays."""
        short = names.short
        changed = {row.method for row in self.record.rows if short[row.method] != row.method}
        arrays = {}
        for key, value in self.arrays.items():
            owner = max((method for method in changed if key.startswith(f"{method}/")), key=len, default="")
            arrays[short[owner] + key[len(owner) :] if owner else key] = value
        return replace(self, record=renamed(self.record, names), arrays=arrays)


def gather(path: Path, data_root: Path | None = None, with_dataset: bool = True) -> Evidence:
    """Load the record at `path` and what can be found of it; rows whose scores its rankings contradict are marked.

    Only a record that cannot be read is a BenchError.
    """
    record = load(path)
    arrays: Mapping[str, np.ndarray] = {}
    no_arrays = ""
    try:
        arrays = load_rankings(path, record)
        record = marked(record, contradictions(record, arrays))
    except BenchError as error:
        arrays, no_arrays = {}, str(error)
    dataset, no_dataset = None, "the report was made without images"
    if with_dataset:
        try:
            dataset, no_dataset = dataset_of(record, data_root), ""
        except BenchError as error:
            no_dataset = str(error)
    found = load_all(path if path.is_dir() else path.parent)
    of_it = tuple(one for one in found if one.fingerprint == record.dataset.fingerprint)
    return Evidence(printable(path), record, arrays, no_arrays, dataset, no_dataset, of_it)


def known(evidence: Evidence) -> Known:
    """Of labels and queries, what the arrays hold; where they are of an earlier version, what the dataset holds."""
    found = known_in(evidence.arrays)
    if found.class_sizes is None and evidence.dataset is not None:
        return known_of(evidence.dataset, evidence.arrays["query_ids"])
    return found


def label_names(evidence: Evidence) -> list[str]:
    """A name for every label that occurs in the rankings: of the record, else of the folder, else its number.

    The folder that all images of a label share, and no image of another, is its name where nothing else names it.
    """
    arrays = evidence.arrays
    names = known(evidence).label_names
    if names:
        return list(names)
    labels = np.concatenate([arrays["gallery_labels"], arrays["query_labels"]]).tolist()
    ids = [*arrays["gallery_ids"].tolist(), *arrays["query_ids"].tolist()]
    folders: dict[int, set[str]] = {}
    for label, item in zip(labels, ids, strict=True):
        folders.setdefault(label, set()).add(item.rpartition("/")[0].rpartition("/")[2])
    owners: dict[str, int] = {}
    for shared in folders.values():
        for name in shared:
            owners[name] = owners.get(name, 0) + 1
    found = [f"label {label}" for label in range(max(labels, default=-1) + 1)]
    for label, shared in folders.items():
        (first, *others) = shared
        if first and not others and owners[first] == 1:
            found[label] = first
    return found
