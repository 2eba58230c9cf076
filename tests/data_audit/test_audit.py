"""Planted defects, each found and counted; and what they do to a record's scores."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from retrieval_bench.data_audit import audit
from retrieval_bench.datasets.folder import folder
from tests.support.command import call, run
from tests.support.shop import picture

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def spoilt(shelf: Path) -> Path:
    """One query copied from train by bytes, one from the gallery in another encoding and under another label, one
    brightened a little; one broken, one tiny, one flat image; one label without gallery."""
    query = shelf / "query"
    shutil.copy(shelf / "train" / "product-0" / "0.png", query / "product-0" / "copy.png")
    Image.open(shelf / "gallery" / "product-1" / "0.png").save(query / "product-2" / "copy.bmp")
    pixels = np.asarray(Image.open(shelf / "gallery" / "product-3" / "1.png")).astype(int)
    Image.fromarray(np.clip(pixels + 2, 0, 255).astype(np.uint8)).save(query / "product-3" / "bright.png")
    (query / "product-1" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n cut short")
    Image.fromarray(picture(1, 77, 20)).save(query / "product-1" / "tiny.png")
    Image.new("RGB", (60, 60), "white").save(query / "product-1" / "flat.png")
    (query / "lonely").mkdir()
    Image.fromarray(picture(4, 99)).save(query / "lonely" / "0.png")
    return shelf


def found(*words: Any) -> dict[str, Any]:
    result = call("audit", "folder", *words, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_every_planted_defect_is_found(spoilt: Path) -> None:
    facts = found("--data-root", spoilt, "--radius", 2)
    kinds = {kind["kind"]: kind for kind in facts["duplicates"]}
    assert list(kinds) == ["bytes", "pixels", "phash", "dhash"]
    one = kinds["bytes"]
    assert (one["pairs"], one["groups"], one["images"], one["conflicts"]) == (1, 1, 2, 0)
    assert one["leaked_queries"] == {"train": 1, "gallery": 0, "either": 1}
    assert one["pairs_by_split"]["train-query"] == 1
    assert sum(one["pairs_by_split"].values()) == 1
    two = kinds["pixels"]
    assert (two["pairs"], two["conflicts"]) == (2, 1)
    assert two["leaked_queries"] == {"train": 1, "gallery": 1, "either": 2}
    worst = two["examples"][0]
    assert worst["conflict"]
    assert {worst["first"]["label"], worst["second"]["label"]} == {"product-1", "product-2"}
    assert worst["first"]["splits"] == ["gallery"]
    ids = {side["id"] for pair in kinds["phash"]["examples"] for side in (pair["first"], pair["second"])}
    assert kinds["phash"]["pairs"] >= 3
    assert not any("flat" in item for item in ids)
    assert facts["odd"]["broken"]["reasons"] == {"damaged": 1}
    assert facts["odd"]["tiny"]["examples"] == ["query/product-1/tiny.png"]
    assert facts["odd"]["flat"]["examples"] == ["query/product-1/flat.png"]
    assert facts["balance"]["lone_queries"] == {"count": 1, "examples": ["query/lonely/0.png"]}
    assert facts["balance"]["gallery"]["labels_without"] == 1
    assert (facts["balance"]["train"]["least"], facts["balance"]["train"]["most"]) == (3, 3)


def test_a_method_finds_what_hashes_find_and_measures_its_distance(spoilt: Path) -> None:
    facts = found("--data-root", spoilt, "--method", "color", "--seed", 1)
    color = facts["duplicates"][-1]
    assert color["kind"] == "color"
    assert facts["within"] >= 0
    assert color["leaked_queries"]["either"] >= 2
    strict = found("--data-root", spoilt, "--method", "color", "--within", 0)["duplicates"][-1]
    assert 2 <= strict["pairs"] <= color["pairs"]


def test_a_distance_without_a_method_is_refused(shelf: Path) -> None:
    refused = call("audit", "folder", "--data-root", shelf, "--within", 3)
    assert refused.exit_code == 2
    assert "--within is a distance by --method" in refused.stderr
    refused = call("audit", "folder", "--data-root", shelf, "--method", "phash", "--within", -1)
    assert refused.exit_code == 2
    assert "no pair lies within it" in refused.stderr


def test_a_clean_dataset_is_called_clean(shelf: Path) -> None:
    facts = found("--data-root", shelf)
    for kind in facts["duplicates"][:2]:
        assert (kind["pairs"], kind["leaked_queries"]["either"]) == (0, 0)
    assert facts["odd"]["broken"]["count"] == facts["balance"]["lone_queries"]["count"] == 0


@pytest.mark.slow(reason="two whole runs")
def test_scores_with_and_without_the_leaked_queries(spoilt: Path, tmp_path: Path) -> None:
    assert run(spoilt, tmp_path / "out", "--methods", "color,random", "--max-bad", "1").exit_code == 0
    words = ("--data-root", spoilt, "--record", tmp_path / "out")
    facts = found(*words)
    one = facts["record"]["pixels"]
    assert (one["queries"], one["leaked"]) == (17, 2)
    scores = one["scores"]["color"]["accuracy"]
    assert scores["all"] == pytest.approx((15 * scores["without"] + 2 * scores["leaked"]) / 17)
    assert facts["record"]["bytes"]["leaked"] == 1
    shown = call("audit", "folder", *words)
    assert shown.exit_code == 0
    assert "without the 2 of 17 queries that leaked by pixels:" in shown.stdout
    assert "conflict" in shown.stdout
    (spoilt / "query" / "product-0" / "copy.png").unlink()
    assert call("audit", "folder", *words).exit_code == 3
    assert call("audit", "products", "--record", tmp_path / "out").exit_code == 2


def test_an_image_that_is_in_two_splits_under_one_id_is_one_item(shelf: Path) -> None:
    data = folder(shelf)
    again = data.with_splits({"train": data.gallery})
    items = audit.items_of(again)
    assert len(items.ids) == len(data.gallery) + len(data.query)
    assert items.member[0].tolist() == [True, True, False]
    seen = audit.look_at_all(again, items, 1, lambda done, total: None)
    assert len(audit.duplicates_of(seen, 0)["bytes"]) == 0
