"""`label`: from a list with gaps to a list without, and what it says of mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from retrieval_bench.core import BenchError
from retrieval_bench.labelling.features_without_labels import without_labels
from retrieval_bench.methods.parse import parse_method
from retrieval_bench.registry import fill
from tests.support.command import call
from tests.support.half_labelled import EACH, KNOWN, LABELS, half_labelled_at
from tests.support.shop import shelf_at

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    return half_labelled_at(tmp_path / "shop")


def words(listed: Path, *more: object) -> tuple[object, ...]:
    return ("label", "manifest", "--data-root", listed, "--method", "hsv", "--target", "0.9", *more)


def test_the_sure_ones_come_out_in_a_list(listed: Path) -> None:
    out = listed.with_name("labelled.csv")
    (listed.parent / "broken.png").write_bytes(b"no image")
    with listed.open("a") as file:
        file.write("broken.png,,\n")
    done = call(*words(listed, "--accept-confident", "--out", out, "--max-bad", "0.1", "--json"))
    assert done.exit_code == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["accepted"] > 0
    assert "broken.png" in facts["skipped"][0]
    assert facts["out"]["rows"] == LABELS * KNOWN + facts["accepted"]
    assert listed.with_name("labelled.decisions.jsonl").is_file()
    again = call(*words(listed, "--out", out, "--max-bad", "0.1", "--json"))
    assert json.loads(again.stdout)["standing"]["machine"] == facts["accepted"]
    read = call("label", "manifest", "--data-root", out, "--method", "hsv")
    assert read.exit_code == 0, read.stderr
    assert f"{facts['out']['rows']} images" in read.stderr


@pytest.mark.parametrize("name", ["convnet", "color+oracle", "efficientnet_lite0:tune=head"])
def test_methods_that_see_labels_are_refused(name: str) -> None:
    fill()
    with pytest.raises(BenchError, match="learns from labels"):
        without_labels(parse_method(name))


def test_a_join_that_sees_labels_gives_way_to_one_that_does_not() -> None:
    fill()
    assert str(without_labels(parse_method("color+hsv"))) == "color+hsv+concat"


def test_images_of_a_folder_beside_the_list_have_no_label(listed: Path, tmp_path: Path) -> None:
    more = shelf_at(tmp_path / "more")
    (tmp_path / "log.jsonl").touch()  # an empty file is a log without decisions
    done = call(*words(listed, "--images", more, "--json", "--log", tmp_path / "log.jsonl"))
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["standing"]["open"] == LABELS * (EACH - KNOWN) + 36


def test_measured(tmp_path: Path) -> None:
    shelf = shelf_at(tmp_path / "shelf")
    ask = ("label", "folder", "--data-root", shelf, "--method", "hsv", "--measure", "--known", "6", "--seeds", "2")
    done = call(*ask)
    assert done.exit_code == 0, done.stderr
    assert "presses saved" in done.stdout
    facts = json.loads(call(*ask, "--json").stdout)
    trial = facts["trials"]["no new product"][0]
    assert (trial["known"], trial["hidden"]) == (24, 12)
    assert 0 <= trial["saved"] <= 1
    assert trial["presses"] <= trial["by_hand"]


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--measure",), "--measure goes with --known N"),
        (("--measure", "--known", "3"), "have none; measure on data whose images are all labelled"),
        (("--method", "hsv,phash"), "label compares by one method"),
        (("--method", "hsv+color+rrf"), "join by +concat or +early"),
        (("--images", "nowhere"), "no file or folder has this name"),
        (("--out", "labelled.json"), "the list is a .csv file"),
        (("--out", "labelled.csv", "--log", "labelled.csv"), "is the file of --out"),
        (("--seeds", "3"), "--seeds does nothing without --measure"),
        (("--port", "0"), "--port does nothing without --serve"),
        (("--keep-open",), "--keep-open does nothing without --out"),
        (("--method", ","), "',' names no method"),
    ],
)
def test_mistakes_are_one_sentence(listed: Path, tmp_path: Path, more: tuple[str, ...], sentence: str) -> None:
    done = call(*words(listed, "--log", tmp_path / "log.jsonl", *more))
    assert done.exit_code == 2, done.stderr
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("name", "sentence"), [("labelled.txt", "is a .csv file"), ("shop.csv", "is the list that is read")]
)
def test_a_place_for_no_list_is_refused_before_anything_is_decided(listed: Path, name: str, sentence: str) -> None:
    before = listed.read_bytes()
    done = call(*words(listed, "--accept-confident", "--out", listed.with_name(name)))
    assert done.exit_code == 2, done.stderr
    assert sentence in done.stderr
    assert listed.read_bytes() == before
    assert not list(listed.parent.glob("*.decisions.jsonl"))


def test_nothing_to_accept_is_said(listed: Path, tmp_path: Path) -> None:
    listed.write_text("".join(listed.read_text().splitlines(keepends=True)[:4]))
    done = call(*words(listed, "--accept-confident", "--log", tmp_path / "log.jsonl"))
    assert done.exit_code == 0, done.stderr
    assert "accepted no proposal" in done.stderr
    assert not (tmp_path / "log.jsonl").exists()
