"""Documentation is a test: what exists is named where people look, and what is named exists."""

from __future__ import annotations

import re
import sys
import types

import numpy as np
import pytest

from benchmark.cli import app
from retrieval_bench import classifiers, datasets, extractors, search
from retrieval_bench.core import Extractor, Setup
from retrieval_bench.evaluation import metrics
from retrieval_bench.images import perturbations
from retrieval_bench.methods import pipeline
from retrieval_bench.records.files import load
from retrieval_bench.registry import (
    BACKENDS,
    CLASSIFIERS,
    DATASETS,
    EXTRACTORS,
    JOINS,
    METRICS,
    PERTURBATIONS,
    STEPS,
    Registry,
)
from retrieval_bench.report import table
from tests.support.paths import ROOT

REGISTERED = (datasets, extractors, classifiers, metrics, perturbations, pipeline, search)  # fills the registries
README = (ROOT / "README.md").read_text(encoding="utf-8")


ALL = (EXTRACTORS, JOINS, STEPS, CLASSIFIERS, DATASETS, METRICS, BACKENDS, PERTURBATIONS)


@pytest.mark.parametrize("registry", ALL, ids=lambda registry: registry.kind)
def test_the_readme_names_every_entry(registry: Registry) -> None:
    coded = set(re.findall(r"`([^`\n]+)`", README))
    for entry in registry.own():
        name = f"{entry.name}@k" if entry.facts.get("at_k") else entry.name
        assert name in coded, f"README.md does not name {registry.kind} `{name}`"


def test_the_readme_shows_the_table_of_the_reference_record() -> None:
    shown = re.search(r"<!-- table -->\n```\n(.*?)```\n<!-- /table -->", README, re.S)
    assert shown is not None
    assert shown[1] == table.terminal(load(ROOT / "results" / "reference" / "products"))


def test_the_readme_examples_run(monkeypatch: pytest.MonkeyPatch) -> None:
    extractor, library = (block for block in re.findall(r"```python\n(.*?)```", README, re.S)[::-1])
    module = types.ModuleType("readme")
    monkeypatch.setitem(sys.modules, "readme", module)  # where dataclass looks annotations up
    scope = vars(module)
    before = set(EXTRACTORS._entries)
    try:
        exec(compile(extractor, "README.md", "exec"), scope)
        method = EXTRACTORS["mean-color"].build(Setup(), power=0.5)
    finally:
        for name in set(EXTRACTORS._entries) - before:
            del EXTRACTORS._entries[name]
    image = np.full((4, 4, 3), 255, np.uint8)
    assert isinstance(method, Extractor)
    assert method.transform([image]).tolist() == [[1.0, 1.0, 1.0]]
    exec(compile(library.replace("100_000", "1_000"), "README.md", "exec"), scope)
    assert scope["found"].indices.shape == (5, 10)
    assert not (scope["found"].indices == np.arange(5)[:, None]).any()


def test_every_entry_says_what_it_is_in_one_line() -> None:
    for registry in ALL:
        for entry in registry.own():
            assert 5 < len(entry.about) <= 120, entry.name
            assert "\n" not in entry.about


@pytest.mark.parametrize("registry", ALL, ids=lambda registry: registry.kind)
def test_every_option_of_every_entry_has_a_meaning(registry: Registry) -> None:
    for entry in registry:
        assert entry.meanings.keys() == entry.options.keys(), entry.name
        assert all(10 < len(meaning) <= 260 for meaning in entry.meanings.values()), entry.name


def test_every_flag_has_help_and_the_readme_invents_none() -> None:
    import typer

    commands = typer.main.get_command(app).commands
    leaves = [*commands.values(), *commands["data"].commands.values()]
    flags = {"--help"}
    for leaf in leaves:
        assert leaf.help or leaf.name == "data"
        for parameter in leaf.params:
            assert getattr(parameter, "help", None), f"{leaf.name} {parameter.name} has no help"
            flags |= set(parameter.opts)
    used = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", README))
    assert used <= flags


def test_every_file_the_map_names_exists() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for name in re.findall(r"`([\w/]+(?:\.py|/))`", "".join(re.findall(r"^\|.*$", text, re.M))):
        assert (ROOT / "src" / "retrieval_bench" / name).exists() or (ROOT / name).exists(), name


def test_the_default_chores_exist() -> None:
    chores = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    assert {"bench", "test", "check", "smoke", "kernel", "clean"} <= set(chores)
    for chore in re.findall(r"\bmake (\w+)", README):
        assert chore in chores
