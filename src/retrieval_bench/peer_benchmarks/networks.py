"""How fast a network describes images on the CPU: as tutorials write it, as this package runs it, and by onnxruntime.

What `export --int8` wrote of it takes part, too: run by onnxruntime, but as this package runs any file. All take the
same tensors on the same number of threads, in interleaved rounds, each at the batch size that was fastest for it; what
changes in the neighbours is counted beside it.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from retrieval_bench.core import BenchError, Dataset, Setup
from retrieval_bench.exporting.export import LearnedFrom, export
from retrieval_bench.exporting.files import need_packages, onnx_model
from retrieval_bench.exporting.int8 import CALIBRATION_IMAGES
from retrieval_bench.extractors.deep.fused_inference import has_bfloat16
from retrieval_bench.extractors.deep.network_features import NetworkFeatures
from retrieval_bench.methods.parse import parse_method
from retrieval_bench.registry import EXTRACTORS
from retrieval_bench.search.index import topk
from retrieval_bench.system.progress import Progress, silent
from retrieval_bench.system.timing import Stopwatch, pinned

PLAIN = "plain loop"
PEER = "onnxruntime"
INT8 = "export --int8"
SIZES = (1, 2, 4, 8, 16)
AT = 10
TARGETS = {PLAIN: 4.0, PEER: 1.3}
"""How many times as fast as these ours is to be."""

Describe = Callable[[Any], np.ndarray]
"""(n, 3, h, w) float32 tensor -> (n, d) float32."""


@dataclass(eq=False)
class Way:
    """One way to run the network. settings: what is tried, by name; seconds: of each round, for all images."""

    name: str
    settings: dict[str, Describe]
    chosen: str = ""
    seconds: list[float] = field(default_factory=list)
    recall: float | None = None
    same: float | None = None

    def rate(self, images: int) -> float:
        return images / statistics.median(self.seconds)


@dataclass(frozen=True, eq=False)
class NetworkResults:
    network: str
    side: int
    images: int
    threads: int
    rounds: int
    ways: list[Way]
    notes: list[str]

    def ratio(self, name: str, to: str) -> float | None:
        """Median over the rounds of how many times as fast as `to`; None where that one did not take part."""
        ways = {way.name: way for way in self.ways}
        if to not in ways:
            return None
        pairs = zip(ways[to].seconds, ways[name].seconds, strict=True)
        return statistics.median(other / own for other, own in pairs)

    @property
    def judged(self) -> list[Way]:
        """The fastest way to run the network in floating point, and in whole numbers where that took part."""
        floating = [way for way in self.ways if way.name not in (*TARGETS, INT8)]
        fastest = min(floating, key=lambda way: statistics.median(way.seconds))
        return [fastest, *(way for way in self.ways if way.name == INT8)]

    def lines(self) -> list[str]:
        head = f"{'':28}{'images/s':>10}{'x plain':>9}{'x onnx':>9}{'recall@10':>11}{'same 10':>9}   batch"
        lines = [head, "-" * len(head)]
        for way in self.ways:
            ratios = (self.ratio(way.name, to) for to in TARGETS)
            shown = "".join("      n/a" if ratio is None else f"{ratio:9.2f}" for ratio in ratios)
            recall = "n/a" if way.recall is None else f"{way.recall:.4f}"
            same = "n/a" if way.same is None else f"{way.same:.4f}"
            lines.append(f"{way.name:28}{way.rate(self.images):10.1f}{shown}{recall:>11}{same:>9}   {way.chosen}")
        lines += ["", f"{self.network} at {self.side} px, {self.threads} threads, {self.rounds} interleaved rounds."]
        lines.append("same 10: share of the ten nearest that are the plain loop's own.")
        for way in self.judged:
            for to, wanted in TARGETS.items():
                ratio = self.ratio(way.name, to)
                met = "reached" if ratio is not None and ratio >= wanted else "NOT reached"
                said = "not measured" if ratio is None else f"{ratio:.2f}, {met}"
                lines.append(f"{way.name} to {to}, at least {wanted}: {said}")
        return [*lines, *self.notes]


def contest(
    network: str,
    dataset: Dataset,
    *,
    images: int,
    rounds: int,
    threads: int,
    setup: Setup,
    progress: Progress = silent,
) -> NetworkResults:
    """Time every way on `images` images of the queries, and compare what they find among the gallery.

    dataset: small; all of its gallery and queries go through the network once in each way.
    """
    import torch

    plain: Any = EXTRACTORS[network].build(setup)
    if plain.mark:  # nobody needs to look for weights again
        setup = replace(setup, weights="random")
    gallery, queries = (
        torch.stack([plain.preprocess(_picture(split.images[row])) for row in range(len(split))])
        for split in (dataset.gallery, dataset.query)
    )
    timed = queries[:images]
    ways = [Way(PLAIN, {"1": _loop(plain)}), *_ours(network, setup, threads)]
    try:
        need_packages("onnx")
    except BenchError as error:
        notes = [f"{PEER} and {INT8} did not take part: {error}"]
    else:
        progress(f"{INT8}, and float32 for {PEER}", 0, 0)
        peer, version = _peer(network, plain, threads)
        ways += [_int8(network, plain, dataset, setup, threads), peer]
        seen = min(CALIBRATION_IMAGES, len(dataset.train))
        notes = [
            f"{PEER} {version}, float32, all graph optimisations.",
            f"{INT8}: calibrated on {seen} train images, a file that is run as onnx:FILE.",
        ]
    with pinned(threads):
        for place, way in enumerate(ways):
            progress("choosing batch sizes", place, len(ways))
            tried = {name: _seconds(run, timed[: max(SIZES)], warm=True) for name, run in way.settings.items()}
            way.chosen = min(tried, key=lambda name: tried[name])
        for number in range(rounds):
            progress("timing", number, rounds)
            for way in ways:
                way.seconds.append(_seconds(way.settings[way.chosen], timed))
        reference = None
        for place, way in enumerate(ways):
            progress("comparing neighbours", place, len(ways))
            run = way.settings[way.chosen]
            found = topk(run(queries), run(gallery), AT).indices
            reference = found if reference is None else reference
            hits = dataset.gallery.labels[found] == dataset.query.labels[:, None]
            relevant = (dataset.gallery.labels[None] == dataset.query.labels[:, None]).sum(axis=1)
            way.recall = float((hits.sum(axis=1) / np.maximum(relevant, 1)).mean())
            shared = [len(np.intersect1d(one, other)) for one, other in zip(found, reference, strict=True)]
            way.same = float(np.mean(shared)) / found.shape[1]
    return NetworkResults(network, plain.preprocess.crop, len(timed), threads, rounds, ways, notes)


def _picture(image: np.ndarray) -> Any:
    from retrieval_bench.extractors.deep.preprocess import middle

    return middle(image)


def _seconds(run: Describe, batch: Any, warm: bool = False) -> float:
    if warm:
        run(batch)
    with Stopwatch() as watch:
        run(batch)
    return watch.seconds


def _loop(plain: NetworkFeatures) -> Describe:
    """One image at a time, float32, default layout: what tutorials show. torch divides each image among its threads."""
    import copy

    import torch

    network = copy.deepcopy(plain.backbone.network).to(memory_format=torch.contiguous_format)

    def run(batch: Any) -> np.ndarray:
        with torch.inference_mode():
            return torch.cat([network(batch[row : row + 1]) for row in range(len(batch))]).numpy()

    return run


def _ours(network: str, setup: Setup, threads: int) -> list[Way]:
    """As the runner does it: each Python thread takes images or small batches, and torch does not divide them."""
    ways = []
    for compute in ("float32", "fused", *(("bfloat16",) if has_bfloat16() else ())):
        extractor: Any = EXTRACTORS[network].build(setup, compute=compute)
        sizes = [size for size in SIZES if size <= extractor.chunk]
        settings = {str(size): _shared_out(extractor.describe, size, threads) for size in sizes}
        ways.append(Way(f"compute={compute}", settings))
    return ways


def _shared_out(describe: Callable[[Any], Any], size: int, threads: int) -> Describe:
    import torch

    def work(some: Any) -> Any:
        with torch.inference_mode():
            return describe(some.contiguous(memory_format=torch.channels_last)).float()

    def run(batch: Any) -> np.ndarray:
        with pinned(1), ThreadPoolExecutor(threads) as pool:
            return torch.cat(list(pool.map(work, batch.split(size)))).numpy()

    return run


def _int8(network: str, plain: NetworkFeatures, dataset: Dataset, setup: Setup, threads: int) -> Way:
    """What `export --method network --format onnx --int8` writes, run as `onnx:FILE`."""
    content = export(parse_method(network), plain, "onnx", learned=LearnedFrom("train", dataset.train), int8=True)
    with tempfile.TemporaryDirectory(prefix="retrieval_bench_") as folder:
        file = Path(folder) / "network.onnx"
        file.write_bytes(content)
        exported: Any = EXTRACTORS["onnx"].build(setup, path=str(file))
    return Way(INT8, {str(size): _shared_out(exported.describe, size, threads) for size in SIZES})


def _peer(network: str, plain: NetworkFeatures, threads: int) -> tuple[Way, str]:
    """onnxruntime at its best: its own threads within a batch, or one session's runs in as many Python threads.

    With its version.
    """
    import onnxruntime

    model, _ = onnx_model(network, plain.backbone.network, plain.preprocess.crop)
    sessions = {}
    for each in {1, threads}:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = each, 1
        options.log_severity_level = 4
        sessions[each] = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    settings: dict[str, Describe] = {}
    for size in SIZES:
        settings[f"{size}, threads within"] = _session(sessions[threads], size, 1)
        if threads > 1:
            settings[f"{size}, one thread each"] = _session(sessions[1], size, threads)
    return Way(PEER, settings), onnxruntime.__version__


def _session(session: Any, size: int, workers: int) -> Describe:
    name = session.get_inputs()[0].name

    def run(batch: Any) -> np.ndarray:
        def work(some: Any) -> np.ndarray:
            return session.run(None, {name: some.numpy()})[0]

        parts: Sequence[Any] = batch.split(size)
        if workers == 1:
            return np.concatenate([work(part) for part in parts])
        with ThreadPoolExecutor(workers) as pool:
            return np.concatenate(list(pool.map(work, parts)))

    return run
