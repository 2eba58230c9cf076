"""Weights as trainers save them: what is unwrapped, what is refused, and in which words. Networks here are tiny."""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import pathlib
import re
import shlex
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import models

import retrieval_bench.extractors  # noqa: F401 - registers the methods
from retrieval_bench.core import BenchError, Setup
from retrieval_bench.extractors.deep import checkpoint_reading, nearest_network, weights
from retrieval_bench.extractors.deep.checkpoint_unwrapping import Unwrapped, unwrapped
from retrieval_bench.extractors.deep.weights import state_sha256
from retrieval_bench.registry import EXTRACTORS, parse
from retrieval_bench.system.checkpoint import facts_of, save_weights
from tests.support.command import call
from tests.support.paths import ROOT
from tests.support.pictures import photo_of
from tests.support.shop import shelf_at

HEAD = ("head.",)


def tiny(seed: int = 0) -> nn.Module:
    """A convolution, a batch norm and a linear layer, with a classifier that is none of the features."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = OrderedDict(
            conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4), last=nn.Linear(4, 5), head=nn.Linear(5, 2)
        )
        return nn.Sequential(layers)


def headless() -> nn.Module:
    network = tiny(99)
    network.head = nn.Identity()
    return network


def behind(prefix: str, state: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{prefix}{name}": value for name, value in state.items()}


OURS, OTHER = tiny(1).state_dict(), tiny(2).state_dict()
SETTINGS = argparse.Namespace(lr=0.1, out=pathlib.Path("runs") / "a", model="tiny")

WRAPPERS: dict[str, tuple[Any, str]] = {
    "plain": (OURS, ""),
    "without a classifier": ({name: value for name, value in OURS.items() if not name.startswith(HEAD)}, ""),
    "another classifier": ({**OURS, "head.weight": torch.zeros(7, 5), "head.bias": torch.zeros(7)}, ""),
    "without counters": ({name: value for name, value in OURS.items() if "num_batches" not in name}, ""),
    "state_dict": ({"epoch": 9, "state_dict": OURS}, "unwrapped state_dict"),
    "model": ({"model": OURS, "epoch": 3, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}}, "unwrapped model"),
    "DDP": (behind("module.", OURS), "prefix module. stripped"),
    "torch.compile": (behind("_orig_mod.", OURS), "_orig_mod. removed from names"),
    "compiled within DDP": (
        behind("module._orig_mod.", OURS),
        "_orig_mod. removed from names, prefix module. stripped",
    ),
    "backbone": (behind("backbone.", OURS), "prefix backbone. stripped"),
    "encoder": (behind("encoder.", OURS), "prefix encoder. stripped"),
    "Lightning": (
        {"state_dict": {**behind("model.", OURS), "criterion.weight": torch.ones(2)}, "hyper_parameters": {"lr": 0.1}},
        "unwrapped state_dict, prefix model. stripped, left out criterion.weight",
    ),
    "model_ema of torchvision": (
        {"model": OTHER, "model_ema": {"n_averaged": torch.tensor(3), **behind("module.", OURS)}, "args": SETTINGS},
        "unwrapped model_ema, prefix module. stripped, left out n_averaged, taken before model",
    ),
    "state_dict_ema of timm": (
        {"arch": "tiny", "state_dict": OTHER, "state_dict_ema": OURS, "args": SETTINGS},
        "unwrapped state_dict_ema, taken before state_dict",
    ),
    "DINO": (
        {
            "student": behind("module.backbone.", OTHER),
            "teacher": {
                **behind("backbone.", OURS),
                "head.scale": torch.ones(2),
            },
            "epoch": 4,
        },
        "unwrapped teacher, prefix backbone. stripped, left out head.scale, taken before student.module.backbone",
    ),
    "MoCo": (
        {**behind("encoder_q.", OURS), **behind("encoder_k.", OTHER)},
        "prefix encoder_q. stripped, left out encoder_k.conv.weight and 10 more, taken before encoder_k",
    ),
    "dicts in dicts": ({"run": {"best": {"net": OURS}}}, "unwrapped run.best.net"),
    "the same twice": ({"first": OURS, "second": OURS}, "unwrapped first, taken before second"),
    "argparse.Namespace": ({"model": OURS, "args": SETTINGS}, "unwrapped model"),
}
"""What is in a file -> what the record says of it."""


def written(folder: Path, content: Any, name: str = "tiny.pth", **options: Any) -> weights.WeightsFile:
    torch.save(content, folder / name, **options)
    return weights.WeightsFile(folder / name, name, hashlib.sha256((folder / name).read_bytes()).hexdigest(), None)


def filled(file: weights.WeightsFile, network: nn.Module) -> Unwrapped:
    return weights.fill(network, weights.load(file), file, HEAD)


@pytest.fixture(autouse=True)
def no_nearest_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes seconds to find."""
    monkeypatch.setattr(weights, "nearest", lambda content: "")


