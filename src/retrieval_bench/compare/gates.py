"""What `--fail` says: a name and how far it may get worse, as in `map@r:0.01` or `search_ms_p50:20%`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from retrieval_bench.core import BenchError

_BIGGER_IS_BETTER = ("images/s", "texts/s", "queries/s")


@dataclass(frozen=True)
class Gate:
    """`limit` is in the unit of the figure, or a share of its former value where `relative`."""

    name: str
    limit: float
    relative: bool

    def __str__(self) -> str:
        return f"{self.name}:{self.limit * 100:g}%" if self.relative else f"{self.name}:{self.limit:g}"

    def allowed(self, before: float) -> float:
        return self.limit * abs(before) if self.relative else self.limit


def parse_gate(text: str) -> Gate:
    """Read one gate. BenchError where it is none."""
    found = re.fullmatch(r"\s*(?P<name>.+):\s*(?P<limit>[0-9.eE+-]+)\s*(?P<percent>%?)\s*", text)
    try:
        limit = float(found["limit"]) if found else math.nan
    except ValueError:
        limit = math.nan
    if found is None or not math.isfinite(limit) or limit < 0:
        raise BenchError(
            f"--fail {text!r}: write NAME:LIMIT with a limit of at least 0, e.g. map@r:0.01 or search_ms_p50:20%"
        )
    percent = bool(found["percent"])
    return Gate(found["name"].strip(), limit / 100 if percent else limit, percent)


def time_name(name: str, unit: str) -> str:
    """What a gate calls a time of the record: `search_p50` in ms is search_ms_p50, `fit` in s is fit_s,
    `extract_throughput` in images/s keeps its name."""
    if "/" in unit:
        return name
    phase, mark, rank = name.rpartition("_p")
    return f"{phase}_{unit.lower()}_p{rank}" if mark and rank.isdigit() else f"{name}_{unit.lower()}"


def bigger_is_better(unit: str) -> bool:
    """Of a figure with this unit; quality, which has none, too."""
    return not unit or unit in _BIGGER_IS_BETTER


def known_names(quality: set[str], times: Mapping[str, str], perturbed: Sequence[str] = ()) -> str:
    """For the sentence that refuses a name; times: name in the record -> unit. Of perturbed queries, of which there can
    be a hundred names, the first stands for all."""
    known = [*sorted(quality), *sorted(time_name(name, unit) for name, unit in times.items())]
    return ", ".join([*known, *(f"{name} and so on" for name in perturbed[:1])])
