"""From what a file of weights holds to the state dict that fits a network.

Trainers save a state dict inside of another dict, with an average of the weights or a second network beside it, and
with what DistributedDataParallel, torch.compile or Lightning puts before every name. A part of the file is taken where
every name that the network needs is in it, behind one and the same prefix, in the right shape. What else lies behind
that prefix must be the classifier; what lies elsewhere (a loss, a projection, an optimiser) is left out.
"""

from __future__ import annotations

import re
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from retrieval_bench.core import BenchError
from retrieval_bench.system.checkpoint import NOTE

DEEPEST = 5
"""Dicts within dicts that are looked into."""
AVERAGED = {"ema", "teacher", "averaged", "swa"}
"""Words of a part that is a running mean of the weights: what trainers evaluate, and so what is taken first."""
USUAL = (
    *("state_dict", "model_state_dict", "model", "net", "network", "module"),
    *("backbone", "encoder", "base_encoder", "encoder_q", "trunk", "visual", "student"),
)
"""Words of a part that holds the network itself; one that is named earlier is taken before one that is named later."""
TRANSPARENT = re.compile(r"_orig_mod\.|_fsdp_wrapped_module\.|_checkpoint_wrapped_module\.")
"""What torch puts into names, at any place, for a wrapper that changes nothing."""
COUNTER = "num_batches_tracked"
"""Of a batch norm: how long it was trained. Old files lack it, and no feature depends on it."""
SHOWN_PARTS = 6


@dataclass(frozen=True)
class InnerDict:
    """A state dict inside of a file, as it lies there: state[written[name]] is the tensor of the name.

    keys: of the dicts around it. removed: transparent pieces that its names had.
    """

    keys: tuple[str, ...]
    state: Mapping[str, Any]
    written: dict[str, str]
    removed: tuple[str, ...]

    def under(self, prefix: str) -> dict[str, Any]:
        """Name behind the prefix -> tensor."""
        found = {name: self.state[as_written] for name, as_written in self.written.items() if name.startswith(prefix)}
        return {name.removeprefix(prefix): value for name, value in found.items()}


@dataclass(frozen=True)
class Place:
    """Where the names of a network are: behind a prefix in a part of the file. matches: how many of them are there."""

    inner: InnerDict
    prefix: str
    matches: int

    @property
    def inside(self) -> dict[str, Any]:
        return self.inner.under(self.prefix)

    @property
    def words(self) -> tuple[str, ...]:
        return (*self.inner.keys, *self.prefix.split(".")[:-1])

    @property
    def rank(self) -> tuple[bool, int, int]:
        """The least is taken: a mean of the weights, then usual words, then short ways."""
        averaged = any(AVERAGED & set(re.split(r"[\W_]+", word.lower())) for word in self.words)
        usual = max((USUAL.index(word) if word in USUAL else len(USUAL) for word in self.words), default=-1)
        return not averaged, usual, len(self.words)

    def __str__(self) -> str:
        return ".".join(self.words)


@dataclass(frozen=True)
class Unwrapped:
    """state: exactly the names that the network needs. how: what was done, in words; "" where nothing was to do.

    chosen: others would have fitted, too.
    """

    state: dict[str, Any]
    how: str
    chosen: bool = False


def unwrapped(
    content: Any, expected: Mapping[str, Any], ignore: tuple[str, ...], rename: Callable[[str], str] = str
) -> Unwrapped | None:
    """The state dict that fits a network; None where the file holds none.

    content: of the file. expected: the network's own state dict. ignore: beginnings of the names of its classifier.
    rename: from a name of an old file to that of today. Raises BenchError, without the file's name, where several fit
    and no rule says which is meant.
    """
    needed = needed_of(expected)
    whole = [place for place in places(content, expected, rename) if _is_whole(place, needed)]
    fitting = [place for place in whole if not unknown_names(place.inside, expected, ignore)]
    if not fitting:
        return None
    fitting.sort(key=lambda place: place.rank)
    first, *others = fitting
    equal = [place for place in others if place.rank == first.rank]
    equal += [place for place in whole if _around(place, first)]
    if equal and not all(_alike(first, place, needed) for place in equal):
        raise BenchError(
            f"holds several networks that fit, {', '.join(map(_named, (first, *equal)))}; save the state dict of the "
            "one that is meant in a file of its own"
        )
    return Unwrapped(_state_of(first, expected), _told(first, others), bool(others))


def needed_of(expected: Mapping[str, Any]) -> dict[str, Any]:
    """The names without which a network is not what it is."""
    return {name: value for name, value in expected.items() if name.rpartition(".")[2] != COUNTER}


