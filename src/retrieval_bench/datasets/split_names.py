"""What other datasets call their splits: how their names are mapped to ours, and which mappings to offer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from retrieval_bench.core import SPLITS, BenchError

BOTH = "both"
"""Gallery and query: each such image is searched for among all others (leave-one-out)."""

LEFT_OUT = "none"
"""A split that is not used."""

TARGETS = (*SPLITS, BOTH, LEFT_OUT)

OURS = (*SPLITS, BOTH)
"""Names that need no mapping."""

_TRAIN = ("train", "training")
_VALIDATION = ("val", "valid", "validation", "dev")
_GALLERY = ("gallery", "index", "database", "db", "reference", "references", "catalog", "catalogue", "base")
_QUERY = ("query", "queries", "probe", "probes")
_TEST = ("test", "testing", "eval")

LOOK_LIKE_SPLITS = frozenset((*_TRAIN, *_VALIDATION, *_GALLERY, *_QUERY, *_TEST))
"""Folders of these names hold splits, where no other folder is beside them."""

EXAMPLE = "splits=train:train,val:gallery,test:query"


def parse_mapping(owner: str, text: str) -> Mapping[str, tuple[str, ...]]:
    """Read "train:train,val:gallery,test:query".

    Args:
        owner: the dataset, for the error sentence.
        text: pairs `their name:ours` with commas; ours is train, gallery, query, both (gallery and query) or none, or
            two of them with a plus, as `train:train+gallery`. "" for no mapping.

    Returns:
        Their name -> our splits, none for a split that is left out.

    Raises:
        BenchError: A pair is none, a name is given twice, or the target is none of ours.
    """
    mapping: dict[str, tuple[str, ...]] = {}
    for pair in filter(None, (part.strip() for part in text.split(","))):
        theirs, colon, ours = (part.strip() for part in pair.rpartition(":"))
        targets = [target.strip().casefold() for target in ours.split("+")]
        if not colon or not theirs or not set(targets) <= set(TARGETS):
            raise BenchError(
                f"{owner}: splits has {pair!r}; write their name, a colon and one of {', '.join(TARGETS)}, "
                f"for example {EXAMPLE}"
            )
        if theirs in mapping:
            raise BenchError(f"{owner}: splits names {theirs!r} twice; name each split once")
        mapping[theirs] = our_splits("+".join(targets))
        if {"train", "query"} <= set(mapping[theirs]):
            raise BenchError(f"{owner}: splits puts {theirs!r} into train and query; a query must be unseen")
    return MappingProxyType(mapping)


def our_splits(name: str) -> tuple[str, ...]:
    """The splits that one name stands for: "both" and "gallery+query" are two, "none" is none."""
    named = {"gallery+query" if part == BOTH else part for part in name.split("+")}
    held = "+".join(named).split("+")
    return tuple(split for split in SPLITS if split in held)


def offers(names: Iterable[str]) -> list[str]:
    """Mappings that make sense for splits of these names, the likeliest first; empty where none does."""
    by_kind: dict[str, str] = {}
    kinds = {"train": _TRAIN, "validation": _VALIDATION, "gallery": _GALLERY, "query": _QUERY, "test": _TEST}
    for name in sorted(names):
        for kind, known in kinds.items():
            if name.casefold() in known:
                by_kind.setdefault(kind, name)
    train, validation, gallery, query, test = (by_kind.get(kind, "") for kind in kinds)
    asked = query or test or validation
    found: list[tuple[tuple[str, str], ...]] = []
    if gallery and asked:
        found.append(((train, "train"), (gallery, "gallery"), (asked, "query")))
    elif query and (test or validation):
        found.append(((train, "train"), (test or validation, "gallery"), (query, "query")))
    elif query and train:
        found.append(((train, "train+gallery"), (query, "query")))
    elif validation and test:
        found.append(((train, "train"), (validation, "gallery"), (test, "query")))
        if train:
            found.append(((train, "train+gallery"), (validation, "none"), (test, "query")))
        found.append(((train, "train"), (validation, "none"), (test, "both")))
    elif train and asked:
        found.append(((train, "train+gallery"), (asked, "query")))
        found.append(((train, "train"), (asked, "both")))
    elif asked or gallery:
        found.append(((asked or gallery, "both"),))
    return ["splits=" + ",".join(f"{theirs}:{ours}" for theirs, ours in pairs if theirs) for pairs in found]


def offered(dataset: str, names: Iterable[str]) -> str:
    """The offers as the end of an error sentence."""
    found = offers(names) or [EXAMPLE]
    return f"say which is which, for example --dataset {' or '.join(f'{dataset}:{one}' for one in found)}"
