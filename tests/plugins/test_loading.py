"""Plug-ins are found and loaded, and one that is broken is listed with its reason and stops nothing."""

from __future__ import annotations

import os
import queue
from collections.abc import Callable
from pathlib import Path

import pytest

from retrieval_bench.core import BenchError, Setup
from retrieval_bench.experiment import features, multi_gpu
from retrieval_bench.methods.parse import parse_member, parse_method
from retrieval_bench.methods.pipeline import Part
from retrieval_bench.plugins import loading
from retrieval_bench.plugins.loading import load_files, load_installed, owner, plugins, unload
from retrieval_bench.registry import ALL, DATASETS, EXTRACTORS, FAILED_PLUGINS, fill
from tests.support.plugins import HEAD, METHOD, installed, method_file

pytestmark = pytest.mark.usefixtures("no_plugin_stays")
fill()


def names() -> dict[str, set[str]]:
    return {what: {entry.name for entry in registry.own()} for what, registry in ALL.items()}


def test_a_file_registers_a_method_and_owns_it(tmp_path: Path) -> None:
    (plugin,) = load_files([method_file(tmp_path / "mine.py")])
    assert plugin.registered == (("methods", "plain-mean"),)
    assert (plugin.status, plugin.reason) == ("loaded", "")
    assert len(plugin.sha256) == 64
    assert owner(EXTRACTORS["plain-mean"]) is plugin
    assert owner(EXTRACTORS["color"]) is None
    assert parse_method("plain-mean:power=2").resolved == {"power": 2.0}


def test_the_same_file_is_loaded_once_and_anew_where_it_has_changed(tmp_path: Path) -> None:
    file = method_file(tmp_path / "mine.py")
    (first,) = load_files([file, file])[:1]
    assert load_files([file])[0] is first
    method_file(file, "other-mean")
    load_files([file])
    assert "other-mean" in names()["methods"]
    assert "plain-mean" not in names()["methods"]
    assert [plugin.name for plugin in plugins()].count("mine.py") == 1


