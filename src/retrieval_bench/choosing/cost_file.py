"""What `cost --json` has measured, read back: how the search of each method grows."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval_bench.choosing.growth import SHAPES, Growth
from retrieval_bench.core import BenchError, printable
from retrieval_bench.system.files import read_regular

MOST_BYTES = 16_000_000


@dataclass(frozen=True)
class MeasuredSearch:
    """query_ms: method -> the median of one query on one thread, by the number of rows. processor: where."""

    query_ms: Mapping[str, Growth]
    processor: str


def measured_search(path: Path) -> MeasuredSearch:
    """Read a file that `cost --json FILE` has written. BenchError where it is none."""
    try:
        facts = json.loads(read_regular(path, MOST_BYTES))
        growths = {str(name): _growth(one["query_ms"]) for name, one in facts["growth"].items()}
        return MeasuredSearch(growths, str(facts["processor"]))
    except OSError as error:
        raise BenchError(f"--costs {printable(path)}: cannot be read ({error.strerror}); name another") from None
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError):
        raise BenchError(
            f"--costs {printable(path)}: is no file of costs; make one with `cost RECORD --images N --json FILE`"
        ) from None


def _growth(facts: Mapping[str, Any]) -> Growth:
    one = Growth(
        sizes=tuple(map(int, facts["sizes"])),
        values=tuple(map(float, facts["values"])),
        shape=str(facts["shape"]),
        start=float(facts["start"]),
        slope=float(facts["slope"]),
        residual=float(facts["residual"]),
    )
    numbers = (*one.sizes, *one.values, one.start, one.slope, one.residual)
    if not one.sizes or one.shape not in SHAPES or not all(math.isfinite(n) and n >= 0 for n in numbers):
        raise ValueError(one.shape)
    return one
