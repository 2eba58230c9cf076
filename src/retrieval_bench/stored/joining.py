"""Whose image each id of a file is: the one of this id, of this path, or of this file name where only one has it."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from retrieval_bench.core import BenchError, Split, printable
from retrieval_bench.images.reading import paths_of

SHOWN = 3
"""Ids that a sentence names of many."""


class IdJoin:
    """Finds the row of a file for each image of a split.

    It remembers which image took a row, so that no second image of another split takes it.

    Args:
        ids: of the file's rows, each once.
        file: for sentences.
        called: the method, for sentences.
    """

    def __init__(self, ids: Sequence[str], file: Path, called: str) -> None:
        self._ids, self._file, self._called = ids, file, called
        self._row_of = {item: row for row, item in enumerate(ids)}
        self._by_end: dict[int, dict[str, list[int]]] = {}
        self._taken: dict[int, str] = {}
        self._exact: set[int] = set()
        self._named: set[int] = set()

    def rows(self, split: Split, alike: bool = True) -> np.ndarray:
        """(n,) int64, the row of each image; -1 where the file has none. alike: by path and file name, too.

        BenchError where two images would take one row, or an image one of several.
        """
        found = np.array([self._row_of.get(item, -1) for item in split.ids], np.int64)
        exact = set(found[found >= 0].tolist())
        if not exact <= self._exact:
            self._exact |= exact
            self._by_end = {}
        self._taken |= {int(row): item for row, item in zip(found, split.ids, strict=True) if row >= 0}
        missing = np.flatnonzero(found < 0)
        if len(missing) and alike:
            paths = paths_of(split.images)
            for place in missing.tolist():
                item = split.ids[place]
                row = self._alike(item, item if paths is None else str(paths[place]))
                if row < 0:
                    continue
                if self._taken.setdefault(row, item) != item:
                    raise BenchError(
                        f"{self._called}: {self._ids[row]!r} in {printable(self._file)} may be {self._taken[row]!r} or "
                        f"{item!r}; write ids or longer paths into the file"
                    )
                found[place] = row
        return found

    def rows_of_all(self, split: Split) -> np.ndarray:
        """The same, and BenchError where the file lacks an image."""
        found = self.rows(split)
        missing = [split.ids[row] for row in np.flatnonzero(found < 0)]
        if missing:
            more = ", ..." if len(missing) > SHOWN else ""
            raise BenchError(
                f"{self._called}: {printable(self._file)} has nothing for {len(missing)} of {len(split)} images: "
                f"{', '.join(map(repr, missing[:SHOWN]))}{more}; its ids must be the images' ids, paths or file names"
            )
        return found

    def free(self) -> list[int]:
        """The rows that no image has taken."""
        return [row for row in range(len(self._ids)) if row not in self._taken]

    @property
    def left(self) -> int:
        """How many rows no image has taken."""
        return len(self._ids) - len(self._taken)

    @property
    def by_name(self) -> int:
        """How many images were found by nothing but their file name, in another folder than their own."""
        return len(self._named)

    def _alike(self, item: str, path: str) -> int:
        """The row whose id is the end of the image's path, or ends in it, or has its file name; -1: none."""
        own = [_parts(path), _parts(item)]
        names = [one.rpartition("/")[2] for one in own]
        longer = [tail for one in own for tail in _tails(one)]
        found = next((rows for tail in longer if (rows := self._ending(0).get(tail))), [])
        found = found or next(
            (rows for one in own if "/" in one and (rows := self._ending(one.count("/") + 1).get(one))), []
        )
        by_name = not found
        found = found or next((rows for name in names if (rows := self._ending(1).get(name))), [])
        if len(found) > 1:
            raise BenchError(
                f"{self._called}: {item!r} may be {self._ids[found[0]]!r} or {self._ids[found[1]]!r} of "
                f"{printable(self._file)}; write ids or paths into the file that only one image has"
            )
        if not found:
            return -1
        if by_name and "/" in _parts(self._ids[found[0]]):
            self._named.add(found[0])
        return found[0]

    def _ending(self, parts: int) -> dict[str, list[int]]:
        """The last so many parts of each id that has as many -> its rows; 0: the whole id.

        An id that is an image's own is left out: it is no other image's.
        """
        if parts not in self._by_end:
            ends: dict[str, list[int]] = defaultdict(list)
            for row, item in enumerate(self._ids):
                if row in self._exact:
                    continue
                path = _parts(item)
                if path.count("/") + 1 >= parts:
                    ends["/".join(path.rsplit("/", parts)[-parts:]) if parts else path].append(row)
            self._by_end[parts] = dict(ends)
        return self._by_end[parts]


def _parts(path: str) -> str:
    """A path with slashes, without ./ and / before it; an accented letter is one character, where macOS writes two."""
    path = unicodedata.normalize("NFC", path.replace("\\", "/"))
    return "/".join(part for part in path.split("/") if part not in ("", "."))


def _tails(path: str) -> list[str]:
    """The ends of a path that have a folder, the longest first."""
    parts = path.split("/")
    return ["/".join(parts[start:]) for start in range(len(parts) - 1)]
