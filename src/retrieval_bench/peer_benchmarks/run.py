"""A whole contest: pin the threads, race every shape, judge the targets."""

from __future__ import annotations

import gc
import importlib.metadata
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from retrieval_bench.core import BenchError
from retrieval_bench.peer_benchmarks import hard, report
from retrieval_bench.peer_benchmarks.competitors import rivals
from retrieval_bench.peer_benchmarks.data import DATA, Data
from retrieval_bench.peer_benchmarks.measurement import Result, race
from retrieval_bench.peer_benchmarks.memory import extra_memory
from retrieval_bench.peer_benchmarks.peaks import peaks
from retrieval_bench.peer_benchmarks.shapes import Shape, by_gallery_size, chosen
from retrieval_bench.peer_benchmarks.targets import TargetVerdict, verdicts
from retrieval_bench.records.environment import environment, now
from retrieval_bench.system.cores import usable_cores
from retrieval_bench.system.other_processes import OtherProcesses
from retrieval_bench.system.progress import Progress
from retrieval_bench.system.timing import pinned

LIBRARIES = ("numpy", "numba", "torch", "faiss-cpu", "usearch", "numkong", "scikit-learn")


@dataclass(frozen=True)
class KernelPlan:
    """only: comma-separated patterns of shape names, None for all. threads: None for every usable core. data: what is
    searched."""

    only: str | None = None
    rounds: int = 5
    threads: int | None = None
    quick: bool = False
    memory: bool = False
    data: Data = "gauss"

    @property
    def patience_s(self) -> float:
        return 0.0 if self.quick else 2.0


@dataclass
class KernelResults:
    plan: KernelPlan
    threads: int
    results: list[Result]
    others: float | None
    extra_mib: dict[str, float] = field(default_factory=dict)
    thread_counts: dict[str, int] = field(default_factory=dict)
    started: str = field(default_factory=now)

    @property
    def wrong(self) -> bool:
        return any(result.wrong for result in self.results)

    @property
    def verdicts(self) -> list[TargetVerdict]:
        return verdicts(self.results, self.extra_mib)

    def lines(self) -> list[str]:
        below = report.footer(self.results, self.verdicts, self.threads, self.others, self.plan.quick, self.plan.data)
        return [*report.table(self.results), "", *below]

    def as_data(self) -> dict[str, Any]:
        return report.as_data(
            self.results,
            [] if self.plan.quick else self.verdicts,
            started=self.started,
            plan=asdict(self.plan),
            threads=self.threads,
            others=self.others,
            extra_mib=self.extra_mib,
            environment=_environment() | {"thread_counts": self.thread_counts},
        )

    def plot(self, file: Path, progress: Progress | None, say: Callable[[str], None] | None) -> None:
        """Race again, over gallery sizes, and draw: one panel for single queries and one for batches of 100."""
        from retrieval_bench.peer_benchmarks.plot import draw

        largest = 10_000 if self.plan.quick else 1_000_000
        panels = {
            f"{queries} quer{'y' if queries == 1 else 'ies'}": _raced(
                by_gallery_size(queries, largest=largest),
                self.plan.rounds,
                self.threads,
                progress,
                say,
                self.plan.patience_s,
                self.plan.data,
            )[0]
            for queries in (1, 100)
        }
        draw(panels, file)


@dataclass
class HardResults:
    plan: KernelPlan
    threads: int
    shape: Shape
    results: list[hard.HardResult]
    others: float | None
    started: str

    @property
    def wrong(self) -> bool:
        return any(result.wrong for result in self.results)

    def lines(self) -> list[str]:
        return [*hard.lines(self.results, self.shape, self.plan.quick), *report.disturbance(self.others)]

    def as_data(self) -> dict[str, Any]:
        return {
            "schema": report.SCHEMA_VERSION,
            "started": self.started,
            "plan": asdict(self.plan),
            "threads": self.threads,
            "others": self.others,
            "environment": _environment(),
            "shape": vars(self.shape),
            "hard": hard.as_data(self.results),
        }


def run_hard(plan: KernelPlan, progress: Progress | None = None) -> HardResults:
    """Data that defeats the bound, in place of the shapes."""
    threads, started = _threads(plan), now()
    shape = hard.SHAPE.shrunk() if plan.quick else hard.SHAPE
    with OtherProcesses() as others, pinned(threads):
        results = hard.races(shape, plan.rounds, progress)
    return HardResults(plan, threads, shape, results, others.share, started)


def _environment() -> dict[str, Any]:
    versions = {}
    for library in LIBRARIES:
        try:
            versions[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    return environment(versions, None, "as the system sets it").model_dump(mode="json")


def _threads(plan: KernelPlan) -> int:
    cores = usable_cores()
    if plan.threads is not None and plan.threads > cores:
        raise BenchError(
            f"threads is {plan.threads}; this process may use {cores} cores; more would measure oversubscription"
        )
    return plan.threads or cores


def run(
    plan: KernelPlan | None = None, progress: Progress | None = None, say: Callable[[str], None] | None = None
) -> KernelResults:
    """progress(what, done, total) is called often, say(sentence) once a shape."""
    plan = plan or KernelPlan()
    if plan.data not in DATA:
        raise BenchError(f"--data {plan.data}: choose {', '.join(DATA)}")
    threads = _threads(plan)
    shapes = chosen(plan.only, plan.quick)
    started = now()
    with OtherProcesses() as others:
        results, counts = _raced(shapes, plan.rounds, threads, progress, say, plan.patience_s, plan.data)
    extra: dict[str, float] = {}
    if plan.memory:
        extra = extra_memory(threads, shapes[0]) if plan.quick else extra_memory(threads)
    return KernelResults(plan, threads, results, others.share, extra, counts, started)


def _raced(
    shapes: Sequence[Shape],
    rounds: int,
    threads: int,
    progress: Progress | None,
    say: Callable[[str], None] | None,
    patience_s: float,
    data: Data,
) -> tuple[list[Result], dict[str, int]]:
    """The results, and the thread counts that the libraries read back while they ran."""
    entrants = rivals()
    for tiny in (Shape(2, 300, 16), Shape(1, 300, 64, bits=True)):
        # Compiles our kernels, and loads the peers' libraries before their thread pools are pinned: one that is not
        # loaded cannot be.
        race(tiny, entrants, rounds=1, patience_s=0.0)
    results = []
    with pinned(threads) as counts:
        top = peaks(threads)
        for shape in shapes:
            results.append(race(shape, entrants, rounds, top, patience_s, progress, data))
            gc.collect()  # indexes that sit in reference cycles: the next shape needs their memory
            if say is not None:
                say(report.progress_line(results[-1]))
    return results, counts
