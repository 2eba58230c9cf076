"""Whether an index is as it was written: every checksum that it holds is computed again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retrieval_bench.core import BenchError, printable
from retrieval_bench.indexing.description import Description, sha256_of
from retrieval_bench.indexing.feature_place import Array
from retrieval_bench.indexing.items import CHECK_BYTES, ITEMS_FILE, ItemsState, ItemTable, item_check
from retrieval_bench.indexing.store_rows import StoredRows
from retrieval_bench.system.files import open_regular
from retrieval_bench.system.progress import Progress

PICTURES = "pictures"
MOST_TOLD = 100
"""Problems that are told one by one."""
MOST_BYTES = 256 << 20
"""Of a picture."""
_NONE = np.empty(0)


@dataclass(frozen=True)
class Verification:
    """What was found. items: that were looked at, removed ones too. bytes: of their features.

    problems: a sentence for each thing that is not as it was written, at most MOST_TOLD of them.
    """

    items: int
    bytes: int
    problems: tuple[str, ...]


def verified(
    folder: Path,
    description: Description,
    table: ItemTable,
    state: ItemsState,
    arrays: Sequence[Sequence[Array]],
    names: Sequence[str],
    progress: Progress,
) -> Verification:
    """Look at everything; arrays: of each method, as they lie where they lie; names: what each is called."""
    problems: list[str] = []
    for name, facts in description.files.items():
        problems += _of_a_file(folder / name, facts.sha256, facts.bytes)
    try:
        problems += [f"{printable(folder / ITEMS_FILE)}: {one}" for one in table.problems()]
        problems += _of_items(folder, table, state, arrays, names, progress)
    except BenchError as error:
        problems.append(str(error))
    total = sum(array.nbytes for own in arrays for array in own)
    return Verification(state.rows, total, tuple(dict.fromkeys(problems))[:MOST_TOLD])


def _of_items(
    folder: Path,
    table: ItemTable,
    state: ItemsState,
    arrays: Sequence[Sequence[Array]],
    names: Sequence[str],
    progress: Progress,
) -> list[str]:
    problems: list[str] = []
    flat = [array for own in arrays for array in own]
    items = folder / ITEMS_FILE
    seen = 0
    for item, row, check, whole in table.all_items():
        if row >= state.rows:
            break  # added since
        seen += 1
        if not whole or state.numbers[row] != item.number:
            problems.append(f"{printable(items)}: what was done to item {item.number} is not as it was written")
            continue
        rows = [array.known(row) if isinstance(array, StoredRows) else array[row] for array in flat]
        now = item_check(item, [_NONE if one is None else one for one in rows])
        if check[:CHECK_BYTES] != now[:CHECK_BYTES] or len(check) != len(now):
            problems.append(f"{printable(items)}: item {item.number} is not as it was written")
        for place, name in enumerate(names, 1):
            own = slice(place * CHECK_BYTES, (place + 1) * CHECK_BYTES)
            if check[own] != now[own]:
                what = "is missing" if rows[place - 1] is None else "is not as it was written"
                problems.append(f"{name}: row {row}, of item {item.number}, {what}")
        if item.picture is not None:
            problems += _of_a_file(folder / PICTURES / item.picture, item.picture.partition(".")[0])
        if len(problems) > MOST_TOLD:
            break
        if row % 1000 == 0:
            progress("verifying", row, state.rows)
    if seen < state.rows and len(problems) <= MOST_TOLD:
        problems.append(f"{printable(items)}: {state.rows - seen:,} items are missing")
    return problems


def _of_a_file(file: Path, sha256: str, size: int = MOST_BYTES) -> list[str]:
    try:
        with open_regular(file, size) as opened:
            found = sha256_of(opened)
    except OSError as error:
        return [f"{printable(file)}: {error.strerror}"]
    return [] if found == sha256 else [f"{printable(file)}: it is not as it was written, by its sha256"]
