"""Who may import whom: downwards only. Read from the source, so that a lazy import inside a function counts too."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

import retrieval_bench
from tests.support.paths import ROOT

HOME = Path(retrieval_bench.__file__).parent

FLOORS = (
    ("peer_benchmarks", "serving"),
    ("serving.answering",),
    ("choosing", "contracts", "explaining", "history", "indexing", "labelling", "tracking", "tuning"),
    ("experiment", "exporting"),
    ("methods", "training"),
    ("extractors",),
    ("data_audit", "extractors.deep", "methods.reranking", "report"),
    ("classifiers", "compare", "diagnosis", "extractors.local", "pair_training"),
    (
        "datasets",
        "distributed",
        "evaluation",
        "extractors.hashes",
        "extractors.histograms",
        "extractors.text",
        "search.ann",
        "search.stores",
        "serving.decoding",
        "stored",
        "training_loop",
    ),
    ("images", "plugins", "records", "remote", "search", "texts"),
    ("registry", "serving.client", "serving.requests", "system"),
    ("core", "datasets.shop", "linalg"),
)
"""The rooms from the roof down. Each imports from floors below its own, never from beside it."""


def room(module: str) -> str:
    """The folder that a module lies in; a module at the top is a room of its own."""
    return module.rpartition(".")[0] or module


@functools.cache
def nodes_of(file: Path) -> list[ast.AST]:
    """Every node of a Python file; several tests look at each."""
    return list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))


@functools.cache
def modules() -> dict[str, Path]:
    names = {".".join(file.relative_to(HOME).with_suffix("").parts): file for file in sorted(HOME.rglob("*.py"))}
    return {name.removesuffix(".__init__"): file for name, file in names.items() if name != "__init__"}


def imported(file: Path) -> set[str]:
    """Every module of the package that the file imports, by its name below retrieval_bench."""
    ours, names = modules(), set()
    for node in nodes_of(file):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import; write the whole name, so that grep finds it"
            module = node.module or ""
            assert not module.startswith("benchmark"), f"{file}: the library does not know its command line"
            if module.split(".")[0] == "retrieval_bench":
                inside = module.removeprefix("retrieval_bench").removeprefix(".")
                for alias in node.names:
                    whole = f"{inside}.{alias.name}".removeprefix(".")
                    names |= {whole} if whole in ours else {inside}
        elif isinstance(node, ast.Import):
            names |= {
                a.name.removeprefix("retrieval_bench.") for a in node.names if a.name.startswith("retrieval_bench.")
            }
    return names - {""}


def arrows() -> dict[str, set[str]]:
    """Of every room the rooms that it imports from."""
    packages = {name for name, file in modules().items() if file.name == "__init__.py"}
    found: dict[str, set[str]] = {}
    for name, file in modules().items():
        here = name if name in packages else room(name)
        for other in imported(file):
            there = other if other in packages else room(other)
            found.setdefault(here, set()).add(there)
            found.setdefault(there, set())
    return {here: there - {here} for here, there in found.items()}


def test_imports_go_downwards() -> None:
    """A room imports from lower floors alone, so no circle is possible."""
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    rooms = arrows()
    assert set(floor) == set(rooms), "name each folder once in FLOORS, on the lowest floor that serves it"
    upwards = [f"{here} -> {there}" for here in rooms for there in rooms[here] if floor[there] <= floor[here]]
    assert upwards == []


def test_the_house_stays_low() -> None:
    assert len(FLOORS) <= 12


def test_no_module_lies_loose() -> None:
    assert {file.name for file in HOME.glob("*.py")} == {"__init__.py", "core.py", "registry.py"}


TESTS = ROOT / "tests"
APART = {"command_line", "faults", "repository", "support"}
"""Folders of tests without a room of their own: of `benchmark/`, of disks and files that fail, of the whole repository,
and what tests share."""


def test_no_test_module_imports_another() -> None:
    """What two of them need lies in tests/support/, so that each can be run, moved and read alone."""
    for file in TESTS.rglob("*.py"):
        for node in nodes_of(file):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{file}: relative import; write the whole name, so that grep finds it"
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            ours = [name for name in names if name.split(".")[0] == "tests"]
            assert all(name.startswith("tests.support.") for name in ours), f"{file}: {ours}"


def test_tests_lie_in_folders_named_like_the_rooms() -> None:
    rooms = {folder.relative_to(HOME) for folder in HOME.rglob("*") if folder.is_dir()} | {Path("core")}
    for file in TESTS.rglob("test_*.py"):
        folder = file.relative_to(TESTS).parent
        assert folder in rooms or folder.name in APART, f"{file}: no room is called {folder}"


def test_a_test_module_has_a_name_of_its_own() -> None:
    """Folders of tests are no packages: pytest refuses the second module of a name, and only where it meets both."""
    names = [file.name for file in TESTS.rglob("test_*.py")]
    assert sorted({name for name in names if names.count(name) > 1}) == []


def test_every_slow_test_says_why() -> None:
    for file in TESTS.rglob("*.py"):
        nodes = nodes_of(file)
        marks = [node for node in nodes if isinstance(node, ast.Attribute) and node.attr in ("slow", "long")]
        marks = [node for node in marks if ast.unparse(node) in ("pytest.mark.slow", "pytest.mark.long")]
        calls = [node for node in nodes if isinstance(node, ast.Call)]
        told = [call.func for call in calls if any(word.arg == "reason" for word in call.keywords)]
        assert all(mark in told for mark in marks), f"{file}: write pytest.mark.slow(reason=...), or long"


def test_every_test_that_needs_a_library_says_which_installation_has_it() -> None:
    for file in TESTS.rglob("*.py"):
        for node in nodes_of(file):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.importorskip":
                assert any(word.arg == "reason" for word in node.keywords), f"{file}:{node.lineno}: say why it skips"


def test_a_class_name_means_one_thing() -> None:
    names = [node.name for file in HOME.rglob("*.py") for node in nodes_of(file) if isinstance(node, ast.ClassDef)]
    assert sorted({name for name in names if names.count(name) > 1}) == []


def test_every_folder_says_what_belongs_in_it_and_what_does_not() -> None:
    for file in HOME.rglob("__init__.py"):
        if file.parent != HOME:
            first, _, rest = (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").partition("\n\n")
            assert first.endswith("."), file
            assert rest.endswith("."), f"{file}: say what does not belong here, too"


def test_kernels_import_numba_and_numpy_alone() -> None:
    """And each other: no kernel knows of splits, files or the command line."""
    kernels = ("kernels", "emit", "keys", "scan_loops", "strip_loops", "strip_scan")
    ours = {"retrieval_bench.search", *(f"retrieval_bench.search.{name}" for name in (*kernels, "caches"))}
    for name in kernels:
        tree = ast.parse((HOME / "search" / f"{name}.py").read_text(encoding="utf-8"))
        names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
        names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        names = {whole if whole.startswith("retrieval_bench") else whole.split(".")[0] for whole in names}
        assert names - set(sys.stdlib_module_names) <= {"numba", "numpy", "llvmlite"} | ours


@pytest.mark.parametrize(
    "statement",
    [
        *("import retrieval_bench", "import benchmark.cli", "import retrieval_bench.datasets"),
        "import retrieval_bench.serving.client",
    ],
)
def test_imports_are_light(statement: str) -> None:
    heavy = ("torch", "torchvision", "numba", "cv2", "sklearn", "scipy", "imagehash", "fastapi", "starlette", "uvicorn")
    code = f"{statement}; import sys; print([name for name in {heavy} if name in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_public_names_are_frozen_and_exist() -> None:
    assert set(retrieval_bench.__all__) == {
        *("BACKENDS", "DATASETS", "EXTRACTORS", "METRICS"),
        *("BadImage", "BenchError", "NotComparable"),
        *("Dataset", "Extractor", "Judged", "Ranking", "Setup", "Split"),
        *("ExactIndex", "topk", "evaluate"),
    }
    for name in retrieval_bench.__all__:
        assert getattr(retrieval_bench, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = retrieval_bench.nothing
