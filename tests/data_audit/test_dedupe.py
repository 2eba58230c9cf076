"""`dedupe` on folders and datasets, its page, and how fast a hundred thousand hashes are."""

from __future__ import annotations

import html
import json
import re
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retrieval_bench.data_audit.duplicates import groups, pairs_within
from retrieval_bench.images.perturbations import perturbed
from retrieval_bench.report.duplicates import page
from tests.support.command import call
from tests.support.pictures import photo_of

pytestmark = pytest.mark.usefixtures("own_cache")

ODD = "<img src=x onerror=alert(1)>" if sys.platform != "win32" else "&lt;img&gt; x"
"""A name that would be read as markup, as bad as the system allows it."""


@pytest.fixture
def heap(tmp_path: Path) -> Path:
    """24 different pictures, three of them twice more: squeezed, and halved in size; one broken, one by a bad name."""
    folder = tmp_path / "heap" / "sub"
    folder.mkdir(parents=True)
    for number in range(24):
        image = photo_of(90, 120, number)
        image.save(folder / f"{number:02d}.png")
        if number < 3:
            Image.fromarray(perturbed("jpeg", np.asarray(image), 1)).save(folder / f"{number:02d}-squeezed.jpg")
            image.resize((60, 45)).save(folder / f"{number:02d}-small.png")
    (folder / "broken.png").write_bytes(b"no image")
    photo_of(90, 120, 0).save(folder / f"{ODD}.png")
    return folder.parent


def test_a_folder_gives_its_groups_and_a_page(heap: Path, tmp_path: Path) -> None:
    result = call("dedupe", heap, "--methods", "phash", "--within", 6, "--out", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.stderr
    facts = json.loads(result.stdout)
    assert facts == json.loads((tmp_path / "out" / "duplicates.json").read_text())
    assert (facts["images"], facts["unusable"]) == (32, [{"id": "sub/broken.png", "reason": "not an image"}])
    members = [{member["id"] for member in group["members"]} for group in facts["methods"][0]["groups"]]
    for number in range(3):
        (own,) = (group for group in members if f"sub/{number:02d}.png" in group)
        assert {f"sub/{number:02d}-squeezed.jpg", f"sub/{number:02d}-small.png"} <= own
    for group in facts["methods"][0]["groups"]:
        areas = [member["width"] * member["height"] for member in group["members"]]
        assert areas == sorted(areas, reverse=True)
    text = (tmp_path / "out" / "duplicates.html").read_text(encoding="utf-8")
    assert ODD not in text
    assert html.escape(ODD) in text
    assert not re.search(r"(?:src|href)\s*=\s*[\"'](?!data:)", text)
    assert text.count("data:image/jpeg;base64,") == sum(map(len, members))


@pytest.mark.slow(reason="plants and finds copies")
def test_the_threshold_is_measured_where_none_is_given(heap: Path) -> None:
    result = call("dedupe", heap, "--methods", "phash,color", "--json")
    assert result.exit_code == 0, result.stderr
    phash, color = json.loads(result.stdout)["methods"]
    for method in (phash, color):
        judged = method["judged"]
        assert 0 < judged["held_out"]["f1"] <= 1
        assert judged["sweep"]["recall"] == sorted(judged["sweep"]["recall"])
        assert judged["sweep"]["recall"][-1] == 1.0
        assert set(judged["found"]) <= {
            *("jpeg 2", "brightness 1", "blur 2", "noise 1", "crop 1", "rotate 1", "occlude 1", "background 1"),
            "flip 1",
        }
    assert phash["judged"]["found"]["jpeg 2"] == 1.0
    assert len(phash["groups"]) >= 3
    shown = call("dedupe", heap, "--methods", "phash")
    assert "Thresholds were chosen on one half" in shown.stdout
    assert "copies found" in shown.stdout


def test_a_dataset_counts_an_image_of_two_splits_once(shelf: Path) -> None:
    result = call("dedupe", "folder", "--data-root", shelf, "--methods", "phash", "--within", 0, "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["images"] == 36


def test_mistakes_are_one_sentence(tmp_path: Path) -> None:
    assert "neither a dataset nor a folder" in call("dedupe", tmp_path / "none").stderr
    assert "has 0 images" in call("dedupe", tmp_path).stderr
    Image.new("RGB", (9, 9)).save(tmp_path / "1.png")
    Image.new("RGB", (9, 9)).save(tmp_path / "2.png")
    assert "at least four" in call("dedupe", tmp_path).stderr
    for number in range(3, 6):
        photo_of(20, 30, number).save(tmp_path / f"{number}.png")
    refused = call("dedupe", tmp_path, "--methods", "sift+verify=10")
    assert refused.exit_code == 2
    assert "does not keep one vector" in refused.stderr


def test_the_page_needs_no_groups() -> None:
    facts = {"source": "<b>", "images": 1, "distinct": 1, "unusable": [], "methods": []}
    assert "&lt;b&gt;" in page(facts, lambda item: None)


@pytest.mark.slow(reason="a hundred thousand hashes")
def test_a_hundred_thousand_hashes_take_seconds() -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 256, (100_000, 8), dtype=np.uint8)
    codes[50_000:50_500] = codes[:500]
    codes[50_000:50_500, 0] ^= 1
    started = time.perf_counter()
    pairs = pairs_within(codes, 4, "hamming")
    together = groups(len(codes), pairs)
    spent = time.perf_counter() - started
    assert len(pairs) >= 500
    assert len(together) >= 500
    assert spent < 60, f"{spent:.1f} s"
