"""timm and open_clip networks: against the library's own forward pass where it is installed, and without it."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import retrieval_bench.extractors  # noqa: F401 - registers the methods
from retrieval_bench.core import BenchError, Setup
from retrieval_bench.extractors.deep import timm_open_clip, weights
from retrieval_bench.methods.parse import parse_method
from retrieval_bench.registry import EXTRACTORS, parse
from tests.support.pictures import photo_of

pytestmark = pytest.mark.slow(reason="loads timm and open_clip and runs their networks")

RANDOM = Setup(seed=5, weights="random")


@pytest.fixture(autouse=True)
def no_weights_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(weights.DIRECTORY_VARIABLE, raising=False)


def test_the_name_follows_behind_a_colon() -> None:
    spec = parse(EXTRACTORS, "timm:resnet18.a1_in1k:whiten=64:pool=gem")
    assert spec.options["network"] == "resnet18.a1_in1k"
    assert str(spec) == "timm:resnet18.a1_in1k:pool=gem:whiten=64"
    assert str(parse(EXTRACTORS, str(spec))) == str(spec)
    assert parse_method("sift+clip:ViT-B-32").deep


@pytest.mark.parametrize("text", ["timm", "clip:", "onnx:size=224", "timm:pool=gem"])
def test_without_a_name_the_sentence_says_where_it_goes(text: str) -> None:
    with pytest.raises(BenchError, match=r"say which; write (timm|clip):NETWORK|say which; write onnx:PATH"):
        parse(EXTRACTORS, text)


@pytest.mark.parametrize(("method", "extra"), [("timm:resnet18", "timm"), ("clip:ViT-B-32", "clip")])
def test_without_the_package_the_sentence_names_the_extra(
    method: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("timm", "open_clip"):
        monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(BenchError, match=rf"{method} needs \w+, .*pip install 'retrieval-bench\[{extra}\]'"):
        parse(EXTRACTORS, method).build(RANDOM)


LARGE = pytest.mark.long(reason="a large network is built twice")


@pytest.mark.filterwarnings("ignore")  # the library's own
@pytest.mark.parametrize(
    "name",
    ["resnet18", "mobilenetv3_small_050", "vit_tiny_patch16_224", pytest.param("swin_s3_tiny_224", marks=LARGE)],
)
def test_timm_features_are_those_of_timm(name: str) -> None:
    timm = pytest.importorskip("timm", reason="needs timm")
    extractor = parse(EXTRACTORS, f"timm:{name}").build(RANDOM)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        network = timm.create_model(name, pretrained=False, num_classes=0).eval()
    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=network))
    with torch.inference_mode():
        wanted = nn.functional.normalize(network(transform(photo_of(300, 260))[None]), dim=1).numpy()
    found = extractor.transform([np.asarray(photo_of(300, 260))])
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)
    assert extractor.mark == "untrained"
    pooled = parse(EXTRACTORS, f"timm:{name}:pool=avg").build(RANDOM).transform([np.asarray(photo_of(300, 260))])
    with torch.inference_mode():
        maps = network.forward_features(transform(photo_of(300, 260))[None])
    maps = maps[:, 1:].mean(1) if maps.ndim == 3 else maps.mean((1, 2) if name.startswith("swin") else (2, 3))
    if not name.startswith("mobilenet"):  # its last map is behind the head's convolution, inside of no stage
        np.testing.assert_allclose(pooled, nn.functional.normalize(maps, dim=1).numpy(), rtol=1e-3, atol=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_clip_features_are_those_of_open_clip() -> None:
    open_clip = pytest.importorskip("open_clip", reason="needs open_clip_torch")
    extractor = parse(EXTRACTORS, "clip:ViT-B-32").build(RANDOM)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model, _, transform = open_clip.create_model_and_transforms("ViT-B-32", pretrained=None)
    model.eval()
    with torch.inference_mode():
        wanted = nn.functional.normalize(model.encode_image(transform(photo_of(300, 260))[None]), dim=1).numpy()
    np.testing.assert_allclose(extractor.transform([np.asarray(photo_of(300, 260))]), wanted, rtol=1e-2, atol=1e-3)


@pytest.mark.filterwarnings("ignore")
def test_building_clip_gives_the_root_logger_no_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("open_clip", reason="needs open_clip_torch")
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    parse(EXTRACTORS, "clip:ViT-B-32").build(RANDOM)
    assert logging.getLogger().handlers == []


@pytest.mark.filterwarnings("ignore")
def test_weights_come_from_a_directory_or_the_network_is_untrained(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    timm = pytest.importorskip("timm", reason="needs timm")
    image = [np.asarray(photo_of(64, 64))]
    untrained = parse(EXTRACTORS, "timm:resnet10t").build(Setup(weights=str(tmp_path)))
    assert untrained.mark == "untrained"
    assert "UNTRAINED" in caplog.records[-1].getMessage()
    assert caplog.records[-1].levelno == logging.WARNING
    with pytest.raises(BenchError, match="no weights in a weights directory; save its state dict"):
        parse(EXTRACTORS, "timm:resnet10t").build(Setup(weights="pretrained"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(77)
        other = timm.create_model("resnet10t", pretrained=False, num_classes=12).eval()
    torch.save(other.state_dict(), tmp_path / "resnet10t-mine.pth")
    trained = parse(EXTRACTORS, "timm:resnet10t").build(Setup(weights=str(tmp_path)))
    assert (trained.mark, trained.weights["source"]) == ("", "resnet10t-mine.pth from weights directory")
    assert not np.array_equal(trained.transform(image), untrained.transform(image))


@pytest.mark.parametrize(("library", "name"), [("timm", "resnt18"), ("open_clip", "ViT-B-33")])
def test_an_unknown_name_is_answered_with_the_closest(library: str, name: str) -> None:
    pytest.importorskip(library, reason=f"needs {library}")
    method = "timm" if library == "timm" else "clip"
    with pytest.raises(BenchError, match=f"unknown network of {library} '{name}'; did you mean"):
        parse(EXTRACTORS, f"{method}:{name}").build(RANDOM)


def test_the_sentence_for_a_missing_package_is_one_line() -> None:
    assert "\n" not in str(timm_open_clip.missing("timm:x", "timm", "timm"))
