"""A network that the user's own Python file makes: `module:FILE.py:FUNCTION`.

FUNCTION takes no argument and returns two things: a torch module without its classifier, from (n, 3, h, w) float32 to
(n, d), and how images are prepared for it. The file is run, as Python runs it; nothing else is asked of it.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import math
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image

from retrieval_bench.core import BenchError, Extractor, Setup, printable
from retrieval_bench.extractors.deep.backbones import Backbone, Stage
from retrieval_bench.extractors.deep.model_folder import in_words, preprocess_of
from retrieval_bench.extractors.deep.network_features import features_of, with_options
from retrieval_bench.extractors.deep.preprocess import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    LARGEST_SIDE,
    LEAST_SIDE,
    Preprocess,
)
from retrieval_bench.extractors.deep.timm_open_clip import seeded
from retrieval_bench.extractors.deep.weights import state_sha256
from retrieval_bench.registry import EXTRACTORS, unknown
from retrieval_bench.system.python_sources import short, sources_of, sources_sha256

RESIZE_SHARE = 256 / 224
FIGURES = ("size", "resize", "mean", "std", "interpolation", "squash")
"""Keys of a dict that says how images are prepared; timm's data config is taken as well."""
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")
ANY_SIDE = 65_535
"""Of the largest JPEG: no picture is decoded small for a function of which nobody knows what it looks at."""
PROBE = (300, 260)
"""Width and height of the grey picture on which network and preprocessing are tried."""
LOOK_INSIDE = ("layer", "pool", "compute", "crop")
"""Options for which a network is looked into, or is given images of another shape."""
WANTED = "it must return two things, a torch.nn.Module and how images are prepared for it"


@dataclass(frozen=True)
class OwnPreprocess(Preprocess):
    """Images are prepared by a function of the user: PIL image in RGB -> (3, h, w) float32 tensor. crop: h."""

    called: str = ""
    function: Callable[[Any], Any] | None = None

    def __call__(self, image: Image.Image | np.ndarray) -> Any:
        picture = Image.fromarray(image) if isinstance(image, np.ndarray) else image
        return _tensor(self.called, self.function, picture)

    @property
    def shorter(self) -> int:
        return ANY_SIDE

    def of_size(self, name: str, size: int) -> Self:
        raise BenchError(
            f"{name}: size={size}: its images are prepared by a Python function, which knows one size; leave size out, "
            "or let FUNCTION return a dict with size, mean and std"
        )

    def scaled(self, factor: float) -> Self:
        if factor != 1:
            raise BenchError(
                f"{self.called}: scales: its images are prepared by a Python function, which knows one size; leave "
                "scales out, or let FUNCTION return a dict with size, mean and std"
            )
        return self


def own_backbone(setup: Setup, *, source: str = "") -> Backbone:
    """A network that a Python file of yours makes, used like any other.

    Args:
        setup: what the run fixes for every method.
        source: FILE.py:FUNCTION. FUNCTION() returns a torch module without its classifier, and how images are prepared:
            a dict (size, mean, std, ...), or a function from a PIL image to a tensor.
    """
    import torch

    called, file, function = _named(source)
    sources = sources_of(called, file)
    make = _function(called, file, sources[file], function)
    kept, threads = torch.get_default_dtype(), torch.get_num_threads()
    with seeded(setup.seed), _importing_from(file.parent):
        try:
            made = make()
        except (Exception, SystemExit) as error:  # whatever the user's code raises
            raise BenchError(f"{called}: it raised {short(error)}") from error
        finally:  # what it sets for itself is not for the methods after it
            torch.set_default_dtype(kept)
            torch.set_num_threads(threads)
    network, preprocess = _checked(called, made)
    dimensions = _tried(called, network, preprocess)
    how = "by a function of it" if isinstance(preprocess, OwnPreprocess) else in_words(preprocess)
    facts = {
        "source": f"from {printable(file.name)}:{function}",
        "sha256": _state_sha256(called, network),
        "recipe": f"own network, images prepared {how}",
        "code_sha256": sources_sha256(sources),
    }
    prefix = int(getattr(network, "num_prefix_tokens", 0))
    stages: dict[str, Stage] | None = {} if isinstance(network, torch.jit.ScriptModule) else None  # nobody can watch it
    return Backbone(called, network, preprocess, dimensions, facts, prefix=prefix, _stages=stages)


