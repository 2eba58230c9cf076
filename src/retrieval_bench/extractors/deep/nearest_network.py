"""Of which torchvision network some weights are, by names and shapes: for the sentence on weights that do not fit.

Networks are built on torch's meta device, which has shapes and no numbers. Of each family one is built first, and of
the nearest family all: about a second, which only a failure takes.
"""

from __future__ import annotations

import contextlib
import functools
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any
from unittest import mock

from retrieval_bench.extractors.deep.checkpoint_unwrapping import needed_of, places

LEAST_SHARE = 0.5
"""Of names and shapes; a network that shares fewer helps nobody."""
MARGIN = 0.02
"""Families as like as that are both looked into: AlexNet and VGG use the same names."""
FILLERS = ("normal_", "uniform_", "trunc_normal_", "fill_", "zero_")
"""What torch calls the methods that give all of a tensor its numbers."""
AUXILIARY_HEADS = ("aux1.", "aux2.", "AuxLogits.")


def nearest(content: Any) -> str:
    """What is known of the network that some weights are of: "it fits resnet34 of torchvision (all 216 names)"; ""
    where no network is near."""
    families = _families()
    likeness = {family: _alike(content, _shapes(networks[0])) for family, networks in families.items()}
    like = [family for family, value in likeness.items() if value >= max(likeness.values()) - MARGIN]
    if not any(likeness.values()):
        return ""
    scored = [(_share(content, network), network) for family in like for network in families[family]]
    share, network = max(scored, key=lambda one: one[0])
    if share == 1:
        return (
            f"it fits {network} of torchvision (all {len(_without_head(_shapes(network)))} names but the classifier's)"
        )
    if share < LEAST_SHARE:
        return ""
    return f"the nearest network of torchvision is {network} ({math.floor(100 * share)} % of names and shapes)"


def _families() -> dict[str, list[str]]:
    """Module of torchvision -> the classification networks in it."""
    from torchvision import models

    found = defaultdict(list)
    for name in models.list_models(module=models):
        found[models.get_model_builder(name).__module__].append(name)
    return found


def _alike(content: Any, shapes: dict[str, Any]) -> float:
    """Share of kinds of names that both have: names without their numbers, as networks of a family differ in depth."""
    kinds = {re.sub(r"\d+", "0", name) for name in shapes}
    best = 0.0
    for place in places(content, shapes)[:1]:
        theirs = {re.sub(r"\d+", "0", name) for name in place.inside}
        best = len(kinds & theirs) / len(kinds | theirs)
    return best


def _share(content: Any, network: str) -> float:
    """Of the names in the larger of the two, how many are in both with one shape; the classifier's do not count."""
    shapes = _shapes(network)
    bare = _without_head(shapes)
    heads = tuple(_heads(shapes))
    best = 0.0
    for place in places(content, bare)[:1]:
        theirs = {name: value for name, value in needed_of(place.inside).items() if not name.startswith(heads)}
        shared = sum(name in bare and value.shape == bare[name].shape for name, value in theirs.items())
        best = shared / max(len(bare), len(theirs))
    return best


def _heads(shapes: dict[str, Any]) -> Iterable[str]:
    """Beginnings of the classifier's names: the last layer, and those that only train."""
    *_, last = (name for name in shapes if name.endswith(".weight"))
    return f"{last.rpartition('.')[0]}.", *AUXILIARY_HEADS


def _without_head(shapes: dict[str, Any]) -> dict[str, Any]:
    heads = tuple(_heads(shapes))
    return {name: value for name, value in needed_of(shapes).items() if not name.startswith(heads)}


@functools.cache
def _shapes(network: str) -> dict[str, Any]:
    import torch
    from torchvision import models

    extra = {"init_weights": False, "aux_logits": False} if network in ("googlenet", "inception_v3") else {}
    with torch.device("meta"), _numbers_of_regnet(), _no_first_numbers():
        return dict(models.get_model(network, weights=None, **extra).state_dict())


def _no_first_numbers() -> Any:
    """Within it, what fills a new layer does nothing: on the meta device that takes most of the time."""
    from torch.overrides import TorchFunctionMode

    class NoFirstNumbers(TorchFunctionMode):  # type: ignore[misc]
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if getattr(func, "__module__", "") == "torch.nn.init" or getattr(func, "__name__", "") in FILLERS:
                return args[0] if args else next(iter(kwargs.values()))
            return func(*args, **(kwargs or {}))

    return NoFirstNumbers()


@contextlib.contextmanager
def _numbers_of_regnet() -> Iterator[None]:
    """RegNet computes its widths by tensors, and needs their numbers."""
    import torch
    from torchvision.models import regnet

    plain = regnet.BlockParams.from_init_params

    def on_cpu(*args: Any, **options: Any) -> Any:
        with torch.device("cpu"):
            return plain(*args, **options)

    with mock.patch.object(regnet.BlockParams, "from_init_params", on_cpu):
        yield
