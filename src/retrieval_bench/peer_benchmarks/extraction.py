"""From files to features in bulk: images a second of every family, of its peers, and on one core after the other."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from retrieval_bench.core import BenchError, Setup, Split
from retrieval_bench.distributed.engine import Chunks
from retrieval_bench.distributed.processes import ProcessesEngine
from retrieval_bench.experiment.describer import MethodDescriber
from retrieval_bench.experiment.extraction import extract
from retrieval_bench.images.reading import ImageFiles
from retrieval_bench.peer_benchmarks.extraction_peers import PEERS, Job
from retrieval_bench.peer_benchmarks.report import digits, ruled
from retrieval_bench.peer_benchmarks.throughput import as_jpeg
from retrieval_bench.registry import EXTRACTORS
from retrieval_bench.system.cache import FeatureCache
from retrieval_bench.system.progress import Progress, silent
from retrieval_bench.system.timing import Stopwatch, pinned

METHODS = tuple(PEERS)
LEARN_FROM = 60
"""Images that a method which learns is fitted on: how well it learns does not matter here."""
TARGETS = {"imagededup": 2.0, "OpenCV SIFT, described only": 1.0, "torch DataLoader": 3.0, "timm loop": 2.0}
"""By peer, times as many images a second are wanted."""
PER_CORE = 0.9
"""Of the speed on one thread, each thread is to keep where there are more."""


@dataclass
class Timed:
    """One method. seconds: of all files, by who did it, each round: "N threads" of this package, or a peer's name.

    same: by peer whose features mean the same, the share of images for which they are the same.
    """

    method: str
    images: int
    seconds: dict[str, list[float]] = field(default_factory=dict)
    same: dict[str, float] = field(default_factory=dict)

    def rate(self, who: str) -> float:
        """Images a second, the median of all rounds."""
        return self.images / median(self.seconds[who])


def ours(threads: int) -> str:
    return f"{threads} thread" if threads == 1 else f"{threads} threads"


def by_processes(count: int) -> str:
    return f"{count} process" if count == 1 else f"{count} processes"


def as_files(split: Split, folder: Path) -> list[Path]:
    """The images as JPEG files in a folder of their own."""
    images = as_jpeg(split).images
    files = [folder / f"{row:06}.jpg" for row in range(len(images))]
    for row, file in enumerate(files):
        file.write_bytes(images.read(row))
    return files


def contest(
    methods: Sequence[str],
    files: Sequence[Path],
    *,
    rounds: int,
    threads: Sequence[int],
    processes: bool = False,
    progress: Progress = silent,
) -> list[Timed]:
    """Time all, interleaved: in each round everybody once.

    files: JPEG files, in one folder that holds nothing else. threads: of this package, ascending; peers get the most.
    processes: also as many processes of one thread. Raises BenchError for a method without peers.
    """
    with closing(ProcessesEngine(f"processes?workers={max(threads)}")) as engine:
        return _timed(methods, files, rounds, threads, engine if processes else None, progress)


def _timed(
    methods: Sequence[str],
    files: Sequence[Path],
    rounds: int,
    threads: Sequence[int],
    engine: ProcessesEngine | None,
    progress: Progress,
) -> list[Timed]:
    results = []
    for method in methods:
        if method not in PEERS:
            raise BenchError(f"--methods {method}: choose among {', '.join(PEERS)}")
        result = Timed(method, len(files))
        jobs: dict[str, Job] = {}
        extractor = _fitted(method, files, max(threads))
        for count in threads:
            jobs[ours(count)] = partial(_extract, extractor, files, count)
        if engine is not None:
            describer = MethodDescriber(method, Setup(weights="random"))
            jobs[by_processes(engine.workers)] = partial(
                _extract, extractor, files, 1, engine.chunks(describer, "", None)
            )
        for peer in PEERS[method]:
            if peer.there:
                beneath = max(threads) if peer.libraries else 1
                jobs[peer.name] = partial(_pinned, peer.make(files, max(threads)), beneath)
        answers: dict[str, Any] = {}
        for number in range(rounds + 1):
            for done, (who, job) in enumerate(jobs.items()):
                progress(f"{method}: {who}", number * len(jobs) + done, (rounds + 1) * len(jobs))
                with Stopwatch() as watch:
                    answers[who] = job()
                if number:  # the first round warms up
                    result.seconds.setdefault(who, []).append(watch.seconds)
        bits = answers.get("imagehash loop")
        if bits is not None:
            result.same["imagehash loop"] = float((answers[ours(threads[0])] == bits).all(axis=1).mean())
        results.append(result)
    return results


def _fitted(method: str, files: Sequence[Path], threads: int) -> Any:
    extractor = EXTRACTORS[method].build(Setup(weights="random", threads=threads))
    if getattr(extractor, "learned", ()):
        extractor.fit(_split(files[:LEARN_FROM]))
    return extractor


def _split(files: Sequence[Path]) -> Split:
    return Split(tuple(map(str, files)), np.arange(len(files)) % 2, ImageFiles(files))


def _extract(extractor: Any, files: Sequence[Path], threads: int, chunks: Chunks | None = None) -> np.ndarray:
    with pinned(1):
        done = extract(
            extractor,
            _split(files),
            threads=threads,
            cache=FeatureCache(None),
            key="",
            progress=lambda done, total: None,
            chunks=chunks,
        )
    return done.features


def _pinned(job: Job, beneath: int) -> Any:
    """beneath: threads of the libraries below the job."""
    with pinned(beneath):
        return job()


def lines(results: Sequence[Timed], threads: Sequence[int]) -> list[str]:
    """Two tables, and what is to be reached."""
    most, together = ours(threads[-1]), by_processes(threads[-1])
    columns = [*map(ours, threads), *([together] if together in results[0].seconds else [])]
    table = [["method", *columns, "peer", "images/s", "ours x", "same"]]
    for one in results:
        own = [digits(one.rate(column)) for column in columns]
        for peer in [who for who in one.seconds if who not in columns] or [""]:
            cells = [digits(one.rate(peer)), digits(one.rate(most) / one.rate(peer))] if peer else ["-", "-"]
            same = f"{100 * one.same[peer]:.1f} %" if peer in one.same else "-"
            table.append([one.method, *own, peer or "none installed", *cells, same])
            own = [""] * len(columns)
    text = ruled(table)
    rounds = len(next(iter(results[0].seconds.values())))
    text += ["", f"{results[0].images} JPEG files to features: images/s, medians of {rounds} rounds in turns."]
    text.append("same: images of equal bits, where the peer's features mean the same.")
    for one in results:
        for peer, wanted in TARGETS.items():
            if peer in one.seconds:
                text.append(_target(f"{one.method}, x {peer}", wanted, one.rate(most) / one.rate(peer)))
        for who, count in [*((ours(count), count) for count in threads[1:]), (together, threads[-1])]:
            if who in one.seconds:
                share = one.rate(who) / count / one.rate(ours(1))
                text.append(_target(f"{one.method}, of each of {who}", PER_CORE, share))
    return text


def _target(what: str, wanted: float, reached: float) -> str:
    return f"  {'met    ' if reached >= wanted else 'NOT MET'}  {what}  >= {wanted:.2f}  {reached:.2f}"


def as_data(results: Sequence[Timed]) -> list[dict[str, Any]]:
    """For JSON: every sample."""
    return [dict(vars(one)) for one in results]