def places(content: Any, expected: Mapping[str, Any], rename: Callable[[str], str] = str) -> list[Place]:
    """Where names of the network are, the place with most of them first; of equals the one that comes first."""
    needed = needed_of(expected)
    found = []
    for inner in inner_dicts(content, rename):
        counted: Counter[str] = Counter()
        for name in inner.written:
            pieces = name.split(".")
            for cut in range(len(pieces)):
                if ".".join(pieces[cut:]) in needed:
                    counted[".".join([*pieces[:cut], ""]) if cut else ""] += 1
        found += [Place(inner, prefix, matches) for prefix, matches in counted.items()]
    return sorted(found, key=lambda place: -place.matches)


def inner_dicts(content: Any, rename: Callable[[str], str] = str, keys: tuple[str, ...] = ()) -> Iterator[InnerDict]:
    """Every dict in a file that holds tensors by name, the outermost first."""
    import torch

    if not isinstance(content, Mapping) or len(keys) > DEEPEST:
        return
    names = [key for key, value in content.items() if isinstance(key, str) and isinstance(value, torch.Tensor)]
    if names:
        written = {rename(TRANSPARENT.sub("", name)): name for name in names}
        removed = dict.fromkeys(piece for name in names for piece in TRANSPARENT.findall(name))
        yield InnerDict(keys, content, written, tuple(removed))
    for key, value in content.items():
        if isinstance(key, str):
            yield from inner_dicts(value, rename, (*keys, key))


def outline(content: Any) -> str:
    """What a file holds, in a few words."""
    if not isinstance(content, Mapping):
        return f"a {type(content).__name__}"
    kinds = [f"{key} ({type(value).__name__})" for key, value in content.items()]
    shown = ", ".join(kinds[:SHOWN_PARTS]) + (f" and {len(kinds) - SHOWN_PARTS} more" if kinds[SHOWN_PARTS:] else "")
    return f"a dict of {shown}" if kinds else "an empty dict"


def unknown_names(inside: Mapping[str, Any], expected: Mapping[str, Any], ignore: tuple[str, ...]) -> list[str]:
    """Names behind the prefix that are neither the network's nor its classifier's."""
    others = (name for name in inside if name not in expected and not name.startswith(ignore))
    return [name for name in others if name.rpartition(".")[2] != COUNTER]


def _is_whole(place: Place, needed: Mapping[str, Any]) -> bool:
    """Every name that the network needs is there, in the right shape."""
    if place.matches < len(needed):
        return False
    inside = place.inside
    return all(name in inside and inside[name].shape == value.shape for name, value in needed.items())


def _around(place: Place, inner: Place) -> bool:
    """The place lies in the same dict, and the other one within it: names with and without one more prefix."""
    return (
        place.inner is inner.inner and len(place.prefix) < len(inner.prefix) and inner.prefix.startswith(place.prefix)
    )


def _named(place: Place) -> str:
    return str(place) or "the names without a prefix"


def _alike(one: Place, other: Place, needed: Mapping[str, Any]) -> bool:
    first, second = one.inside, other.inside
    return all(first[name].dtype == second[name].dtype and first[name].equal(second[name]) for name in needed)


def _state_of(place: Place, expected: Mapping[str, Any]) -> dict[str, Any]:
    """With the format versions of the layers, which torch keeps in an attribute of the dict, as far as it has them."""
    inside = place.inside
    state: OrderedDict[str, Any] = OrderedDict()
    for name, own in expected.items():
        state[name] = inside[name] if name in inside and inside[name].shape == own.shape else own
    said = getattr(place.inner.state, "_metadata", None)
    versions = OrderedDict(getattr(expected, "_metadata", {}))
    if said is not None:
        cut = {TRANSPARENT.sub("", f"{layer}."): facts for layer, facts in said.items() if layer != NOTE}
        known = {layer: facts for layer, facts in cut.items() if layer.startswith(place.prefix)}
        versions |= {layer.removeprefix(place.prefix).rstrip("."): facts for layer, facts in known.items()}
        versions |= {NOTE: said[NOTE]} if NOTE in said else {}
    state._metadata = versions  # type: ignore[attr-defined] # noqa: SLF001 - torch's
    return state


def _told(place: Place, others: list[Place]) -> str:
    steps = [f"unwrapped {'.'.join(place.inner.keys)}"] if place.inner.keys else []
    steps += [f"{piece} removed from names" for piece in place.inner.removed]
    steps += [f"prefix {place.prefix} stripped"] if place.prefix else []
    left = [name for name in place.inner.written if not name.startswith(place.prefix)]
    if left:
        steps.append(f"left out {left[0]}{f' and {len(left) - 1} more' if left[1:] else ''}")
    steps += [f"taken before {', '.join(map(_named, others))}"] if others else []
    return ", ".join(steps)
