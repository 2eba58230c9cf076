"""`dedupe` on folders and datasets, its page, and how fast a hundred thousand hashes are."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from retrieval_bench.data_audit.duplicates import groups, pairs_within
from retrieval_bench.datasets.shop.camera import Camera
from retrieval_bench.datasets.shop.drawing import Dice
from retrieval_bench.datasets.shop.view import SCENES, View
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
        assert group["diameter"] <= 6
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
    for number in range(3, 6):
        photo_of(20, 30, number).save(tmp_path / f"{number}.png")
    refused = call("dedupe", tmp_path, "--methods", "sift+verify=10", "--within", 1)
    assert refused.exit_code == 2
    assert "does not keep one vector" in refused.stderr
    (tmp_path / "taken").write_text("")
    assert "--out" in (file := call("dedupe", tmp_path, "--out", tmp_path / "taken")).stderr
    assert "name a folder" in file.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--within", "3", "--precision", "0.9"), "give one of them"),
        (("--undo-file", "u.jsonl"), "--undo-file is written where something is changed"),
        (("--data-root", "."), "--data-root is for a dataset"),
        (("--within", "-1"), "no pair lies within it"),
        (("--within", "nan"), "no pair lies within it"),
        (("--labels", "nope"), "neither `folders` nor a table that can be read (No such file or directory)"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(tmp_path: Path, words: tuple[str, ...], sentence: str) -> None:
    photo_of(20, 30, 3).save(tmp_path / "3.png")
    refused = call("dedupe", tmp_path, *words)
    assert refused.exit_code == 2
    assert sentence in refused.stderr


def facts_of(*words: object) -> dict[str, Any]:
    result = call("dedupe", *words, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_flat_images_are_counted_and_grouped_by_equal_pixels_alone(heap: Path) -> None:
    for name, colour in (("navy", (0, 0, 128)), ("white", (255,) * 3), ("nearly", (254,) * 3), ("again", (0, 0, 128))):
        Image.new("RGB", (40, 40), colour).save(heap / f"{name}.png")
    Image.new("RGB", (40, 40), "navy").save(heap / "other.bmp")
    facts = facts_of(heap, "--within", 6, "--methods", "phash,moments")
    for method in facts["methods"]:
        (flat,) = (group for group in method["groups"] if "sub/" not in group["members"][0]["id"])
        assert {member["id"] for member in flat["members"]} == {"navy.png", "again.png", "other.bmp"}
        assert flat["by"] == "equal pixels"
    assert facts["flat"] == 5
    assert "5 flat, not compared by phash" in call("dedupe", heap, "--within", 6).stdout


@pytest.mark.parametrize("n", [1, 2, 3, 9])
@pytest.mark.parametrize("kind", ["same", "flat", "different"])
def test_small_and_uniform_collections(tmp_path: Path, n: int, kind: str) -> None:
    """Where too few pictures differ to measure false pairs, JPEG copies draw the line."""
    for number in range(n):
        image = photo_of(80, 90, number if kind == "different" else 0)
        if kind == "flat":
            image = Image.new("RGB", (40, 50), (number, 0, 0))
        image.save(tmp_path / f"{number}.png" if number % 2 else tmp_path / f"{number}.jpg", quality=70 + number)
    result = call("dedupe", tmp_path)
    assert result.exit_code == 0, result.stderr
    facts = facts_of(tmp_path)["methods"][0]
    assert [len(group["members"]) for group in facts["groups"]] == ([n] if kind == "same" and n > 1 else [])
    assert (facts["threshold"] is None) == (kind == "flat")
    if kind == "flat":
        assert "Only images of equal pixels" in result.stdout
    elif kind == "same" or n == 1:
        assert "farthest JPEG copy" in result.stdout
        assert facts["threshold"] <= 6


def test_what_is_passed_over_is_said_by_kind(heap: Path) -> None:
    picture = heap / "sub" / "05.png"
    for name in ("a.txt", "b.txt", ".hidden.png", "none"):
        (heap / name).write_bytes(b"no image")
    (heap / "no-suffix").write_bytes(picture.read_bytes())
    photo_of(90, 120, 6).save(heap / "saved.jfif", "JPEG")
    os.link(picture, heap / "linked.png")
    facts = facts_of(heap, "--within", 4)
    assert facts["notices"] == [
        "5 files are ignored: 2 .txt, 1 further names of a listed file (links), 1 hidden, 1 without a suffix"
    ]
    groups = [{member["id"] for member in group["members"]} for group in facts["methods"][0]["groups"]]
    assert any({"no-suffix", "linked.png"} <= group or {"no-suffix", "sub/05.png"} <= group for group in groups)
    assert {"saved.jfif", "sub/06.png"} in groups
    assert "5 files are ignored" in call("dedupe", heap, "--within", 4).stdout


def test_labels_of_folders_and_of_a_file(heap: Path, tmp_path: Path) -> None:
    (heap / "loose.png").write_bytes((heap / "sub" / "07.png").read_bytes())
    shutil.copytree(heap / "sub", heap / "other")
    facts = facts_of(heap, "--within", 0, "--labels", "folders")
    by_first = {group["members"][0]["id"]: group for group in facts["methods"][0]["groups"]}
    assert by_first["other/08.png"]["labels"] == 2
    assert {member["label"] for member in by_first["loose.png"]["members"]} == {None, "sub", "other"}
    assert "1 images have no label" in facts["notices"]
    listed = tmp_path / "labels.csv"
    listed.write_text("path,label\nsub/08.png,eight\nother/08.png,eight\n")
    told = facts_of(heap, "--within", 0, "--labels", listed)["methods"][0]["groups"]
    assert {group["members"][0]["id"]: group["labels"] for group in told}["other/08.png"] == 1
    for content in ("a,b\n1,2\n", "path,label\nnowhere.png,x\n", ""):
        listed.write_text(content)
        assert call("dedupe", heap, "--within", 0, "--labels", listed).exit_code == 2


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("semicolons.csv", "path;label\nsub/08.png;eight\nother/08.png;eight\n".encode("utf-8-sig")),
        ("tabs.tsv", b"path\tlabel\nsub/08.png\teight\nother/08.png\teight\n"),
        ("utf-16.csv", "label,path\neight,sub/08.png\neight,other/08.png\n".encode("utf-16")),
        ("indexed.csv", b",path,label\n0,sub/08.png,eight\n1,other/08.png,eight\n2,sub/07.png,\n"),
        (
            "lines.jsonl",
            b'{"path": "sub/08.png", "label": "eight"}\n{"path": "./other/08.png", "label": "eight"}\n',
        ),
    ],
)
def test_labels_are_read_as_a_manifest_is(heap: Path, tmp_path: Path, name: str, content: bytes) -> None:
    shutil.copytree(heap / "sub", heap / "other")
    (tmp_path / name).write_bytes(content)
    told = facts_of(heap, "--within", 0, "--labels", tmp_path / name)["methods"][0]["groups"]
    members = next(group["members"] for group in told if group["members"][0]["id"] == "other/08.png")
    assert {member["label"] for member in members} >= {"eight"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"path,name\nsub/08.png,x\n", "it needs the columns path and label, separated by commas, semicolons or tabs"),
        (b"", "it needs the columns path and label"),
        (b"path,label\nsub/08.png\n", "labels.csv, line 2: 1 cells for 2 columns"),
        (b"path,label,label\nsub/08.png,x,y\n", "label is there twice"),
        (b"path,label\nsub/08.png,caf\xe9\n", "line 2: byte 0xe9 is not UTF-8; save the file as UTF-8"),
        (b"path,label\nsub/08.png,x\n./sub/08.png,y\n", "line 3: './sub/08.png' has another label in an earlier line"),
    ],
)
def test_labels_that_cannot_be_read_are_one_sentence(heap: Path, tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "labels.csv").write_bytes(content)
    done = call("dedupe", heap, "--within", 0, "--labels", tmp_path / "labels.csv")
    assert done.exit_code == 2
    assert said in " ".join(done.stderr.split())
    assert done.stderr.count("\n") == 1


@pytest.mark.slow(reason="plants some thousand copies")
def test_copies_that_are_there_already_do_not_move_the_line(tmp_path: Path) -> None:
    """64 pictures, and the same with one placeholder under eight names, encoded anew each time."""
    without, both = tmp_path / "without", tmp_path / "with"
    without.mkdir()
    rng = np.random.default_rng(0)
    for number in range(64):
        coarse = rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)
        pixels = np.array(Image.fromarray(coarse).resize((128, 128), Image.Resampling.BICUBIC))
        for _ in range(4):
            top, left, tall, wide = rng.integers((0, 0, 20, 20), (100, 100, 60, 60))
            pixels[top : top + tall, left : left + wide] = rng.integers(0, 256, 3)
        Image.fromarray(pixels).save(without / f"{number:02d}.jpg")
    shutil.copytree(without, both)
    placeholder = np.array(photo_of(150, 160, 99)) // 4 + 160
    for number in range(8):
        size = 160 - 5 * number, 150 - 4 * number
        Image.fromarray(placeholder).resize(size).save(both / f"p{number}.jpg", quality=60 + 4 * number)
    for seed in range(3):
        plain, found = (facts_of(folder, "--seed", seed)["methods"][0] for folder in (without, both))
        assert plain["judged"]["alike_by_nature"] == 0
        assert found["judged"]["alike_by_nature"] == found["judged"]["alike_found"] == 28
        assert [len(group["members"]) for group in found["groups"]] == [8]
        assert abs(found["judged"]["held_out"]["recall"] - plain["judged"]["held_out"]["recall"]) <= 0.05
        assert found["judged"]["held_out"]["precision"] == 1.0


@pytest.mark.long(reason="renders 400 pictures")
def test_several_views_of_each_product_do_not_move_the_line(tmp_path: Path) -> None:
    """100 products by four near-identical views each, against one view each: the copies found are as many."""
    camera = Camera(0)
    for product, look in enumerate(camera.looks):
        base = Dice("base", look.name)
        scene, turn = base.pick(SCENES), base.between(-8.0, 8.0)
        for number in range(4):
            dice = Dice("view", look.name, number)
            view = View(
                view="phone",
                rotation_deg=turn + dice.between(-3.0, 3.0),
                scale=0.85 + dice.between(-0.03, 0.03),
                shift_x=dice.between(-0.02, 0.02),
                shift_y=dice.between(-0.02, 0.02),
                brightness=1.0 + dice.between(-0.06, 0.06),
                jpeg_quality=90,
                background=scene,
            )
            pixels, _ = camera._phone(product, view, Dice("scene", look.name))
            for part in ("four", "one") if number == 0 else ("four",):
                own = tmp_path / part / look.name
                own.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(own / f"{number}.png")
    one = facts_of(tmp_path / "one")["methods"][0]["judged"]
    for words in ((), ("--labels", "folders")):
        four = facts_of(tmp_path / "four", *words)["methods"][0]
        assert four["judged"]["alike_by_nature"] >= 500, "of 600 pairs of one product"
        assert abs(four["judged"]["held_out"]["recall"] - one["held_out"]["recall"]) <= 0.05
        members = [{member["id"].split("/")[0] for member in group["members"]} for group in four["groups"]]
        assert len(members) >= 20
        assert sum(len(labels) == 1 for labels in members) >= 0.95 * len(members)


def test_the_page_needs_no_groups() -> None:
    facts = {"source": "<b>", "images": 1, "distinct": 1, "unusable": [], "flat": 0, "keep": "", "notices": []}
    facts["methods"] = []
    assert "&lt;b&gt;" in page(facts, lambda item: None)


@pytest.mark.long(reason="a hundred thousand hashes")
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
