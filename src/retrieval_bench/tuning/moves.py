"""What to try next, from what is best by now: one option changed, a re-ranking added, two methods joined."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Annotated, Any, Literal, get_args, get_origin

from retrieval_bench.core import BenchError, Setup
from retrieval_bench.methods.parse import DEFAULT_JOIN, Method, parse_method
from retrieval_bench.registry import JOINS, Range, Spec

VALUES: Mapping[str, tuple[Any, ...]] = {
    "size": (160, 288),
    "colour": ("grey", "lab", "opponent"),
    "encode": ("fisher", "vlad"),
}
"""Of options that say by no type which values they have, or of which half and twice the default say nothing."""
NEVER = (
    *("weights", "seed", "device", "compute", "batch", "threads", "file", "vectors", "ids", "precision"),
    *("layer", "prompt", "tokenizer", "stated_ms", "tune", "fit_images", "sample"),
)
"""Options that name files or machines, train a network, or say how exactly something is computed."""
TOGETHER: Sequence[Mapping[str, Any]] = (
    {"whiten": 128, "level": 0.5},
    {"whiten": 256, "level": 0.5},
    {"whiten": 512, "level": 0.5},
    {"whiten": 256},
    {"whiten": 512},
)
"""Options that are 0 by default, some of which do nothing without the other."""
STEPS = ("qe=5", "reciprocal", "verify=50")
CLEANINGS = ("trim", "contrast")

Value = tuple[str, str, str]
"""An extractor, one of its options, and the value of that."""


def option_changes(member: Spec, *, sizes: bool) -> list[dict[str, Any]]:
    """Every change of one option of an extractor, and of some that belong together.

    Args:
        member: the extractor.
        sizes: those of numbers, to half and twice, and of what numbers are kept as, of which few help; else all others.
    """
    entry, now = member.entry, member.resolved
    changes: list[dict[str, Any]] = []
    unfit = entry.facts.get("unfit", {})
    own = set(entry.options) - set(NEVER) - {entry.facts.get("argument", ""), entry.facts.get("main", "")}
    together = [dict(some) for some in TOGETHER if set(some) <= own]
    coupled = {name for some in together for name in some}
    for name, hint in entry.hints.items():
        if name in own and name not in coupled and (_is_size(hint) or name == "dtype") == sizes:
            values = (value for value in _values(name, hint, now[name]) if value not in unfit.get(name, ()))
            changes += [{name: value} for value in values if value != now[name]]
    if sizes:
        return changes
    return changes + [some for some in together if any(now[name] != value for name, value in some.items())]


def _kind(hint: Any) -> Any:
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def _is_size(hint: Any) -> bool:
    return _kind(hint) in (int, float)


def _values(name: str, hint: Any, now: Any) -> tuple[Any, ...]:
    limits = next((one for one in getattr(hint, "__metadata__", ()) if isinstance(one, Range)), None)
    kind = _kind(hint)
    if name in VALUES:
        return VALUES[name]
    if get_origin(kind) is Literal:
        return get_args(kind)
    if kind is bool:
        return (True, False)
    if kind not in (int, float) or not now:
        return ()
    return tuple(value for value in (kind(now / 2), kind(now * 2)) if limits is None or value in limits)


def changed(method: Method, place: int, change: Mapping[str, Any]) -> Method:
    """The method with options of one member changed; those that then have their default are not written."""
    member = method.members[place]
    options = {**member.options, **change}
    plain = {
        name: options[name]
        for name, parameter in member.entry.options.items()
        if name in options and options[name] != parameter.default
    }
    members = list(method.members)
    members[place] = replace(member, options=plain)
    return replace(method, members=tuple(members))


def values_of(method: Method) -> set[Value]:
    """The options that are given to the extractors of a method."""
    found: set[Value] = set()
    for member in method.members:
        argument = member.entry.facts.get("argument", "")
        name = f"{member.entry.name}:{member.options.get(argument, '')}"
        found |= {(name, option, str(value)) for option, value in member.options.items() if option != argument}
    return found


def sizes_of(method: Method) -> Iterator[Method]:
    """Those that differ from a method in one number, which is half or twice what it was."""
    for place, member in enumerate(method.members):
        yield from (changed(method, place, change) for change in option_changes(member, sizes=True))


def changes_of(method: Method) -> Iterator[Method]:
    """All others that differ from a method in one thing; nothing says yet whether they can be built."""
    for place, member in enumerate(method.members):
        yield from (changed(method, place, change) for change in option_changes(member, sizes=False))
    text = str(method)
    if len(method.members) == 1 and not method.steps and "@" not in text and "image" in method.sides.query:
        yield from _parsed(f"{text}@{cleaning}" for cleaning in CLEANINGS)
    if len(method.members) > 1 and not method.steps:
        names = [entry.name for entry in JOINS.own() if entry.name != DEFAULT_JOIN]
        yield from (replace(method, join=Spec(JOINS[name], {})) for name in names if method.join is None)
    if not method.steps and method.said is None:
        yield from _parsed(f"{text}+{step}" for step in STEPS)


def joins_of(methods: Sequence[Method], most: int = 3) -> Iterator[Method]:
    """Every two, and all three, of the best methods of different families, without their re-ranking."""
    bare = [replace(method, steps=(), join=None) for method in methods if method.said is None]
    known: set[frozenset[str]] = set()
    for size in range(2, most + 1):
        for some in combinations(bare, size):
            members = tuple(member for method in some for member in method.members)
            entries = frozenset(member.entry.name for member in members)
            names = frozenset(map(str, members))
            if len(entries) == len(members) and names not in known:  # in whatever order they stand
                known.add(names)
                yield Method(members)


def together_of(base: Method, better: Sequence[Method]) -> Method:
    """All changes of options that made a method better by themselves, the best of each option, made together.

    Args:
        base: what was changed.
        better: `base` with some options changed, the best first.
    """
    found = base
    taken: set[tuple[int, str]] = set()
    for one in better:
        if len(one.members) != len(base.members) or one.steps != base.steps or one.join != base.join:
            continue
        for place, (new, old) in enumerate(zip(one.members, base.members, strict=True)):
            if new.entry is not old.entry or str(new).count("@") != str(old).count("@"):
                continue
            change = {
                name: value
                for name, value in new.resolved.items()
                if name in new.entry.options and value != old.resolved[name] and (place, name) not in taken
            }
            taken |= {(place, name) for name in change}
            found = changed(found, place, change) if change else found
    return found


def usable(method: Method, setup: Setup, refuse: Callable[[Method, Setup, str], None]) -> bool:
    """Whether the options of a method go together, as far as can be said without loading weights."""
    try:
        parse_method(str(method))
        refuse(method, setup, "exact")
    except BenchError:
        return False
    return True


def _parsed(texts: Iterator[str]) -> Iterator[Method]:
    for text in texts:
        try:
            yield parse_method(text)
        except BenchError:
            continue
