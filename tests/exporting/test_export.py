"""`export`: the file gives the rows of the method, says itself how to be used, and is refused where it cannot be."""

from __future__ import annotations

import functools
import json
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import Result

import retrieval_bench
import retrieval_bench.methods.pipeline  # registers methods and steps
from retrieval_bench.core import BenchError, Setup
from retrieval_bench.experiment.prepare import Plan
from retrieval_bench.experiment.runner import run
from retrieval_bench.exporting import export as library
from retrieval_bench.exporting import files
from retrieval_bench.exporting.module import module_of, unit
from retrieval_bench.extractors.deep.export_metadata import KEY, Notes, notes_of
from retrieval_bench.extractors.deep.network_features import NetworkFeatures, agreement
from retrieval_bench.extractors.deep.preprocess import Preprocess
from retrieval_bench.methods.parse import parse_method
from retrieval_bench.registry import EXTRACTORS, Entry, Spec, parse
from retrieval_bench.system.checkpoint import save_weights
from tests.support.command import call
from tests.support.nasty import photo as photo_file
from tests.support.pictures import photo_of
from tests.support.shop import shop

pytestmark = pytest.mark.slow(reason="exports networks and runs the files")

FORMS = (("onnx", ".onnx"), ("torchscript", ".pt"))
IMAGES = [np.asarray(photo_of(90 + 7 * seed, 120, seed)) for seed in range(12)]
SETUP = Setup(seed=1, weights="random")
GEM = "squeezenet1_1:pool=gem:p=2.5:size=96"


def need(form: str) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime") if form == "onnx" else ():
        pytest.importorskip(package, reason=f"needs {package}")


def built(text: str, learn: bool = False) -> NetworkFeatures:
    extractor = parse(EXTRACTORS, text).build(SETUP)
    return extractor.fit(shop(4, 4).train) if learn else extractor


@functools.cache
def exported(text: str, form: Any, learn: bool = False, int8: bool = False) -> tuple[NetworkFeatures, bytes]:
    """The extractor of a method and its file, made once: torch's exporters take seconds for the smallest network."""
    learned = library.LearnedFrom("shop", shop(4, 4).train) if learn or int8 else None
    extractor = built(text, learn)
    return extractor, library.export(parse_method(text), extractor, form, seed=1, learned=learned, int8=int8)


def written(text: str, form: Any, file: Path, **how: bool) -> NetworkFeatures:
    """The extractor of a method; its file lies at `file`."""
    extractor, content = exported(text, form, **how)
    file.write_bytes(content)
    return extractor


def read(file: Path) -> NetworkFeatures:
    return EXTRACTORS["onnx"].build(Setup(), path=str(file))


TRACED = pytest.mark.slow(reason="torch's exporters take 3 to 20 s a network")

TRACED_LONG = pytest.mark.long(reason="torch's exporter to ONNX takes 5 to 20 s a network")


