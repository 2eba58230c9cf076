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

from retrieval_bench.core import BenchError, Setup
from retrieval_bench.experiment.extraction import checked
from retrieval_bench.experiment.runner import run
from retrieval_bench.extractors.deep import backbones, network_features, postprocess, preprocess, weights
from retrieval_bench.registry import EXTRACTORS, parse
from retrieval_bench.system.cache import FeatureCache
from retrieval_bench.system.timing import pinned
from tests.support.paths import SHARED
from tests.support.photos import photo, split_of
from tests.support.runs import plan
from tests.support.shop import shop

WEIGHTS = SHARED / "weights"
DIMENSIONS = {
    "squeezenet1_0": 512,
    "mobilenet_v3_small": 1024,
    "resnet18": 512,
    "mnasnet0_5": 1280,
    "googlenet": 1024,
}


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


LARGE = pytest.mark.long(reason="to draw the weights of a large network takes seconds")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=LARGE) if name in ("googlenet", "mnasnet0_5") else name for name in DIMENSIONS],
)
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
    assert [by_default.preprocess.resize] == recipes.IMAGENET1K_V2.transforms().resize_size == [232]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "_hash_prefix", lambda name: "")  # a stand-in cannot have torchvision's hash
        save("mobilenet_v2", tmp_path, recipes.IMAGENET1K_V1.url.rpartition("/")[2])
        first = EXTRACTORS["mobilenet_v2"].build(Setup(weights=str(tmp_path)))
    assert first.weights["recipe"] == "IMAGENET1K_V1"
    assert first.preprocess.resize == 256


@pytest.mark.slow(reason="builds networks")
def test_a_classifier_of_any_number_of_classes_is_accepted(tmp_path: Path) -> None:
    def shrink(state: dict) -> None:
        state["fc.weight"], state["fc.bias"] = torch.zeros(7, 512), torch.zeros(7)

    whole = EXTRACTORS["resnet18"].build(Setup(weights=str(save("resnet18", tmp_path))))
    small = EXTRACTORS["resnet18"].build(Setup(weights=str(save("resnet18", tmp_path, edit=shrink))))
    np.testing.assert_array_equal(small.transform([photo()]), whole.transform([photo()]))


@pytest.mark.slow(reason="builds and writes networks")
def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    save("squeezenet1_0", tmp_path, "resnet18-wrong.pth")
    with pytest.raises(BenchError, match=r"resnet18-wrong.pth lacks conv1.weight and \d+ more"):
        EXTRACTORS["resnet18"].build(Setup(weights=str(tmp_path)))


@pytest.mark.slow(reason="builds and writes networks")
def test_weights_that_lack_a_layer_are_refused(tmp_path: Path) -> None:
    save("resnet18", tmp_path, edit=lambda state: state.pop("layer4.1.bn2.running_var"))
    with pytest.raises(BenchError, match=r"resnet18.pth lacks layer4.1.bn2.running_var;"):
        EXTRACTORS["resnet18"].build(Setup(weights=str(tmp_path)))


def test_the_old_layer_names_of_densenet_files_are_understood() -> None:
    renamed = {
        "features.denseblock1.denselayer1.norm.1.weight": "features.denseblock1.denselayer1.norm1.weight",
        "features.conv0.weight": "features.conv0.weight",
        "features.denseblock1.denselayer2.conv2.weight": "features.denseblock1.denselayer2.conv2.weight",
    }
    assert {name: network_features._densenet_name(name) for name in renamed} == renamed


def test_of_a_very_long_image_only_the_middle_is_used() -> None:
    image = photo(20, 2000)
    np.testing.assert_array_equal(np.array(preprocess.middle(image)), image[:, 920:1080])
    for height, width in ((20, 160), (37, 23), (1, 1)):
        np.testing.assert_array_equal(np.array(preprocess.middle(photo(height, width))), photo(height, width))
    assert preprocess.middle(photo(3000, 1)).size == (1, 8)


@pytest.mark.skipif(not WEIGHTS.is_dir(), reason="needs the SqueezeNet weights of ../shared")
def test_real_weights_are_found_and_recognised() -> None:
    extractor = EXTRACTORS["squeezenet1_0"].build(Setup(weights=str(WEIGHTS)))
    assert extractor.mark == ""
    assert extractor.weights["sha256"] == "fc421c9a91eab637d13f2a51f048670803ae67c7262f48fb59c4590363bedfbe"
    features = extractor.transform([photo()])
    assert features.shape == (1, 512)
    assert (features >= 0).all(), "SqueezeNet's last layer before the classifier is a ReLU"
    assert 0.1 < (features > 0).mean() < 1, "and trained units are neither all dead nor all alive"


def plain(
    network: nn.Module, describe: Callable[..., Any] | None = None, **options: Any
) -> network_features.NetworkFeatures:
    """An extractor over any module, at 224 pixels."""
    recipe = preprocess.of_recipe(models.ResNet18_Weights.DEFAULT.transforms())
    backbone = backbones.Backbone("toy", network.eval(), recipe, 3, {})
    after = postprocess.PostProcess(**options)
    return network_features.NetworkFeatures(
        backbone, describe or network, [network_features.ViewRecipe(recipe, False)], after, 3, "cpu"
    )


