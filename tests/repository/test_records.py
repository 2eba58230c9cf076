"""The documents say what the committed records say, and the Makefile can make those again."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import pytest

from retrieval_bench.records.files import load
from retrieval_bench.records.schema import Record
from retrieval_bench.report.document import BLOCK, renewed
from tests.support.paths import ROOT

PAGES = {file.name: file.read_text(encoding="utf-8") for file in sorted((ROOT / "docs").glob("*.md"))}
FOLDERS = sorted(
    file.parent.relative_to(ROOT).as_posix()
    for kind in ("ablation", "augmented", "grocery-test", "turned")
    for file in (ROOT / "results" / kind).glob("*/run.json")
)
ABLATION = [folder for folder in FOLDERS if folder.startswith("results/ablation/")]
GROCERY = [folder for folder in FOLDERS if folder.startswith("results/grocery-test/")]
TUNED = "results/grocery-test/tuned"
HASHES = {"phash", "dhash", "ahash", "whash", "colorhash", "block-mean", "crop-resistant"}


def record(folder: str) -> Record:
    return load(ROOT / folder)


@pytest.fixture(scope="module")
def commands() -> str:
    """What the chores would run."""
    make = shutil.which("make")
    if make is None:
        pytest.skip("needs make")
    chores = ("turned", "augmented", "ablation", "grocery", "tuned")
    return subprocess.run([make, "--dry-run", *chores], cwd=ROOT, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("page", [name for name, text in PAGES.items() if BLOCK.search(text)])
def test_the_tables_are_those_of_the_records(page: str) -> None:
    assert renewed(PAGES[page], ROOT) == PAGES[page], f"renew them: python -m benchmark.document docs/{page}"


def test_every_record_is_in_a_document() -> None:
    lines = [line for text in PAGES.values() for block in BLOCK.finditer(text) for line in block[3].splitlines()]
    assert {line.partition(":")[0] for line in lines} == set(FOLDERS)


def test_what_the_prose_calls_a_score_is_one() -> None:
    told = "".join((ROOT / "results" / kind / "README.md").read_text("utf-8") for kind in ("ablation", "turned"))
    prose = re.sub(r"<!-- table\n.*?<!-- /table -->", "", PAGES["classical.md"], flags=re.S)
    rows = [row for folder in FOLDERS for row in record(folder).rows]
    scores = {f"{score:.3f}" for row in rows for score in row.scores.values()}
    bounds = {f"{bound:.3f}" for row in rows for ties in row.ties.values() for bound in (ties.worst, ties.best)}
    assert set(re.findall(r"\b[01]\.\d{3}\b", prose + told)) <= scores | bounds


@pytest.mark.parametrize("folder", FOLDERS)
def test_records_are_whole(folder: str, commands: str) -> None:
    made = record(folder)
    assert made.status == "finished"
    assert [row.method for row in made.rows if row.status != "ok"] == []
    assert [row.method for row in made.rows] == list(made.settings.methods)
    assert made.settings.limit is None
    assert made.environment.dirty is False
    assert re.search(rf"--out {folder}\s", commands)
    assert folder == TUNED or ",".join(made.settings.methods) in commands


def test_what_is_told_of_the_search_is_in_its_trials() -> None:
    trials = [json.loads(line) for line in (ROOT / TUNED / "tuning.jsonl").read_text("utf-8").splitlines()[1:]]
    methods = {one["method"] for one in trials}
    assert f"{len(trials)} trials of {len(methods)} methods" in " ".join(PAGES["tuning.md"].split())
    on_val = {one["method"]: one["score"] for one in trials if one["whole"]}
    best, start = (f"{on_val[method]:.3f}" for method in record(TUNED).settings.methods)
    assert f"by which they were chosen, map@r was {best} and {start}." in PAGES["tuning.md"]


def test_rankings_are_committed_of_the_reference_alone() -> None:
    """The others are made again by their chores; a checkout stays light."""
    tracked = subprocess.run(["git", "ls-files", "*.npz"], cwd=ROOT, capture_output=True, text=True, check=False)
    if tracked.returncode:
        pytest.skip("this is no checkout")
    assert set(tracked.stdout.split()) == {
        "results/reference/products/rankings.npz",
        "tests/records/schema_1/rankings.npz",
    }


@pytest.mark.parametrize("folder", GROCERY)
def test_the_test_list_was_asked_whole(folder: str) -> None:
    made = record(folder)
    assert made.dataset.spec == "grocery"
    assert made.dataset.root == "GroceryStoreDataset"
    assert (made.dataset.images.train, made.dataset.images.gallery, made.dataset.images.query) == (2640, 2640, 2485)


@pytest.mark.parametrize("folder", ABLATION)
def test_the_test_list_played_no_part(folder: str) -> None:
    made = record(folder)
    assert made.dataset.spec == "grocery:queries=val"
    assert made.dataset.root == "GroceryStoreDataset"  # a clone beside the checkout, and no machine's own path
    assert (made.dataset.images.train, made.dataset.images.gallery, made.dataset.images.query) == (2640, 2640, 296)


def test_turned_queries_part_local_features_from_hashes() -> None:
    """What results/turned is there to show: who finds them, and who is cheap."""
    as_is, turned = (
        {row.method: row for row in record(f"results/turned/{name}").rows} for name in ("as-is", "products")
    )
    verified = turned["sift+verify=100"]
    for name in HASHES:
        assert verified.scores["accuracy"] > turned[name].scores["accuracy"] + 0.5
        assert verified.scores["accuracy"] > as_is[name].scores["accuracy"] + 0.5
        found, asked = turned[name].times["end_to_end_p50"].value, verified.times["end_to_end_p50"].value
        assert found is not None
        assert asked is not None
        assert found < asked / 2
        size, most = turned[name].features, verified.features
        assert size is not None
        assert most is not None
        assert size.bytes_per_image < most.bytes_per_image / 10
