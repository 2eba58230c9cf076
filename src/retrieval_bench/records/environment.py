"""Where and when a run takes place: machine, versions, commit, and the command that repeats it."""

from __future__ import annotations

import contextlib
import functools
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import psutil

from retrieval_bench import __version__
from retrieval_bench.core import printable
from retrieval_bench.records.schema import MOMENT, Environment
from retrieval_bench.system.passive_waiting import waiting


def now() -> str:
    """UTC, to the second, ISO 8601."""
    return datetime.now(UTC).strftime(MOMENT)


def environment(libraries: Mapping[str, str], gpu: str | None, allocator: str) -> Environment:
    """Where this run is taking place. The thread counts are read back later, when the libraries are loaded."""
    commit, dirty = _commit()
    return Environment(
        version=__version__,
        commit=commit,
        dirty=dirty,
        python=platform.python_version(),
        libraries=dict(libraries),
        system=f"{platform.system()} {platform.release()}",
        machine=platform.machine(),
        processor=_processor(),
        cores=psutil.cpu_count() or 1,
        memory_gib=round(psutil.virtual_memory().total / 2**30, 1),
        gpu=gpu,
        thread_counts={},
        allocator=allocator,
        waiting=waiting(),
    )


def _processor() -> str:
    """The processor's name in its maker's words where the system tells it, else its kind."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    if platform.system() == "Darwin":
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            asked = ["sysctl", "-n", "machdep.cpu.brand_string"]
            told = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
            if told:
                return told
    return platform.processor() or platform.machine()


@functools.cache  # the code that runs is that of when it was loaded
def _commit() -> tuple[str | None, bool | None]:
    """Commit and dirty flag of the checkout this package runs from; (None, None) for an installed wheel."""
    home = Path(__file__).resolve().parents[3]
    if not (home / ".git").exists():
        return None, None

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=home, capture_output=True, text=True, check=True, timeout=20).stdout

    try:
        return git("rev-parse", "HEAD").strip(), bool(git("status", "--porcelain", "--untracked-files=no").strip())
    except (OSError, subprocess.SubprocessError):
        return None, None


def command_line() -> tuple[str, ...]:
    """The command that repeats this run, without the path of the interpreter."""
    program = "retrieval-bench" if Path(sys.argv[0]).name == "retrieval-bench" else "python -m benchmark"
    return (program, *map(printable, sys.argv[1:]))
