"""A plan for a dataset that is in memory."""

from __future__ import annotations

from typing import Any

from retrieval_bench.core import Dataset
from retrieval_bench.experiment.prepare import Plan
from retrieval_bench.methods.parse import parse_method
from retrieval_bench.registry import Entry, Spec


def plan(dataset: Dataset, *methods: Spec | str, **changes: Any) -> Plan:
    specs = tuple(parse_method(method) if isinstance(method, str) else method for method in methods)
    source = Spec(Entry(dataset.name, lambda root: dataset, "for tests"), {})
    return Plan(**({"methods": specs, "dataset": source, "threads": 2} | changes))
