"""`new extractor` writes a project that works as it is: as a file, as an installed package, and by its own tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from retrieval_bench.plugins.loading import load_files
from tests.support.command import call
from tests.support.paths import ROOT

pytestmark = pytest.mark.usefixtures("no_plugin_stays")


def project(tmp_path: Path) -> Path:
    done = call("new", "extractor", "my-grid", "--into", tmp_path)
    assert done.exit_code == 0, done.stderr
    assert f"check my-grid --plugin {tmp_path / 'my-grid/src/my_grid/extractor.py'}" in done.stdout
    return tmp_path / "my-grid"


@pytest.mark.slow(reason="looks through the networks of torchvision for a name that is taken")
def test_it_writes_a_file_that_registers_the_method(tmp_path: Path) -> None:
    folder = project(tmp_path)
    written = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    assert written == {
        *("pyproject.toml", "README.md", "tests/test_my_grid.py"),
        *("src/my_grid/__init__.py", "src/my_grid/extractor.py"),
    }
    (plugin,) = load_files([folder / "src" / "my_grid" / "extractor.py"])
    assert plugin.registered == (("methods", "my-grid"),)
    assert not list(tmp_path.glob(".*")), "what was unfinished is gone"


@pytest.mark.slow(reason="looks through the networks of torchvision for a name that is taken")
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("sift", "a method is called so already"),
        ("verify", "a method is called so already"),
        ("json", "a module of Python is called json already"),
        ("class", "a module of Python is called class already"),
        ("My_Grid", "write small letters, digits and hyphens"),
        ("../up", "write small letters, digits and hyphens"),
        ("there", "exists already"),
    ],
)
def test_a_name_that_cannot_be_used_is_one_sentence(tmp_path: Path, name: str, told: str) -> None:
    (tmp_path / "there").mkdir()
    done = call("new", "extractor", name, "--into", tmp_path)
    assert done.exit_code == 2
    assert told in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


@pytest.mark.long(reason="a pytest run within a pytest run")
def test_its_own_tests_pass_where_it_is_installed(tmp_path: Path) -> None:
    folder = project(tmp_path)
    facts = folder / "src" / "my_grid-0.1.0.dist-info"  # what pip leaves behind
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: my-grid\nVersion: 0.1.0\n", encoding="utf-8")
    text = (folder / "pyproject.toml").read_text(encoding="utf-8")
    section = text.partition('[project.entry-points."retrieval_bench.extractors"]\n')[2].partition("\n\n")[0]
    name, _, module = section.partition(" = ")
    points = f"[retrieval_bench.extractors]\n{name} = {module.strip(chr(34))}\n"
    (facts / "entry_points.txt").write_text(points, encoding="utf-8")
    path = os.pathsep.join([str(folder / "src"), str(ROOT / "src"), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path}
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert tested.returncode == 0, tested.stdout
    assert "3 passed" in tested.stdout
    listed = subprocess.run(
        [sys.executable, "-m", "benchmark", "list", "plugins"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert listed.stdout == "my-grid (my-grid 0.1.0): loaded, my-grid\n"
