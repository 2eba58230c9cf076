"""Networks from files: ONNX, TorchScript and torch.export give what the network they were made of gives."""

from __future__ import annotations

import io
import logging
import os
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import retrieval_bench.extractors  # noqa: F401 - registers the methods
from retrieval_bench.core import BenchError, Setup
from retrieval_bench.extractors.deep.preprocess import Preprocess
from retrieval_bench.registry import EXTRACTORS, parse
from tests.support.pictures import photo_of

MAPS = nn.Sequential(nn.Conv2d(3, 8, 7, 4), nn.ReLU())
IMAGE = np.asarray(photo_of(120, 90))


def network(kind: str) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        layers = [nn.Conv2d(3, 8, 7, 4), nn.ReLU()]
        if kind == "vector":
            layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        return nn.Sequential(*layers).eval()


def exported(folder: Path, suffix: str, kind: str) -> Path:
    """A small network in a file; skips where the packages are missing."""
    net, pixels, file = network(kind), torch.zeros(1, 3, 64, 64), folder / f"net{suffix}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if suffix == ".pt":
            torch.jit.trace(net, pixels).save(str(file))
        elif suffix == ".pt2":
            torch.export.save(torch.export.export(net, (pixels,)), str(file))
        else:
            pytest.importorskip("onnxruntime", reason="needs onnxruntime")
            pytest.importorskip("onnxscript", reason="needs onnxscript, which exports")
            torch.onnx.export(net, (pixels,), dynamo=True, verbose=False).save(str(file))
    return file


def build(file: Path, options: str = "") -> Any:
    return parse(EXTRACTORS, f"onnx:{file}{options}").build(Setup())


def by_hand(kind: str, reduce: Any) -> np.ndarray:
    preprocess = Preprocess(round(64 * 256 / 224), 64, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    with torch.inference_mode():
        rows = reduce(network(kind)(preprocess(photo_of(120, 90))[None]))
    return nn.functional.normalize(rows, dim=1).numpy()


def test_a_torch_that_would_run_code_of_a_pt2_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = exported(tmp_path, ".pt2", "vector")
    monkeypatch.setattr("retrieval_bench.extractors.deep.exported.find_spec", lambda name: None)
    with pytest.raises(BenchError, match=r"would run code that a .pt2 file may hold; install a newer torch"):
        parse(EXTRACTORS, f"onnx:{file}").build(Setup())


@pytest.mark.parametrize(
    "suffix", [".pt", ".pt2", pytest.param(".onnx", marks=pytest.mark.slow(reason="torch's exporter takes its time"))]
)
def test_features_are_those_of_the_network_that_was_exported(suffix: str, tmp_path: Path) -> None:
    options = f":mean=0.5/0.5/0.5:std=0.2/0.2/0.2:resize={round(64 * 256 / 224)}"
    # TorchScript alone does not say which size it takes.
    options = options.rpartition(":")[0] + ":size=64" if suffix == ".pt" else options
    vector = build(exported(tmp_path, suffix, "vector"), options)
    np.testing.assert_allclose(vector.transform([IMAGE]), by_hand("vector", lambda rows: rows), rtol=1e-4, atol=1e-5)
    assert len(vector.weights["sha256"]) == 64
    assert vector.weights["source"] == f"net{suffix}"


def test_a_map_is_pooled_as_asked(tmp_path: Path) -> None:
    file = exported(tmp_path, ".pt", "map")
    options = ":mean=0.5/0.5/0.5:std=0.2/0.2/0.2:size=64"
    for more, reduce in (
        ("", lambda maps: maps.mean((2, 3))),
        (":pool=max", lambda maps: maps.amax((2, 3))),
        (":pool=gem:p=2", lambda maps: maps.clamp(min=1e-6).pow(2).mean((2, 3)).sqrt()),
    ):
        np.testing.assert_allclose(
            build(file, options + more).transform([IMAGE]), by_hand("map", reduce), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("gone.onnx", None, "there is no file"),
        ("net.bin", b"x", r"the name must end in .onnx, .pt2, .pt, .ts"),
        ("net.pt", b"not a network", "net.pt cannot be read as a TorchScript network"),
        ("net.pt2", b"not a network", "net.pt2 cannot be read as a network saved by torch.export"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_a_file_that_is_no_network_is_refused(
    name: str, content: bytes | None, sentence: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(BenchError, match=sentence) as caught:
        build(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert not caplog.records  # torch logs its own traceback
    assert not logging.getLogger("torch.export").disabled


def test_an_onnx_file_that_is_damaged_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    (tmp_path / "net.onnx").write_bytes(b"not a network")
    with pytest.raises(BenchError, match=r"net.onnx cannot be read as an ONNX network"):
        build(tmp_path / "net.onnx")


def test_preprocessing_must_be_three_numbers(tmp_path: Path) -> None:
    file = exported(tmp_path, ".pt", "vector")
    for options in (":mean=0.5", ":mean=a/b/c", ":mean=nan/1/1", ":mean=1/inf/1"):
        with pytest.raises(BenchError, match="must be three numbers like"):
            build(file, options)
    for options in (":std=0/1/1", ":std=1/1/nan"):
        with pytest.raises(BenchError, match="must be three numbers above 0 like"):
            build(file, options)
    with pytest.raises(BenchError, match="resize=10 is not between 224, the side that is cut out of it"):
        build(file, ":resize=10")
    for side in (-5, 100_000):
        with pytest.raises(BenchError, match=f"resize={side} is not between 0 and 2048"):
            build(file, f":resize={side}")
    with pytest.raises(BenchError, match=r"pool=gem needs a feature map|gives vectors only"):
        build(file, ":pool=gem")


@pytest.mark.slow(reason="exports a network")
def test_another_size_than_the_files_is_one_sentence(tmp_path: Path) -> None:
    file = exported(tmp_path, ".onnx", "vector")
    with pytest.raises(BenchError, match=r"net.onnx does not take images of 100 x 100 pixels \(") as caught:
        build(file, ":size=100")
    assert "\n" not in str(caught.value)


class Bomb:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple:
        return (os.mkdir, (str(self.folder),))


@pytest.mark.filterwarnings("ignore")
def test_code_in_a_file_of_torch_export_is_not_run(tmp_path: Path) -> None:
    good, bad = exported(tmp_path, ".pt2", "vector"), tmp_path / "bad.pt2"
    bomb = io.BytesIO()
    torch.save({"w": Bomb(tmp_path / "exploded")}, bomb)
    with zipfile.ZipFile(good) as old, zipfile.ZipFile(bad, "w") as new:
        names = old.namelist()
        assert any(name.endswith(".pt") for name in names)
        for name in names:
            new.writestr(name, bomb.getvalue() if name.endswith(".pt") else old.read(name))
    with pytest.raises(BenchError, match=r"bad.pt2 cannot be read as a network saved by torch.export"):
        build(bad)
    assert not (tmp_path / "exploded").exists()
