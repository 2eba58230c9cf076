from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import models

from retrieval_bench import weights
from retrieval_bench.core import BenchError, Setup
from retrieval_bench.extractors import cnn
from retrieval_bench.registry import EXTRACTORS

SHARED = Path(__file__).resolve().parents[2] / "shared" / "weights"
DIMENSIONS = {
    "squeezenet1_0": 512,
    "mobilenet_v3_small": 1024,
    "resnet18": 512,
    "mnasnet0_5": 1280,
    "googlenet": 1024,
}


def photo(height: int = 260, width: int = 300, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 7, 3), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


@pytest.fixture(autouse=True)
def nothing_to_find(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file in torch's cache, and no network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv(weights.DIRECTORY_VARIABLE, raising=False)

    def offline(url: str) -> None:
        raise OSError("offline")

    monkeypatch.setattr(weights, "_probe", offline)


@cache
def whole_network(name: str) -> nn.Module:
    """The network with its classifier, randomly initialised and made different from what seed 0 gives."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        extra: dict[str, Any] = {"init_weights": False} if name == "googlenet" else {}
        return models.get_model(name, weights=None, **extra).eval()


def save(name: str, folder: Path, file: str | None = None, edit: Callable[[dict], object] = lambda state: None) -> Path:
    state = whole_network(name).state_dict()
    edit(state)
    torch.save(state, folder / (file or f"{name}.pth"))
    return folder


@pytest.mark.parametrize("name", DIMENSIONS)
def test_features_are_what_the_last_classifier_sees(name: str, tmp_path: Path) -> None:
    extractor = EXTRACTORS[name].build(Setup(weights=str(save(name, tmp_path))))
    features = extractor.transform([photo()])
    assert features.shape == (1, DIMENSIONS[name])
    assert features.dtype == np.float32

    network = whole_network(name)
    seen: list[torch.Tensor] = []
    if name == "squeezenet1_0":
        hook = network.features.register_forward_hook(lambda module, args, out: seen.append(out.mean(dim=(2, 3))))
    else:
        last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
        hook = last.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    recipe = models.get_model_weights(name).DEFAULT
    pixels = recipe.transforms()(Image.fromarray(photo()))[None]
    if name == "googlenet":  # torchvision turns this on with its own weights
        network.transform_input = True
    with torch.inference_mode():
        network(pixels)
    hook.remove()
    wanted = seen[0].double() / seen[0].double().norm()
    np.testing.assert_allclose(features, wanted.numpy(), rtol=1e-3, atol=1e-3 * wanted.abs().max().item())


def test_every_classification_network_is_listed_and_no_other() -> None:
    provided = [entry for entry in EXTRACTORS if entry.facts.get("provided")]
    assert [entry.name for entry in provided] == models.list_models(module=models)
    assert {entry.family for entry in provided} == {"deep"}
    assert not {entry.name for entry in provided} & {entry.name for entry in EXTRACTORS.own()}
    with pytest.raises(BenchError, match="did you mean 'resnet50'"):
        EXTRACTORS["resnt50"]


def test_a_network_with_weights_is_not_marked_and_says_where_they_are_from(tmp_path: Path) -> None:
    save("squeezenet1_0", tmp_path, "squeezenet1_0-mine.pth")
    extractor = EXTRACTORS["squeezenet1_0"].build(Setup(weights=str(tmp_path)))
    assert extractor.mark == ""
    assert extractor.weights["source"] == "squeezenet1_0-mine.pth from weights directory"
    assert extractor.weights["recipe"] == "unknown, preprocessed as IMAGENET1K_V1"
    assert len(extractor.weights["sha256"]) == 64


def test_without_weights_a_network_is_untrained_loudly(caplog: pytest.LogCaptureFixture) -> None:
    extractor = EXTRACTORS["squeezenet1_0"].build(Setup(seed=7, weights="auto"))
    assert extractor.mark == "untrained"
    assert extractor.weights["source"] == "random initialisation, seed 7"
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "https://download.pytorch.org/models/squeezenet1_0-b66bff10.pth" in record.getMessage()
    with pytest.raises(BenchError, match="squeezenet1_0: no weights"):
        EXTRACTORS["squeezenet1_0"].build(Setup(weights="pretrained"))


def test_random_initialisation_follows_the_seed() -> None:
    built = [EXTRACTORS["squeezenet1_0"].build(Setup(seed=seed, weights="random")) for seed in (1, 1, 2)]
    digests = [extractor.weights["sha256"] for extractor in built]
    assert digests[0] == digests[1] != digests[2]
    first, same, other = (extractor.transform([photo()]) for extractor in built)
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other)


def test_the_recipe_follows_the_file_that_was_found(tmp_path: Path) -> None:
    # mobilenet_v2's second recipe resizes to 232 pixels, its first to 256.
    recipes = models.MobileNet_V2_Weights
    save("mobilenet_v2", tmp_path, "mobilenet_v2-mine.pth")
    by_default = EXTRACTORS["mobilenet_v2"].build(Setup(weights=str(tmp_path)))
    assert by_default.weights["recipe"] == "unknown, preprocessed as IMAGENET1K_V2"
    assert by_default.preprocess.resize_size == recipes.IMAGENET1K_V2.transforms().resize_size == [232]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "_hash_prefix", lambda name: "")  # a stand-in cannot have torchvision's hash
        save("mobilenet_v2", tmp_path, recipes.IMAGENET1K_V1.url.rpartition("/")[2])
        first = EXTRACTORS["mobilenet_v2"].build(Setup(weights=str(tmp_path)))
    assert first.weights["recipe"] == "IMAGENET1K_V1"
    assert first.preprocess.resize_size == [256]


def test_a_classifier_of_any_number_of_classes_is_accepted(tmp_path: Path) -> None:
    def shrink(state: dict) -> None:
        state["fc.weight"], state["fc.bias"] = torch.zeros(7, 512), torch.zeros(7)

    whole = EXTRACTORS["resnet18"].build(Setup(weights=str(save("resnet18", tmp_path))))
    small = EXTRACTORS["resnet18"].build(Setup(weights=str(save("resnet18", tmp_path, edit=shrink))))
    np.testing.assert_array_equal(small.transform([photo()]), whole.transform([photo()]))


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    save("squeezenet1_0", tmp_path, "resnet18-wrong.pth")
    with pytest.raises(BenchError, match=r"resnet18-wrong.pth lacks conv1.weight and \d+ more"):
        EXTRACTORS["resnet18"].build(Setup(weights=str(tmp_path)))


def test_weights_that_lack_a_layer_are_refused(tmp_path: Path) -> None:
    save("resnet18", tmp_path, edit=lambda state: state.pop("layer4.1.bn2.running_var"))
    with pytest.raises(BenchError, match=r"resnet18.pth lacks layer4.1.bn2.running_var;"):
        EXTRACTORS["resnet18"].build(Setup(weights=str(tmp_path)))


def test_the_old_layer_names_of_densenet_files_are_understood() -> None:
    key = "features.denseblock1.denselayer1.norm.1.weight"
    state = {key: 1, "features.conv0.weight": 2, "features.denseblock1.denselayer2.conv2.weight": 3}
    cnn._rename_densenet_layers(state)
    assert state == {
        "features.denseblock1.denselayer1.norm1.weight": 1,
        "features.conv0.weight": 2,
        "features.denseblock1.denselayer2.conv2.weight": 3,
    }


def test_of_a_very_long_image_only_the_middle_is_used() -> None:
    image = photo(20, 2000)
    np.testing.assert_array_equal(np.array(cnn._middle(image)), image[:, 920:1080])
    for height, width in ((20, 160), (37, 23), (1, 1)):
        np.testing.assert_array_equal(np.array(cnn._middle(photo(height, width))), photo(height, width))
    assert cnn._middle(photo(3000, 1)).size == (1, 8)


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the SqueezeNet weights of ../shared")
def test_real_weights_are_found_and_recognised() -> None:
    extractor = EXTRACTORS["squeezenet1_0"].build(Setup(weights=str(SHARED)))
    assert extractor.mark == ""
    assert extractor.weights["sha256"] == "fc421c9a91eab637d13f2a51f048670803ae67c7262f48fb59c4590363bedfbe"
    features = extractor.transform([photo()])
    assert features.shape == (1, 512)
    assert (features >= 0).all(), "SqueezeNet's last layer before the classifier is a ReLU"
    assert 0.1 < (features > 0).mean() < 1, "and trained units are neither all dead nor all alive"


def test_features_too_small_to_be_squared_still_have_unit_length() -> None:
    class Faint(nn.Module):
        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            return batch.mean(dim=(2, 3)) * 1e-30

    weak = cnn.PenultimateFeatures(Faint(), models.ResNet18_Weights.DEFAULT.transforms(), 3, "cpu", {}, "")
    assert np.linalg.norm(weak.transform([photo()])[0]) == pytest.approx(1, abs=1e-6)
