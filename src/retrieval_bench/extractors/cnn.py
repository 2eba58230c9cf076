"""Any torchvision classification network by its name: what its last linear layer sees becomes the features.

"Neural codes" (Babenko et al., ECCV 2014), with the network's own preprocessing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from PIL import Image

from retrieval_bench import weights
from retrieval_bench.core import Distance, Extractor, Setup, Split
from retrieval_bench.registry import EXTRACTORS, Entry

CUDA_BATCH = 32
MAX_ASPECT = 8
"""Of a longer image only the middle is used. Networks look at a central square, but resize all of it first."""


@dataclass(eq=False)
class PenultimateFeatures:
    """network: torch module in eval mode whose output is (n, dimensions). preprocess: PIL image -> its input tensor.

    weights: source, sha256 and recipe for the record. mark: "untrained" or "".
    """

    network: Any
    preprocess: Callable[[Any], Any]
    dimensions: int
    device: str
    weights: dict[str, str]
    mark: str
    distance: Distance = "cosine"

    @property
    def chunk(self) -> int:
        return 1 if self.device == "cpu" else CUDA_BATCH

    def fit(self, train: Split) -> Self:
        return self

    def transform(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """n images -> (n, dimensions) float32, rows of norm 1.

        On the CPU images go through one at a time, so that a row does not depend on its neighbours. On CUDA they go
        in batches, and the last bits may depend on the batch.
        """
        import torch

        rows = np.empty((len(images), self.dimensions), np.float32)
        step = self.chunk
        with torch.inference_mode():
            for start in range(0, len(images), step):
                inputs = [self.preprocess(_middle(image)) for image in images[start : start + step]]
                batch = torch.stack(inputs).to(self.device, memory_format=torch.channels_last)
                # To unit length here and in float64: what an untrained network gives may be too small to be squared.
                unit = torch.nn.functional.normalize(self.network(batch).double(), dim=1, eps=1e-300)
                rows[start : start + step] = unit.cpu().numpy()
        return rows


def _middle(image: np.ndarray) -> Image.Image:
    """(h, w, 3) uint8 -> PIL image; of an image longer than MAX_ASPECT times its width the middle alone."""
    limit = MAX_ASPECT * min(image.shape[:2])
    top, left = (max(0, length - limit) // 2 for length in image.shape[:2])
    # PIL and not a tensor: torchvision resizes the two a grey level apart, and the networks were trained on this one.
    return Image.fromarray(np.ascontiguousarray(image[top : top + limit, left : left + limit]))


def build(setup: Setup, name: str) -> Extractor:
    """A torchvision network with the weights that `setup.weights` asks for (see weights.find)."""
    import torch
    from torchvision import models

    recipes = models.get_model_weights(name)
    # Some weights are for other tasks and have no trained classifier: those name no categories.
    trained = [recipes.DEFAULT, *(r for r in recipes if r is not recipes.DEFAULT and r.meta.get("categories"))]
    file = weights.find(name, {recipe.name: recipe.url for recipe in trained}, setup.weights)
    recipe = recipes[file.recipe] if file and file.recipe else recipes.DEFAULT
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(setup.seed)
        network = models.get_model(name, weights=None, **_keywords(name, recipe))
    network.eval().requires_grad_(False)
    head, dimensions = _behead(network)
    if file:
        state = weights.load(file)
        if name.startswith("densenet"):
            _rename_densenet_layers(state)
        weights.fill(network, state, file, ignore=(f"{head}.", *AUXILIARY_HEADS))
        named = recipe.name if file.recipe else f"unknown, preprocessed as {recipe.name}"
        origin = {"source": file.source, "sha256": file.sha256, "recipe": named}
    else:
        origin = {
            "source": f"random initialisation, seed {setup.seed}",
            "sha256": weights.state_sha256(network.state_dict()),
            "recipe": f"none, preprocessed as {recipe.name}",
        }
    # Channels last is up to 2.5 times as fast on the CPU, one image at a time.
    network.to(setup.device, memory_format=torch.channels_last)
    mark = "" if file else "untrained"
    return PenultimateFeatures(network, recipe.transforms(), dimensions, setup.device, origin, mark)


AUXILIARY_HEADS = ("aux1.", "aux2.", "AuxLogits.")


def _keywords(name: str, recipe: Any) -> dict[str, Any]:
    """What torchvision sets by itself only when it loads its own weights."""
    if name in ("googlenet", "inception_v3"):
        return {"aux_logits": False, "transform_input": True, "init_weights": False}
    if name.startswith("vit_"):
        return {"image_size": recipe.meta["min_size"][0]}
    return {}


def _behead(network: Any) -> tuple[str, int]:
    """Replace the last classifier by the identity: its name and the number of features that reach it."""
    from torch import nn

    name, last = [(n, m) for n, m in network.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)][-1]
    if isinstance(last, nn.Linear):
        parent, _, leaf = name.rpartition(".")
        setattr(network.get_submodule(parent), leaf, nn.Identity())
        return name, last.in_features
    # SqueezeNet classifies each position by a 1x1 convolution and averages after it; we average before it.
    network.classifier = nn.AdaptiveAvgPool2d(1)
    return "classifier", last.in_channels


def _rename_densenet_layers(state: dict[str, Any]) -> None:
    """torchvision's DenseNet files were saved when layers were called "norm.1" instead of "norm1"; in place."""
    for key in list(state):
        state[re.sub(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)", r"\1\2", key)] = state.pop(key)


@EXTRACTORS.more
def torchvision_networks() -> Iterator[Entry]:
    """An entry for every classification network of the installed torchvision."""
    from torchvision import models

    for name in models.list_models(module=models):
        yield _entry(name)


def _entry(name: str) -> Entry:
    def build_network(setup: Setup) -> Extractor:
        return build(setup, name)

    about = f"penultimate features of torchvision's {name}"
    return Entry(name, build_network, about, family="deep", facts={"provided": True})
