"""`explain`: a picture of every kind of method, whatever the names; and what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retrieval_bench.explaining.clues import (
    Band,
    BitPair,
    Explanation,
    Heat,
    HeatPair,
    MatchPair,
    Neighbour,
    PartClues,
    Shown,
)
from retrieval_bench.explaining.lettering import BODY, font, printed, shortened, wrapped
from retrieval_bench.explaining.picture import MOST_WIDTH, draw
from tests.support.command import call
from tests.support.command import run as run_command
from tests.support.shop import picture

pytestmark = [
    pytest.mark.usefixtures("own_cache"),
    pytest.mark.slow(reason="a run of every kind of method, and pictures of it"),
]


HOSTILE = "<b>\u202eevil\u2066 日本 ✓ " + "long-" * 30


def explain(out: Path, *words: object) -> tuple[int, str]:
    result = call("explain", *words, "--out", out, "--threads", 1)
    return result.exit_code, result.stderr


@pytest.mark.long(reason="eleven methods are run and explained, a network among them")
def test_every_kind_of_method_is_explained(shelf: Path, tmp_path: Path) -> None:
    methods = (
        "sift:words=4,phash,color:words=4:whiten=9,squeezenet1_1,random,oracle,moments,hsv,"
        "sift:words=4+color:words=4:whiten=9+verify=5,phash+hsv+rrf,color:words=4:whiten=9+qe"
    )
    out = tmp_path / "record"
    ran = run_command(shelf, out, "--methods", methods, "--weights", "random", "--threads", 1)
    assert ran.exit_code == 0, ran.stderr
    file = tmp_path / "new" / "why.png"
    code, said = explain(file, out)
    assert code == 0, said
    assert "disagree most" in said
    assert "random: each image has a random vector" in said
    assert "oracle: it uses the labels" in said
    assert "qe: re-ranks by other near images" in said
    assert "moments has no explanation" in said
    assert "beware" not in said
    assert [one.name for one in file.parent.iterdir()] == ["why.png"]
    with Image.open(file) as image:
        assert image.format == "PNG"
        assert 1500 < image.width <= MOST_WIDTH
        assert image.height > 2000
        assert image.text["Record"] == str(out)
        assert "squeezenet1_1[untrained]" in image.text["Methods"]
        query = image.text["Query"]
    again = tmp_path / "again.png"
    assert explain(again, out, "--query", query, "--methods", "phash,squeezenet1_1[untrained]", "--top", 8)[0] == 0
    with Image.open(again) as image:
        assert image.width <= MOST_WIDTH
        assert image.text["Methods"] == "phash, squeezenet1_1[untrained]"
    assert explain(tmp_path / "twin.png", out, "--query", query, "--methods", "phash")[0] == 0
    assert explain(tmp_path / "other.png", out, "--query", query, "--methods", "phash")[0] == 0
    assert (tmp_path / "twin.png").read_bytes() == (tmp_path / "other.png").read_bytes()


@pytest.fixture
def record(shelf: Path, tmp_path: Path) -> Path:
    assert run_command(shelf, tmp_path / "out", "--methods", "color:words=4:whiten=0,phash").exit_code == 0
    return tmp_path / "out"


def test_mistakes_are_one_sentence(record: Path, tmp_path: Path) -> None:
    file = tmp_path / "why.png"
    taken = tmp_path / "taken"
    taken.write_text("a file")
    for words, told in (
        (
            (record, "--query", "product-0/9.png"),
            "not one of the record's 12 queries; the closest are 'query/product-0/",
        ),
        ((record, "--methods", "sift"), "the record has"),
        ((record, "--methods", " ,"), "--methods names no method"),
        ((record, "--weights", tmp_path / "nothing"), "is no folder"),
        ((tmp_path / "nothing",), "no such record"),
    ):
        code, said = explain(file, *words)
        assert code == 2, said
        assert told in said
        assert "Traceback" not in said
    for out, told in (
        (tmp_path, "is a folder"),
        (tmp_path / "why.jpg", "PNG"),
        (taken / "why.png", "cannot be written"),
    ):
        code, said = explain(out, record)
        assert code == 2, said
        assert told in said
    assert not file.exists()


def test_other_images_are_refused(record: Path, shelf: Path, tmp_path: Path) -> None:
    Image.fromarray(picture(3, 999)).save(shelf / "gallery" / "product-1" / "0.png")
    code, said = explain(tmp_path / "why.png", record)
    assert code == 3
    assert "fingerprint" in said
    assert not (tmp_path / "why.png").exists()


def test_a_moved_dataset_is_found(record: Path, shelf: Path, tmp_path: Path) -> None:
    shelf.rename(tmp_path / "moved")
    assert explain(tmp_path / "why.png", record)[0] == 2
    code, said = explain(tmp_path / "why.png", record, "--data-root", tmp_path / "moved")
    assert code == 0, said


def test_cleaned_methods_are_explained_by_what_they_saw(tmp_path: Path) -> None:
    """The distance of the record comes out again; what was trimmed lies elsewhere in the image that is drawn."""
    shelf = tmp_path / "shelf"
    for split in ("gallery", "query"):
        for label in range(3):
            (shelf / split / str(label)).mkdir(parents=True)
            pixels = picture(label, len(split)) // np.array([1, 2, 3], np.uint8)
            pixels[:, 0], pixels[::2, 0] = 0, 200
            framed = np.pad(pixels, ((0, 0), (9, 0), (0, 0)), constant_values=255)
            Image.fromarray(framed).save(shelf / split / str(label) / "0.png")
    out = tmp_path / "record"
    ran = run_command(shelf, out, "--methods", "hsv@greyworld,phash@contrast,hsv@trim", "--threads", 1)
    assert ran.exit_code == 0, ran.stderr
    code, said = explain(tmp_path / "why.png", out)
    assert code == 0, said
    assert "hsv@trim: it saw parts of these images" in said
    assert "greyworld" not in said
    assert "contrast" not in said
    assert "warning" not in said


def test_a_distance_that_is_not_the_records_is_told(record: Path, tmp_path: Path) -> None:
    """What the record says is shown; what is computed now is compared with it."""
    from retrieval_bench.explaining.explain import _otherwise
    from retrieval_bench.records.files import load

    row = next(one for one in load(record).rows if one.method == "phash")
    bits = np.zeros((8, 8), bool)
    found = Neighbour(Shown("a", "b", None), 1, 7.0, True)
    assert _otherwise(row, [BitPair(bits, bits, "", 7.0)], [found]) == ""
    assert "8 now, 7 in the record" in _otherwise(row, [BitPair(bits, bits, "", 8.0)], [found])


def test_other_weights_are_not_explained(shelf: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = run_command(shelf, out, "--methods", "squeezenet1_1:size=64", "--weights", "random")
    assert ran.exit_code == 0, ran.stderr
    saved = json.loads((out / "run.json").read_text())
    saved["rows"][0]["weights"]["sha256"] = "0" * 64
    (out / "run.json").write_text(json.dumps(saved))
    code, said = explain(tmp_path / "why.png", out)
    assert code == 0, said
    assert "are not the weights of the record" in said
    assert "--weights" in said


@pytest.mark.skipif(sys.platform == "win32", reason="Windows allows no such names")
def test_hostile_names_are_drawn(tmp_path: Path) -> None:
    for first, part in enumerate(("train", "gallery", "query")):
        for label, name in enumerate((HOSTILE[:60].replace("/", ""), "b\nc")):
            folder = tmp_path / "shelf" / part / name
            folder.mkdir(parents=True)
            for number in range(2):
                pixels = picture(label, 100 * first + number)
                Image.fromarray(pixels).save(folder / f"{number} \u202egnp.png")
    ran = run_command(tmp_path / "shelf", tmp_path / "out", "--methods", "phash,color:words=4:whiten=0")
    assert ran.exit_code == 0, ran.stderr
    code, said = explain(tmp_path / "why.png", tmp_path / "out")
    assert code == 0, said
    with Image.open(tmp_path / "why.png") as image:
        assert "\u202e" not in "".join(image.text.values())


def test_text_is_drawn_as_far_as_the_font_goes() -> None:
    assert printed("Zitrone (1)") == "Zitrone (1)"
    assert printed("Crème fraîche") == "Creme fraiche"  # the font that Pillow brings has no accents
    assert printed("a\u202eb\x00c") == "a[U+202E]b[U+0000]c"
    assert printed("日") == "[U+65E5]"


@pytest.mark.long(reason="many pictures are drawn")
def test_text_fits_its_room() -> None:
    for text in (HOSTILE, "God-Morgon-Orange-Red-Grapefruit-Juice", "x" * 400, "a b " * 90, "", "-"):
        for room in (60, 150, 400):
            for lines in (1, 2, 3):
                found = wrapped(printed(text), room, BODY, lines)
                assert len(found) <= lines
                assert all(font(BODY).getlength(line) <= room for line in found)
            assert font(BODY).getlength(shortened(printed(text), room, BODY, keep_end=True)) <= room
    assert wrapped("God-Morgon-Orange-Red-Grapefruit-Juice", 220, BODY, 3) == [
        "God-Morgon-Orange-Red-",
        "Grapefruit-Juice",
    ]
    assert shortened("train/Fruit/Lemon/Lemon_007.jpg", 150, BODY, keep_end=True).endswith("_007.jpg")


def test_any_shape_and_any_clue_is_drawn() -> None:
    rng = np.random.default_rng(0)

    def shown(height: int, width: int) -> Shown:
        return Shown(HOSTILE, HOSTILE, rng.integers(0, 256, (height, width, 3), dtype=np.uint8))

    points = rng.random((90, 2))
    clues = (
        HeatPair(Heat(rng.random((3, 5)), (0.4, 0.1, 0.6, 0.9)), Heat(np.zeros((1, 1))), HOSTILE),
        HeatPair(Heat(-rng.random((400, 300))), Heat(rng.random((1, 9)), (0.5, 0.0, 0.5004, 1.0)), ""),
        MatchPair(points, points[::-1], np.arange(90) % 3 == 0, HOSTILE),
        MatchPair(points[:0], points[:0], np.zeros(0, bool), ""),
        BitPair(rng.random((14, 3)) > 0.5, rng.random((14, 3)) > 0.5, ""),
        BitPair(rng.random((64, 64)) > 0.5, rng.random((64, 64)) > 0.5, ""),
    )
    shapes = [(1, 300), (300, 1), (40, 60), (1, 1), (2000, 30), (64, 64)]
    found = tuple(Neighbour(shown(*shape), rank, 0.5, rank % 2 == 0) for rank, shape in enumerate(shapes, 1))
    gone = Neighbour(Shown("gone", "label", None), 1, 0.5, False)
    bands = (
        Band(HOSTILE, "local", found, (PartClues(HOSTILE, HOSTILE, clues), PartClues("one", HOSTILE))),
        Band("none", "control", (), (PartClues("none", "nothing was found"),)),
        Band("gone", "deep", (gone,), (PartClues("gone", "an image can no longer be read"),)),
    )
    image = draw(Explanation(HOSTILE, HOSTILE, shown(50, 70), HOSTILE, bands))
    assert image.width <= MOST_WIDTH


def test_right_and_wrong_differ_without_colour() -> None:
    """The same picture but for one verdict: its grey values differ."""
    pixels = np.full((40, 40, 3), 200, np.uint8)
    one = Shown("a", "b", pixels)
    drawn = [
        np.asarray(
            draw(
                Explanation(
                    "r", "d", one, "", (Band("m", "f", (Neighbour(one, 1, 0.1, right),), (PartClues("m", "none"),)),)
                )
            ).convert("L")
        )
        > 160
        for right in (True, False)
    ]
    assert (drawn[0] != drawn[1]).sum() > 500