@pytest.mark.parametrize(
    ("text", "form", "suffix"),
    [
        (GEM, "torchscript", ".pt"),
        pytest.param(GEM, "onnx", ".onnx", marks=TRACED),
        pytest.param("squeezenet1_1:pool=rmac:flip=yes:size=96", "torchscript", ".pt", marks=TRACED),
        pytest.param("squeezenet1_1:pool=rmac:flip=yes:size=96", "onnx", ".onnx", marks=TRACED_LONG),
        # Its squeezing and hard swishes are what an exporter may write in another way; a trace runs torch's own.
        pytest.param("mobilenet_v3_small:size=64", "onnx", ".onnx", marks=TRACED_LONG),
        pytest.param("resnet18:layer=layer2/layer3:pool=max:size=64", "torchscript", ".pt", marks=TRACED),
        pytest.param("resnet18:layer=layer2/layer3:pool=max:size=64", "onnx", ".onnx", marks=TRACED_LONG),
        pytest.param("timm:test_vit:pool=token", "torchscript", ".pt", marks=TRACED),
        pytest.param("timm:test_vit:pool=token", "onnx", ".onnx", marks=TRACED_LONG),
    ],
)
def test_the_file_gives_the_rows_of_the_method_and_needs_no_options(
    text: str, form: str, suffix: str, tmp_path: Path
) -> None:
    need(form)
    if text.startswith("timm"):
        pytest.importorskip("timm", reason="needs timm")
    original = written(text, form, tmp_path / f"a{suffix}")
    again = read(tmp_path / f"a{suffix}")
    assert again.preprocess == original.preprocess
    assert again.mark == "untrained"
    first, second = original.transform(IMAGES), again.transform(IMAGES)
    np.testing.assert_allclose(second, first, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(second, axis=1), 1, atol=1e-6)
    pixels = torch.stack([original.preprocess(photo_of(80, 100, seed)) for seed in range(5)])
    with torch.inference_mode():  # five at once, where two were traced, and none but one
        together = again.describe(pixels)
        np.testing.assert_allclose(together, torch.cat([again.describe(one[None]) for one in pixels]), atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        "power=0.5:whiten=6:level=0.5",
        *(pytest.param(options, marks=TRACED) for options in ("centre=yes", "tune=head:whiten=8", "power=0.7")),
    ],
)
def test_what_is_learned_after_the_network_is_in_the_file(options: str, tmp_path: Path) -> None:
    text = f"squeezenet1_1:pool=avg:size=96:{options}"
    data = shop(4, 4)
    original = written(text, "torchscript", tmp_path / "a.pt", learn=True)
    again = read(tmp_path / "a.pt")
    pictures = [*IMAGES, *(data.query.images[row] for row in range(4))]
    first, second = original.transform(pictures), again.transform(pictures)
    assert first.shape == second.shape
    np.testing.assert_allclose(second, first, atol=2e-3)
    assert agreement(first, second, 5) > 0.95
    known = {data.train.images.digest(row) for row in range(len(data.train))}
    if original.learned:
        assert again.trained_on is not None
        assert set(again.trained_on["images"]) == known
    else:
        assert again.trained_on is None


def test_a_row_of_nothing_stays_nothing() -> None:
    rows = torch.tensor([[0.0, 0.0], [3e-30, 4e-30], [3e30, -4e30]])
    np.testing.assert_allclose(unit(rows), [[0, 0], [0.6, 0.8], [0.6, -0.8]], atol=1e-6)
    extractor = built("squeezenet1_1:size=96:centre=yes", learn=True)
    extractor.describe = nn.Flatten()
    extractor.dimensions = 3
    extractor.mean_ = np.array([0.1, 0.2, 0.3], np.float32)
    rows = torch.tensor([[0.0, 0.0, 0.0], [0.0, 3.0, 4.0]])
    with torch.inference_mode():
        found = module_of(extractor)(rows[:, :, None, None]).numpy()
    wanted = [extractor.after.apply(row.numpy(), {"mean_": extractor.mean_}) for row in unit(rows)]
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert not found[0].any()


@pytest.mark.long(reason="a network is quantised and run over many pictures")
@TRACED
def test_int8_keeps_most_neighbours_and_is_a_third_of_the_size(tmp_path: Path) -> None:
    need("onnx")
    original, wide = exported(GEM, "onnx")
    content = exported(GEM, "onnx", int8=True)[1]
    (tmp_path / "narrow.onnx").write_bytes(content)
    assert len(content) < 0.4 * len(wide)
    narrow = read(tmp_path / "narrow.onnx")
    found = library.compared(parse_method(GEM), original, content, "onnx", IMAGES)
    assert found.images == len(IMAGES)
    assert 0 < found.largest < 0.1
    assert found.same > 0.8
    assert found.file == len(content)
    assert narrow.trained_on is not None
    train = shop(4, 4).train
    known = {train.images.digest(row) for row in range(len(train))}
    assert set(narrow.trained_on["images"]) == known, "calibrated on train, and on nothing else"


@TRACED
def test_pooling_and_length_stay_in_float() -> None:
    need("onnx")
    import onnx

    graph = onnx.load_from_string(exported(GEM, "onnx", int8=True)[1]).graph
    made_by = {output: node for node in graph.node for output in node.output}
    for node in graph.node:
        if node.op_type in ("Pow", "Sqrt", "Where", "ReduceMax"):
            sources = [made_by[name].op_type for name in node.input if name in made_by]
            assert "DequantizeLinear" not in sources, node.name
    assert sum(node.op_type == "QuantizeLinear" for node in graph.node) > 20


