"""Local features: descriptors of many places in an image, reduced, encoded into one vector, and that one whitened."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, NamedTuple, Self, TypeVar, get_type_hints

import numpy as np

from retrieval_bench.core import BenchError, Distance, Extractor, Setup, Split, refuse_unfitted
from retrieval_bench.extractors.local.bow import BagOfWords
from retrieval_bench.extractors.local.encoders import Encoder
from retrieval_bench.extractors.local.fisher import Fisher
from retrieval_bench.extractors.local.vlad import Vlad
from retrieval_bench.images.pictures import pictures
from retrieval_bench.linalg.pca import principal_axes, projected
from retrieval_bench.linalg.rows import unit
from retrieval_bench.registry import Range
from retrieval_bench.system.threads import mapped

_T = TypeVar("_T")

SAMPLE = 150_000
"""Descriptors that are learned from: what bounds the memory of learning, however many images there are."""

HALF = 0.5
"""How far the encoded vectors are whitened: half the way did better than all of it on validation queries."""


class Described(NamedTuple):
    """descriptors: (n, d) float32. places: (n, 2) float32, row and column of the centre, -0.5 to 0.5 of the image."""

    descriptors: np.ndarray
    places: np.ndarray


Describe = Callable[[np.ndarray], Described]
"""(h, w, 3) uint8 RGB -> Described, n >= 0; a pure function of the image, safe in threads."""


def nothing(dim: int) -> Described:
    """What is described of an image that has nothing to describe."""
    return Described(np.empty((0, dim), np.float32), np.empty((0, 2), np.float32))


@dataclass(eq=False)
class LocalFeatures:
    """One vector an image, compared by cosine.

    describe: what finds the descriptors of one image.
    reduce: principal components that are kept of a descriptor; 0 keeps it as it is.
    level: how far these are whitened, 0 to 1; 1 suits statistics of different kinds, as those of colour.
    place: weight of row and column, which are put beside the descriptor; 0 leaves them out.
    whiten: principal components that are kept of the encoded vector, half whitened; 0 keeps it as it is.
    fit_images: at most this many training images, drawn by `seed`, are read.
    sample: about so many descriptors are learned from, an equal share of each image that is read.
    wanted: the side in pixels to which `describe` shrinks images first; None: it looks at every pixel.
    """

    name: str
    describe: Describe
    encoder: Encoder
    reduce: int
    place: float
    whiten: int
    fit_images: int
    seed: int
    threads: int = 1
    level: float = 0.0
    sample: int = SAMPLE
    wanted: int | None = None
    distance: Distance = "cosine"
    serial: ClassVar[bool] = True

    @property
    def learned(self) -> tuple[str, ...]:
        names = [f"{name}_" for name in self.encoder.learned]
        names += ["reduce_mean_", "reduce_axes_"] if self.reduce else []
        return (*names, "whiten_mean_", "whiten_axes_") if self.whiten else tuple(names)

    def fit(self, train: Split) -> Self:
        rng = np.random.default_rng(self.seed)
        rows = np.sort(rng.permutation(len(train))[: self.fit_images])
        each = -(-self.sample // len(rows))

        def sample(row: int, image: np.ndarray) -> Described:
            found = self.describe(image)
            some = np.sort(np.random.default_rng([self.seed, row]).permutation(len(found.descriptors))[:each])
            return Described(found.descriptors[some], found.places[some])

        sampled = list(self._mapped(sample, train, rows))
        if not any(len(image.descriptors) for image in sampled):
            raise BenchError(
                f"{self.name}: none of the {len(rows)} training images has anything to describe (all are blank or "
                "tiny), so nothing can be learned; add training images with visible structure"
            )
        if self.reduce:
            stacked = np.concatenate([image.descriptors for image in sampled])
            self.reduce_mean_, self.reduce_axes_ = principal_axes(stacked, self.reduce, self.level)
        learned = self.encoder.fit([self.reduced(image) for image in sampled], self.seed, self.threads)
        for name, array in learned.items():
            setattr(self, f"{name}_", array)
        if self.whiten:
            encoded = list(self._mapped(lambda row, image: self._encoded(image), train, rows))
            self.whiten_mean_, self.whiten_axes_ = principal_axes(np.stack(encoded), self.whiten, HALF)
        return self

    def transform(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """n images -> (n, D) float32, rows of norm 1; an image without a descriptor is a zero row."""
        refuse_unfitted(self, self.name)
        rows = []
        for image in pictures(images):
            encoded = self._encoded(image)
            if self.whiten:
                whitened = unit(projected(encoded[None], self.whiten_mean_, self.whiten_axes_)[0])
                encoded = whitened if encoded.any() else np.zeros_like(whitened)
            rows.append(encoded)
        if not rows:
            nothing_seen = self.encoder.encode(np.empty((0, 0), np.float32), self.learned_arrays())
            return np.empty((0, self.whiten_axes_.shape[1] if self.whiten else len(nothing_seen)), np.float32)
        return np.stack(rows)

    def learned_arrays(self) -> dict[str, np.ndarray]:
        return {name: getattr(self, f"{name}_") for name in self.encoder.learned}

    def _encoded(self, image: np.ndarray) -> np.ndarray:
        return self.encoder.encode(self.reduced(self.describe(image)), self.learned_arrays())

    def reduced(self, found: Described) -> np.ndarray:
        descriptors = found.descriptors
        if self.reduce:
            descriptors = projected(descriptors, self.reduce_mean_, self.reduce_axes_)
        if self.place:
            descriptors = np.concatenate([descriptors, np.float32(self.place) * found.places], axis=1)
        return np.ascontiguousarray(descriptors, np.float32)

    def _mapped(
        self, function: Callable[[int, np.ndarray], _T], train: Split, rows: Sequence[int] | np.ndarray
    ) -> Iterator[_T]:
        """function(row, image) in the order of rows, on all threads; a few images are in memory at a time."""
        decoded = ((int(row), train.images[int(row)]) for row in rows)
        return mapped(lambda item: function(*item), decoded, self.threads)


def local_features(
    name: str,
    setup: Setup,
    describe: Describe,
    *,
    encode: str = "fisher",
    words: Annotated[int, Range(0, 65_536)] = 0,
    reduce: Annotated[int, Range(0)] = 64,
    place: Annotated[float, Range(0)] = 0.0,
    whiten: Annotated[int, Range(0)] = 0,
    soft: Annotated[int, Range(1)] = 1,
    power: Annotated[float, Range(0, 1, above=True)] = 0.5,
    fit_images: Annotated[int, Range(1)] = 1000,
    sample: Annotated[int, Range(1)] = SAMPLE,
    level: float = 0.0,
    wanted: int | None = None,
) -> Extractor:
    """LocalFeatures from the options that all methods of this kind share.

    Args:
        name: of the method, for error messages.
        setup: what the run fixes for every method.
        describe: finds the descriptors of one image.
        encode: how the descriptors of an image become one vector: `fisher` (Fisher vector), `vlad` or `bow` (bag of
            words).
        words: size of the vocabulary: Gaussians of `fisher`, words of `vlad` and `bow`. 0 takes the encoder's own
            number: 64, 128 and 4096.
        reduce: principal components that are kept of a descriptor; 0 keeps it whole.
        place: weight of the position in the image (row and column), which is put beside the descriptor; 0 leaves it
            out.
        whiten: principal components that are kept of the encoded vector, half whitened; 0 keeps it whole.
        soft: with `bow`, how many of the nearest words a descriptor is assigned to.
        power: to which counts or gradients are raised, above 0 to 1. 1 leaves bursts as they are, 0.5 takes square
            roots (Jegou, Douze and Schmid, CVPR 2009), towards 0 only presence counts.
        fit_images: training images that are learned from, at most, drawn by the seed.
        sample: descriptors that are learned from, about, an equal share of each image.
        level: how far the principal components of a descriptor are whitened, 0 (not at all) to 1 (fully).
        wanted: the side in pixels to which `describe` shrinks images first; None: it looks at every pixel.
    """
    for option, value, least in (
        *(("words", words, 0), ("reduce", reduce, 0), ("whiten", whiten, 0), ("soft", soft, 1)),
        *(("fit_images", fit_images, 1), ("place", place, 0), ("sample", sample, 1)),
    ):
        if value < least:
            raise BenchError(f"{name}: {option}={value} must be at least {least}")
    if not 0 < power <= 1:
        raise BenchError(f"{name}: power={power} must be above 0 and at most 1, which leaves counts as they are")
    encoders: dict[str, Callable[[], Encoder]] = {
        "bow": lambda: BagOfWords(words or 4096, soft, power=power),
        "vlad": lambda: Vlad(words or 128, power=power),
        "fisher": lambda: Fisher(words or 64, power=power),
    }
    if encode not in encoders:
        raise BenchError(f"{name}: encode={encode} is not one of {', '.join(encoders)}")
    return LocalFeatures(
        name,
        describe,
        encoders[encode](),
        reduce,
        place,
        whiten,
        fit_images,
        setup.seed,
        setup.threads,
        level,
        sample,
        wanted,
    )


def encoded(
    name: str, *, level: float = 0.0, **defaults: Any
) -> Callable[[Callable[..., Any]], Callable[..., Extractor]]:
    """Give a builder the options of `local_features`, so that they are declared once.

    Args:
        name: of the method, for error messages.
        level: as for `local_features`; it is no option of the methods.
        **defaults: of shared options, where the method has others than `local_features`.

    A method whose own options have a `side` shrinks the longer side of images to it.

    Returns:
        A decorator of a function (setup, own options) -> Describe. Its result may also be a whole Extractor, for a
        value of `encode` that is the method's own; then it has `encode` among its options.
    """
    shared = {
        key: parameter.replace(default=defaults.get(key, parameter.default))
        for key, parameter in inspect.signature(local_features).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and key not in ("level", "wanted")
    }

    def decorate(make: Callable[..., Any]) -> Callable[..., Extractor]:
        own = inspect.signature(make).parameters

        def build(setup: Setup, **options: Any) -> Extractor:
            chosen = {key: options.get(key, parameter.default) for key, parameter in shared.items()}
            mine = {key: value for key, value in options.items() if key in own}
            made = make(setup, **mine)
            if isinstance(made, Extractor):
                return made
            side = mine.get("side", own["side"].default) if "side" in own else None
            return local_features(name, setup, made, level=level, wanted=side, **chosen)

        between = [parameter for key, parameter in own.items() if key not in ("setup", *shared)]
        first, last = ("encode", "words"), [key for key in shared if key not in ("encode", "words")]
        ordered = [*(shared[key] for key in first), *between, *(shared[key] for key in last)]
        # Where the registry reads names, types and defaults of the options, and whose file is part of a feature's key.
        build.__signature__ = inspect.Signature([own["setup"], *ordered])  # type: ignore[attr-defined]
        build.__wrapped__ = make  # type: ignore[attr-defined]
        build.__doc__ = make.__doc__
        build.__annotations__ = get_type_hints(local_features, include_extras=True) | get_type_hints(
            make, include_extras=True
        )
        return build

    return decorate
