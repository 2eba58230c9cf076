"""The last explanations, so that one that is opened again is not drawn again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from threading import Lock

EXPLANATIONS_KEPT = 64


@dataclass(frozen=True)
class WordBar:
    """What a word adds to the similarity. length: of its bar, 0 to 100. adds: it brings the item nearer."""

    word: str
    amount: str
    length: int
    adds: bool


@dataclass(frozen=True)
class DrawnPair:
    """said: one line below it. png: as base64; "" where bars of words are shown instead."""

    said: str
    png: str = ""
    bars: tuple[WordBar, ...] = ()


@dataclass(frozen=True)
class LayerShown:
    """What one part of a method has to say. pairs: none where `about` says why."""

    name: str
    about: str
    pairs: tuple[DrawnPair, ...]


class Explanations:
    """By what was searched for, the column and the item."""

    def __init__(self) -> None:
        self._held: OrderedDict[Hashable, list[LayerShown]] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Hashable, make: Callable[[], list[LayerShown]]) -> list[LayerShown]:
        """What is held under the key, else what `make` gives."""
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return self._held[key]
        made = make()
        with self._lock:
            self._held[key] = made
            while len(self._held) > EXPLANATIONS_KEPT:
                self._held.popitem(last=False)
        return made