@TRACED
@pytest.mark.parametrize(("form", "suffix"), FORMS)
def test_the_notes_say_where_the_numbers_are_from(form: str, suffix: str, tmp_path: Path) -> None:
    need(form)
    original = written("squeezenet1_1:pool=avg", form, tmp_path / f"a{suffix}")
    content = (tmp_path / f"a{suffix}").read_bytes()
    if suffix == ".onnx":
        import onnx

        model = onnx.load_from_string(content)
        (entry,) = [one for one in model.metadata_props if one.key == KEY]
        text = entry.value
        shape = model.graph.input[0].type.tensor_type.shape.dim
        assert [shape[0].dim_param, *(one.dim_value for one in shape[1:])] == ["images", 3, 224, 224]
        assert b"site-packages" not in content, "no path of this machine"
    else:
        extra = {KEY: ""}
        with pytest.warns(FutureWarning, match="deprecated"):
            torch.jit.load(str(tmp_path / "a.pt"), _extra_files=extra)
        text = extra[KEY]
    facts = json.loads(text)
    assert facts["method"] == "squeezenet1_1:pool=avg"
    assert facts["version"] == retrieval_bench.__version__
    assert facts["mark"] == "untrained"
    assert facts["dimensions"] == 512
    assert facts["weights"]["sha256"] == original.weights["sha256"]
    assert facts["preprocess"]["crop"] == 224
    assert facts["preprocess"]["resize"] == 256
    assert facts["preprocess"]["interpolation"] == "bilinear"
    again = read(tmp_path / f"a{suffix}")
    assert again.weights["exported_from"] == "squeezenet1_1:pool=avg"
    assert again.weights["exported_sha256"] == original.weights["sha256"]


def test_no_file_tells_where_it_was_made(tmp_path: Path) -> None:
    """Stack traces of what was traced would, with the paths of the machine."""
    file = tmp_path / "a.pt"
    written(GEM, "torchscript", file)
    places = [str(Path(one.__file__).parent).encode() for one in (retrieval_bench, torch)]
    with zipfile.ZipFile(file) as archive:
        assert not any(name.endswith("debug_pkl") for name in archive.namelist())
        assert not any(place in archive.read(name) for name in archive.namelist() for place in places)
        for entry in archive.infolist():  # as torch lays them, for those who map the file into memory
            with file.open("rb") as opened:
                opened.seek(entry.header_offset + 26)
                name, extra = struct.unpack("<HH", opened.read(4))
            assert (entry.header_offset + 30 + name + extra) % 64 == 0
            assert entry.compress_type == zipfile.ZIP_STORED


def test_options_overrule_the_notes(tmp_path: Path) -> None:
    written("squeezenet1_1:pool=avg", "torchscript", tmp_path / "a.pt")
    again = parse(EXTRACTORS, f"onnx:{tmp_path / 'a.pt'}:mean=0.5/0.5/0.5:interpolation=bicubic").build(Setup())
    assert again.preprocess == Preprocess(256, 224, (0.5, 0.5, 0.5), (0.229, 0.224, 0.225), "bicubic")


def test_notes_come_back_and_damaged_ones_are_refused() -> None:
    notes = Notes(
        "resnet18", "1", Preprocess(8, 7), 5, "", {"sha256": "x"}, 0, trained_on={"dataset": "d", "images": []}
    )
    assert notes_of("a", notes.to_json()) == notes
    assert notes_of("a", "") is None
    with pytest.raises(BenchError, match="of another version of this program"):
        notes_of("a", '{"format": 99}')
    for text in ("no json", "[]", "{}", '{"format": 1}', '{"format": 1, "preprocess": {"no": 1}}'):
        with pytest.raises(BenchError, match=r"its notes of retrieval_bench\.json are damaged"):
            notes_of("a", text)


