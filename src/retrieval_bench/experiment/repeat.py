"""A record run again from what it says of itself, and the two held together: identical, within tolerance, different."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from retrieval_bench.compare.diff import diff
from retrieval_bench.core import BenchError, NotComparable
from retrieval_bench.experiment.device_choice import resolve_device
from retrieval_bench.experiment.prepare import Plan, Trial, prepare
from retrieval_bench.images.decoding import MAX_PIXELS, Decoding
from retrieval_bench.methods.parse import parse_method
from retrieval_bench.plugins.loading import plugins
from retrieval_bench.records.schema import PluginFacts, Record, find_row
from retrieval_bench.registry import DATASETS, parse
from retrieval_bench.remote.place import root_of
from retrieval_bench.system.cache import FeatureCache, cache_root
from retrieval_bench.system.cores import usable_cores
from retrieval_bench.system.progress import Progress, silent

Sameness = Literal["identical", "within tolerance", "different"]


@dataclass(frozen=True)
class Repetition:
    """verdict, what differs between the two results, and what differs between the environments of the two runs."""

    verdict: Sameness
    differences: tuple[str, ...]
    reasons: tuple[str, ...]


def plan_of(record: Record, root: Path | None = None) -> Plan:
    """What the record's run was asked to do, without any cache. root: where the data lies now, if it was moved.

    Threads are those of the record, as far as this process may use so many; nothing but time depends on them.
    Networks that had random weights get them again, also if trained ones are available by now.
    """
    settings = record.settings
    if not settings.methods or not record.rows:
        raise BenchError("the record names no method; there is nothing to repeat")
    _refuse_missing(settings.plugins)
    methods = tuple(parse_method(text) for text in settings.methods)
    untrained = any("[untrained]" in row.method for row in record.rows)
    trained = any(row.family == "deep" and row.weights and "[untrained]" not in row.method for row in record.rows)
    return Plan(
        methods=methods,
        dataset=parse(DATASETS, record.dataset.spec),
        root=root or (None if record.dataset.root is None else root_of(record.dataset.root)),
        classifiers=settings.classifiers,
        perturb=settings.perturb,
        severities=settings.severities,
        k=settings.k,
        seed=settings.seed,
        weights="random" if untrained and not trained else settings.weights,
        device=resolve_device(settings.device, methods, settings.backend),
        threads=min(settings.threads, usable_cores()),
        limit=settings.limit,
        relevance=settings.relevance,
        learn_from=settings.learn_from,
        concurrency=settings.concurrency,
        backend=settings.backend,
        decoding=Decoding(max_pixels=settings.max_pixels or MAX_PIXELS, wanted=settings.decoded_for or 0),
        max_bad=1.0,  # what was unusable then was accepted; anything else changes the fingerprint
    )


def same_data(record: Record, root: Path | None, threads: int, progress: Progress = silent) -> tuple[Plan, Trial]:
    """The data of a record made ready again, for commands that search its rows in other ways.

    Args:
        record: what was run.
        root: where the data lies now, if it was moved.
        threads: of everything from here on.
        progress: called with (what, done, total).

    Returns:
        The plan of the record, with the user's cache, and the data.

    Raises:
        NotComparable: The images are not those of the record.
    """
    plan = replace(plan_of(record, root), threads=threads, cache=FeatureCache(cache_root()))
    trial = prepare(plan, progress)
    if trial.fingerprint != record.dataset.fingerprint:
        raise NotComparable(f"dataset {record.dataset.spec}: its images are not those of the record; run again")
    return plan, trial


def _refuse_missing(wanted: Iterable[PluginFacts]) -> None:
    loaded = {plugin.name for plugin in plugins() if not plugin.reason}
    for one in wanted:
        if one.name not in loaded:
            reason = next((f": {plugin.reason}" for plugin in plugins() if plugin.name == one.name), "")
            do = f"name it by --plugin {one.name}" if one.package is None else f"install {one.package}"
            version = f"sha256 {one.sha256[:12]}" if one.package is None else one.package
            raise BenchError(f"the record used plug-in {one.name} ({version}), which is not loaded{reason}; {do}")


def compared(
    before: Record, after: Record, old: Mapping[str, np.ndarray] | None, new: Mapping[str, np.ndarray] | None
) -> Repetition:
    """Hold a repetition against its record; old, new: their rankings, where they are there.

    Identical: every quality number and every gallery row that was found, to the last bit of each distance. Raises
    NotComparable where the data, the weights or the definitions are others.
    """
    # Other threads are a reason to name, and no ground for another verdict.
    settings = after.settings.model_copy(update={"threads": before.settings.threads})
    verdict = diff(before, after.model_copy(update={"settings": settings}))
    differences = [*verdict.broken]
    for row in before.rows:
        again = find_row(after.rows, row.method)
        if again is None or "failed" in (row.status, again.status):
            continue
        changes = [change for change in verdict.quality if change.method == row.method and change.delta]
        if changes:
            largest = max(changes, key=lambda change: abs(change.delta))
            differences.append(
                f"{row.method}: {len(changes)} quality numbers differ, {largest.name} most, by {largest.delta:+.6f}"
            )
        if old is not None and new is not None:
            differences += _otherwise_found(row.method, old, new)
    if not verdict.passed:
        kind: Sameness = "different"
    else:
        kind = "within tolerance" if differences else "identical"
    return Repetition(kind, tuple(differences), () if kind == "identical" else _reasons(before, after))


def _otherwise_found(method: str, old: Mapping[str, np.ndarray], new: Mapping[str, np.ndarray]) -> list[str]:
    found = []
    for name, what in (("indices", "gallery images"), ("distances", "distances")):
        key = f"{method}/{name}"
        if key in old and key in new and not np.array_equal(old[key], new[key]):
            same_shape = old[key].shape == new[key].shape
            share = f" at {np.mean(old[key] != new[key]):.2%} of the ranks" if same_shape else ""
            found.append(f"{method}: other {what}{share}")
    return found


def _reasons(before: Record, after: Record) -> tuple[str, ...]:
    """What is not as it was: the first places to look."""
    old, new = before.environment, after.environment
    reasons = []
    for name in ("version", "commit", "python", "system", "machine", "processor", "gpu"):
        one, other = getattr(old, name), getattr(new, name)
        if one != other:
            reasons.append(f"{name}: {one} then, {other} now")
    if old.dirty or new.dirty:
        reasons.append("the checkout held changes that no commit names")
    for name in sorted(old.libraries.keys() | new.libraries.keys()):
        one, other = old.libraries.get(name), new.libraries.get(name)
        if one != other:
            reasons.append(f"{name}: {one or 'absent'} then, {other or 'absent'} now")
    now = {plugin.name: plugin for plugin in after.settings.plugins}
    for plugin in before.settings.plugins:
        if plugin.name in now and now[plugin.name].sha256 != plugin.sha256:
            reasons.append(f"plug-in {plugin.name}: its source has changed since then")
    if before.settings.threads != after.settings.threads:
        reasons.append(f"threads: {before.settings.threads} then, {after.settings.threads} now")
    if any(row.features is not None and row.features.from_cache for row in before.rows):
        reasons.append("the record took features from a cache; the repetition computed all anew")
    return tuple(reasons) or ("nothing that the records know of: look at data outside the splits and at the code",)
