"""Which places of two images make a network's vectors alike.

The similarity y is the inner product of an image's vector with the other's of length 1, over the image's own length,
which is held: the cosine does not change with that length, so that with it the gradients times the activations would
add up to 0, and the map of two equal images would be empty. With g = dy / dA for the last map A (c, h, w):

- Where g is the same at every place the map was averaged: the heat of a place is the sum over channels of g A, the
  decomposition of Stylianou, Souvenir and Pless, "Visualizing deep similarity networks", WACV 2019. Where all behind
  the average is linear (whitening, say), the places add up to the cosine but for a constant.
- Elsewhere it is Grad-CAM (Selvaraju et al., ICCV 2017): channels weighed by the mean of g over places, what is
  negative left out. It shows where, and adds up to nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from retrieval_bench.explaining.clues import WHOLE, Heat, HeatPair, Unexplained
from retrieval_bench.extractors.deep.backbones import LAST, Stage, channels_first
from retrieval_bench.extractors.deep.convnet import DEVIATION, MEAN, Convnet, squeezed
from retrieval_bench.extractors.deep.network_features import NetworkFeatures
from retrieval_bench.extractors.deep.postprocess import PostProcess
from retrieval_bench.extractors.deep.preprocess import MAX_ASPECT, Preprocess, middle

EVEN = 1e-5
"""Of the largest gradient: as much may it differ from place to place where it is meant to be the same."""

Box = tuple[float, float, float, float]


class Sight(NamedTuple):
    """One way in which a network sees an image: its input (1, 3, h, w), the part of the image, mirrored or not."""

    batch: Any
    box: Box
    mirrored: bool


@dataclass(frozen=True, eq=False)
class Subject:
    """A network to be looked into.

    stages: where the map may be taken, the first choice first. prefix: tokens that are no patches. rectify: the map
    still lacks a ReLU. sights: of an image. describe: (1, 3, h, w) -> (1, d). after: (d,) double of length 1 -> (e,)
    double, differentiable and of any length.
    """

    network: Any
    stages: Sequence[Stage]
    prefix: int
    rectify: bool
    sights: Callable[[np.ndarray], list[Sight]]
    describe: Callable[[Any], Any]
    after: Callable[[Any], Any]


def of_features(extractor: NetworkFeatures, layer: str = LAST) -> Subject:
    """layer: the option of that name; of several the last is looked into. Raises Unexplained for a network without
    maps, as most exported ones are."""
    backbone = extractor.backbone
    if type(extractor.preprocess) is not Preprocess:
        raise Unexplained(
            "its images are prepared by a Python function, so it is unknown which regions the network sees"
        )
    if not any(one.map_like for one in backbone.stages().values()):
        raise Unexplained("the network gives only vectors, so it is unknown which image regions they come from")
    stage = backbone.stage(layer.rpartition("/")[2])
    learned = {name: getattr(extractor, name) for name in extractor.after.learned}

    def sights(image: np.ndarray) -> list[Sight]:
        pixels = middle(image)
        return [
            Sight(view(pixels)[None].to(extractor.device), seen_part(view.preprocess, image.shape), view.mirrored)
            for view in extractor.views
        ]

    return Subject(
        backbone.network,
        [stage, *_earlier(stage, backbone.stages())],
        backbone.prefix,
        backbone.rectify and stage == backbone.stage(LAST),
        sights,
        extractor.describe,
        lambda vector: continued(vector, extractor.after, learned),
    )


def _earlier(stage: Stage, stages: Mapping[str, Stage]) -> list[Stage]:
    """Before a sequence of tokens: the sequences on the way to it, the last first. Behind the last attention the class
    token looks at no patch any more, so that a map there says nothing."""
    if len(stage.shape) != 3:
        return []
    names = list(stages)
    before = [stages[name] for name in names[: names.index(stage.name)]]
    return [one for one in reversed(before) if one.shape == stage.shape]


def of_convnet(extractor: Convnet) -> Subject:
    import torch
    from torch import nn

    network = extractor.learned_network()
    last = next(place for place, module in enumerate(network) if isinstance(module, nn.AdaptiveAvgPool2d)) - 1
    mean, deviation = torch.tensor(MEAN)[:, None, None], torch.tensor(DEVIATION)[:, None, None]

    def sights(image: np.ndarray) -> list[Sight]:
        pixels = (squeezed(image, extractor.side)[None].float() / 255.0 - mean) / deviation
        return [Sight(pixels.to(extractor.setup.device), WHOLE, False)]

    stage = Stage(str(last), (1, 1, 2, 2))
    return Subject(network, [stage], 0, False, sights, network, lambda vector: vector)


def seen_part(preprocess: Preprocess, shape: tuple[int, ...]) -> Box:
    """Of an image (h, w, 3) the part that the network sees: top, left, bottom, right as shares."""
    height, width = shape[:2]
    limit = MAX_ASPECT * min(height, width)
    rows, columns = float(min(height, limit)), float(min(width, limit))  # of the middle
    if not (preprocess.whole or preprocess.squash):
        side = min(height, width) * min(preprocess.crop / preprocess.resize, 1.0)
        rows, columns = min(rows, side), min(columns, side)
    down, across = rows / height / 2, columns / width / 2
    return 0.5 - down, 0.5 - across, 0.5 + down, 0.5 + across


def continued(vector: Any, after: PostProcess, learned: Mapping[str, np.ndarray]) -> Any:
    """What PostProcess makes of a vector before it is rounded or its signs are taken, differentiable, lengths held.

    vector: (d,) double of length 1. Returns (e,) double, of any length.
    """
    import torch

    def array(name: str) -> Any:
        return torch.from_numpy(np.asarray(learned[name], np.float64)).to(vector.device)

    if after.power != 1:
        vector = held(vector * vector.abs().clamp(min=1e-12) ** (after.power - 1))
    if after.whiten:
        vector = (vector - array("mean_")) @ array("axes_")
    elif "mean_" in learned:
        vector = vector - array("mean_")
    if after.tune == "head":
        vector = held(vector) @ array("head_") + array("bias_")
    return vector


def held(vector: Any) -> Any:
    """At length 1, by a length that gradients take for a constant."""
    return vector / vector.detach().norm().clamp(min=1e-300)


class Glance(NamedTuple):
    """One sight of an image on its way through: its maps, by stage, and what they cover."""

    maps: list[Any]
    box: Box
    mirrored: bool


@dataclass(frozen=True, eq=False)
class ForwardPass:
    """An image gone through a network, with all that gradients need. vector: (e,) double of length 1 but for what is
    held."""

    glances: list[Glance]
    vector: Any


def look(subject: Subject, image: np.ndarray) -> ForwardPass:
    """Raises Unexplained where the network passes no gradients on, as an exported one."""
    glances: list[Glance] = []
    vectors = []
    for batch, box, mirrored in subject.sights(image):
        with _kept(subject) as maps:
            output = subject.describe(batch.requires_grad_(True))
        if not output.requires_grad:
            raise Unexplained("the network comes from a file that gives no gradients, so its image regions are unknown")
        vectors.append(held(output[0].double()))
        glances.append(Glance([maps[stage.name] for stage in subject.stages], box, mirrored))
    return ForwardPass(glances, held(subject.after(held(sum(vectors)))))


@contextmanager
def _kept(subject: Subject) -> Iterator[dict[str, Any]]:
    """What the stages give while this is open, each a copy that no later layer writes into."""
    maps: dict[str, Any] = {}

    def keeping(name: str) -> Callable[..., Any]:
        def keep(module: Any, args: Any, output: Any) -> Any:
            maps[name] = output.clone()
            return maps[name].clone()

        return keep

    # First of all hooks: the extractor's own may end the pass.
    handles = [
        subject.network.get_submodule(stage.name).register_forward_hook(keeping(stage.name), prepend=True)
        for stage in subject.stages
    ]
    try:
        yield maps
    finally:
        for handle in handles:
            handle.remove()


class Explained(NamedTuple):
    """heat: of one image towards another. total: what its places add up to. even: the map was averaged, so that this is
    a share of the cosine; else Grad-CAM. stage: where the map was taken."""

    heat: Heat
    total: float
    even: bool
    stage: str


def towards(subject: Subject, here: ForwardPass, other: Any) -> Explained:
    """What makes the vector of this image like another, (e,) of length 1."""
    import torch

    similarity = here.vector @ other.detach()
    for place, stage in enumerate(subject.stages):
        maps = [glance.maps[place] for glance in here.glances]
        slopes = torch.autograd.grad(similarity, maps, retain_graph=True, allow_unused=True)
        spread = [_spread(one, stage, subject.prefix) for one in maps]
        tilted = [None if one is None else _spread(one, stage, subject.prefix) for one in slopes]
        if all(one is None or not one.any() for one in tilted):
            continue
        heats, evens = [], []
        for glance, values, slope in zip(here.glances, spread, tilted, strict=True):
            values = torch.relu(values) if subject.rectify else values
            slope = torch.zeros_like(values) if slope is None else slope
            mean = slope.mean(dim=(1, 2), keepdim=True)
            level = bool((slope - mean).abs().max() <= EVEN * slope.abs().max()) and not subject.rectify
            heat = (mean * values).sum(dim=0)
            heats.append(heat.flip(1) if glance.mirrored else heat)
            evens.append(level)
        even = all(evens)
        parts = heats if even else [torch.relu(one) for one in heats]
        values = _together(parts)
        return Explained(Heat(values, here.glances[0].box), float(values.sum()), even, stage.name)
    raise Unexplained("no map of the network has a gradient: its vector depends equally on all image regions")


def _spread(output: Any, stage: Stage, prefix: int) -> Any:
    """A map or a sequence of one image as (c, h, w) double. Raises Unexplained for tokens that fill no square."""
    if output.ndim == 4:
        return channels_first(output, stage)[0].detach().double()
    tokens = output[0, prefix:].detach().double()
    side = math.isqrt(len(tokens))
    if side * side != len(tokens):
        raise Unexplained(f"the network's {len(tokens)} tokens are not patches of a square grid")
    return tokens.T.reshape(-1, side, side)


def _together(heats: list[Any]) -> np.ndarray:
    """Several (h, w) tensors of one part of the image as one, on the finest grid; each keeps its sum."""
    import torch

    rows, columns = (max(one.shape[axis] for one in heats) for axis in (0, 1))
    total = torch.zeros(rows, columns, dtype=torch.float64)
    for one in heats:
        values = one.cpu()
        if values.shape != total.shape:
            scale = values.numel() / total.numel()
            values = torch.nn.functional.interpolate(values[None, None], (rows, columns), mode="nearest")[0, 0] * scale
            before = one.cpu().sum()
            values = values + (before - values.sum()) / values.numel()
        total += values
    return total.numpy()


def network_pairs(subject: Subject, query: np.ndarray, found: list[np.ndarray]) -> list[HeatPair]:
    """query, found: images (h, w, 3) uint8. Raises Unexplained where the network gives nothing to look at."""
    import torch

    pairs = []
    with torch.inference_mode(False), torch.enable_grad():
        first = look(subject, query)
        for image in found:
            second = look(subject, image)
            cosine = float(first.vector.detach() @ second.vector.detach())
            here, there = towards(subject, first, second.vector), towards(subject, second, first.vector)
            if here.even and there.even:
                said = f"cosine {cosine:.3f}; the regions add up to {here.total:.3f} and {there.total:.3f}"
            else:
                said = f"cosine {cosine:.3f}; Grad-CAM at {here.stage}"
            pairs.append(HeatPair(here.heat, there.heat, said, 1 - cosine))
    return pairs
