"""A query of a record explained: what each method found for it and what made that near, method by method."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from retrieval_bench.core import BadImage, BenchError, Dataset, Split
from retrieval_bench.evaluation.relevance import relevant_among
from retrieval_bench.experiment.features import fitted
from retrieval_bench.experiment.prepare import FROM_GALLERY, Plan, decoded_once, learned_split, relevant_by
from retrieval_bench.explaining import bits, choice, keypoints, networks, words
from retrieval_bench.explaining.clues import Band, Clue, Explanation, Neighbour, PartClues, Shown, Unexplained
from retrieval_bench.extractors.cleaned import CleanedExtractor
from retrieval_bench.extractors.controls import Oracle, RandomControl
from retrieval_bench.extractors.deep.convnet import Convnet
from retrieval_bench.extractors.deep.network_features import NetworkFeatures
from retrieval_bench.extractors.hashes.imagehash import ImageHash
from retrieval_bench.extractors.histograms.color import ColorHistogram
from retrieval_bench.extractors.histograms.lbp import LbpHistogram
from retrieval_bench.extractors.local.hog import WholeImageHog
from retrieval_bench.extractors.local.keypoints import KeypointBlocks
from retrieval_bench.extractors.local.pipeline import LocalFeatures
from retrieval_bench.methods.parse import Method, parse_method
from retrieval_bench.methods.reranking.spatial import Spatial
from retrieval_bench.records.conversion import label_sets
from retrieval_bench.records.schema import Record, Row
from retrieval_bench.registry import Spec
from retrieval_bench.system.progress import Progress, silent
from retrieval_bench.system.timing import pinned

UNTRAINED = "[untrained]"
ROOM = {"cosine": 0.01, "hamming": 0.0}
"""How far a distance may lie from the record's: networks of int8 and float16 were rounded there."""
NETWORK = "the image regions that the cosine comes from"
"""Of a network's heat; the line below each pair says whether they add up to it or are Grad-CAM's."""

Clues = list[Clue]


def explain(
    name: str,
    record: Record,
    arrays: Mapping[str, np.ndarray],
    dataset: Dataset,
    plan: Plan,
    methods: Sequence[str],
    query: str | None,
    top: int,
    progress: Progress = silent,
) -> Explanation:
    """name: what the record is called. arrays: its rankings. dataset: as in the run. plan: how its methods are built,
    and the cache of what they learned. methods: rows of the record. query: an id; None: the most disputed.

    Raises BenchError for an unknown query.
    """
    chosen = ""
    if query is None:
        disputing = [one for one in methods if _row(record, one).family != "control"] or list(methods)
        place, chosen = choice.most_disputed(arrays, disputing)
    else:
        place = choice.query_row(arrays, query)
    dataset = decoded_once(dataset, plan.decoding)
    asked = _Images(dataset.query, dataset.label_names)
    gallery = _Images(dataset.gallery, dataset.label_names)
    shown = asked[str(arrays["query_ids"][place])]
    right = label_sets(arrays, "query")[[place]], label_sets(arrays, "gallery")
    train = learned_split(relevant_by(dataset, record.settings.relevance), record.settings.learn_from)
    bands = []
    for number, method in enumerate(methods):
        progress("explaining", number, len(methods))
        found = [
            Neighbour(
                gallery[str(arrays["gallery_ids"][row])],
                rank,
                distance,
                bool(relevant_among(np.array([[row]]), *right)[0, 0]),
            )
            for rank, (row, distance) in enumerate(choice.nearest(arrays, method, place, top), 1)
        ]
        row = _row(record, method)
        layers = _layers(row, _asked_for(record, row), plan, train, shown, found, progress)
        bands.append(Band(method, row.family, tuple(found), tuple(layers)))
    return Explanation(name, record.dataset.spec, shown, chosen, tuple(bands))


class _Images:
    """The images of a split by their ids, each decoded once."""

    def __init__(self, split: Split, label_names: Sequence[str]) -> None:
        self._split, self._names = split, label_names
        self._row_of = {item: row for row, item in enumerate(split.ids)}
        self._known: dict[str, Shown] = {}

    def __getitem__(self, item: str) -> Shown:
        if item not in self._known:
            row = self._row_of[item]
            try:
                pixels = self._split.images[row]
            except BadImage:
                pixels = None
            self._known[item] = Shown(item, self._names[int(self._split.labels[row])], pixels)
        return self._known[item]


def _row(record: Record, method: str) -> Row:
    return next(row for row in record.rows if row.method == method)


def _asked_for(record: Record, row: Row) -> Method:
    """What the row was run as: a run adds its rows in the order of its methods."""
    return parse_method(record.settings.methods[record.rows.index(row)])


def _layers(
    row: Row, method: Method, plan: Plan, train: Split, query: Shown, found: Sequence[Neighbour], progress: Progress
) -> list[PartClues]:
    """What each member of the method has to say, then its verification, then what cannot be shown of the rest."""
    if query.pixels is None or any(one.image.pixels is None for one in found):
        return [PartClues(row.method, "an image can no longer be read")]
    if not found:
        return [PartClues(row.method, "nothing was found")]
    pixels: list[np.ndarray] = [one.image.pixels for one in found if one.image.pixels is not None]
    explained = []
    for place, spec in enumerate(method.members):
        facts = row.parts[place] if row.parts else row
        name = row.parts[place].name if row.parts else row.method
        weight = row.parts[place].weight if row.parts else None
        title = name if weight is None else f"{name} (weight {weight:.2g})"
        try:
            part = _built(spec, name, facts.weights, plan, train, progress)
            with pinned(1):
                about, clues = _clues(spec, part, query.pixels, pixels)
        except (Unexplained, BenchError) as error:
            explained.append(PartClues(title, str(error)))
            continue
        if method.plain:
            about += _otherwise(row, clues, found)
        explained.append(PartClues(title, about, tuple(clues)))
    for spec in method.steps:
        explained.append(_step(spec, query.pixels, pixels))
    return explained


