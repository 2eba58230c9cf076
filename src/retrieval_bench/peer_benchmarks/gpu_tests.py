"""The tests of this project that concern a GPU, run where one is; without one, those that can run do."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from retrieval_bench.core import BenchError
from retrieval_bench.peer_benchmarks.gpu import Finding, Run, Where
from retrieval_bench.system.progress import Progress

FILES = (
    "tests/system/test_device.py",
    "tests/search/test_gpu.py",
    "tests/experiment/test_team.py",
    "tests/peer_benchmarks/test_throughput.py",
)
LIMIT_S = 240


def tests_in(root: Path) -> Run:
    """The section for the tests of a working tree."""
    return partial(_run, root)


def _run(root: Path, where: Where, progress: Progress) -> Iterator[Finding]:
    absent = [name for name in FILES if not (root / name).is_file()]
    if absent:
        raise BenchError(f"{absent[0]} is not there; run this in a clone of the project")
    progress("pytest", 0, 1)
    words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rs", *FILES]
    words += ["-m", "not slow"] if where.dry else []
    done = subprocess.run(words, cwd=root, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    last = (done.stdout.strip().splitlines() or [""])[-1]
    counts = {kind: int(number) for number, kind in re.findall(r"(\d+) (passed|failed|error|skipped)", done.stdout)}
    if not counts:
        raise BenchError(f"pytest ended with {done.returncode}: {last or done.stderr.strip()[-200:]}")
    bad = counts.get("failed", 0) + counts.get("error", 0)
    yield Finding("tests passed", counts.get("passed", 0))
    yield Finding("tests failed", bad, "", "none", bad == 0)
    yield Finding("tests skipped", counts.get("skipped", 0))
    for name in re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.M):
        yield Finding(f"failed: {name.partition('::')[2] or name}", "failed", "", "passes", False)
    unused = len(re.findall(r"no CUDA device here", done.stdout))
    if not where.dry:
        yield Finding("tests that found no card", unused, "", "none", unused == 0)