def _named(source: str) -> tuple[str, Path, str]:
    """What errors call it, the file, and the function, "" where none is named. BenchError where there is no file."""
    path, colon, function = source.rpartition(":")
    file = Path(path if colon else source)
    called = f"module:{printable(file.name)}" + (f":{printable(function)}" if colon else "")
    if not file.is_file():
        raise BenchError(f"{called}: there is no file {printable(file)}; write module:FILE.py:FUNCTION")
    return called, file, function if colon else ""


def _check(source: str = "", **others: Any) -> None:
    _named(source)


own_backbone.check = _check  # type: ignore[attr-defined]

_ours: set[str] = set()
"""Modules that came with the last file: another folder may have others of the same names."""


@contextlib.contextmanager
def _importing_from(folder: Path) -> Iterator[None]:
    """Python finds modules in this folder first, as it does for a program that lies there."""
    before = set(sys.modules)
    home = str(folder.resolve())
    sys.path.insert(0, home)
    try:
        yield
    finally:
        sys.path.remove(home)
        for name in set(sys.modules) - before:
            where = Path(getattr(sys.modules[name], "__file__", None) or "")
            installed = "site-packages" in where.parts or name.partition(".")[0] in ("retrieval_bench", "benchmark")
            if where.is_relative_to(home) and not installed:
                _ours.add(name)


def _function(called: str, file: Path, content: bytes, function: str) -> Callable[[], Any]:
    """Run the file; the function of that name in it."""
    while _ours:
        sys.modules.pop(_ours.pop(), None)
    name = f"_module_{hashlib.sha256(content).hexdigest()[:16]}"
    module = types.ModuleType(name)
    module.__file__ = str(file.resolve())
    sys.modules[name] = module  # where dataclasses look annotations up
    try:
        with _importing_from(file.parent):
            exec(compile(content, str(file), "exec", dont_inherit=True), vars(module))
    except (Exception, SystemExit) as error:  # whatever the user's code raises
        raise BenchError(f"{called}: {printable(file.name)} raised {short(error)} when it was run") from error
    own = [
        key for key, value in vars(module).items() if isinstance(value, types.FunctionType) and value.__module__ == name
    ]
    if not function:
        listed = ", ".join(own) or "no function"
        raise BenchError(f"{called}: say which function; write module:FILE.py:FUNCTION (the file has {listed})")
    made = getattr(module, function, None)
    if not callable(made):
        raise BenchError(f"{called}: {unknown(f'function of {file.name}', function, own)}")
    return made  # type: ignore[no-any-return]


def _checked(called: str, made: Any) -> tuple[Any, Preprocess]:
    """(network in eval mode and float32, how images are prepared), from what the function returned."""
    from torch import nn

    if not isinstance(made, tuple | list) or len(made) != 2:
        raise BenchError(f"{called}: it returned {_kind(made)}; {WANTED}")
    network, how = made
    if not isinstance(network, nn.Module):
        raise BenchError(f"{called}: it returned {_kind(network)} where a torch.nn.Module belongs; {WANTED}")
    network = network.cpu().float().eval()
    for weight in network.parameters():  # not by the module, as one of TorchScript does not know it
        weight.requires_grad_(False)
    if isinstance(how, Preprocess):
        return network, how
    if isinstance(how, Mapping):
        return network, preprocess_of(called, how) if "input_size" in how else _of_figures(called, how)
    if callable(how):
        side = _tensor(called, how, _grey()).shape[1]
        return network, OwnPreprocess(side, side, squash=True, called=called, function=how)
    raise BenchError(
        f"{called}: it returned {_kind(how)} where the preprocessing belongs; that is a dict with "
        f"{', '.join(FIGURES)}, timm's data config, or a function from a PIL image to a tensor"
    )


