"""From JPEG files to features: what is left of a network's own speed once its images have to be decoded, too.

Files go the product's own way (`extraction.extract`), which decodes on as many threads as the network runs on; tensors
that are ready go through the same network in the same batches. On a GPU it also says what share of the card's peak the
network reaches by itself.
"""

from __future__ import annotations

import io
import re
import statistics
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image

from retrieval_bench.core import Setup, Split
from retrieval_bench.experiment.extraction import extract
from retrieval_bench.extractors.deep.fused_inference import has_bfloat16
from retrieval_bench.extractors.deep.preprocess import not_too_long
from retrieval_bench.images.reading import ImageBytes
from retrieval_bench.registry import EXTRACTORS
from retrieval_bench.system.cache import FeatureCache
from retrieval_bench.system.device import on_gpu
from retrieval_bench.system.threads import mapped
from retrieval_bench.system.timing import Stopwatch, Time, latencies, pinned, stopwatch, waiting

RESIDENT_BATCH = 128
"""Images on the card already: as many as keep it busy."""
JPEG = b"\xff\xd8\xff"
TARGET = 0.9
"""Images a second from files, as a share of those from ready tensors."""

CARDS = (
    (r"\bH200\b", 989.4),
    (r"\bH100 PCIe\b", 756.0),
    (r"\bH100 NVL\b", 835.0),
    (r"\bH100\b", 989.4),
    (r"\bA100\b", 312.0),
    (r"\bL4\b", 121.0),
    (r"\bRTX 4090$", 165.2),
    (r"\bT4\b", None),
)
"""A card's name in torch, and its peak in bfloat16, in TFLOP/s, dense, summed in float32; None where it has none.

From NVIDIA's data sheets of these cards (half of what they give with sparsity), the RTX 4090's from the Ada whitepaper.
"""


def peak_of(card: str) -> float | None:
    """TFLOP/s of bfloat16 by the card's name; None where it has none or is not in the table."""
    return next((peak for name, peak in CARDS if re.search(name, card)), None)


@dataclass(frozen=True, eq=False)
class Throughput:
    """files, tensors, resident: seconds of each round for `images` images: from JPEG files, from tensors in memory,
    and, on a GPU, from a batch that is there already, for `batch` images.

    flops: floating-point operations of an image (two a multiply-add). card: the GPU's name.
    """

    network: str
    how: str
    side: int
    images: int
    threads: int
    device: str
    files: list[float]
    tensors: list[float]
    single: Time
    flops: int
    card: str = ""
    resident: tuple[float, ...] = ()
    batch: int = 0

    @property
    def share(self) -> float:
        """Median over the rounds: the speed from files over that from ready tensors."""
        return statistics.median(ready / whole for ready, whole in zip(self.tensors, self.files, strict=True))

    @property
    def of_peak(self) -> float | None:
        """The network's operations a second on a GPU over the peak of the card; None where that is not known."""
        peak = peak_of(self.card)
        if peak is None or not self.resident:
            return None
        return self.batch * self.flops / statistics.median(self.resident) / (peak * 1e12)

    def lines(self) -> list[str]:
        reached = "reached" if self.share >= TARGET else "NOT reached"
        single = "n/a" if self.single.value is None else f"{self.single.value:.2f} ms"
        where = self.card or self.device
        rounds = f"{self.images} images, {len(self.files)} interleaved rounds"
        lines = [
            f"{self.network} at {self.side} px, {self.how}, on {where}, {self.threads} threads, {rounds}.",
            f"from JPEG files       {self.images / statistics.median(self.files):10.1f} images/s",
            f"from ready tensors    {self.images / statistics.median(self.tensors):10.1f} images/s",
            f"files to tensors, at least {TARGET}: {self.share:.3f}, {reached}",
            f"one tensor by itself, p50 of {self.single.n}: {single}",
        ]
        if self.resident:
            rate = self.batch / statistics.median(self.resident)
            of_peak = "the card's peak is not known" if self.of_peak is None else f"{self.of_peak:.1%} of its peak"
            lines.append(
                f"from tensors there    {rate:10.1f} images/s in batches of {self.batch}; {of_peak} in bfloat16"
            )
        return lines


def throughput(
    network: str,
    split: Split,
    *,
    rounds: int,
    threads: int,
    setup: Setup,
    compute: str = "",
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Throughput:
    """split: of images that are all different. compute: by default the fastest this machine has."""
    import torch

    device, split = setup.device, as_jpeg(split)
    compute = compute or ("bfloat16" if has_bfloat16(device) else "fused")
    extractor: Any = EXTRACTORS[network].build(setup, compute=compute)
    with pinned(1):
        ready = mapped(lambda row: extractor.preprocess(not_too_long(split.images[row])), range(len(split)), threads)
        inputs = list(ready)
    size = extractor.chunk  # as extraction deals them out

    def from_files() -> None:
        extract(extractor, split, threads=threads, cache=FeatureCache(None), key="", progress=lambda done, total: None)

    def describe(some: list[Any]) -> Any:
        with torch.inference_mode():
            return extractor.feeder(extractor.describe, some)

    def from_tensors() -> None:
        parts = [inputs[start : start + size] for start in range(0, len(inputs), size)]
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(describe, parts))

    files: list[float] = []
    tensors: list[float] = []
    with pinned(1):
        for number in range(rounds + 1):
            progress("timing", number, rounds + 1)
            for run, spent in ((from_files, files), (from_tensors, tensors)):
                with Stopwatch() as watch:
                    run()
                if number:  # the first round warms up
                    spent.append(watch.seconds)
        resident: list[float] = []
        if on_gpu(device):
            with torch.inference_mode():
                resident = _resident(extractor, inputs, device, rounds)
    with pinned(threads):
        single = latencies(
            [("single", lambda item: describe([inputs[item]]))], min(len(inputs), 128), wait=waiting(device)
        )["single_p50"]
    return Throughput(
        network,
        extractor.weights.get("compute", "float32"),
        extractor.preprocess.crop,
        len(inputs),
        threads,
        device,
        files,
        tensors,
        single,
        operations(extractor.backbone.network, inputs[0][None]),
        torch.cuda.get_device_name(device) if on_gpu(device) else "",
        tuple(resident),
        RESIDENT_BATCH,
    )


def as_jpeg(split: Split) -> Split:
    """The same images as JPEG files in memory: as they are where they are JPEG, else encoded at quality 95."""
    encoded = []
    for row in range(len(split)):
        data = split.images.read(row)
        if not data.startswith(JPEG):
            file = io.BytesIO()
            Image.fromarray(split.images[row]).save(file, "JPEG", quality=95)
            data = file.getvalue()
        encoded.append(data)
    return replace(split, images=ImageBytes(encoded))


def _resident(extractor: Any, inputs: list[Any], device: str, rounds: int) -> list[float]:
    """Seconds for one batch that is on the GPU already, by the GPU's own clock."""
    import torch

    batch = torch.stack([inputs[number % len(inputs)] for number in range(RESIDENT_BATCH)])
    batch = batch.to(device).contiguous(memory_format=torch.channels_last)
    seconds = []
    for number in range(rounds + 3):
        with stopwatch(device) as watch:
            extractor.describe(batch)
        if number >= 3:
            seconds.append(watch.seconds)
    return seconds


def operations(network: Any, batch: Any) -> int:
    """Floating-point operations of the network's convolutions and products for this batch, two a multiply-add."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    where = next(network.parameters()).device
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(batch.to(where))
    return int(counter.get_total_flops())
