"""The sizes of the processor's caches, after which the scans cut their work."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import NamedTuple


class Caches(NamedTuple):
    """Bytes of the first-level data cache and of the second-level cache of one core."""

    first: int
    second: int


LINE = 64
"""Bytes of a cache line on x86; on the other processors that this runs on, as many or a multiple."""
USUAL = Caches(32 << 10, 1 << 20)
"""Where the system does not say."""


@functools.cache
def caches(place: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> Caches:
    """What Linux says of the first core; `USUAL` elsewhere, and for what makes no sense."""
    found: dict[int, int] = {}
    for folder in sorted(place.glob("index*")):
        try:
            level, kind = int((folder / "level").read_text()), (folder / "type").read_text().strip()
            size = re.fullmatch(r"(\d+)([KM])", (folder / "size").read_text().strip())
        except (OSError, ValueError):
            continue
        if size and kind in ("Data", "Unified"):
            found[level] = int(size[1]) << (10 if size[2] == "K" else 20)
    first, second = found.get(1, USUAL.first), found.get(2, USUAL.second)
    return Caches(
        first if 8 << 10 <= first <= 1 << 20 else USUAL.first,
        second if 128 << 10 <= second <= 64 << 20 else USUAL.second,
    )
