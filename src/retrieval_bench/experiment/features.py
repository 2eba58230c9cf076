"""What a method makes of splits: each part learns from train and describes every image, through the cache."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import retrieval_bench
from retrieval_bench.core import BenchError, Extractor, Setup, Split
from retrieval_bench.distributed.engine import Chunks
from retrieval_bench.experiment.describer import MethodDescriber
from retrieval_bench.experiment.extraction import Extracted, Watched, extract
from retrieval_bench.experiment.multi_gpu import Team
from retrieval_bench.experiment.prepare import Plan
from retrieval_bench.methods.fusion import LEARN_FROM
from retrieval_bench.methods.modalities import IMAGE
from retrieval_bench.methods.parse import Method
from retrieval_bench.methods.pipeline import Part, Pipeline
from retrieval_bench.plugins.loading import files, owners
from retrieval_bench.records.schema import Fitted
from retrieval_bench.registry import Spec
from retrieval_bench.system.cache import FeatureCache, code_version, library_versions, recipe_key
from retrieval_bench.system.device import gpus
from retrieval_bench.system.progress import Progress, silent
from retrieval_bench.system.timing import Stopwatch, pinned

FEATURE_ROOMS = (
    "classifiers",
    "extractors",
    "images",
    "linalg",
    "pair_training",
    "stored",
    "training",
    "training_loop",
)
"""Folders whose code a feature passes through: a change of any file in them, however deep, is another feature."""
FEATURE_FILES = ("system/by_identity.py", "system/csv_dialect.py", "system/device.py", "texts/words.py")
"""Files elsewhere of which the same holds: what is remembered of learned arrays, where the cells of a line end, how a
GPU rounds, and what the words of a text are."""
GALLERY_SIDE = ("gallery", "train")
"""The splits whose items are what the gallery is; all others are what queries are."""
_HOME = Path(retrieval_bench.__file__).parent


@dataclass(frozen=True, eq=False)
class PartFeatures:
    """One part of a method on all splits that it was wanted on. fit_s None: nothing was learned now."""

    fitted: Fitted
    fit_s: float | None
    learned_from: str | None
    splits: dict[str, Extracted]

    @property
    def computed(self) -> int:
        return sum(split.computed for split in self.splits.values())

    @property
    def from_cache(self) -> int:
        return sum(split.from_cache for split in self.splits.values())


def described(
    method: Method, plan: Plan, train: Split, wanted: Mapping[str, Split], progress: Progress = silent
) -> tuple[Pipeline, dict[str, np.ndarray]]:
    """One vector of each image of these splits, by a method that has learned from `train`.

    Raises BenchError where the method keeps no single vector, or learns and train is empty.
    """
    pipeline = Pipeline(method, plan.setup, plan.backend)
    if pipeline.unclassifiable is not None or pipeline.steps:
        raise BenchError(f"{pipeline.name} does not keep one vector an image to compare; name a method such as color")
    with pinned(1):
        done = [
            part_features(part, pipeline, wanted, train, plan.setup, plan.decoding.key, plan.cache, progress)
            for part in pipeline.members
        ]
        if pipeline.learns_together:
            fit_together(pipeline, done, train, plan.setup, plan.decoding.key, plan.cache, progress)
    return pipeline, {name: pipeline.vectors([part.splits[name].features for part in done]) for name in wanted}


def fitted(spec: Spec, plan: Plan, train: Split, progress: Progress = silent) -> Extractor:
    """One extractor after it has learned from `train`, or with what the cache has of that."""
    part = Part(spec, spec.build(plan.setup))
    with pinned(1):
        fit_part(part, recipe_of(part, plan.setup, plan.decoding.key), train, plan.cache, part.name, progress)
    return part.extractor


def part_features(
    part: Part,
    pipeline: Pipeline,
    wanted: Mapping[str, Split],
    train: Split,
    setup: Setup,
    decoder: str,
    cache: FeatureCache,
    progress: Progress,
) -> PartFeatures:
    """What one part makes of these splits, after learning what it has to learn from `train`. decoder: Decoding.key."""
    name = part.name if pipeline.method.plain else f"{pipeline.name}: {part.name}"
    recipe = recipe_of(part, setup, decoder)
    try:
        fitted, fit_s = fit_part(part, recipe, train, cache, name, progress)
        learned_from = train.content if fitted != "nothing to learn" else None
        key = features_key(recipe, None if learned_from is None else read_content(part.spec, train))
        devices = gpus(setup.device) if part.spec.entry.family == "deep" else []
        team: Chunks | None = Team(str(part.spec), setup, devices) if len(devices) > 1 else None
        if setup.device == "cpu" and not getattr(part.extractor, "elsewhere", False):
            describer = MethodDescriber(str(part.spec), setup, tuple(files()))
            team = pipeline.engine.chunks(describer, key, cache.root) or team

        def extracted(split: Split, what: str) -> Extracted:
            shown = "queries" if what == "query" else what
            side = part.side(pipeline.sides.gallery if what in GALLERY_SIDE else pipeline.sides.query)

            for other, done in splits.items():
                if (
                    hasattr(part.extractor, "describe_split")
                    or side != IMAGE
                    or (other in GALLERY_SIDE) != (what in GALLERY_SIDE)
                ):
                    break  # images of the same bytes may have other ids, or other texts
                if wanted[other].content == split.content:
                    return Extracted(done.features, 0, 0)

            def show(done: int, total: int) -> None:
                progress(f"{name}: {shown}", done, total)

            return extract(
                part.extractor,
                split,
                threads=setup.threads,
                cache=cache,
                key=key,
                progress=show,
                chunks=team,
                what=what,
                side=side,
            )

        splits: dict[str, Extracted] = {}
        for what, split in wanted.items():
            splits[what] = extracted(split, what)
    except BenchError as error:
        if pipeline.method.plain:
            raise
        raise BenchError(f"{part.name}, which is part of it, failed: {error}") from None
    return PartFeatures(fitted, fit_s, learned_from, splits)


def fit_together(
    pipeline: Pipeline,
    extracted: list[PartFeatures],
    train: Split,
    setup: Setup,
    decoder: str,
    cache: FeatureCache,
    progress: Progress,
) -> float | None:
    """Let the join and the steps learn from a sample of train; the seconds that took, without extracting what others
    know already."""
    refuse_empty(train, pipeline.name)
    rows = np.sort(np.random.default_rng(setup.seed).permutation(len(train))[:LEARN_FROM])
    sample = train.take(rows)
    features = []
    learning = pipeline.parts if pipeline.steps_learn else pipeline.members
    for part, done in zip(learning, extracted, strict=False):
        if "train" in done.splits:
            features.append(done.splits["train"].features[rows])
        else:
            more = part_features(part, pipeline, {"train": sample}, train, setup, decoder, cache, progress)
            done.splits.update(more.splits)
            features.append(done.splits["train"].features)
    with pinned(setup.threads), Stopwatch() as joining:
        pipeline.fit_together(
            features, sample.labels, lambda what, done, total: progress(f"{pipeline.name}: {what}", done, total)
        )
    return joining.seconds


def recipe_of(part: Part, setup: Setup, decoder: str) -> dict[str, Any]:
    """All that a feature depends on besides its image and what was learned."""
    own = Path(inspect.unwrap(part.spec.entry.build).__code__.co_filename)
    rooms = [file for room in FEATURE_ROOMS for file in (_HOME / room).rglob("*.py")]
    sources = [*rooms, *(_HOME / file for file in FEATURE_FILES), *([own] if own.is_file() else [])]
    entries = [part.spec.entry, *(one.entry for one in getattr(part.spec, "cleanings", ()))]
    sources += [file for plugin in owners(entries) for file in plugin.sources]
    return {
        "method": part.spec.entry.name,
        "options": part.spec.resolved,
        "seed": setup.seed,
        "device": setup.device,
        "distance": part.extractor.distance,
        "weights": getattr(part.extractor, "weights", None),
        "decoder": decoder,
        "code": code_version(*sources),
        "libraries": library_versions(),
    }


def features_key(recipe: Mapping[str, Any], learned_from: str | None) -> str:
    """Under which the cache keeps features. learned_from: `Split.content` of train; None where nothing is learned."""
    return recipe_key(dict(recipe) | {"kind": "features", "learned_from": learned_from})


def fit_part(
    part: Part, recipe: Mapping[str, Any], train: Split, cache: FeatureCache, name: str, progress: Progress
) -> tuple[Fitted, float | None]:
    """Learn from train, or take from the cache what was learned from the same images; (how, seconds it took now)."""
    extractor = part.extractor
    learned: tuple[str, ...] = getattr(extractor, "learned", ())
    if IMAGE in getattr(part.spec, "modalities", (IMAGE,)):
        train = train.with_pictures
    if not learned:
        extractor.fit(train)
        return "nothing to learn", None
    refuse_empty(train, part.name)
    if all(hasattr(extractor, attribute) for attribute in learned):
        return "from cache", None  # learned a moment ago, for another split
    recipe = dict(recipe) | {"kind": "fit", "learned_from": read_content(part.spec, train)}
    key = recipe_key(recipe)
    stored = cache.get_fit(key, recipe)
    if stored is not None and set(stored) == set(learned):
        for attribute, array in stored.items():
            setattr(extractor, attribute, array)
        return "from cache", None
    expected = min(len(train), getattr(extractor, "fit_images", len(train)))
    watched = Watched(train.images, lambda seen: progress(f"{name}: learning", min(seen, expected), expected))
    if hasattr(extractor, "progress"):
        extractor.progress = lambda what, done, total: progress(f"{name}: {what}", done, total)
    with Stopwatch() as fitting:
        extractor.fit(replace(train, images=watched))
    cache.put_fit(key, recipe, {attribute: np.asarray(getattr(extractor, attribute)) for attribute in learned})
    return "learned", fitting.seconds


def read_content(spec: Spec, train: Split) -> str:
    """What an extractor can learn from: `Split.content`, and the texts where it reads these."""
    if "text" not in spec.modalities or train.texts is None:
        return train.content
    digest = hashlib.sha256(train.content.encode())
    for text in train.texts:
        digest.update(text.encode(errors="surrogatepass") + b"\0")
    return digest.hexdigest()


def refuse_empty(train: Split, name: str) -> None:
    if not len(train):
        raise BenchError(
            f"{name} learns from train images and this dataset has none; add a train split, drop {name}, or "
            "let it learn from the gallery by --learn-from gallery"
        )
