"""From a method to the bytes of a file, and from the file to how far it agrees with the method."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import retrieval_bench
from retrieval_bench.core import BenchError, Images, Setup, Split
from retrieval_bench.exporting.files import SUFFIXES, Form, onnx_bytes, onnx_model, torchscript_bytes, weights_bytes
from retrieval_bench.exporting.int8 import CALIBRATION_IMAGES, HOW, quantised
from retrieval_bench.exporting.module import module_of
from retrieval_bench.extractors.deep.export_metadata import Notes
from retrieval_bench.extractors.deep.network_features import NetworkFeatures, agreement
from retrieval_bench.extractors.deep.preprocess import Preprocess, middle
from retrieval_bench.methods.parse import CleanedSpec, Method
from retrieval_bench.registry import EXTRACTORS, Spec

COMPARED_IMAGES = 256
LARGEST_DIFFERENCE = 0.01
"""Between numbers of rows of length 1. A file in float32 that differs by more is another method, and is not written."""
TOGETHER = 3


def exportable(method: Method) -> Spec:
    """The network that a method is. Raises BenchError where it is none, or has an option that no file can hold."""
    if not method.plain:
        raise BenchError(
            f"--method {method}: a file holds one network, without joins and re-ranking; name only the network"
        )
    (spec,) = method.members
    if isinstance(spec, CleanedSpec):
        raise BenchError(
            f"--method {method}: a file takes images as they are, since no file holds what cleans them; leave out what "
            "stands behind @"
        )
    name = spec.entry.name
    if name == "onnx":
        raise BenchError(f"--method {method}: this is already an exported file; name the network that it was made from")
    if "pool" not in spec.entry.options:  # what all networks of weights files have, see cnn.with_options
        raise BenchError(
            f"--method {method}: {name} is not a network with weights; name one, e.g. resnet50 or timm:NAME"
        )
    options = spec.resolved
    for option, plain, reason in (
        (
            "dtype",
            "float32",
            "how rows are stored is not part of a file; write it after the file: onnx:FILE:dtype={}",
        ),
        ("compute", "float32", "how this program runs a network is not part of a file"),
        ("scales", 1, "a file takes each image at one size"),
        ("crop", True, "a file takes images of one shape, not whole images of any shape"),
    ):
        if options[option] != plain:
            value = options[option]
            help_it = "leave it out" if spec.entry.options[option].default == plain else f"write {option}={plain}"
            raise BenchError(f"--method {method}: {option}={value}: {reason.format(value)}; {help_it}")
    return spec


@dataclass(frozen=True)
class LearnedFrom:
    """The images that post-processing or calibration learned from. dataset: its specification."""

    dataset: str
    split: Split


def export(
    method: Method,
    extractor: NetworkFeatures,
    form: Form,
    *,
    seed: int = 0,
    learned: LearnedFrom | None = None,
    int8: bool = False,
) -> bytes:
    """The file of an extractor that `exportable` passed, learned already where it learns.

    learned: needed where the extractor learns or int8 is wanted, which is for onnx alone. Raises BenchError where torch
    or onnxruntime cannot make it.
    """
    if type(extractor.preprocess) is not Preprocess:
        raise BenchError(
            f"--method {method}: its images are prepared by a Python function, which no file can say; let FUNCTION "
            "return a dict with size, mean and std"
        )
    side = extractor.preprocess.crop
    module = module_of(extractor)
    calibration = _drawn(learned.split, CALIBRATION_IMAGES, seed) if int8 and learned is not None else None
    notes = Notes(
        method=str(method),
        version=retrieval_bench.__version__,
        preprocess=extractor.preprocess,
        dimensions=_width(extractor),
        mark=extractor.mark,
        weights=extractor.weights,
        seed=seed,
        learned_from=learned.dataset if learned is not None and extractor.learned else None,
        trained_on=_trained_on(extractor, learned, calibration),
        int8=None if calibration is None or learned is None else _how(learned.dataset, calibration),
    )
    if form == "torchscript":
        return torchscript_bytes(str(method), module, side, notes)
    model, outside = onnx_model(str(method), module, side)
    if calibration is not None:
        model = quantised(str(method), model, outside, _pixels(extractor, calibration))
    return onnx_bytes(model, notes)


def _drawn(split: Split, most: int, seed: int) -> Split:
    return split.take(np.sort(np.random.default_rng(seed).permutation(len(split))[:most]))


def _pixels(extractor: NetworkFeatures, split: Split) -> Iterator[np.ndarray]:
    """Each image as the network sees it, (1, 3, h, w) float32; and its mirror image where that is looked at."""
    for row in range(len(split)):
        image = middle(split.images[row])
        for view in extractor.views:
            yield view(image)[None].contiguous().numpy()


def _width(extractor: NetworkFeatures) -> int:
    learned = {name: getattr(extractor, name) for name in extractor.after.learned}
    return extractor.after.width(extractor.dimensions, learned)


def _how(dataset: str, calibration: Split) -> dict[str, Any]:
    return {"how": HOW, "images": len(calibration), "dataset": dataset}


def _trained_on(
    extractor: NetworkFeatures, learned: LearnedFrom | None, calibration: Split | None
) -> dict[str, Any] | None:
    """All images that anything in the file was learned from, so that they are refused as queries."""
    datasets: dict[str, None] = {}
    images: set[str] = set()
    if extractor.trained_on is not None:
        datasets[str(extractor.trained_on["dataset"])] = None
        images |= set(extractor.trained_on["images"])
    if learned is not None:
        seen = [learned.split.take(extractor.fit_rows(len(learned.split)))] if extractor.learned else []
        seen += [] if calibration is None else [calibration]
        for split in seen:
            datasets[learned.dataset] = None
            images |= {split.images.digest(row) for row in range(len(split))}
    return {"dataset": " and ".join(datasets), "images": sorted(images)} if datasets else None


@dataclass(frozen=True)
class Agreement:
    """images: that were compared. largest: difference of any number of two rows of length 1. same: share of each one's
    ten nearest among them that both find. original, file: bytes, of the weights in float32 and of the whole file."""

    images: int
    largest: float
    same: float
    original: int
    file: int


def compared(
    method: Method,
    extractor: NetworkFeatures,
    content: bytes,
    form: Form,
    images: Sequence[np.ndarray] | Images,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Agreement:
    """Run images, (h, w, 3) uint8, through the original and through the file as `onnx:FILE` reads it.

    Raises BenchError where the file does not take several images at once or gives other rows for them together.
    """
    import torch

    with tempfile.TemporaryDirectory(prefix="retrieval_bench_") as folder:
        file = Path(folder) / f"exported{SUFFIXES[form][0]}"
        file.write_bytes(content)
        again = EXTRACTORS["onnx"].build(Setup(), path=str(file))
        assert isinstance(again, NetworkFeatures)
        ours, theirs = [], []
        some: list[Any] = []
        for row in range(len(images)):
            progress("comparing the file with the original", row, len(images))
            image = images[row]
            ours.append(extractor.transform([image])[0])
            theirs.append(again.transform([image])[0])
            if len(some) < TOGETHER:
                some.append(again.preprocess(middle(image)))
        with torch.inference_mode():
            together = again.describe(torch.stack(some)).numpy()
    first, second = np.stack(ours), np.stack(theirs)
    apart = float(np.abs(together - second[: len(some)]).max())
    if apart > LARGEST_DIFFERENCE:
        raise BenchError(
            f"{method}: as {form}, images in a batch give other rows than single images (by {apart:.2g}); "
            f"try --format {next(one for one in SUFFIXES if one != form)}"
        )
    return Agreement(
        images=len(first),
        largest=float(np.abs(first - second).max()),
        same=agreement(first, second),
        original=weights_bytes(extractor.backbone.network),
        file=len(content),
    )


def refuse_another_method(method: Method, form: Form, found: Agreement) -> None:
    """BenchError where a file in float32 gives other rows than the method does."""
    if found.largest > LARGEST_DIFFERENCE:
        raise BenchError(
            f"{method}: as {form} its rows differ from the original by up to {found.largest:.2g}, so nothing was "
            f"written; try --format {next(one for one in SUFFIXES if one != form)}"
        )


def sample(split: Split, seed: int) -> Split:
    """What is compared: some images of a split, drawn by the seed."""
    return _drawn(split, COMPARED_IMAGES, seed)


def pictures(seed: int, n: int = 32) -> list[np.ndarray]:
    """n smooth random pictures, (h, w, 3) uint8, for want of a dataset."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (n, 8, 6, 3), dtype=np.uint8)
    return [np.array(Image.fromarray(one).resize((240, 320), Image.Resampling.BICUBIC)) for one in coarse]
