"""Two commands, or two installed versions, timed in turns: paired ratios with an interval.

What drifts on a machine (heat, neighbours, caches of the system) drifts over both where they take turns, and drops out
of the ratio of each round; the order within a round alternates, so that being first favours neither.
"""

from __future__ import annotations

import json
import math
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retrieval_bench.compare.gates import Gate, bigger_is_better, time_name
from retrieval_bench.core import BenchError, printable
from retrieval_bench.evaluation.bootstrap import RESAMPLES, intervals, resampled_means
from retrieval_bench.system.timing import Stopwatch

WALL = "wall_s"
FEWEST_ROUNDS = 3


@dataclass(frozen=True)
class Ratio:
    """HEAD over BASE of one figure, the geometric mean over rounds with its 95 % interval.

    base, head: the geometric means, in the figure's unit. rounds: how many were counted.
    """

    name: str
    unit: str
    base: float
    head: float
    ratio: float
    low: float
    high: float
    rounds: int

    def worse_than(self, gate: Gate) -> bool:
        """HEAD is surely worse by more than the gate allows: the whole interval lies beyond."""
        if bigger_is_better(self.unit):
            return self.high < 1 / (1 + gate.limit)
        return self.low > 1 + gate.limit


def argv_of(runner: str, extra: Sequence[str]) -> list[str]:
    """What BASE or HEAD says: a folder with bin/python or Scripts/python.exe in it is an installed version, which does
    `run` with `extra`; anything else is a command. BenchError for neither."""
    if runner.strip() and Path(runner).is_dir():
        places = (Path(runner, "bin", "python"), Path(runner, "Scripts", "python.exe"))
        python = next((place for place in places if place.is_file()), None)
        if python is None:
            raise BenchError(
                f"{printable(runner)}: it has no bin/python or Scripts/python.exe; "
                "name a virtual environment, or a command"
            )
        return [str(python), "-m", "benchmark", "run", "--recompute", "--json", *extra]
    try:
        argv = _words(runner)
    except ValueError as error:
        raise BenchError(f"command {runner!r}: {error}; write it as in a shell, in quotes") from None
    if not argv:
        raise BenchError("the command is empty; name a virtual environment, or a command in quotes")
    return argv


def _words(command: str) -> list[str]:
    """A command as a shell divides it; on Windows a backslash divides folders and escapes nothing."""
    if sys.platform != "win32":
        return shlex.split(command)
    words = shlex.shlex(command, posix=True)
    words.whitespace_split, words.commenters, words.escape = True, "", ""
    return list(words)


def race(
    base: Sequence[str],
    head: Sequence[str],
    rounds: int,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> list[Ratio]:
    """Run both by turns, `rounds` times after one that is not counted. Raises BenchError where either fails.

    Compared are the time of the whole command and, where both print a record (`run --json`), the times in it.
    """
    if rounds < FEWEST_ROUNDS:
        raise BenchError(f"--rounds {rounds}: an interval needs at least {FEWEST_ROUNDS}")
    seen: list[list[dict[tuple[str, str], float]]] = [[], []]
    for turn in range(rounds + 1):
        order = (0, 1) if turn % 2 else (1, 0)
        for side in order:
            seen[side].append(_timed((base, head)[side]))
        progress("racing", turn + 1, rounds + 1)
    both = set.intersection(*(set(figures) for figures in (*seen[0], *seen[1])))
    counted = seen[0][1:], seen[1][1:]
    return [
        _ratio(name, [figures[name] for figures in counted[0]], [figures[name] for figures in counted[1]])
        for name in seen[0][0]
        if name in both
    ]


def _ratio(figure: tuple[str, str], base: list[float], head: list[float]) -> Ratio:
    logs = np.log(np.array([base, head]))
    differences = logs[1] - logs[0]
    turns = np.arange(len(differences))
    reach = intervals(resampled_means(differences[:, None], turns, RESAMPLES, 0), len(turns))[0]
    low, high = (math.exp(edge) for edge in reach.tolist())
    means = [math.exp(mean) for mean in logs.mean(axis=1).tolist()]
    name, unit = figure
    return Ratio(name, unit, means[0], means[1], math.exp(float(differences.mean())), low, high, len(turns))


def _timed(argv: Sequence[str]) -> dict[tuple[str, str], float]:
    """(name, unit) -> value, all above 0."""
    with tempfile.TemporaryDirectory() as folder:
        words = [*argv, "--out", folder] if "--json" in argv and "--out" not in argv else list(argv)
        try:
            with Stopwatch() as whole:
                done = subprocess.run(words, capture_output=True, text=True, errors="replace")
        except OSError as error:
            raise BenchError(f"{shlex.join(argv)}: cannot be run ({error.strerror})") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise BenchError(
            f"{shlex.join(argv)}: ended with exit code {done.returncode} ({last}); fix it, then run `race` again"
        )
    return {(WALL, "s"): whole.seconds} | _figures(done.stdout)


def _figures(output: str) -> dict[tuple[str, str], float]:
    """The times of a record that was printed; none where the output is anything else."""
    try:
        rows = json.loads(output)["rows"]
        return {
            (f"{row['method']} {time_name(name, time['unit'])}", time["unit"]): float(time["value"])
            for row in rows
            for name, time in row["times"].items()
            if time["value"] is not None and time["value"] > 0
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