def _kind(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    name = type(value).__name__
    return "nothing" if value is None else f"a{'n' if name[0].lower() in 'aeiou' else ''} {name}"


def _of_figures(called: str, figures: Mapping[str, Any]) -> Preprocess:
    for key in figures:
        if key not in FIGURES:
            raise BenchError(f"{called}: {unknown('figure of the preprocessing', str(key), FIGURES)}")
    size = figures.get("size", 224)
    resize = figures.get("resize", round(size * RESIZE_SHARE) if isinstance(size, int) else size)
    for key, value, least in (("size", size, LEAST_SIDE), ("resize", resize, size)):
        if not isinstance(value, int) or not least <= value <= LARGEST_SIDE:
            raise BenchError(f"{called}: {key}={value!r} must be a whole number from {least} to {LARGEST_SIDE}")
    channels = {}
    for key, default in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
        value = figures.get(key, default)
        try:
            channels[key] = tuple(float(one) for one in value)
        except (TypeError, ValueError):
            channels[key] = ()
        right = len(channels[key]) == 3 and all(map(math.isfinite, channels[key]))
        if not right or (key == "std" and min(channels[key]) <= 0):
            above = " above 0" if key == "std" else ""
            raise BenchError(f"{called}: {key}={value!r} must be three numbers{above}, for values of 0 to 1")
    interpolation = figures.get("interpolation", "bilinear")
    if interpolation not in INTERPOLATIONS:
        raise BenchError(f"{called}: {unknown('interpolation', str(interpolation), INTERPOLATIONS)}")
    squash = bool(figures.get("squash", False))
    return Preprocess(resize, size, channels["mean"], channels["std"], interpolation, squash=squash)


def _grey() -> Image.Image:
    return Image.new("RGB", PROBE, (128, 128, 128))


def _tensor(called: str, function: Any, image: Image.Image) -> Any:
    import torch

    try:
        pixels = function(image)
    except Exception as error:  # whatever the user's code raises
        width, height = image.size
        raise BenchError(
            f"{called}: its preprocessing raised {short(error)} for an image of {width} x {height} pixels"
        ) from error
    if not isinstance(pixels, torch.Tensor):
        raise BenchError(f"{called}: its preprocessing gives {_kind(pixels)}; a tensor (3, h, w) is wanted")
    if pixels.ndim != 3 or len(pixels) != 3 or not pixels.is_floating_point():
        found = f"{str(pixels.dtype).removeprefix('torch.')} {tuple(pixels.shape)}"
        raise BenchError(f"{called}: its preprocessing gives a tensor {found}; float32 (3, h, w) is wanted")
    return pixels.float()


def _tried(called: str, network: Any, preprocess: Preprocess) -> int:
    """d: numbers that the network gives of an image; two images at once must give two rows."""
    import torch

    pixels = preprocess(_grey())
    for n in (2, 1):
        shape = f"({n}, {', '.join(map(str, pixels.shape))})"
        try:
            with torch.inference_mode():
                rows = network(pixels.expand(n, *pixels.shape).contiguous())
        except Exception as error:  # whatever the user's code raises
            raise BenchError(f"{called}: its network raised {short(error)} for a batch {shape}") from error
        if not isinstance(rows, torch.Tensor):
            raise BenchError(f"{called}: its network gives {_kind(rows)}; return a module that gives a tensor (n, d)")
        if rows.ndim != 2 or len(rows) != n or not rows.shape[1]:
            hint = "; average a map by .mean((2, 3))" if rows.ndim == 4 else ""
            raise BenchError(
                f"{called}: its network gives {tuple(rows.shape)} for a batch {shape}; (n, d) is wanted{hint}"
            )
        if not rows.is_floating_point() or not rows.isfinite().all():
            raise BenchError(f"{called}: its network gives numbers that are not finite floats for a grey image")
    return int(rows.shape[1])


def _state_sha256(called: str, network: Any) -> str:
    try:
        return state_sha256(network.state_dict())
    except Exception as error:  # a layer may keep anything there
        raise BenchError(
            f"{called}: the state dict of its network does not hold tensors alone ({short(error)})"
        ) from None


@functools.wraps(with_options(own_backbone))
def own_features(setup: Setup, **options: Any) -> Extractor:
    backbone = own_backbone(setup, source=options.pop("source", ""))
    asked = [name for name in LOOK_INSIDE if name in options]
    height, width = backbone.preprocess(_grey()).shape[1:]
    if asked and height != width:
        raise BenchError(
            f"{backbone.name}: {asked[0]} is for square images alone, and its images are of {width} x {height} pixels; "
            f"leave {asked[0]} out"
        )
    try:
        return features_of(setup, backbone, **options)
    except BenchError:
        raise
    except Exception as error:  # whatever the user's network raises when it is looked into
        given = ", ".join(asked) or "these options"
        raise BenchError(f"{backbone.name}: its network does not go with {given} ({short(error)})") from error


EXTRACTORS(
    "module",
    about="a network that a Python file of yours makes: module:FILE.py:FUNCTION",
    family="deep",
    argument="source",
    colons=("source",),
    shares=features_of,
)(own_features)
