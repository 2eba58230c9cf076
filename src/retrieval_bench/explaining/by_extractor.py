"""Which clues an extractor has, and which a re-ranking step: heat, matched points or bits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from retrieval_bench.core import BenchError
from retrieval_bench.experiment.extraction import described_items
from retrieval_bench.explaining import bits, keypoints, networks, occlusion, words
from retrieval_bench.explaining.clues import Clue, PartClues, Shown, Unexplained
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
from retrieval_bench.extractors.text.bm25 import Bm25
from retrieval_bench.methods.modalities import IMAGE, TEXT
from retrieval_bench.methods.pipeline import Part, Pipeline
from retrieval_bench.methods.reranking.spatial import Spatial
from retrieval_bench.methods.reranking.step import LearningStep
from retrieval_bench.registry import Spec
from retrieval_bench.system.timing import pinned

NETWORK = "the image regions that the cosine comes from"
"""Of a network's heat; the line below each pair says whether they add up to it or are Grad-CAM's."""


def why(
    pipeline: Pipeline, query: Shown, found: Sequence[Shown], gallery: Callable[[], Sequence[str]] = tuple
) -> list[PartClues]:
    """What each part of a method that is ready to search has to say, then each of its steps.

    Args:
        pipeline: has learned what it has to learn.
        query: its picture, its text, or both.
        found: items of the gallery, in the order in which clues are wanted.
        gallery: gives the texts of all items, which is asked of a part that counts words.

    Returns:
        The clues of each, or in words why there are none.
    """
    weights = {} if pipeline.join is None else pipeline.join.weights
    layers = []
    for part in pipeline.members:
        weight = weights.get(part.name)
        title = part.name if weight is None else f"{part.name} (weight {weight:.2g})"
        try:
            extractor = _with_gradients(part, pipeline)
            with pinned(1):
                if TEXT in part.side(pipeline.sides.query).split("+") and (query.text or query.pixels is None):
                    texts = gallery() if getattr(extractor, "lexical", False) else ()
                    side = part.side(pipeline.sides.gallery)
                    clues = word_clues(extractor, query.text, found, side, texts)
                elif IMAGE in part.side(pipeline.sides.query).split("+"):
                    clues = clues_of(part.spec, extractor, *_looked_at(query, found))
                else:
                    raise Unexplained("it reads words, and the query has none")
                layers.append(PartClues(title, *_as_tuple(clues)))
        except (Unexplained, BenchError) as error:
            layers.append(PartClues(title, str(error)))
    for spec, _ in pipeline.steps:
        try:
            layers.append(step_clues(spec, *_looked_at(query, found)))
        except Unexplained as error:
            layers.append(PartClues(str(spec), str(error)))
    return layers


def _looked_at(query: Shown, found: Sequence[Shown]) -> tuple[np.ndarray, list[np.ndarray]]:
    """The pixels of query and items. Raises Unexplained where a picture is missing."""
    pixels = [one.pixels for one in found if one.pixels is not None]
    if query.pixels is None or len(pixels) < len(found):
        raise Unexplained("it looks at pictures, and the query has none" if query.pixels is None else "no picture")
    return query.pixels, pixels


def _as_tuple(clues: tuple[str, Sequence[Clue]]) -> tuple[str, tuple[Clue, ...]]:
    return clues[0], tuple(clues[1])


def _with_gradients(part: Part, pipeline: Pipeline) -> Any:
    """The extractor, or where it runs in a faster form, which has no gradients, the same in float32."""
    spec = part.spec
    if spec.entry.family != "deep" or spec.resolved.get("compute", "float32") == "float32":
        return part.extractor
    again = replace(spec, options={**spec.options, "compute": "float32"}).build(pipeline.setup)
    for name in getattr(part.extractor, "learned", ()):
        setattr(again, name, getattr(part.extractor, name))
    return again


def clues_of(spec: Spec, extractor: Any, query: np.ndarray, found: list[np.ndarray]) -> tuple[str, Sequence[Clue]]:
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


def word_clues(
    extractor: Any, query: str, found: Sequence[Shown], side: str, gallery: Sequence[str]
) -> tuple[str, Sequence[Clue]]:
    """Which words of a query made each item near. side: what is read of an item. gallery: the texts of all items.

    Raises Unexplained where the query has no words.
    """
    if isinstance(extractor, Bm25):
        return occlusion.TERMS, occlusion.term_pairs(extractor, query, [one.text for one in found], gallery)
    rows = [described_items(extractor, side, [one.pixels], [one.text]) for one in found]
    return occlusion.OCCLUDED, occlusion.occlusion_pairs(extractor.transform_texts, query, np.concatenate(rows))


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


def step_clues(spec: Spec, query: np.ndarray, found: list[np.ndarray]) -> PartClues:
    step = spec.build()
    if not isinstance(step, Spatial) or not isinstance(step.extractor, KeypointBlocks):
        if isinstance(step, LearningStep):
            return PartClues(str(spec), "re-ranks by a network that reads both items at once: no part of either alone")
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