@pytest.mark.parametrize("what", WRAPPERS)
def test_every_wrapper_gives_the_very_weights_and_says_what_was_done(tmp_path: Path, what: str) -> None:
    content, told = WRAPPERS[what]
    network = headless()
    taken = filled(written(tmp_path, content), network)
    assert taken.how == told
    wanted = {name: value for name, value in OURS.items() if not name.startswith(HEAD)}
    found = network.state_dict()
    assert found.keys() == wanted.keys()
    assert all(found[name].equal(wanted[name]) for name in wanted)


def test_a_file_from_before_torch_1_6_is_read_alike(tmp_path: Path) -> None:
    content = {"model": behind("module.", OURS), "args": SETTINGS}
    file = written(tmp_path, content, _use_new_zipfile_serialization=False)
    assert filled(file, headless()).how == "unwrapped model, prefix module. stripped"


def test_the_choice_among_several_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    filled(written(tmp_path, {"model": OTHER, "model_ema": OURS}), headless())
    assert caplog.messages == ["weights file tiny.pth: unwrapped model_ema, taken before model"]


def test_names_with_and_without_a_prefix_are_two_networks(tmp_path: Path) -> None:
    both = {**OTHER, **{f"module.{name}": value for name, value in OURS.items()}}
    with pytest.raises(BenchError, match="holds several networks that fit, module, the names without a prefix; save"):
        filled(written(tmp_path, both), headless())
    filled(written(tmp_path, {**OURS, **{f"module.{name}": value for name, value in OURS.items()}}), headless())


def test_where_no_rule_says_which_network_is_meant_none_is_taken(tmp_path: Path) -> None:
    with pytest.raises(BenchError) as told:
        filled(written(tmp_path, {"left": OURS, "right": OTHER}), headless())
    assert str(told.value) == (
        "weights file tiny.pth holds several networks that fit, left, right; save the state dict of the one that is "
        "meant in a file of its own"
    )


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda state: state.pop("norm.running_mean"), "tiny.pth lacks norm.running_mean behind model.module; "),
        (
            lambda state: state.update({"conv.weight": torch.zeros(4, 1, 3, 3)}),
            r"conv.weight behind model.module has sh",
        ),
        (
            lambda state: state.update({"conv.extra": torch.zeros(1)}),
            "holds the unknown conv.extra behind model.module; ",
        ),
        (lambda state: state["conv.bias"].fill_(float("nan")), "tiny.pth: conv.bias holds NaN or inf"),
        (
            lambda state: state.update({"conv.weight": state["conv.weight"].to(torch.int8)}),
            "tiny.pth: conv.weight holds int8, as quantised weights do; save them as float32",
        ),
    ],
    ids=["lacking", "shape", "unknown", "not finite", "quantised"],
)
def test_every_needed_name_must_fit_behind_the_prefix(
    tmp_path: Path, spoil: Callable[[dict], Any], sentence: str
) -> None:
    state = {name: value.clone() for name, value in OURS.items()}
    spoil(state)
    network = headless()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(BenchError, match=sentence) as told:
        filled(written(tmp_path, {"model": behind("module.", state)}), network)
    assert "\n" not in str(told.value)
    assert all(value.equal(before[name]) for name, value in network.state_dict().items())


def test_what_the_file_says_of_its_network_is_told(tmp_path: Path) -> None:
    with pytest.raises(
        BenchError, match=r"lacks conv.weight and 7 more; it says that it is of resnet9; give the state"
    ):
        filled(written(tmp_path, {"arch": "resnet9", "state_dict": {"stem.weight": torch.ones(1)}}), headless())