class Mean(nn.Module):
    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return batch.mean(dim=(2, 3)) * self.factor


def test_features_too_small_to_be_squared_still_have_unit_length() -> None:
    assert np.linalg.norm(plain(Mean(1e-30)).transform([photo()])[0]) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    "name",
    [
        *("alexnet", "regnet_x_400mf", "shufflenet_v2_x0_5"),
        *(pytest.param(name, marks=LARGE) for name in ("densenet121", "efficientnet_b0", "swin_t", "vit_b_32")),
    ],
)
def test_every_family_gives_what_a_plain_forward_pass_gives(name: str) -> None:
    """The network, its weights and its preprocessing from torchvision itself; the head taken off by hand."""
    extractor = EXTRACTORS[name].build(Setup(seed=3, weights="random"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = models.get_model(name, weights=None).eval()
    last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    seen: list[torch.Tensor] = []
    last.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    with torch.inference_mode():
        network(models.get_model_weights(name).DEFAULT.transforms()(Image.fromarray(photo()))[None])
    wanted = (seen[0].double() / seen[0].double().norm()).numpy()
    found = extractor.transform([photo()])
    assert found.shape == (1, last.in_features)
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-3 * np.abs(wanted).max())


@pytest.mark.slow(reason="a network for each pooling")
@pytest.mark.parametrize(
    ("name", "options", "hand"),
    [
        ("resnet18", {"pool": "avg"}, lambda net, x: net.avgpool(_resnet_map(net, x)).flatten(1)),
        ("resnet18", {"pool": "max"}, lambda net, x: _resnet_map(net, x).amax((2, 3))),
        ("resnet18", {"layer": "layer2"}, lambda net, x: _resnet_map(net, x, 2).mean((2, 3))),
        pytest.param("densenet121", {"pool": "avg"}, lambda net, x: net.features(x).relu().mean((2, 3)), marks=LARGE),
        pytest.param("swin_t", {"pool": "max"}, lambda net, x: net.norm(net.features(x)).amax((1, 2)), marks=LARGE),
        pytest.param("vit_b_32", {"pool": "token"}, lambda net, x: _vit_tokens(net, x)[:, 0], marks=LARGE),
        pytest.param("vit_b_32", {"pool": "avg"}, lambda net, x: _vit_tokens(net, x)[:, 1:].mean(1), marks=LARGE),
        (
            "alexnet",
            {"pool": "gem", "p": 2.0},
            lambda net, x: net.features(x).clamp(min=1e-6).pow(2).mean((2, 3)).sqrt(),
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_pools_and_layers_read_the_right_map(name: str, options: dict, hand: Callable[..., torch.Tensor]) -> None:
    extractor = EXTRACTORS[name].build(Setup(weights="random"), **options)
    network = extractor.backbone.network
    with torch.inference_mode():
        wanted = nn.functional.normalize(hand(network, extractor.preprocess(Image.fromarray(photo()))[None]), dim=1)
    np.testing.assert_allclose(extractor.transform([photo()]), wanted.numpy(), rtol=1e-4, atol=1e-5)


def _resnet_map(net: Any, x: torch.Tensor, layers: int = 4) -> torch.Tensor:
    x = net.maxpool(net.relu(net.bn1(net.conv1(x))))
    for number in range(1, layers + 1):
        x = getattr(net, f"layer{number}")(x)
    return x


def _vit_tokens(net: Any, x: torch.Tensor) -> torch.Tensor:
    x = net._process_input(x)
    return net.encoder(torch.cat([net.class_token.expand(len(x), -1, -1), x], dim=1))


@pytest.mark.slow(reason="builds networks")
def test_several_layers_stand_one_behind_the_other() -> None:
    both = EXTRACTORS["resnet18"].build(Setup(weights="random"), layer="layer3/layer4").transform([photo()])
    each = [
        EXTRACTORS["resnet18"].build(Setup(weights="random"), layer=f"layer{n}").transform([photo()]) for n in (3, 4)
    ]
    np.testing.assert_allclose(both, np.concatenate(each, axis=1) / np.sqrt(2), rtol=1e-5, atol=1e-7)


def test_flip_and_scales_add_up_views_of_unit_length() -> None:
    build = EXTRACTORS["squeezenet1_0"].build
    setup = Setup(weights="random")
    mirrored = build(setup, flip=True).transform([photo(224, 224)])
    pair = [build(setup).transform([image])[0] for image in (photo(224, 224), photo(224, 224)[:, ::-1])]
    np.testing.assert_allclose(mirrored[0], sum(pair) / np.linalg.norm(sum(pair)), rtol=1e-4, atol=1e-6)
    scaled = build(setup, scales=2).transform([photo()])
    sides = [build(setup, size=side).transform([photo()])[0] for side in (224, 158)]
    np.testing.assert_allclose(scaled[0], sum(sides) / np.linalg.norm(sum(sides)), rtol=1e-4, atol=1e-6)


def test_without_crop_the_whole_image_is_seen() -> None:
    build = EXTRACTORS["squeezenet1_0"].build
    edge = photo(224, 448)
    changed = edge.copy()
    changed[:, :60] = 255 - changed[:, :60]
    for crop, same in ((True, True), (False, False)):
        one, other = build(Setup(weights="random"), crop=crop).transform([edge, changed])
        assert np.array_equal(one, other) is same


@pytest.mark.slow(reason="a network for each mistake")
@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("resnet18:layer=layer9", "no layer 'layer9'; it has layer1, layer2, layer3, layer4"),
        ("squeezenet1_0:layer=fire", r"it has features.3, .*features.12"),
        ("vit_b_32:layer=x", r"it has encoder.layers.encoder_layer_0"),
        ("resnet18:pool=token", "pool=token needs a class token and this layer has none"),
        ("vit_b_32:pool=rmac", "pool=rmac needs a feature map and this layer gives tokens"),
        ("resnet18:pool=head:layer=layer1", "pool=head is of the last layer alone"),
        ("vit_b_32:size=192", "vit_b_32 does not take images of 192 x 192 pixels"),
        ("resnet18:size=4", "size=4 is not between 16 and 2048"),
        ("resnet18:scales=4", "scales=4 is not between 1 and 3"),
        ("resnet18:p=0", "p=0 must be at least 0.01"),
        ("resnet18:whiten=-1", "whiten=-1 must be at least 0"),
        ("resnet18:level=2", "level=2 is not between 0 and 1"),
        ("resnet18:power=0", "power=0 must be above 0"),
        ("resnet18:pool=mean", "pool='mean' is not one of auto, head, avg, max, gem, rmac, token"),
        ("resnet18:dtype=float8", "dtype='float8' is not one of float32, float16, int8, bits"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(BenchError, match=sentence) as caught:
        parse(EXTRACTORS, text).build(Setup(weights="random"))
    assert "\n" not in str(caught.value)


def test_options_come_in_any_number() -> None:
    spec = parse(EXTRACTORS, "squeezenet1_0:whiten=256:pool=gem:flip=yes")
    assert str(spec) == "squeezenet1_0:pool=gem:flip=true:whiten=256"
    assert spec.resolved["p"] == 3.0


@pytest.mark.slow(reason="a network for each way to keep features")
@pytest.mark.parametrize(
    ("options", "dtype", "width"),
    [
        ({"whiten": 5}, np.float32, 5),
        ({"whiten": 5, "dtype": "float16"}, np.float16, 5),
        ({"centre": True, "dtype": "int8"}, np.int8, 512),
        ({"whiten": 10, "dtype": "bits"}, np.uint8, 2),
        ({"dtype": "bits", "flip": True}, np.uint8, 64),
    ],
)
def test_what_is_kept_obeys_the_contract(options: dict, dtype: type, width: int) -> None:
    """Learned, restored, in any company: the same bits."""
    build = EXTRACTORS["squeezenet1_0"].build
    train = split_of([photo(seed=seed) for seed in range(12)])
    images = [photo(seed=50), photo(40, 900, seed=51), np.zeros((8, 8, 3), np.uint8), photo(seed=50)]
    with pinned(1):
        extractor = build(Setup(weights="random"), **options).fit(train)
        rows = extractor.transform(images)
        assert rows.dtype == dtype
        assert rows.shape == (4, width)
        np.testing.assert_array_equal(rows[0], rows[3])
        restored = build(Setup(weights="random"), **options)
        for name in extractor.learned:
            setattr(restored, name, getattr(extractor, name).copy())
        np.testing.assert_array_equal(restored.transform(images[1:2])[0], rows[1])
        assert extractor.transform([]).shape == (0, width)
        many = build(Setup(weights="random", threads=3), **options).fit(train)
        np.testing.assert_array_equal(many.transform(images), rows)
        checked(rows, 4, extractor.distance)


@pytest.mark.slow(reason="whole runs of a network")
def test_bytes_in_the_record_are_those_that_are_kept(tmp_path: Path) -> None:
    names = ("", ":dtype=float16", ":dtype=int8", ":whiten=3:dtype=bits")
    methods = [f"squeezenet1_0:size=64{options}" for options in names]
    asked = plan(shop(2, 2), *methods, weights="random", cache=FeatureCache(tmp_path / "cache"))
    first, again = (run(asked, tmp_path / "out", overwrite=True) for _ in range(2))
    assert [row.features.bytes_per_image for row in first.rows] == [2048, 1024, 512, 1]
    assert [row.features.dtype for row in first.rows] == ["float32", "float16", "int8", "bit"]
    assert [row.scores for row in first.rows] == [row.scores for row in again.rows]
    assert all(row.features.computed == 0 for row in again.rows)
