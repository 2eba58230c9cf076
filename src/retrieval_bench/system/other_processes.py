"""What other processes take of the cores that this one may use: a time that was taken beside them says little."""

from __future__ import annotations

import os
import time

import psutil

DISTURBED = 0.10
"""Above this share of the cores, times are not compared."""

LEAST_S = 0.4
"""Of a shorter time, a share would be off by more than 5 %."""


class OtherProcesses:
    """`with OtherProcesses() as others: ...; others.share`: the part of the usable cores that others took meanwhile.

    None where the time was too short to tell: systems count in hundredths of a second. Children of this process that
    still run count as others.
    """

    share: float | None = None

    def __enter__(self) -> OtherProcesses:
        self._start, _ = _now()
        return self

    def __exit__(self, *exc: object) -> None:
        now, cores = _now()
        wall, everybody, this = (after - before for after, before in zip(now, self._start, strict=True))
        self.share = min(max((everybody - this) / (wall * cores), 0.0), 1.0) if wall >= LEAST_S else None


def _now() -> tuple[tuple[float, float, float], int]:
    """Seconds of the wall, of all work on the usable cores, and of this process; and how many cores these are."""
    each = psutil.cpu_times(percpu=True)
    if hasattr(os, "sched_getaffinity"):
        usable = os.sched_getaffinity(0)
        each = [times for core, times in enumerate(each) if core in usable] or each
    worked = 0.0
    for times in each:
        idle = times.idle + getattr(times, "iowait", 0.0)
        guest = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)  # counted in user already
        worked += sum(times) - idle - guest
    own = os.times()
    used = own.user + own.system + own.children_user + own.children_system
    return (time.monotonic(), worked, used), len(each)
