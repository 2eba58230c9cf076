"""Who may import whom: downwards only. Read from the source, so that a lazy import inside a function counts too."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import retrieval_bench

HOME = Path(retrieval_bench.__file__).parent


def room(module: str) -> str:
    """The folder that a module lies in; a module at the top is a room of its own."""
    return module.rpartition(".")[0] or module


def modules() -> dict[str, Path]:
    names = {".".join(file.relative_to(HOME).with_suffix("").parts): file for file in sorted(HOME.rglob("*.py"))}
    return {name.removesuffix(".__init__"): file for name, file in names.items() if name != "__init__"}


def imported(file: Path) -> set[str]:
    """Every module of the package that the file imports, by its name below retrieval_bench."""
    ours, names = modules(), set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
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


def test_no_circle_of_rooms() -> None:
    rooms = arrows()
    reach = {here: set(there) for here, there in rooms.items()}
    for middle in rooms:
        for here in rooms:
            if middle in reach[here]:
                reach[here] |= reach[middle]
    assert [room for room in rooms if room in reach[room]] == []


def test_kernels_import_numba_and_numpy_alone() -> None:
    """And each other: no kernel knows of splits, files or the command line."""
    for name in ("kernels", "emit"):
        tree = ast.parse((HOME / "search" / f"{name}.py").read_text(encoding="utf-8"))
        names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
        names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        names = {whole if whole.startswith("retrieval_bench") else whole.split(".")[0] for whole in names}
        ours = {"retrieval_bench.search", "retrieval_bench.search.emit"}
        assert names - set(sys.stdlib_module_names) <= {"numba", "numpy", "llvmlite"} | ours


@pytest.mark.parametrize(
    "statement", ["import retrieval_bench", "import benchmark.cli", "import retrieval_bench.datasets"]
)
def test_imports_are_light(statement: str) -> None:
    heavy = ("torch", "torchvision", "numba", "cv2", "sklearn", "scipy", "imagehash")
    code = f"{statement}; import sys; print([name for name in {heavy} if name in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_public_names_are_frozen_and_exist() -> None:
    assert set(retrieval_bench.__all__) == {
        *("BACKENDS", "DATASETS", "EXTRACTORS", "METRICS"),
        *("BadImage", "BenchError", "NotComparable"),
        *("Dataset", "Extractor", "Judged", "Ranking", "Setup", "Split"),
        *("ExactIndex", "topk"),
    }
    for name in retrieval_bench.__all__:
        assert getattr(retrieval_bench, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = retrieval_bench.nothing
