"""How many cores this process may use: of the machine, of those it is bound to, and of a container's quota."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def usable_cores(groups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int:
    """Cores this process may use, which taskset or a container's quota can make fewer than the machine has.

    Of a quota of 2.5 cores, 2: a third thread would be stopped for half of the time, and the others wait for it.
    groups, own: where Linux tells the quotas, and of which control group this process is.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [quota for group in control_groups("cpu", groups, own) for quota in _quota(group)]
    return max(1, min(cores, *(int(quota) for quota in quotas)) if quotas else cores)


def control_groups(controller: str, groups: Path, own: Path) -> list[Path]:
    """Where the limits of "cpu" or "memory" stand: for the group of this process and for every group around it."""
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:  # no Linux
        return []
    found: list[Path] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = groups / controller if controllers else groups  # of version 1, or of version 2
        group = Path(path.lstrip("/"))
        found += [root / place for place in (group, *group.parents)]
    return found


def _quota(group: Path) -> list[float]:
    with contextlib.suppress(OSError, ValueError):  # version 2: "200000 100000", or "max 100000"
        limit, period = (group / "cpu.max").read_text(encoding="utf-8").split()
        return [] if limit == "max" else [int(limit) / int(period)]
    with contextlib.suppress(OSError, ValueError):  # version 1: two files; -1 for none
        limit, period = ((group / f"cpu.cfs_{name}_us").read_text(encoding="utf-8") for name in ("quota", "period"))
        return [int(limit) / int(period)] if int(limit) > 0 else []
    return []
