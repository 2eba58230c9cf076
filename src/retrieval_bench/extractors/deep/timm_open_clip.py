"""Networks of other libraries by their names there: `timm:NAME` and `clip:NAME` (open_clip); each is an extra."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from retrieval_bench.core import BenchError, Setup
from retrieval_bench.extractors.deep.backbones import Backbone
from retrieval_bench.extractors.deep.model_folder import in_words, preprocess_of
from retrieval_bench.extractors.deep.network_features import features_of, with_options
from retrieval_bench.extractors.deep.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from retrieval_bench.extractors.deep.text_tower import ClipTextTower, text_sha256
from retrieval_bench.extractors.deep.weights import WeightsFile, facts, fill, find_local, load, named, state_sha256
from retrieval_bench.registry import EXTRACTORS, unknown


def missing(name: str, module: str, extra: str) -> BenchError:
    """The sentence for a package that is not installed."""
    return BenchError(
        f"{name} needs {module}, which is not installed; install it by pip install 'retrieval-bench[{extra}]'"
    )


def timm_backbone(setup: Setup, *, network: str = "", weights: str = "") -> Backbone:
    """A network of timm without its classifier.

    Args:
        setup: what the run fixes for every method.
        network: its name there, NAME or NAME.TAG, where the tag says which weights are meant.
        weights: a file of weights, or a folder of timm, to take in place of those that --weights finds.
    """
    called = f"timm:{network}"
    try:
        import timm
    except ImportError:
        raise missing(called, "timm", "timm") from None
    architecture = network.partition(".")[0]
    if not timm.is_model(architecture):
        raise BenchError(
            unknown("network of timm", network, timm.list_models(), hint="timm.list_models() has them all")
        )
    with seeded(setup.seed):
        try:
            model = timm.create_model(network, pretrained=False, num_classes=0)
        except (RuntimeError, ValueError) as error:
            raise BenchError(f"{called}: {str(error).partition(chr(10))[0]}") from None
    model.eval().requires_grad_(False)
    file = _file(setup, network, weights, "timm")
    figures = dict(file.folder.data) if file is not None and file.folder is not None else {}
    config = timm.data.resolve_data_config({}, pretrained_cfg=figures or None, model=model)
    preprocess = preprocess_of(called, config)
    said = f"config.json says: {in_words(preprocess)}" if figures else "timm has it"
    heads = ("head.", "fc.", "classifier.", "head_dist.")
    origin, mark = _filled(setup, model, file, heads, f"preprocessed as {said}")
    prefix = int(getattr(model, "num_prefix_tokens", 0))
    return Backbone(called, model, preprocess, int(_width(model, preprocess.crop)), origin, mark, prefix)


def clip_backbone(setup: Setup, *, network: str = "", weights: str = "") -> Backbone:
    """An open_clip model: pictures and texts in one space. Its text tower is loaded when the first text comes.

    Radford et al., ICML 2021. Which options go with texts: see `PicturesAndTexts`.

    Args:
        setup: what the run fixes for every method.
        network: the model's name there, as ViT-B-32.
        weights: a file of weights to take in place of those that --weights finds.
    """
    called = f"clip:{network}"
    try:
        import open_clip
    except ImportError:
        raise missing(called, "open_clip", "clip") from None
    if network not in open_clip.list_models():
        raise BenchError(
            unknown(
                "network of open_clip", network, open_clip.list_models(), hint="open_clip.list_models() has them all"
            )
        )

    def make() -> Any:
        with seeded(setup.seed), _root_logger_kept():
            try:
                return open_clip.create_model(network, pretrained=None)
            except (RuntimeError, ValueError, OSError) as error:  # e.g. a text tower that lies on a model hub
                raise BenchError(f"{called} cannot be built: {str(error).partition(chr(10))[0]}") from None

    def with_tokenizer() -> tuple[Any, Any]:
        with _root_logger_kept():
            return make(), open_clip.get_tokenizer(network)

    whole = make()
    tower = whole.visual
    tower.eval().requires_grad_(False)
    if getattr(tower, "output_tokens", False):  # as CoCa's decoder wants them beside the vector
        tower.output_tokens = False
    config = open_clip.get_model_preprocess_cfg(whole)
    size = config.get("size", 224)
    side = size if isinstance(size, int) else size[0]
    preprocess = Preprocess(
        side,
        side,
        tuple(config.get("mean", IMAGENET_MEAN)),
        tuple(config.get("std", IMAGENET_STD)),
        config.get("interpolation", "bicubic"),
        squash=config.get("resize_mode", "shortest") == "squash",
    )
    file = _file(setup, network, weights, "open_clip")
    origin, mark = _filled(setup, tower, file, (), "preprocessed as open_clip has it")
    if "unwrapped" in origin:
        origin["unwrapped"] = f"image tower: {origin['unwrapped']}"
    config_of_texts = (open_clip.get_model_config(network) or {}).get("text_cfg", {})
    hub = config_of_texts.get("hf_tokenizer_name") or config_of_texts.get("hf_model_name") or ""
    if file is None and not hub:
        origin["text_sha256"] = text_sha256(whole)
    texts = ClipTextTower(called, with_tokenizer, file, setup.device, hub)
    return Backbone(called, tower, preprocess, int(_width(tower, side)), origin, mark, prefix=1, texts=texts)


_seeding = threading.RLock()


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random numbers of torch from a seed, and those that come after as if none had been drawn.

    The generator is the process's: one thread at a time.
    """
    import torch

    with _seeding, torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        yield


@contextlib.contextmanager
def _root_logger_kept() -> Iterator[None]:
    """What logs by the root logger gives it a handler where it has none, and then all lines of ours are shown twice."""
    root, silent = logging.getLogger(), logging.NullHandler()
    root.addHandler(silent)
    try:
        yield
    finally:
        root.removeHandler(silent)


def _width(network: Any, side: int) -> int:
    import torch

    with torch.inference_mode():
        return int(network(torch.zeros(1, 3, side, side)).shape[1])


def _file(setup: Setup, network: str, path: str, library: str) -> WeightsFile | None:
    return named(Path(path), network) if path else find_local(network, setup.weights, library)


def _filled(
    setup: Setup, model: Any, file: WeightsFile | None, heads: tuple[str, ...], preprocessed: str
) -> tuple[dict[str, str], str]:
    """Fill a model from a file, where there is one; (facts for the record, mark)."""
    if file is None:
        origin = {
            "source": f"random initialisation, seed {setup.seed}",
            "sha256": state_sha256(model.state_dict()),
            "recipe": f"none, {preprocessed}",
        }
        return origin, "untrained"
    return facts(file, fill(model, load(file), file, heads), f"unknown, {preprocessed}"), ""


EXTRACTORS(
    "timm",
    about="a network of timm by its name there: timm:NAME",
    family="deep",
    argument="network",
    shares=features_of,
)(with_options(timm_backbone))
EXTRACTORS(
    "clip",
    about="an open_clip model, pictures and texts in one space: clip:NAME",
    family="deep",
    argument="network",
    modalities=("image", "text"),
    shares=features_of,
)(with_options(clip_backbone))
