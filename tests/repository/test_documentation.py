"""Documentation is a test: what exists is named where people look, and what is named exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import numpy as np
import pytest
import typer

import retrieval_bench
from benchmark import (
    approximate,
    coverage,
    distributed,
    document,
    extraction,
    gpu,
    indexing,
    kernel,
    network,
    serving_load,
)
from benchmark.cli import app
from retrieval_bench.core import Extractor, Setup
from retrieval_bench.evaluation.evaluate import evaluate
from retrieval_bench.plugins.loading import load_files
from retrieval_bench.records.files import load
from retrieval_bench.registry import (
    ALL,
    EXTRACTORS,
    Registry,
    fill,
)
from retrieval_bench.report import table
from tests.support.command import call
from tests.support.paths import ROOT

fill()
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = {file.name: file.read_text(encoding="utf-8") for file in sorted((ROOT / "docs").glob("*.md"))}
PAGES = {"README.md": README, **DOCS}
PAGE_OF = {
    "method": "methods.md",
    "way to join methods": "methods.md",
    "re-ranking step": "methods.md",
    "classifier": "methods.md",
    "backend": "methods.md",
    "dataset": "datasets.md",
    "metric": "metrics.md",
    "perturbation": "robustness.md",
    "perturbation of texts": "robustness.md",
    "cleaning": "cleaning.md",
}
"""Kind of entry -> the page that lists all of its kind."""
FOREIGN = (
    "docker ",
    "curl ",
    "pip ",
    "git ",
    "pytest ",
    "pre-commit ",
    "python -m build",
    "--build-arg",
    "--gpus",
    "--user",
    "ray start ",
)
"""Commands of others in the documents, whose flags are not ours."""


@pytest.mark.parametrize("registry", ALL.values(), ids=lambda registry: registry.kind)
def test_the_page_of_its_kind_names_every_entry(registry: Registry) -> None:
    page = DOCS[PAGE_OF[registry.kind]]
    named = set(re.findall(r"`([^`\n]+)`", page)) | set(re.findall(r"^## (.*)$", page, re.M))
    for entry in registry.own():
        name = f"{entry.name}@k" if entry.facts.get("at_k") else entry.name
        assert name in named, f"docs/{PAGE_OF[registry.kind]} does not name {registry.kind} `{name}`"


def test_the_readme_is_read_in_five_minutes() -> None:
    assert len(README.splitlines()) <= 160


def test_pictures_are_small_and_described() -> None:
    shown = {
        name for text in PAGES.values() for name in re.findall(r"!\[[^\]]{40,}\]\([\w/]*?pictures/([\w.-]+)\)", text)
    }
    there = {file.name: file.stat().st_size for file in (ROOT / "docs" / "pictures").iterdir()}
    assert shown == there.keys()
    assert max(there.values()) <= 250_000


def test_the_readme_shows_the_table_of_the_reference_record() -> None:
    shown = re.search(r"<!-- table -->\n```\n(.*?)```\n<!-- /table -->", README, re.S)
    assert shown is not None
    assert shown[1] == table.terminal(load(ROOT / "results" / "reference" / "products"))


def python_of(page: str) -> str:
    return "\n".join(re.findall(r"```python\n(.*?)```", DOCS[page], re.S))


def blocks(page: str, language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", DOCS[page], re.S | re.M)
    return [text for kind, text in found if kind == language]


@pytest.mark.usefixtures("no_plugin_stays")
def test_the_example_of_an_extractor_runs(tmp_path: Path) -> None:
    (tmp_path / "mean_color.py").write_text(blocks("extending.md", "python")[0], encoding="utf-8")
    (plugin,) = load_files([tmp_path / "mean_color.py"])
    assert plugin.reason == ""
    entry = EXTRACTORS["mean-color"]
    assert entry.meanings.keys() == {"power"}
    method = entry.build(Setup(), power=0.5)
    image = np.full((4, 4, 3), 255, np.uint8)
    assert isinstance(method, Extractor)
    assert method.transform([image]).tolist() == [[1.0, 1.0, 1.0]]


@pytest.mark.usefixtures("no_plugin_stays")
def test_the_example_of_a_metric_runs(tmp_path: Path) -> None:
    (tmp_path / "pairs.py").write_text(blocks("extending.md", "python")[1], encoding="utf-8")
    (plugin,) = load_files([tmp_path / "pairs.py"])
    assert plugin.registered == (("metrics", "first-two"),), plugin.reason
    scored = evaluate([[0, 1, 2], [2, 0, 1]], ["cup", "cup", "hat"], ["cup", "hat"], k=(1,))
    assert scored.scores["first-two"] == 0.5


@pytest.mark.long(reason="runs, checks, and begins a plug-in, as the page says")
@pytest.mark.usefixtures("no_plugin_stays", "own_cache")
def test_the_commands_of_a_plugin_do_what_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mean_color.py").write_text(blocks("extending.md", "python")[0], encoding="utf-8")
    Path("torn.py").write_text("import nowhere\n", encoding="utf-8")
    lines = "".join(blocks("extending.md", "sh")).splitlines()
    assert len(lines) == 4
    told = []
    for line in lines:
        done = call(*shlex.split(line.removeprefix("python -m benchmark ")))
        assert done.exit_code == 0, done.output
        told.append(done.stdout)
    shown = blocks("extending.md", "")
    assert told[0] == shown[0]
    entry = blocks("extending.md", "toml")[0]
    assert entry in Path("my-grid/pyproject.toml").read_text(encoding="utf-8")
    command, *expected = shown[1].splitlines()
    done = call(*shlex.split(command.removeprefix("$ python -m benchmark ")))
    digits = re.compile(r"sha256 [0-9a-f]{12}")
    listed = [line for line in (done.stderr + done.stdout).splitlines() if not line.startswith("extractor.py")]
    assert [digits.sub("", line) for line in listed] == [digits.sub("", line) for line in expected]


def test_the_examples_of_the_library_run() -> None:
    scope: dict[str, object] = {}
    exec(compile(python_of("library.md").replace("100_000", "1_000"), "library.md", "exec"), scope)
    assert scope["found"].indices.shape == (5, 10)
    assert not (scope["found"].indices == np.arange(5)[:, None]).any()
    assert scope["bits"].shape == (1, 8)
    assert scope["scored"].left_out == 1
    assert scope["scored"].scores["accuracy"] == 1 / 3


def test_the_page_of_the_library_names_what_it_exports() -> None:
    named = set(re.findall(r"`(\w+)`", DOCS["api.md"]))
    assert set(retrieval_bench.__all__) <= named
    for module in ("core", "registry", "search.index", "evaluation.evaluate"):
        assert f"::: retrieval_bench.{module}\n" in DOCS["api.md"]


def test_every_entry_says_what_it_is_in_one_line() -> None:
    for registry in ALL.values():
        for entry in registry.own():
            assert 5 < len(entry.about) <= 120, entry.name
            assert "\n" not in entry.about


@pytest.mark.parametrize("registry", ALL.values(), ids=lambda registry: registry.kind)
def test_every_option_of_every_entry_has_a_meaning(registry: Registry) -> None:
    for entry in registry:
        assert entry.meanings.keys() == entry.options.keys(), entry.name
        assert all(10 < len(meaning) <= 260 for meaning in entry.meanings.values()), entry.name


def commands() -> dict[str, click.Command]:
    """Every command by what is written before its flags."""
    found = {"benchmark.kernel": kernel.app, "benchmark.network": network.app, "benchmark.document": document.app}
    found |= {"benchmark.coverage": coverage.app, "benchmark.extraction": extraction.app, "benchmark.gpu": gpu.app}
    found |= {"benchmark.approximate": approximate.app, "benchmark.indexing": indexing.app}
    found |= {"benchmark.serving_load": serving_load.app, "benchmark.distributed": distributed.app}
    leaves = {name: typer.main.get_command(other) for name, other in found.items()}
    group = typer.main.get_command(app)
    for name, leaf in group.commands.items():
        leaves |= {f"{name} {inner.name}": inner for inner in getattr(leaf, "commands", {}).values()} or {name: leaf}
    return leaves


def test_every_flag_has_help() -> None:
    for name, leaf in commands().items():
        assert leaf.help, name
        for parameter in leaf.params:
            assert getattr(parameter, "help", None), f"{name} {parameter.name} has no help"


@pytest.mark.parametrize("page", PAGES)
def test_documents_invent_no_flag_and_no_command(page: str) -> None:
    flags = {"--help", "--version"}
    for leaf in commands().values():
        for parameter in leaf.params:
            if not getattr(parameter, "hidden", False):
                flags |= {*parameter.opts, *parameter.secondary_opts}
    lines = [line for line in PAGES[page].splitlines() if not any(word in line for word in FOREIGN)]
    used = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", "\n".join(lines)))
    assert used <= flags
    called = set(re.findall(r"python -m benchmark ([a-z]+)\b", PAGES[page]))
    assert called <= {name.partition(" ")[0] for name in commands()}


def test_every_file_the_map_names_exists() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for name in re.findall(r"`([\w/]+(?:\.py|/))`", "".join(re.findall(r"^\|.*$", text, re.M))):
        assert (ROOT / "src" / "retrieval_bench" / name).exists() or (ROOT / name).exists(), name


def test_the_map_names_every_folder() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\| `([\w/]+)/` \|", text, re.M))
    folders = {file.parent.name for file in (ROOT / "src" / "retrieval_bench").glob("*/__init__.py")}
    assert sorted(folders - named) == []


def test_the_default_chores_exist() -> None:
    chores = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    assert {"bench", "test", "check", "smoke", "kernel", "clean"} <= set(chores)
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for text in (*PAGES.values(), contributing):
        for chore in re.findall(r"(?:^|`|&& )make ([a-z]\w+)", text, re.M):
            assert chore in chores
