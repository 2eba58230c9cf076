"""Who may import whom: downwards only. Read from the source, so that a lazy import inside a function counts too."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import retrieval_bench

HOME = Path(retrieval_bench.__file__).parent

MAY_IMPORT = {
    "core": set(),
    "registry": {"core"},
    "images": {"core"},
    "timing": {"core"},
    "device": {"core"},
    "cache": {"core"},
    "weights": {"core"},
    "pixels": {"core"},
    "perturb": {"cache", "core", "images", "registry"},
    "screening": {"core", "images"},
    "datasets": {"core", "registry", "images", "cache", "datasets"},
    "extractors": {
        *("core", "device", "extractors", "heads", "images", "registry", "search", "timing", "training", "weights"),
    },
    "training": {"core", "device", "extractors", "results", "timing", "training"},
    "exporting": {"core", "exporting", "extractors", "method", "registry"},
    "search": {"core", "device", "registry", "cache", "search"},
    "contest": {
        *("cache", "core", "device", "exporting", "extraction", "extractors", "images", "method", "registry"),
        *("results", "search", "timing"),
    },
    "metrics": {"core", "registry"},
    "judge": {"core"},
    "ties": {"core", "metrics", "registry"},
    "verification": {"core", "extractors", "search"},
    "method": {"core", "registry"},
    "fusion": {"core", "extractors", "judge", "metrics", "registry"},
    "reranking": {"core", "extractors", "registry", "reranking", "verification"},
    "heads": {"core", "heads", "metrics", "registry", "search"},
    "classification": {"core", "heads", "results", "timing"},
    "statistics": {"results", "search", "statistics"},
    "uncertainty": {"results", "statistics"},
    "revisit": {"core", "datasets", "judge", "metrics", "registry", "results"},
    "known": {"core"},
    "slices": {"known", "uncertainty"},
    "duplicates": {"core", "perturb", "search"},
    "audit": {"core", "duplicates", "extractors", "images", "results", "revisit"},
    "dedupe": {"core", "duplicates", "images"},
    "pipeline": {"core", "fusion", "method", "registry", "reranking"},
    "soundness": set(),
    "results": {"core", "soundness"},
    "extraction": {"core", "cache"},
    "team": {"core", "extraction", "extractors", "pixels", "registry", "timing"},
    "gates": {"core"},
    "recomputed": {"core", "judge", "metrics", "results"},
    "figures": {"results"},
    "diff": {"core", "figures", "gates", "recomputed", "results", "statistics"},
    "report": {
        *("core", "datasets", "diff", "figures", "gates", "heads", "judge", "known", "metrics", "recomputed"),
        *("registry", "report", "results", "slices"),
    },
    "explaining": {
        *("core", "explaining", "extractors", "method", "metrics", "registry", "report", "reranking", "results"),
        *("features", "revisit", "timing", "trial", "verification"),
    },
    "race": {"core", "gates", "statistics", "timing"},
    "repeat": {"core", "diff", "method", "registry", "results", "runner", "timing", "trial"},
    "trial": {"cache", "core", "datasets", "images", "judge", "method", "pixels", "registry", "screening"},
    "guards": {
        *("core", "extractors", "judge", "metrics", "registry", "results", "ties", "trial"),
    },
    "recording": {
        *("cache", "classification", "core", "device", "judge", "known", "metrics", "results", "timing", "trial"),
        *("registry", "uncertainty"),
    },
    "features": {
        *("cache", "core", "device", "extraction", "extractors", "fusion", "images", "method", "pipeline", "registry"),
        *("results", "team", "timing", "training", "trial"),
    },
    "quality": {
        *("core", "features", "judge", "metrics", "pipeline", "results", "search", "ties", "timing", "training"),
        "trial",
    },
    "measuring": {"cache", "core", "extraction", "pipeline", "pixels", "quality", "timing", "trial"},
    "robustness": {
        *("features", "judge", "metrics", "perturb", "pipeline", "quality", "results", "timing", "trial"),
        "uncertainty",
    },
    "runner": {
        *("classification", "core", "device", "features", "guards", "judge", "measuring", "method", "pipeline"),
        *("quality", "recording", "registry", "report", "results", "robustness", "timing", "trial", "uncertainty"),
    },
}


def modules() -> list[tuple[str, Path]]:
    found = []
    for file in sorted(HOME.rglob("*.py")):
        parts = file.relative_to(HOME).with_suffix("").parts
        if parts != ("__init__",):
            found.append((parts[0], file))
    return found


def imported(file: Path) -> set[str]:
    """First part below retrieval_bench of everything that the file imports."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import; write the whole name, so that grep finds it"
            module = node.module or ""
            if module == "retrieval_bench":
                names |= {alias.name for alias in node.names}
            elif module.startswith("retrieval_bench."):
                names.add(module.split(".")[1])
            else:
                assert not module.startswith("benchmark"), f"{file}: the library does not know its command line"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("retrieval_bench."):
                    names.add(alias.name.split(".")[1])
    return names - {"__version__"}


@pytest.mark.parametrize(("part", "file"), modules(), ids=lambda value: getattr(value, "name", value))
def test_imports_go_downwards(part: str, file: Path) -> None:
    assert part in MAY_IMPORT, f"{part}: say in this test what it may import"
    assert imported(file) <= MAY_IMPORT[part] | ({part} if file.parent != HOME else set())


def test_every_rule_has_its_module() -> None:
    assert set(MAY_IMPORT) == {part for part, _ in modules()}


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