def test_what_a_training_said_of_its_images_is_kept_when_it_is_wrapped(tmp_path: Path) -> None:
    facts = {"dataset": "shelf", "images": ["00"]}
    save_weights(tmp_path / "own.pth", OURS, facts)
    content = torch.load(tmp_path / "own.pth", weights_only=True)
    assert facts_of(filled(written(tmp_path, {"model": content}), headless()).state) == facts


def test_the_format_of_a_layer_goes_with_it() -> None:
    wrapped = headless().state_dict(prefix="module.")
    wrapped._metadata["module.norm"] = {"version": 1}
    taken = unwrapped({"state_dict": wrapped}, headless().state_dict(), HEAD)
    assert taken is not None
    assert taken.state._metadata["norm"] == {"version": 1}  # type: ignore[attr-defined]
    assert taken.state._metadata["conv"] == {"version": 1}  # type: ignore[attr-defined]


def test_plain_data_of_many_kinds_may_lie_beside_the_weights(tmp_path: Path) -> None:
    beside = {
        "args": argparse.Namespace(nested=argparse.Namespace(a=1), path=pathlib.PurePosixPath("/x")),
        "path": pathlib.PureWindowsPath("c:/x"),
        "best": np.float64(0.5),
        "epoch": np.int64(3),
        "history": np.arange(3.0),
        "rng": np.random.default_rng(0).integers(0, 9, 5, dtype=np.uint32),
        "when": datetime.datetime(2026, 1, 1),
        "torch": torch.__version__,
    }
    file = written(tmp_path, {"model": OURS, **beside})
    held = weights.load(file)
    assert held.keys() == {"model", *beside}
    assert {type(held[name]) for name in beside} == {checkpoint_reading.Beside}  # nothing of them is made
    assert filled(file, headless()).how == "unwrapped model"


class Config:
    """A class of the user, as trainers keep one beside the weights."""

    def __init__(self) -> None:
        self.model = "x"


LINES = {
    "a network": (tiny(), "net = torch.load('tiny.pth', weights_only=False); torch.save(net.state_dict(), 'tiny-"),
    "a network in a dict": (
        {"epoch": 3, "model": tiny()},
        "net = torch.load('tiny.pth', weights_only=False)['model']; torch.save(net.state_dict(), 'tiny-plain.pth')",
    ),
    "a class beside": (
        {"config": Config(), "state_dict": OURS},
        "net = torch.load('tiny.pth', weights_only=False)['state_dict']; torch.save(net, 'tiny-plain.pth')",
    ),
}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old"])
@pytest.mark.parametrize("what", LINES)
def test_classes_are_named_with_the_two_lines_that_convert(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, zipped: bool
) -> None:
    content, lines = LINES[what]
    file = written(tmp_path, content, _use_new_zipfile_serialization=zipped)
    with pytest.raises(BenchError) as told:
        weights.load(file)
    sentence = str(told.value)
    assert lines in sentence
    assert ("test_checkpoints.Config" if what == "a class beside" else "torch.nn.modules.container.Sequ") in sentence
    assert "remove" not in sentence
    assert "\n" not in sentence
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {"torch": torch}
    for line in sentence[sentence.index("net = ") :].split("; "):
        exec(line, scope)
    assert filled(written_already(tmp_path / "tiny-plain.pth"), headless()).how == ""


def written_already(path: Path) -> weights.WeightsFile:
    return weights.WeightsFile(path, path.name, "", None)


def test_a_torch_that_takes_no_list_names_the_class_and_the_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_reading, "takes_a_list", lambda: False)
    with pytest.raises(
        BenchError, match=r"more than tensors \(argparse\.Namespace.*weights_only=False\)\['model'\]; tor"
    ):
        weights.load(written(tmp_path, {"model": OURS, "args": argparse.Namespace(lr=0.1)}))


