"""Wrong options of any method end the command before the first method starts, and load nothing for that."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from retrieval_bench.core import BenchError, Setup
from retrieval_bench.experiment.in_process import InProcessExecutor
from retrieval_bench.methods import pipeline
from retrieval_bench.methods.parse import parse_method
from retrieval_bench.methods.pipeline import refuse_wrong_options
from retrieval_bench.registry import fill
from tests.support.command import run
from tests.support.paths import ROOT

SETUP = Setup(seed=0, weights="random")
fill()


@pytest.mark.parametrize(
    ("method", "sentence"),
    [
        ("whash:size=3", "whash: size=3 must be a power of 2"),
        ("sift:encode=x", "sift: encode=x is not one of"),
        ("hog:encode=global:side=4", "hog: side=4 holds no block"),
        ("resnet18:weights=none.pth", "resnet18: weights=none.pth: no such file"),
        ("resnet18:pool=head:layer=layer3", "resnet18: pool=head is of the last layer alone"),
        ("color+resnet18:weights=none.pth", "resnet18: weights=none.pth"),
        ("onnx:none.onnx", "onnx:none.onnx: there is no file"),
        ("onnx:pyproject.toml", "must end in .onnx"),
        ("module:none.py:make", "there is no file none.py"),
        ("embed:nowhere", "is no address of a service"),
        ("embed:http://h/v:key_env=NO_SUCH_VARIABLE", "NO_SUCH_VARIABLE, which key_env names, is not set"),
        ("embeddings:none.npy", "there is no file none.npy"),
        ("ranking:none.csv", "there is no file none.csv"),
        ("oracle@trim", "sees the labels and no picture"),
    ],
)
def test_wrong_options(method: str, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(BenchError) as error:
        refuse_wrong_options(parse_method(method), SETUP, "exact")
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    "method", ["sift", "resnet18:size=64", "sift+color+rrf", "embed:http://127.0.0.1:9/v", "oracle"]
)
def test_sound_options_pass_and_nothing_is_asked(method: str) -> None:
    refuse_wrong_options(parse_method(method), SETUP, "exact")


def test_a_broken_library_is_left_to_the_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> None:
        raise ImportError("libcv.so: broken")

    monkeypatch.setattr(pipeline, "Pipeline", broken)
    refuse_wrong_options(parse_method("sift:side=64"), SETUP, "exact")


def test_no_method_has_started(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    monkeypatch.setattr(InProcessExecutor, "evaluate", lambda self, method, progress: started.append(method))
    done = run(shelf, tmp_path / "out", "--methods", "phash,resnet18:weights=none.pth")
    assert done.exit_code == 2
    assert done.stderr.splitlines()[-1].startswith("error: resnet18: weights=none.pth: no such file")
    assert not started
    assert not (tmp_path / "out" / "run.json").exists()


@pytest.mark.slow(reason="a process of its own")
def test_networks_are_checked_without_torch() -> None:
    code = """
import sys
from retrieval_bench.core import Setup
from retrieval_bench.registry import fill
from retrieval_bench.methods.parse import parse_method
from retrieval_bench.methods.pipeline import refuse_wrong_options
fill()
refuse_wrong_options(parse_method("resnet18:size=64"), Setup(seed=0), "exact")
print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