METRIC = '@METRICS("bare", about="without its facts")\ndef bare(judged, k):\n    return 1.0\n'
UNTOLD = '@EXTRACTORS("untold", about="an option without a meaning")\ndef build(setup, *, size: int = 1): ...\n'
UNKNOWN_TYPE = UNTOLD.replace(": int", ": 'Nowhere'")
BROKEN = {
    "missing": (None, "there is no such file"),
    "syntax": ("def f(:\n", "broken.py, line 1 is no Python (SyntaxError"),
    "import": ("import nowhere_at_all\n", "ModuleNotFoundError: No module named 'nowhere_at_all'"),
    "raises": (METHOD.format(name="half") + "1 / 0\n", "ZeroDivisionError: division by zero"),
    "exits": ("raise SystemExit(3)\n", "SystemExit: 3"),
    "empty": ("", "it registers nothing; put a decorator on a function"),
    "taken": (METHOD.format(name="half") + METHOD.format(name="sift"), "method 'sift' is registered twice"),
    "name": (METHOD.format(name="half+half"), "method 'half+half' needs a name of letters"),
    "class": ('@EXTRACTORS("half", about="a class")\nclass Half: ...\n', "method 'half' is no function"),
    "silent": ('@EXTRACTORS("half", about="")\ndef build(setup): ...\n', "method 'half' needs about=..."),
    "untold": (UNTOLD, "method 'untold': say what its option size means"),
    "annotation": (UNKNOWN_TYPE, "NameError: name 'Nowhere' is not defined"),
    "facts": (
        '@EXTRACTORS("half", about="a fact that no JSON holds", made_by={1, 2})\ndef build(setup): ...\n',
        "TypeError: Object of type set is not JSON serializable",
    ),
    "metric": (METRIC, "metric 'bare': register it by the decorator evaluation.metrics.metric"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_has_its_reason_and_leaves_nothing(tmp_path: Path, kind: str) -> None:
    code, reason = BROKEN[kind]
    if code is not None:
        (tmp_path / "broken.py").write_text(HEAD + code if kind != "syntax" else code, encoding="utf-8")
    before = names()
    broken, good = load_files([tmp_path / "broken.py", method_file(tmp_path / "good.py")])
    assert reason in broken.reason
    assert broken.status == "failed"
    assert good.status == "loaded"
    unload(good)
    assert names() == before


@pytest.mark.parametrize(
    "ask",
    [
        lambda: DATASETS["plain-shelf"],
        pytest.param(
            lambda: parse_method("plain-mean"),
            marks=pytest.mark.slow(reason="looks through the networks of torchvision"),
        ),
    ],
)
def test_an_unknown_name_may_be_that_of_a_plugin_that_failed(tmp_path: Path, ask: Callable[[], object]) -> None:
    (broken,) = load_files([tmp_path / "broken.py"])
    with pytest.raises(BenchError, match=r"unknown (method|dataset).*plug-in broken.py failed to import: there is no"):
        ask()
    unload(broken)
    assert FAILED_PLUGINS == []


def test_what_it_imports_beside_it_belongs_to_it(tmp_path: Path) -> None:
    (tmp_path / "beside_it.py").write_text("POWER = 1\n", encoding="utf-8")
    file = method_file(tmp_path / "mine.py", more="\nfrom beside_it import POWER\n")

    def code() -> str:
        load_files([file])
        spec = parse_member("plain-mean")
        return str(features.recipe_of(Part(spec, spec.build(Setup())), Setup(), "decoder")["code"])

    before = code()
    assert code() == before
    (tmp_path / "beside_it.py").write_text("POWER = 2\n", encoding="utf-8")
    assert code() != before, "a cached feature would outlive the code that made it"


def test_a_module_beside_it_is_not_mixed_up_with_a_loaded_one(tmp_path: Path) -> None:
    (tmp_path / "queue.py").write_text("", encoding="utf-8")
    (plugin,) = load_files([method_file(tmp_path / "mine.py", more="\nimport queue\n")])
    assert plugin.reason == "queue beside it has the name of a module that is loaded already; rename it"


def test_a_dataset_that_raises_is_one_sentence(tmp_path: Path) -> None:
    for name, body in (("raises", "raise KeyError('shelf')"), ("returns", "return 3")):
        (tmp_path / f"{name}.py").write_text(
            HEAD + f'@DATASETS("shelf-{name}", about="photos of a shelf")\ndef load(root):\n    {body}\n', "utf-8"
        )
        load_files([tmp_path / f"{name}.py"])
    with pytest.raises(BenchError, match="dataset shelf-raises, which is of a plug-in, failed: KeyError: 'shelf'"):
        DATASETS["shelf-raises"].build(None)
    with pytest.raises(BenchError, match="failed: it returned int and no Dataset"):
        DATASETS["shelf-returns"].build(None)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed packages, which nobody has looked through yet."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(loading, "_installed_loaded", False)
    return folder


def test_installed_packages_are_found_by_their_entry_points(site: Path) -> None:
    installed(site, "shelf-methods", "shelf_methods", HEAD + METHOD.format(name="plain-mean"))
    installed(site, "torn-methods", "torn_methods", "import nowhere_at_all\n", "retrieval_bench.datasets")
    load_installed()
    found = {plugin.name: plugin for plugin in plugins()}
    assert found["shelf_methods"].version == "shelf-methods 1.2"
    assert found["shelf_methods"].registered == (("methods", "plain-mean"),)
    assert found["torn_methods"].source == "torn-methods 1.2"
    assert found["torn_methods"].reason == "ModuleNotFoundError: No module named 'nowhere_at_all'"
    assert owner(EXTRACTORS["plain-mean"]) is found["shelf_methods"]
    load_installed()
    assert len(plugins()) == len(found), "once is enough"


def test_the_environment_names_files(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [method_file(tmp_path / "one.py", "one-mean"), method_file(tmp_path / "two.py", "two-mean")]
    monkeypatch.setenv("RETRIEVAL_BENCH_PLUGINS", os.pathsep.join(map(str, files)))
    load_installed()
    assert "one-mean" in EXTRACTORS
    assert "two-mean" in EXTRACTORS


def test_a_worker_process_loads_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (plugin,) = load_files([method_file(tmp_path / "mine.py")])
    named = loading.files()
    assert str(plugin.file) in named
    unload(plugin)  # as a process that has just begun
    monkeypatch.setattr(multi_gpu, "_mine", {})
    devices: queue.Queue[str] = queue.Queue()
    devices.put("cpu")
    multi_gpu._begin("plain-mean", Setup(), devices, named)
    assert type(multi_gpu._mine["extractor"]).__name__ == "Mean"


def test_a_list_of_packages_that_cannot_be_read_stops_nothing(
    site: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def torn() -> None:
        raise ValueError("not an entry point: torn")

    monkeypatch.setattr(loading.metadata, "entry_points", torn)
    load_installed()
    assert "installed plug-ins cannot be looked for: ValueError: not an entry point: torn" in caplog.messages
