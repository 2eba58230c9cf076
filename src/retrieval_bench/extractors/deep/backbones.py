"""A network and what can be read from it: the vector that its classifier sees, or the maps and tokens on the way there.

Stages go by their module's name ("layer3", "features.9", "encoder.layers.encoder_layer_5"), in the order in which the
network runs through them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from retrieval_bench.core import BenchError, Setup
from retrieval_bench.extractors.deep.preprocess import Preprocess

HEAD = "head"
"""The stage before the last linear layer, as a vector: what the network's own pooling made of its last map."""
LAST = "last"
FEW_STAGES = 3
SHOWN_STAGES = 24


@dataclass(eq=False)
class Backbone:
    """network: torch module in eval mode, (n, 3, h, w) -> (n, dimensions), without its classifier.

    prefix: tokens at the front of a sequence that are no patches. rectify: the last map still lacks a ReLU that the
    network applies outside of any module. weights: source, sha256 and recipe for the record. mark: "untrained" or "".
    trained_on: what the weights file says of its training, where `train` wrote it; see training.checkpoint.
    texts: one text -> (1, dimensions) tensor in the space of the network's own vectors, or None where nothing in the
    text is known; of a network that reads texts too.
    """

    name: str
    network: Any
    preprocess: Preprocess
    dimensions: int
    weights: dict[str, str]
    mark: str = ""
    prefix: int = 0
    rectify: bool = False
    trained_on: dict[str, Any] | None = None
    texts: Callable[[str], Any] | None = None
    _stages: dict[str, Stage] | None = field(default=None, repr=False)

    def stages(self) -> dict[str, Stage]:
        """Every module whose output is a map or a sequence, in the order in which they run, found by one image."""
        if self._stages is None:
            self._stages = probe(self.network, self.preprocess.crop)
        return self._stages

    def stage(self, layer: str) -> Stage:
        """The stage of that name, or the last one. BenchError with what there is."""
        stages = self.stages()
        last = [stage for stage in stages.values() if stage.map_like]
        if not last:
            raise BenchError(f"{self.name}: the network gives vectors only, no feature map; leave pool and layer out")
        if layer == LAST:
            return last[-1]
        if layer not in stages:
            names = [stage.name for stage in outline(stages)]
            shown = ", ".join(names[:SHOWN_STAGES]) + (", ..." if len(names) > SHOWN_STAGES else "")
            raise BenchError(f"{self.name}: no layer {layer!r}; it has {shown} (and what lies within them), or last")
        return stages[layer]


@dataclass(frozen=True)
class Trainable:
    """What `train` needs of a network that it can train.

    backbone: it without its classifier, under a setup. whole: it with its classifier, for names and shapes in files.
    """

    backbone: Callable[[Setup], Backbone]
    whole: Callable[[], Any]


@dataclass(frozen=True)
class Stage:
    """shape: of its output for one image. last_channels: a map whose channels come last, (n, h, w, c)."""

    name: str
    shape: tuple[int, ...]
    last_channels: bool = False
    leaf: bool = True
    adaptive: bool = False

    @property
    def map_like(self) -> bool:
        """More than one place, and not only resized for the classifier."""
        places = self.shape[2:] if not self.last_channels else self.shape[1:3]
        many = self.shape[1] > 1 if len(self.shape) == 3 else max(places) > 1
        return many and not self.adaptive


class _Reached(Exception):
    """All that was asked for has been seen; the rest of the forward pass would be wasted."""


_to_the_end: ContextVar[bool] = ContextVar("_to_the_end", default=False)


@contextmanager
def to_the_end() -> Iterator[None]:
    """Within it Taps let a pass run to its end: an exporter that follows the pass loses its way when it is broken off.

    What is not used of it, the exporter leaves out by itself.
    """
    token = _to_the_end.set(True)
    try:
        yield
    finally:
        _to_the_end.reset(token)


class Taps:
    """The outputs of some stages: (n, 3, h, w) -> [(n, c, h, w) or (n, tokens, c)] in the order of `stages`.

    Hooks note what passes, each Python thread for itself, and end the pass behind the last of them: what follows might
    write into it (ReLU in place).
    """

    def __init__(self, network: Any, stages: Sequence[Stage]) -> None:
        self._network = network
        self._stages = stages
        self._local = threading.local()
        for name in {stage.name for stage in stages}:
            network.get_submodule(name).register_forward_hook(self._noting(name, len({s.name for s in stages})))

    def _noting(self, name: str, wanted: int) -> Callable[..., None]:
        def note(module: Any, args: Any, output: Any) -> None:
            seen = getattr(self._local, "seen", None)
            if seen is None:
                return
            seen[name] = output
            if len(seen) == wanted and not _to_the_end.get():
                raise _Reached
            seen[name] = output.clone()

        return note

    def __call__(self, batch: Any) -> list[Any]:
        seen: dict[str, Any] = {}
        self._local.seen = seen
        try:
            self._network(batch)
        except _Reached:
            pass
        finally:
            self._local.seen = None
        return [channels_first(seen[stage.name], stage) for stage in self._stages]


def channels_first(output: Any, stage: Stage) -> Any:
    return output.permute(0, 3, 1, 2) if stage.last_channels else output


def probe(network: Any, side: int) -> dict[str, Stage]:
    """The stages of a network, by what one black image of `side` makes each module give."""
    import torch
    from torch import nn

    found: dict[str, Stage] = {}
    handles = []

    def noting(name: str) -> Callable[..., None]:
        def note(module: Any, args: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor) and output.ndim in (3, 4) and len(output) == 1:
                shape = tuple(output.shape)
                found.pop(name, None)  # what runs twice stands where it ran last
                # Images are square here: the two sides that are equal are height and width.
                last_channels = len(shape) == 4 and shape[1] == shape[2] != shape[3]
                adaptive = isinstance(module, nn.AdaptiveAvgPool2d | nn.Dropout)
                found[name] = Stage(name, shape, last_channels, not any(module.children()), adaptive)

        return note

    try:
        for name, module in network.named_modules():
            if name:
                handles.append(module.register_forward_hook(noting(name)))
        with torch.inference_mode():
            network(black(network, side))
    finally:
        for handle in handles:
            handle.remove()
    return found


def black(network: Any, side: int) -> Any:
    """One black image, (1, 3, side, side), where the network's parameters are and of their dtype."""
    import torch

    weight = next(network.parameters(), torch.zeros(1))
    return torch.zeros(1, 3, side, side, device=weight.device, dtype=weight.dtype)


def outline(stages: dict[str, Stage]) -> list[Stage]:
    """The stages that a reader thinks of: the outermost modules, or what they hold where these are one or two."""
    depth = 1
    deepest = max(name.count(".") + 1 for name in stages)
    while True:
        level = [stage for stage in stages.values() if stage.name.count(".") + 1 == depth]
        composed = [stage for stage in level if not stage.leaf and stage.map_like]
        if len(composed) >= FEW_STAGES:
            return composed
        if depth == deepest:
            flat = [stage for stage in stages.values() if stage.map_like]
            return flat[:SHOWN_STAGES]
        depth += 1


def check_size(name: str, network: Any, sides: Sequence[int], leave_out: str = "size, crop and scales") -> None:
    """BenchError where the network does not take square images of these sides. leave_out: which options set them."""
    import torch

    for side in sides:
        try:
            with torch.inference_mode():
                network(black(network, side))
        except Exception as error:  # each runtime has its own
            reason = str(error).strip().partition("\n")[0]
            raise BenchError(
                f"{name} does not take images of {side} x {side} pixels ({reason}); leave out {leave_out} "
                "or take another network"
            ) from None