class Bomb:
    """Pickled code: it makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old"])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda bomb: bomb,
        lambda bomb: {"state_dict": OURS, "args": argparse.Namespace(hook=bomb)},
        lambda bomb: {"state_dict": OURS, "history": np.array([bomb], dtype=object)},
    ],
    ids=["bare", "in a Namespace", "in an array"],
)
def test_code_in_a_file_is_named_and_not_run(tmp_path: Path, wrap: Callable[[Bomb], Any], zipped: bool) -> None:
    file = written(tmp_path, wrap(Bomb(tmp_path / "exploded")), _use_new_zipfile_serialization=zipped)
    with pytest.raises(BenchError, match=r"tiny.pth was not read: that would call \w+.mkdir, which no weights") as told:
        weights.load(file)
    assert "weights_only" not in str(told.value)  # nobody is told to run it
    assert not (tmp_path / "exploded").exists()


def test_the_list_of_harmless_classes_does_not_outlive_the_reading(tmp_path: Path) -> None:
    file = written(tmp_path, {"model": OURS, "args": SETTINGS})
    weights.load(file)
    with pytest.raises(Exception, match=r"argparse\.Namespace"):
        torch.load(file.path, weights_only=True)


def test_weights_are_no_exported_network_and_the_sentence_says_where_they_go(tmp_path: Path) -> None:
    written(tmp_path, {"model": OURS}, "tiny.pt")
    with pytest.raises(BenchError, match=r"onnx:tiny.pt holds weights and no network; .* NETWORK:weights=.*tiny.pt"):
        parse(EXTRACTORS, f"onnx:{tmp_path / 'tiny.pt'}").build(Setup())


@pytest.mark.filterwarnings("ignore")
def test_a_network_of_torchscript_is_sent_to_the_method_that_runs_it(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "tiny.pt")
    with pytest.raises(BenchError, match=r"tiny.pt is a whole network of TorchScript.* run it as onnx:tiny.pt"):
        weights.load(written_already(tmp_path / "tiny.pt"))


@pytest.mark.parametrize("name", ["tiny-best.ckpt", "tiny.pth.tar", "tiny.bin", "tiny-mine.pt"])
def test_files_are_found_under_the_names_that_trainers_give(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    found = weights.find_local("tiny", str(tmp_path), "timm")
    assert found is not None
    assert found.source == f"{name} from weights directory"


def model_folder(folder: Path, config: Mapping[str, Any], state: Mapping[str, Any] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    torch.save(OURS if state is None else state, folder / "pytorch_model.bin")
    return folder


def test_a_model_folder_is_itself_the_weights_directory(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "hub", {"architecture": "tiny", "pretrained_cfg": {"crop_pct": 1.0}})
    for found in (weights.find_local("tiny.tag", str(folder), "timm"), weights.named(folder, "tiny")):
        assert found is not None
        assert (found.source, found.path.name) == ("hub/pytorch_model.bin", "pytorch_model.bin")
        assert found.folder is not None
        assert found.folder.data == {"crop_pct": 1.0}
        assert filled(found, headless()).how == ""
    inside = weights.find_local("hub", str(model_folder(tmp_path / "hub", {"architecture": "hub"}).parent), "timm")
    assert inside is not None
    assert inside.source == "hub/pytorch_model.bin from weights directory"


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (
            {"architecture": "resnet18"},
            "weights folder hub is of resnet18, as its config.json says, and not of tiny; run",
        ),
        (
            {"architectures": ["ResNetForImageClassification"], "model_type": "resnet"},
            "names ResNetForImageClassification of Hugging Face transformers, which calls its layers otherwise",
        ),
        ([1], r"its config.json cannot be read \('list' object"),
    ],
    ids=["another", "transformers", "no dict"],
)
def test_a_model_folder_of_another_network_says_whose_it_is(tmp_path: Path, config: Any, sentence: str) -> None:
    folder = model_folder(tmp_path / "hub", config)
    for find in (lambda: weights.named(folder, "tiny"), lambda: weights.find_local("tiny", str(folder), "timm")):
        with pytest.raises(BenchError, match=sentence):
            find()


def test_a_model_folder_in_parts_says_what_to_do(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "hub", {"architecture": "tiny"})
    (folder / "pytorch_model.bin").rename(folder / "pytorch_model.bin.index.json")
    with pytest.raises(BenchError, match="weights folder hub: its weights are in several parts; save the state dict"):
        weights.named(folder, "tiny")


@pytest.mark.slow(reason="builds two networks of timm and runs them")
@pytest.mark.filterwarnings("ignore")
def test_a_folder_of_timm_brings_its_weights_and_its_preprocessing(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm", reason="needs timm")
    library = pytest.importorskip("safetensors.torch", reason="needs safetensors")
    network = timm.create_model("test_resnet", pretrained=False, num_classes=3).eval()
    figures = {"input_size": [3, 96, 96], "mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bilinear"}
    (tmp_path / "config.json").write_text(
        json.dumps({"architecture": "test_resnet", "num_classes": 3, "pretrained_cfg": {**figures, "crop_pct": 1.0}})
    )
    library.save_file(network.state_dict(), tmp_path / "model.safetensors")
    extractor: Any = parse(EXTRACTORS, "timm:test_resnet").build(Setup(weights=str(tmp_path)))
    assert (extractor.mark, extractor.preprocess.crop, extractor.preprocess.std) == ("", 96, (0.25,) * 3)
    assert extractor.weights["recipe"].endswith(
        "config.json says: 96 cropped to 96 px, bilinear, mean 0.5,0.5,0.5, std 0.25,0.25,0.25"
    )
    network.reset_classifier(0)
    transform = timm.data.create_transform(**{**figures, "input_size": (3, 96, 96), "crop_pct": 1.0})
    with torch.inference_mode():
        wanted = nn.functional.normalize(network(transform(photo_of(300, 260))[None]), dim=1).numpy()
    found = extractor.transform([np.asarray(photo_of(300, 260))])
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)
    with pytest.raises(
        BenchError, match=r"is of test_resnet, as its config.json says, and not of resnet18; run timm:t"
    ):
        parse(EXTRACTORS, f"resnet18:weights={tmp_path}").build(Setup())


@pytest.mark.slow(reason="builds three ResNets")
def test_a_network_of_torchvision_takes_a_folder_of_its_name(tmp_path: Path) -> None:
    figures = {"input_size": [3, 96, 96], "crop_pct": 0.75, "mean": [0.5] * 3, "std": [0.5] * 3, "crop_mode": "center"}
    state = models.resnet18(num_classes=3).state_dict()
    folder = model_folder(tmp_path / "hub", {"architecture": "resnet18", "pretrained_cfg": figures}, state)
    torch.save({"model_ema": behind("module.", state)}, tmp_path / "resnet18-mine.ckpt")
    image = [np.asarray(photo_of(300, 260))]
    by_folder: Any = parse(EXTRACTORS, "resnet18").build(Setup(weights=str(folder)))
    assert (by_folder.preprocess.resize, by_folder.preprocess.crop) == (128, 96)
    assert by_folder.weights["source"] == "hub/pytorch_model.bin"
    assert "unwrapped" not in by_folder.weights
    named: Any = parse(EXTRACTORS, f"resnet18:weights={folder}").build(Setup())
    np.testing.assert_array_equal(named.transform(image), by_folder.transform(image))
    wrapped: Any = parse(EXTRACTORS, "resnet18").build(Setup(weights=str(tmp_path)))
    assert wrapped.weights["unwrapped"] == "unwrapped model_ema, prefix module. stripped"
    assert wrapped.preprocess.crop == 224
    assert state_sha256(wrapped.backbone.network.state_dict()) == state_sha256(by_folder.backbone.network.state_dict())


@pytest.mark.slow(reason="builds every network of the nearest families")
@pytest.mark.parametrize("name", ["resnet34", "vgg11_bn", "regnet_y_400mf"])
def test_the_network_that_weights_fit_is_named(name: str) -> None:
    shapes = nearest_network._shapes(name)
    told = nearest_network.nearest({"state_dict": behind("module.", shapes)})
    assert told.startswith(f"it fits {name} of torchvision (all ")
    first = next(iter(shapes))
    changed = {**shapes, first: torch.empty(1, device="meta")}
    assert nearest_network.nearest(changed).startswith(f"the nearest network of torchvision is {name} (9")


@pytest.mark.slow(reason="builds one network of every family")
def test_weights_that_are_of_no_known_network_are_said_to_be_of_none() -> None:
    assert nearest_network.nearest({"stem.weight": torch.zeros(1)}) == ""
    assert nearest_network.nearest([1]) == ""


@pytest.mark.long(reason="a run with two networks")
def test_the_example_of_the_documentation_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "deep.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(import torch\n[^`]*last\.ckpt[^`]*)```", page)
    (command,) = re.findall(r"^python -m benchmark (.*weights=last\.ckpt.*)$", page, re.M)
    shelf_at(tmp_path / "my_shop")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "deep.md", "exec"), {})
    result = call(*shlex.split(command), "--json")
    assert result.exit_code == 0, result.output
    wrapped, packaged = json.loads(result.stdout)["rows"]
    assert wrapped["weights"]["unwrapped"] == "unwrapped state_dict, prefix model. stripped"
    assert packaged["method"] == "efficientnet_lite0"
