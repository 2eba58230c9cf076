"""Where the features of an index lie: in its own files, or (`store_features`) in a vector store."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from retrieval_bench.core import printable
from retrieval_bench.indexing.description import Description
from retrieval_bench.indexing.feature_files import Appending, FeatureFiles, drop_other_generations
from retrieval_bench.indexing.items import ItemsState
from retrieval_bench.indexing.store_rows import StoredRows
from retrieval_bench.system.files import sync_folder
from retrieval_bench.system.progress import Progress

_ROWS_AT_ONCE = 4096
Array = np.ndarray | StoredRows
"""(n, d): the rows of a part, as they lie where they lie."""


class AppendingRows(Protocol):
    """Rows on their way in: none counts before SQLite has committed its item."""

    def append(self, arrays: Sequence[np.ndarray]) -> None:
        """Write some rows of every array."""

    def sync(self) -> None:
        """Wait until all of it is on the disk."""

    def take_back(self) -> None:
        """Remove them again, as far as that is possible; the next writer does the same."""

    def close(self) -> None:
        """Let go of what was opened to write."""


class FeaturePlace(Protocol):
    """Where features lie. Rows are written before SQLite commits their items, and removed after it has forgotten them:
    what is killed in between leaves rows that no item has, which nobody finds and the next writer removes."""

    def arrays(self, state: ItemsState) -> list[list[Array]]:
        """The arrays of each method; FileNotFoundError where another state has taken the place of this one."""

    def names(self, state: ItemsState) -> list[str]:
        """What each array is called in a sentence, in the order of methods and parts."""

    def as_kept(self, rows: Sequence[np.ndarray]) -> list[np.ndarray]:
        """A row of each array, as it comes back from there."""

    def appending(self, state: ItemsState, first: int) -> AppendingRows:
        """Rows of new items, whose numbers begin with `first`. OSError or BenchError where it cannot be written."""

    def rewrite(self, state: ItemsState, chosen: np.ndarray, progress: Progress) -> None:
        """Before SQLite forgets all items but those of the chosen rows."""

    def clear(self, state: ItemsState, *, compacted: bool) -> None:
        """Remove what no item has. compacted: SQLite has just forgotten items; else a process begins to write."""

    def reach(self) -> None:
        """BenchError where the place cannot be reached at all, which says nothing of what lies there."""

    def close(self) -> None:
        """Let go of it."""


class FileFeatures:
    """Features in files of the index. Implements `FeaturePlace`."""

    def __init__(self, folder: Path, description: Description) -> None:
        self._folder, self._description = folder, description

    def _files(self, generation: int) -> FeatureFiles:
        return FeatureFiles(self._folder, self._description, generation)

    def arrays(self, state: ItemsState) -> list[list[Array]]:
        files = self._files(state.generation)
        found: list[list[Array]] = [[] for _ in self._description.methods]
        for method, array, facts in files.arrays:
            found[method].append(files.mapped(method, array, facts, state.rows))
        return found

    def names(self, state: ItemsState) -> list[str]:
        files = self._files(state.generation)
        return [printable(files.path(method, array)) for method, array, _ in files.arrays]

    def as_kept(self, rows: Sequence[np.ndarray]) -> list[np.ndarray]:
        return list(rows)

    def appending(self, state: ItemsState, first: int) -> Appending:
        return Appending(self._files(state.generation), state.rows)

    def rewrite(self, state: ItemsState, chosen: np.ndarray, progress: Progress) -> None:
        arrays = [array for own in self.arrays(state) for array in own]
        with contextlib.closing(Appending(self._files(state.generation + 1), 0)) as appending:
            for start in range(0, len(chosen), _ROWS_AT_ONCE):
                progress("compacting", start, len(chosen))
                some = chosen[start : start + _ROWS_AT_ONCE]
                appending.append([array[some] for array in arrays])
            appending.sync()
            sync_folder(self._folder / "features")

    def clear(self, state: ItemsState, *, compacted: bool) -> None:
        drop_other_generations(self._folder, state.generation)

    def reach(self) -> None:
        """Nothing: it is the folder itself."""

    def close(self) -> None:
        """Nothing: whoever has mapped a file goes on."""