def test_own_training_images_are_refused_as_queries_of_the_exported_file(tmp_path: Path) -> None:
    from torchvision import models

    data = shop(2, 2)
    digests = [data.query.images.digest(row) for row in range(len(data.query))]
    torch.manual_seed(0)
    weights = tmp_path / "tuned.pth"
    save_weights(weights, models.squeezenet1_1(weights=None).state_dict(), {"dataset": "shop", "images": digests})
    written(f"squeezenet1_1:weights={weights}", "torchscript", tmp_path / "a.pt")
    source = Spec(Entry("shop", lambda root: data, "for tests"), {})
    (row,) = run(Plan((parse_method(f"onnx:{tmp_path / 'a.pt'}"),), source, k=(1,)), tmp_path / "out").rows
    assert row.error is not None
    assert "4 of the query images are among the 4 that its weights were trained on (dataset shop)" in row.error.sentence


def test_a_file_that_gives_other_rows_is_not_written(tmp_path: Path) -> None:
    text = parse_method("squeezenet1_1:size=96")
    other = library.export(text, built("squeezenet1_1:pool=max:layer=features.3:size=96"), "torchscript")
    extractor = built("squeezenet1_1:pool=avg:layer=features.3:size=96")
    found = library.compared(text, extractor, other, "torchscript", IMAGES[:4])
    with pytest.raises(BenchError, match=r"its rows differ from the original by up to .* nothing was written"):
        library.refuse_another_method(text, "torchscript", found)


