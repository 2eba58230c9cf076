"""A user's own network by `module:FILE.py:FUNCTION`: what it gives, what the record says, and every mistake."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import transforms

import retrieval_bench.extractors  # noqa: F401 - registers the methods
from retrieval_bench.core import BenchError, Setup
from retrieval_bench.experiment.features import recipe_of
from retrieval_bench.experiment.runner import run
from retrieval_bench.explaining.clues import Unexplained
from retrieval_bench.explaining.networks import of_features
from retrieval_bench.exporting.export import export
from retrieval_bench.extractors.deep.preprocess import Preprocess
from retrieval_bench.methods.parse import parse_member, parse_method
from retrieval_bench.methods.pipeline import Part
from retrieval_bench.registry import CLEANINGS, EXTRACTORS, parse
from tests.support.paths import ROOT
from tests.support.pictures import photo_of
from tests.support.runs import plan
from tests.support.shop import shop

NET = """
    import torch
    from torch import nn
    from torchvision import transforms

    def net():
        return nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten())

"""


@pytest.fixture(autouse=True)
def as_found() -> Iterator[None]:
    """Modules and the path on which Python finds them are left as they were."""
    path, names = list(sys.path), set(sys.modules)
    yield
    assert sys.path == path
    for name in set(sys.modules) - names:
        if name == "layers" or name.startswith("_module_"):
            del sys.modules[name]


def made(folder: Path, body: str, name: str = "own.py") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(dedent(NET) + dedent(body))
    return folder / name


def built(file: Path, options: str = "", setup: Setup | None = None) -> Any:
    return parse(EXTRACTORS, f"module:{file}:make{options}").build(setup or Setup(weights="random"))


def vector(extractor: Any) -> np.ndarray:
    return extractor.transform([np.asarray(photo_of(300, 260))])[0]


def test_the_name_holds_a_path_and_a_function_and_is_written_again_alike() -> None:
    spec = parse(EXTRACTORS, "module:runs/lr=0.1/own.py:make:pool=gem")
    assert spec.options == {"source": "runs/lr=0.1/own.py:make", "pool": "gem"}
    assert str(spec) == "module:runs/lr=0.1/own.py:make:pool=gem"
    assert parse(EXTRACTORS, "module:C:\\nets\\own.py:make").options["source"] == "C:\\nets\\own.py:make"
    CLEANINGS.fill()
    method = parse_method("sift+module:me@home/own.py:make@trim")
    assert (str(method), method.deep) == ("sift+module:me@home/own.py:make@trim", True)
    with pytest.raises(BenchError, match="say which; write module:SOURCE"):
        parse(EXTRACTORS, "module")


TRANSFORM = transforms.Compose(
    [
        transforms.Resize(40),
        transforms.CenterCrop(32),
        transforms.ToTensor(),
        transforms.Normalize([0.5] * 3, [0.2] * 3),
    ]
)
FUNCTION = """
    def make():
        return net(), transforms.Compose([
            transforms.Resize(40), transforms.CenterCrop(32), transforms.ToTensor(),
            transforms.Normalize([0.5] * 3, [0.2] * 3)])
