"""What describes pictures below a trained image tower: one extractor or several, none of which is trained further."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from retrieval_bench.core import BenchError, Extractor, Setup, Split
from retrieval_bench.images.reading import ImageBytes
from retrieval_bench.linalg.rows import signs, unit
from retrieval_bench.pair_training.file import PicturePart
from retrieval_bench.registry import EXTRACTORS, Spec, parse

NOT_PICTURES = ("transform_split", "describe_split", "searcher", "ranks_only")
"""Attributes of extractors that give no vector of a picture: controls, files, several codes, rankings."""
CHUNK = 8


class FrozenPictures:
    """Several extractors whose vectors lie side by side, each at length 1.

    Args:
        specs: how they are called.
        setup: seed, weights and device.
        called: what sentences begin with.

    Raises:
        BenchError: One of them gives no vector of a picture.
    """

    def __init__(self, specs: Sequence[Spec], setup: Setup, called: str) -> None:
        self.specs, self.called = tuple(specs), called
        self.extractors: list[Extractor] = [spec.build(setup) for spec in self.specs]
        for spec, extractor in zip(self.specs, self.extractors, strict=True):
            if spec.modalities != ("image",) or any(hasattr(extractor, name) for name in NOT_PICTURES):
                raise BenchError(
                    f"{called}: {spec} does not give one vector of a picture alone; name an extractor such as "
                    "efficientnet_lite0, sift or color"
                )

    @property
    def untrained(self) -> bool:
        """A network among them has random weights."""
        return any(getattr(extractor, "mark", "") == "untrained" for extractor in self.extractors)

    @property
    def chunk(self) -> int:
        """Pictures to be given at once."""
        return min(getattr(extractor, "chunk", CHUNK) for extractor in self.extractors)

    @property
    def wanted(self) -> int | None:
        """Pixels of the shorter side that are looked at; None: all."""
        sides = [getattr(extractor, "wanted", None) for extractor in self.extractors]
        return None if None in sides else max(side for side in sides if side is not None)

    @property
    def parts(self) -> list[PicturePart]:
        """What a file keeps of them."""
        return [
            PicturePart(
                str(spec), weights_sha256(extractor), {name: getattr(extractor, name) for name in _learned(extractor)}
            )
            for spec, extractor in zip(self.specs, self.extractors, strict=True)
        ]

    def fit(self, train: Split) -> None:
        """Let each learn from train what it learns."""
        for extractor in self.extractors:
            extractor.fit(train)

    def restore(self, parts: Sequence[PicturePart]) -> None:
        """Give each what it had learned. BenchError where a network has other weights, or learns other things."""
        for part, extractor in zip(parts, self.extractors, strict=True):
            found = weights_sha256(extractor)
            if found != part.weights_sha256:
                raise BenchError(
                    f"{self.called}: its image tower was trained over {part.spec} with weights whose sha256 begins "
                    f"with {part.weights_sha256[:8] or 'nothing'}, and here it begins with {found[:8] or 'nothing'}; "
                    "give the same weights by --weights"
                )
            if part.learned.keys() != set(_learned(extractor)):
                kept, learns = (", ".join(sorted(names)) or "nothing" for names in (part.learned, _learned(extractor)))
                raise BenchError(
                    f"{self.called}: the file keeps {kept} of {part.spec}, which learns {learns} in this version; "
                    "train it again"
                )
            if not part.learned:
                extractor.fit(NO_IMAGES)
            for name, array in part.learned.items():
                setattr(extractor, name, array)

    def transform(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """n images -> (n, d) float32; each extractor's numbers at length 1, or zeros where it describes nothing."""
        rows: list[list[np.ndarray]] = [[] for _ in images]
        for extractor in self.extractors:
            features: Any = extractor.transform(images)
            if not isinstance(features, np.ndarray) or features.ndim != 2:
                raise BenchError(f"{self.called}: pairs need one vector of a picture; name another extractor")
            numbers = signs(features) if extractor.distance == "hamming" else features.astype(np.float32)
            for row, vector in zip(rows, numbers, strict=True):
                row.append(unit(vector))
        return np.stack([np.concatenate(row) for row in rows])


NO_IMAGES = Split((), np.empty(0, np.int64), ImageBytes([]))


def specs_of(method: str, called: str) -> list[Spec]:
    """Read `efficientnet_lite0`, or several with a + between them.

    Args:
        method: one extractor or more, with their options.
        called: what sentences begin with.

    Returns:
        A specification of each.

    Raises:
        BenchError: A name or an option is unknown, a name is missing, or it is itself made of pairs.
    """
    specs = [parse(EXTRACTORS, part) for part in re.split(r"\+(?=\s*[A-Za-z])", method)]
    for spec in specs:
        if spec.modalities != ("image",):
            raise BenchError(f"{called}: {spec.entry.name} reads texts already; name an extractor of pictures alone")
    return specs


def frozen(method: str, setup: Setup, called: str) -> FrozenPictures:
    """Build the extractors of a method; raises BenchError as `specs_of` and `FrozenPictures` do."""
    return FrozenPictures(specs_of(method, called), setup, called)


def restored_pictures(parts: Sequence[PicturePart], setup: Setup, seed: int, called: str) -> FrozenPictures:
    """The extractors of a file, with what they had learned. seed: that they were built with in training."""
    specs = [spec for part in parts for spec in specs_of(part.spec, called)]
    pictures = FrozenPictures(specs, replace(setup, seed=seed), called)
    pictures.restore(parts)
    return pictures


def weights_sha256(extractor: Extractor) -> str:
    """What identifies a network's weights; "" where there are none."""
    return str((getattr(extractor, "weights", None) or {}).get("sha256", ""))


def _learned(extractor: Extractor) -> tuple[str, ...]:
    names: tuple[str, ...] = getattr(extractor, "learned", ())
    return names
