"""How much memory this process may use: what the machine has, or what a container's limit leaves of it."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil

from retrieval_bench.system.cores import control_groups


def usable_memory(groups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int:
    """Bytes. groups, own: where Linux tells the limits, and of which control group this process is."""
    limits = [limit for group in control_groups("memory", groups, own) for limit in _limit(group)]
    return min(psutil.virtual_memory().total, *limits) if limits else int(psutil.virtual_memory().total)


def _limit(group: Path) -> list[int]:
    for name in ("memory.max", "memory.limit_in_bytes"):  # of version 2, of version 1; "max" for none
        with contextlib.suppress(OSError, ValueError):
            return [int((group / name).read_text(encoding="utf-8"))]
    return []
