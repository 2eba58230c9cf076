"""What could have been tried and was not: of everything that is registered, what no row of the records has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from retrieval_bench.choosing.candidates import methods_of
from retrieval_bench.records.schema import Record
from retrieval_bench.registry import BACKENDS, CLASSIFIERS, CLEANINGS, EXTRACTORS, JOINS, STEPS, Registry

NEED_MORE = {"file": "vectors of your own", "service": "a service of your own", "text": "titles"}
"""Families that not everybody can try, and what they need."""
NAMED = 3
"""Methods of a family that are named."""


def untried(records: Sequence[Record]) -> dict[str, list[str]]:
    """Kind -> what of it no row has: families of methods with some of their members, joins, steps, backends, ..."""
    tried: set[str] = set()
    families: set[str] = set()
    classifiers: set[str] = set()
    for record in records:
        classifiers |= set(record.settings.classifiers)
        tried.add(record.settings.backend.partition(":")[0])
        for method in methods_of(record).values():
            entries = method.entries
            tried |= {entry.name for entry in entries}
            families |= {entry.family for entry in entries if entry.family}
            if len(method.members) > 1 and method.join is None:
                tried.add("scores")
        families |= {row.family for row in record.rows}
    members: dict[str, list[str]] = {}
    for entry in EXTRACTORS.own():
        if entry.family not in families and entry.family != "control":
            members.setdefault(entry.family, []).append(entry.name)
    kinds: Mapping[str, Registry] = {
        "cleanings": CLEANINGS,
        "joins": JOINS,
        "steps": STEPS,
        "backends": BACKENDS,
    }
    found = {
        "families": [_family(name, methods) for name, methods in members.items()],
        **{
            kind: [entry.name for entry in registry.own() if entry.name not in tried]
            for kind, registry in kinds.items()
        },
        "classifiers": [entry.name for entry in CLASSIFIERS.own() if entry.name not in classifiers],
    }
    return {kind: names for kind, names in found.items() if names}


def _family(name: str, methods: Sequence[str]) -> str:
    told = f"{', '.join(methods[:NAMED])}{', ...' if len(methods) > NAMED else ''}"
    return f"{name} ({told}; needs {NEED_MORE[name]})" if name in NEED_MORE else f"{name} ({told})"
