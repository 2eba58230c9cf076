"""The one place where training meets networks by name: one without its classifier, and how its files name that.

Everything else in this package sees modules, tensors and numbers.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from retrieval_bench.core import BenchError, Setup
from retrieval_bench.extractors.deep.backbones import Trainable, check_size
from retrieval_bench.extractors.deep.preprocess import LARGEST_SIDE, LEAST_SIDE
from retrieval_bench.registry import EXTRACTORS
from retrieval_bench.training_loop.settings import Mode


@dataclass(eq=False)
class TrainableNetwork:
    """network: images -> (n, dimensions). short, image_size: pixels that an image's short side is resized to, and
    of the square in its middle that the network sees. mean, std: of a channel in 0..1. weights: what it starts from.
    """

    name: str
    network: Any
    dimensions: int
    short: int
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    weights: dict[str, str]


def backbone(name: str, setup: Setup, mode: Mode) -> TrainableNetwork:
    """A network by its name, with trained weights unless it is trained from scratch. Raises BenchError without them."""
    setup = replace(setup, weights="random") if mode == "scratch" else setup
    built = _trainable(name).backbone(setup)
    if mode != "scratch" and built.mark == "untrained":
        raise BenchError(
            f"--mode {mode} needs trained weights, and there are none for {name}; put a file into a directory "
            "DIR and pass --weights DIR, or train it with --mode scratch"
        )
    recipe = built.preprocess
    return TrainableNetwork(
        name=name,
        network=built.network,
        dimensions=built.dimensions,
        short=recipe.resize,
        image_size=recipe.crop,
        mean=recipe.mean,
        std=recipe.std,
        interpolation=recipe.interpolation,
        weights=dict(built.weights),
    )


def check_image_sizes(name: str, network: Any, sizes: Sequence[int]) -> None:
    """Raise BenchError where training images of these sizes, in pixels, are none that the network takes."""
    for size in sizes:
        if not LEAST_SIDE <= size <= LARGEST_SIDE:
            raise BenchError(
                f"--image-size and --progressive-resizing: {size} is not between {LEAST_SIDE} and "
                f"{LARGEST_SIDE} pixels; 0 stands for the size that the network expects"
            )
    check_size(name, network, sizes, leave_out="--image-size and --progressive-resizing")


def _trainable(name: str) -> Trainable:
    return EXTRACTORS[name].facts["trains"]


def with_classifier(name: str, state: Any, weight: Any, bias: Any) -> Any:
    """The state dict of the whole network of so many classes. weight: (classes, d); bias: (classes,)."""
    import torch
    from torch import nn

    with torch.device("meta"):
        whole = _trainable(name).whole()
    last = [(key, module) for key, module in whole.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)][-1]
    key, module = last
    out: OrderedDict[str, Any] = OrderedDict((each, value.detach().cpu().contiguous()) for each, value in state.items())
    out[f"{key}.weight"] = weight.detach().cpu().reshape(len(weight), *module.weight.shape[1:]).contiguous()
    if module.bias is not None:
        out[f"{key}.bias"] = bias.detach().cpu().contiguous()
    out._metadata = OrderedDict(getattr(state, "_metadata", {}))  # type: ignore[attr-defined] # noqa: SLF001 - torch's
    return out