def _built(
    spec: Spec, name: str, weights: Mapping[str, Any] | None, plan: Plan, train: Split, progress: Progress
) -> Any:
    """The extractor as it was in the run. Raises Unexplained where its weights are others now."""
    if spec.entry.family == "control":
        return spec.build(plan.setup)
    if spec.entry.family == "deep" and spec.resolved.get("compute", "float32") != "float32":
        # What runs faster gives no gradients; what it learned is learned anew from float32, a few last bits apart.
        spec = replace(spec, options={**spec.options, "compute": "float32"})
    if name.removesuffix(FROM_GALLERY).endswith(UNTRAINED):
        plan = replace(plan, weights="random")
    extractor = fitted(spec, plan, train, progress)
    now = getattr(extractor, "weights", None)
    if weights and now and weights.get("sha256") != now.get("sha256"):
        raise Unexplained(
            f"its weights ({now.get('source')}) are not the weights of the record ({weights.get('source')}); "
            "name the folder that has them with --weights"
        )
    return extractor


def _clues(spec: Spec, extractor: Any, query: np.ndarray, found: list[np.ndarray]) -> tuple[str, Sequence[Clue]]:
    """What is shown, and a clue for each image. Raises Unexplained where there is none."""
    options = spec.resolved
    if isinstance(extractor, CleanedExtractor):
        query, *found = _cleaned(extractor, [query, *found])
        extractor = extractor.extractor
    if isinstance(extractor, NetworkFeatures):
        subject = networks.of_features(extractor, options.get("layer", "last"))
        return NETWORK, networks.network_pairs(subject, query, found)
    if isinstance(extractor, Convnet):
        return NETWORK, networks.network_pairs(networks.of_convnet(extractor), query, found)
    if isinstance(extractor, ImageHash):
        return bits.about(spec.entry.name, options.get("size", 8)), bits.bit_pairs(
            extractor, spec.entry.name, query, found
        )
    if isinstance(extractor, LocalFeatures):
        detect = _detector(spec, extractor)
        if detect is not None:
            about = "matched keypoints; the method itself compares one vector of all keypoints"
            return about, keypoints.match_pairs(detect, query, found)
        return "what each image position adds to the cosine", words.local_pairs(extractor, query, found)
    if isinstance(extractor, ColorHistogram | LbpHistogram):
        return "what each pixel adds to the cosine", words.histogram_pairs(extractor, query, found)
    if isinstance(extractor, WholeImageHog):
        return "what each block adds to the cosine", words.block_pairs(extractor, query, found)
    if isinstance(extractor, RandomControl):
        raise Unexplained("each image has a random vector: nothing in the images makes two of them near")
    if isinstance(extractor, Oracle):
        raise Unexplained("it uses the labels: images of one label are near, whatever they show")
    if hasattr(extractor, "describe_split"):
        raise Unexplained("another program made what its file holds: nothing says which pixels that comes from")
    raise Unexplained(
        f"{spec.entry.name} has no explanation: its features describe the whole image, not positions in it"
    )


def _cleaned(extractor: CleanedExtractor, images: list[np.ndarray]) -> list[np.ndarray]:
    """The images as the extractor saw them. Raises Unexplained where they have another shape than those drawn."""
    cleaned = [extractor.clean(image) for image in images]
    if any(one.shape != other.shape for one, other in zip(cleaned, images, strict=True)):
        raise Unexplained("it saw parts of these images, so positions in them do not fit: explain it without cleaning")
    return cleaned


def _detector(spec: Spec, extractor: LocalFeatures) -> Callable[[np.ndarray], keypoints.Points] | None:
    """What finds the points of this method; None for what is matched by no points."""
    options = spec.resolved
    if spec.entry.name == "sift":
        blocks = KeypointBlocks(options["side"], options["keypoints"], options["contrast"])
        return partial(keypoints.sift_points, blocks=blocks)
    if spec.entry.name == "orb":
        return partial(keypoints.orb_points, side=options["side"], keypoints=options["keypoints"])
    if spec.entry.name == "dense-sift":
        return partial(keypoints.grid_points, describe=extractor.describe, side=options["side"])
    return None


def _step(spec: Spec, query: np.ndarray, found: list[np.ndarray]) -> PartClues:
    step = spec.build()
    if not isinstance(step, Spatial) or not isinstance(step.extractor, KeypointBlocks):
        return PartClues(str(spec), "re-ranks by other near images of the gallery, which a pair of images cannot show")
    detect = partial(keypoints.sift_points, blocks=step.extractor)
    about = f"matches that put images first: {step.least} and more that agree on one map count"
    try:
        with pinned(1):
            return PartClues(
                str(spec), about, tuple(keypoints.match_pairs(detect, query, found, step.ratio, keypoints.nearest))
            )
    except Unexplained as error:
        return PartClues(str(spec), str(error))


def _otherwise(row: Row, clues: Sequence[Clue], found: Sequence[Neighbour]) -> str:
    """A warning where the distances are not those of the record; "" where they are."""
    room = ROOM.get(row.features.distance if row.features else "")
    if room is None:
        return ""
    for clue, one in zip(clues, found, strict=True):
        if clue.distance is not None and abs(clue.distance - one.distance) > room:
            return f"; warning: the distance is {clue.distance:.4g} now, {one.distance:.4g} in the record"
    return ""