def test_what_torch_cannot_follow_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wayward(nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("no way\nat all")

    with pytest.raises(
        BenchError, match=r"cannot trace this network for --format torchscript \(RuntimeError: no way\)"
    ):
        files.torchscript_bytes("x", Wayward(), 8, None)
    need("onnx")
    with pytest.raises(BenchError, match=r"x: torch cannot trace this network for --format onnx \(.*--format torchscr"):
        files.onnx_model("x", Wayward(), 8)
    monkeypatch.setattr(files, "LARGEST_ONNX", 10)
    with pytest.raises(BenchError, match="are too much for one ONNX file"):
        files.onnx_model("x", nn.Linear(10, 10), 8)


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    for first, part in enumerate(("train", "gallery", "query")):  # other pixels in every split
        for number in range(8):
            label = "mug" if number < 4 else "bowl"
            photo_file(tmp_path / "shelf" / part / label / f"{number}.png", 16 * first + number)
    return tmp_path / "shelf"


def export(*words: object) -> Result:
    return call("export", *words)


@TRACED
@pytest.mark.long(reason="exports, and runs what the command says, in processes of their own")
def test_the_command_and_what_it_says_to_run_put_both_in_one_table(shelf: Path, tmp_path: Path) -> None:
    need("onnx")
    data = ("--dataset", "folder", "--data-root", shelf, "--weights", "random", "--seed", 3)
    method = ("--method", "squeezenet1_1:pool=gem:size=96:whiten=5")
    result = export(*method, *data, "--out", tmp_path / "a.onnx")
    assert result.exit_code == 0, result.stderr
    first, second, _, command = result.stdout.strip().splitlines()
    assert first.startswith("squeezenet1_1:pool=gem:size=96:whiten=5[untrained] -> ")
    assert "on 8 train images of folder: numbers differ by at most" in second
    words = command.split()
    assert words[:4] == ["python", "-m", "benchmark", "run"]
    again = export(*method, *data, "--out", tmp_path / "b.onnx", "--int8")
    assert again.exit_code == 0, again.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"shelf", "a.onnx", "b.onnx"}, "nothing unfinished lies about"
    words[words.index("--methods") + 1] += f",onnx:{tmp_path / 'b.onnx'}"
    ran = call(*words[3:], "--out", tmp_path / "record", "--k", 1, "--json")
    assert ran.exit_code == 0, ran.stderr
    original, exported, narrow = json.loads(ran.stdout)["rows"]
    assert exported["method"] == f"onnx:{tmp_path / 'a.onnx'}[untrained]"
    assert exported["scores"] == original["scores"]
    assert exported["features"]["dim"] == original["features"]["dim"] == narrow["features"]["dim"] == 5
    assert exported["times"]["extract_p50"]["value"] > 0
    with np.load(tmp_path / "record" / "rankings.npz") as rankings:
        found = [rankings[f"{row['method']}/indices"] for row in (original, exported)]
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--method", "sift"], "--method sift: sift is not a network with weights"),
        (["--method", "convnet"], "convnet is not a network with weights"),
        (["--method", "squeezenet1_1+sift"], "a file holds one network, without joins and re-ranking"),
        (["--method", "squeezenet1_1+qe=5"], "a file holds one network, without joins and re-ranking"),
        (["--method", "onnx:a.onnx"], "this is already an exported file"),
        (["--method", "resnet5O"], "did you mean 'resnet50'"),
        (["--method", "squeezenet1_1:dtype=bits"], "dtype=bits: how rows are stored is not part of a file"),
        (["--method", "squeezenet1_1:dtype=int8"], "write it after the file: onnx:FILE:dtype=int8"),
        (
            ["--method", "squeezenet1_1:compute=bfloat16"],
            "compute=bfloat16: how this program runs a network is not part of a file; leave it out",
        ),
        (
            ["--method", "efficientnet_lite0"],
            "compute=fused: how this program runs a network is not part of a file; write compute=float32",
        ),
        (["--method", "squeezenet1_1:scales=2"], "scales=2: a file takes each image at one size"),
        (["--method", "squeezenet1_1:crop=no"], "crop=False: a file takes images of one shape"),
        (["--format", "tflite"], "'tflite' is not one of 'onnx', 'torchscript'"),
        (["--out", "{}/a.pt"], "a file of --format onnx must end in .onnx"),
        (["--format", "torchscript"], "a file of --format torchscript must end in .pt or .ts"),
        (["--out", "{}/nowhere/a.onnx"], "there is no folder"),
        (["--out", "{}/a,b.onnx"], "cannot read a path that contains , : or +"),
        (["--out", "{}/folder.onnx"], "a folder of this name exists"),
        (["--int8"], "--int8 is calibrated on training images; name them with --dataset"),
        (["--int8", "--format", "torchscript", "--out", "{}/a.pt"], "TorchScript files are written only in float32"),
        (["--data-root", "{}"], "--data-root needs a dataset"),
        (["--method", "squeezenet1_1:whiten=5"], "learns from training images; name them with --dataset"),
        (["--weights", "nowhere"], "--weights 'nowhere' is no folder"),
    ],
)
def test_mistakes_are_one_sentence(words: list[str], sentence: str, tmp_path: Path) -> None:
    need("onnx")
    (tmp_path / "folder.onnx").mkdir()
    given = [word.format(tmp_path) for word in words]
    fixed = {"--method": "squeezenet1_1", "--out": tmp_path / "a.onnx", "--weights": "random"}
    defaults = [word for name, value in fixed.items() if name not in given for word in (name, value)]
    result = export(*defaults, *given)
    assert result.exit_code == 2
    shown = " ".join(result.stderr.replace("│", " ").split())
    assert sentence in shown
    assert "Traceback" not in shown
    assert {path.name for path in tmp_path.iterdir()} == {"folder.onnx"}


def test_without_its_packages_the_sentence_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "find_spec", lambda name: None if name.startswith("onnx") else object())
    result = export("--method", "squeezenet1_1", "--weights", "random", "--out", tmp_path / "a.onnx")
    assert result.exit_code == 2
    assert "--format onnx needs onnx, onnxscript, onnxruntime, which is not installed" in " ".join(
        result.stderr.split()
    )
    assert "pip install 'retrieval-bench[onnx]'" in " ".join(result.stderr.split())


def test_a_dataset_without_train_images_is_refused(tmp_path: Path) -> None:
    lines = ["path,label,split"]
    for number in range(4):
        photo_file(tmp_path / f"{number}.png", number)
        lines.append(f"{number}.png,{'ab'[number % 2]},{'gallery' if number < 2 else 'query'}")
    (tmp_path / "list.csv").write_text("\n".join(lines))
    words = ("--dataset", "manifest", "--data-root", tmp_path / "list.csv", "--weights", "random")
    result = export("--method", "squeezenet1_1", *words, "--format", "torchscript", "--out", tmp_path / "a.pt")
    assert result.exit_code == 2
    assert "this dataset has no train images" in " ".join(result.stderr.split())