"""
CHANNELS = {"mean": [0.5] * 3, "std": [0.2] * 3}
OF_TIMM = {"input_size": (3, 32, 32), "crop_pct": 0.8, "interpolation": "bilinear", **CHANNELS}
FIGURES = {"size": 32, "resize": 40, **CHANNELS}
PREPARED = {
    "a function": FUNCTION,
    "a dict": f"make = lambda: (net(), {FIGURES})",
    "a dict of timm": f"make = lambda: (net(), {OF_TIMM})",
    "a Preprocess": f"""
        from retrieval_bench.extractors.deep.preprocess import Preprocess
        make = lambda: [net(), Preprocess(40, 32, {(0.5,) * 3}, {(0.2,) * 3})]
    """,
}


@pytest.mark.parametrize("how", PREPARED)
def test_features_are_those_of_the_module_on_what_its_preprocessing_gives(tmp_path: Path, how: str) -> None:
    extractor = built(made(tmp_path, PREPARED[how]), setup=Setup(seed=3))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with torch.inference_mode():
        wanted = nn.functional.normalize(network(TRANSFORM(photo_of(300, 260))[None]), dim=1)[0].numpy()
    np.testing.assert_allclose(vector(extractor), wanted, rtol=1e-4, atol=1e-5)
    assert extractor.mark == ""
    assert extractor.weights["source"] == "from own.py:make"


def test_options_of_networks_apply(tmp_path: Path) -> None:
    file = made(tmp_path, f"def make(): return net(), {FIGURES}")
    assert vector(built(file, ":layer=0:pool=max:flip=yes:size=48:dtype=int8")).dtype == np.int8
    assert built(file, ":crop=no").preprocess.whole
    file = made(tmp_path, FUNCTION)
    assert vector(built(file, ":layer=0:pool=max:flip=yes")).shape == (4,)
    for option in ("size=48", "scales=2"):
        with pytest.raises(
            BenchError, match=rf"{option[:4]}.*a Python function, which knows one size; leave {option[:4]}"
        ):
            built(file, f":{option}")
    assert built(file).wanted > 10_000  # nobody decodes small what a function may look at whole


def test_images_need_not_be_square(tmp_path: Path) -> None:
    body = "make = lambda: (net(), transforms.Compose([transforms.Resize((64, 32)), transforms.ToTensor()]))"
    file = made(tmp_path, body)
    assert vector(built(file, ":flip=yes:whiten=0")).shape == (4,)
    for option in ("layer=0", "pool=gem", "compute=fused", "crop=no"):
        name = option.partition("=")[0]
        with pytest.raises(
            BenchError, match=f"{name} is for square images alone, and its images are of 32 x 64 pixels; lea"
        ):
            built(file, f":{option}")


@pytest.mark.filterwarnings("ignore")
def test_a_network_of_torchscript_runs_and_is_not_looked_into(tmp_path: Path) -> None:
    file = made(tmp_path, f"def make(): return torch.jit.script(net()), {FIGURES}")
    assert vector(built(file)).shape == (4,)
    with pytest.raises(
        BenchError, match=r"own.py:make: the network gives vectors only, no feature map; leave pool and"
    ):
        built(file, ":pool=gem")


def test_a_network_in_half_precision_runs_in_float32(tmp_path: Path) -> None:
    extractor = built(made(tmp_path, f"def make(): return net().bfloat16().train(), {FIGURES}"))
    assert not extractor.backbone.network.training
    assert vector(extractor).dtype == np.float32


def cached_under(file: Path) -> str:
    spec = parse_member(f"module:{file}:make")
    setup = Setup(seed=3)
    return json.dumps(recipe_of(Part(spec, spec.build(setup)), setup, "decoder"), sort_keys=True)


def test_cached_features_are_of_this_code_these_weights_and_this_preprocessing(tmp_path: Path) -> None:
    body = "from layers import factor\nmake = lambda: (net(), {'size': 32, 'resize': 32 + factor})"
    file = made(tmp_path, body)
    helper = tmp_path / "layers.py"
    helper.write_text("factor = 8")
    first = cached_under(file)
    assert cached_under(file) == first
    changes = []
    for changed, text in (
        (helper, "factor = 8  # another word"),
        (helper, "factor = 9"),
        (file, file.read_text() + "\n# another word"),
        (file, file.read_text().replace("net(), {", "net().double().requires_grad_(False), {")),
        (file, file.read_text().replace("Conv2d(3, 4, 3, 2)", "Conv2d(3, 4, 3, 2, bias=False)")),
    ):
        changed.write_text(text)
        changes.append(cached_under(file))
    assert len({first, *changes}) == 6


def test_helpers_of_two_folders_are_not_mixed_up(tmp_path: Path) -> None:
    for name, size in (("one", 32), ("two", 48)):
        file = made(tmp_path / name, "from layers import size\nmake = lambda: (net(), {'size': size})")
        (tmp_path / name / "layers.py").write_text(f"size = {size}")
        assert built(file).preprocess.crop == size


def test_a_package_beside_belongs_to_the_code(tmp_path: Path) -> None:
    file = made(tmp_path, "from layers.parts import size\nmake = lambda: (net(), {'size': size})")
    (tmp_path / "layers").mkdir()
    (tmp_path / "layers" / "parts.py").write_text("size = 32")
    before = cached_under(file)
    (tmp_path / "layers" / "parts.py").write_text("size = 32 + 0")
    assert cached_under(file) != before


MISTAKES = {
    "syntax": ("def make(:", r"own.py, line \d+ is no Python \(SyntaxError"),
    "zeros": ("\0", r"own.py is no Python \((SyntaxError|ValueError): source code string cannot contain null bytes"),
    "raises when run": ("1 / 0", "own.py raised ZeroDivisionError: division by zero when it was run"),
    "exits": ("import sys; sys.exit(3)", "own.py raised SystemExit: 3 when it was run"),
    "no such function": ("def maker(): pass", "unknown function of own.py 'make'; did you mean 'maker'"),
    "raises": ("def make(): raise OSError('no file x')", "it raised OSError: no file x"),
    "takes arguments": ("def make(size): pass", "it raised TypeError: make.. missing 1 required"),
    "nothing": ("def make(): pass", "it returned nothing; it must return two things, a torch.nn.Module and how"),
    "a module alone": ("make = net", "it returned a Sequential; it must return two things"),
    "no module": ("make = lambda: (3, {})", "it returned an int where a torch.nn.Module belongs"),
    "no preprocessing": (
        "make = lambda: (net(), 3)",
        "it returned an int where the preprocessing belongs; that is a dict",
    ),
    "unknown figure": (
        "make = lambda: (net(), {'sise': 3})",
        "unknown figure of the preprocessing 'sise'; did you mean",
    ),
    "size": ("make = lambda: (net(), {'size': 3})", "size=3 must be a whole number from 16 to 2048"),
    "size in words": ("make = lambda: (net(), {'size': '32'})", "size='32' must be a whole number"),
    "resize": (
        "make = lambda: (net(), {'size': 32, 'resize': 31})",
        "resize=31 must be a whole number from 32 to 2048",
    ),
    "mean": ("make = lambda: (net(), {'mean': (1, 2)})", r"mean=\(1, 2\) must be three numbers, for values of 0 to 1"),
    "std": ("make = lambda: (net(), {'std': (1, 2, 0)})", r"std=\(1, 2, 0\) must be three numbers above 0"),
    "interpolation": (
        "make = lambda: (net(), {'interpolation': 'bicubik'})",
        "unknown interpolation 'bicubik'; did you",
    ),
    "timm's figures": (
        "make = lambda: (net(), {'input_size': 3})",
        "its figures on how images are prepared make no sense",
    ),
    "preprocessing raises": (
        "make = lambda: (net(), lambda image: 1 / 0)",
        "its preprocessing raised ZeroDivisionError",
    ),
    "gives no tensor": ("make = lambda: (net(), lambda image: 3)", r"preprocessing gives an int; a tensor \(3, h, w\)"),
    "gives a batch": (
        "make = lambda: (net(), lambda image: torch.zeros(1, 3, 8, 8))",
        r"its preprocessing gives a tensor float32 \(1, 3, 8, 8\); float32 \(3, h, w\) is wanted",
    ),
    "gives bytes": (
        "make = lambda: (net(), transforms.PILToTensor())",
        r"gives a tensor uint8 \(3, 260, 300\); float32",
    ),
    "network raises": (
        "make = lambda: (nn.Linear(5, 5), {'size': 32})",
        r"its network raised RuntimeError: .* for a batch \(2, 3, 32, 32\)",
    ),
    "map": (
        "make = lambda: (net()[:1], {'size': 32})",
        r"gives \(2, 4, 15, 15\) .*\(n, d\) is wanted; average a map by",
    ),
    "one row": (
        "make = lambda: (nn.Sequential(net(), nn.Flatten(0), nn.Unflatten(0, (1, -1))), {'size': 32})",
        r"its network gives \(1, 8\) for a batch \(2, 3, 32, 32\); \(n, d\) is wanted",
    ),
    "no numbers": (
        "class Bad(nn.Module):\n    def forward(self, x): return x[:, 0, 0] / 0\nmake = lambda: (Bad(), {'size': 32})",
        "its network gives numbers that are not finite floats for a grey image",
    ),
    "several outputs": (
        "class Bad(nn.Module):\n    def forward(self, x): return {'a': x}\nmake = lambda: (Bad(), {'size': 32})",
        r"its network gives a dict; return a module that gives a tensor \(n, d\)",
    ),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_every_mistake_is_one_sentence(tmp_path: Path, what: str) -> None:
    body, sentence = MISTAKES[what]
    file = made(tmp_path, body)
    with pytest.raises(BenchError, match=f"module:own.py:make: .*{sentence}") as told:
        built(file)
    assert "\n" not in str(told.value)
    assert str(tmp_path) not in str(told.value)


def test_a_file_that_is_not_there_and_one_without_a_function_say_what_to_write(tmp_path: Path) -> None:
    with pytest.raises(
        BenchError, match=r"module:other.py:make: there is no file .*other.py; write module:FILE.py:FUNC"
    ):
        built(tmp_path / "other.py")
    file = made(tmp_path, "def make(): pass")
    with pytest.raises(BenchError, match=r"module:own.py: say which function; .*\(the file has net, make\)"):
        parse(EXTRACTORS, f"module:{file}").build(Setup())


def test_an_image_that_the_function_cannot_take_is_one_sentence(tmp_path: Path) -> None:
    body = """
        def prepare(image):
            assert image.width > 100, "too narrow"
            return transforms.ToTensor()(image)

        make = lambda: (net(), prepare)
    """
    with pytest.raises(BenchError, match=r"preprocessing raised AssertionError: too narrow for an image of 90 x 260"):
        built(made(tmp_path, body)).transform([np.asarray(photo_of(260, 90))])


def test_a_file_of_one_network_cannot_hold_a_python_function(tmp_path: Path) -> None:
    file = made(tmp_path, FUNCTION)
    method = parse_method(f"module:{file}:make")
    with pytest.raises(BenchError, match="images are prepared by a Python function, which no file can say"):
        export(method, built(file), "torchscript")


def test_where_a_python_function_looks_is_not_explained(tmp_path: Path) -> None:
    with pytest.raises(Unexplained, match="a Python function, so it is unknown which regions the network sees"):
        of_features(built(made(tmp_path, FUNCTION)))
    assert of_features(built(made(tmp_path, f"def make(): return net(), {FIGURES}"))).stages


@pytest.mark.slow(reason="a whole run")
def test_a_run_has_a_row_whose_record_says_where_the_weights_are_from(tmp_path: Path) -> None:
    good, bad = made(tmp_path, f"def make(): return net(), {FIGURES}"), made(tmp_path, "1 / 0", "bad.py")
    record = run(plan(shop(2, 2), f"module:{good}:make", f"module:{bad}:make", k=(1,)), tmp_path / "out")
    fine, failed = record.rows
    assert fine.status == "ok", fine.error
    assert fine.weights is not None
    assert fine.weights["source"] == "from own.py:make"
    assert fine.weights["recipe"].startswith("own network, images prepared 40 cropped to 32 px, bilinear, mean 0.5,")
    assert {len(fine.weights[key]) for key in ("sha256", "code_sha256")} == {64}
    assert "[untrained]" not in fine.method
    assert failed.error is not None
    assert (failed.error.kind, failed.error.traceback) == ("BenchError", None)


@pytest.mark.slow(reason="builds a ResNet")
def test_the_example_of_the_documentation_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "deep.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(# my_network.py\n.*?)```", page, re.S)
    monkeypatch.chdir(tmp_path)
    Path("my_network.py").write_text(code)
    from torchvision import models

    torch.save(models.resnet18(num_classes=7).state_dict(), "my_weights.pth")
    (name,) = re.findall(r"--methods (module:my_network\S+)", page)
    extractor = parse(EXTRACTORS, name).build(Setup())
    assert vector(extractor).shape == (512,)
    assert isinstance(extractor.preprocess, Preprocess)


def test_what_the_function_sets_for_torch_ends_with_it(tmp_path: Path) -> None:
    file = tmp_path / "greedy.py"
    file.write_text(
        "import torch\n\ndef make():\n    torch.set_default_dtype(torch.float64)\n    raise ValueError('no')\n"
    )
    with pytest.raises(BenchError, match="it raised ValueError"):
        parse(EXTRACTORS, f"module:{file}:make").build(Setup())
    assert torch.get_default_dtype() == torch.float32
