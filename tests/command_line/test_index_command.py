"""`index`: what each command does and says, and what it refuses in one sentence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from retrieval_bench.images.reading import encode_png
from tests.support.command import call
from tests.support.shop import picture, shelf_at

pytestmark = pytest.mark.slow(reason="an index is built, and each command is called")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `shelf` and `own`, an index of it."""
    home = tmp_path_factory.mktemp("home")
    shelf_at(home / "shelf")
    (home / "shelf" / "gallery" / "product-0" / "torn.png").write_bytes(b"torn")
    words = ("--dataset", "folder", "--data-root", home / "shelf", "--out", home / "own", "--recompute", "--threads", 2)
    done = call("index", "build", "--method", "phash,hsv", *words)
    assert done.exit_code == 0, done.stderr
    assert f"{home / 'own'}: 12 items, " in done.stdout
    assert "left out: 1 not an image\n" in done.stdout
    return home


@pytest.fixture
def home(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "home"))


def told(*words: object) -> str:
    done = call("index", *words)
    assert done.exit_code == 0, done.stderr
    return done.stdout


def refused(*words: object) -> str:
    done = call("index", *words)
    assert done.exit_code == 2, done.output
    assert done.stdout == ""
    return done.stderr


def test_add_remove_undo_log_compact(home: Path) -> None:
    own = home / "own"
    (home / "new" / "deep").mkdir(parents=True)
    (home / "new" / "one.png").write_bytes(encode_png(picture(1, 1)))
    (home / "new" / "deep" / "two.png").write_bytes(encode_png(picture(2, 1)))
    (home / "new" / "bad.jpg").write_bytes(b"bad")
    (home / "new" / "note.txt").write_bytes(b"")
    (home / "new" / "link.png").symlink_to(home / "shelf" / "gallery" / "product-0" / "0.png")
    assert told("add", own, home / "new", home / "new" / "one.png", "--label", "cup", "--category", "kitchen") == (
        "1 file is ignored: 1 .txt\n"
        "not added: 1 its id is in the index already: one.png\n"
        "not added: 1 not an image: bad.jpg\n"
        "not added: 1 outside the data root: link.png\n"
        f"operation 2: 2 added; {own} has 14 items\n"
    )
    assert told("remove", own, "one.png", "gallery/product-1/0.png") == f"operation 3: 2 removed; {own} has 12 items\n"
    assert told("undo", own, 3) == f"operation 4: operation 3 is undone; {own} has 14 items\n"
    lines = told("log", own).splitlines()
    assert [line.split()[2:4] for line in lines[1:]] == [["build", "12"], ["add", "2"], ["remove", "2"], ["undo", "2"]]
    assert lines[3].endswith("(undone by 4)")
    assert [one["what"] for one in json.loads(told("log", own, "--last", 2, "--json"))] == ["remove", "undo"]
    told("remove", own, "one.png")
    assert told("compact", own) == f"1 removed item dropped; {own} has 13 items\n"
    assert told("verify", own).endswith(": as it was written\n")
    assert json.loads(told("verify", own, "--json"))["problems"] == []
    assert (
        refused("undo", own, 5)
        == "error: nothing of operation 5 is left to undo: later ones changed or dropped its items\n"
    )
    assert refused("remove", own, "one.png") == f"error: {own} has no item 'one.png'; nothing was removed\n"


def test_a_list_says_what_its_images_show(home: Path) -> None:
    own = home / "own"
    (home / "a.png").write_bytes(encode_png(picture(1, 1)))
    (home / "c.png").write_bytes(encode_png(picture(1, 1)))
    (home / "list.csv").write_text(
        "path,label,category,id,shelf\na.png,cup,kitchen,A,7\nmissing.png,cup,kitchen,B,8\nc.png,,,C,9\n"
    )
    assert told("add", own, "--manifest", home / "list.csv") == (
        f"not added: 1 missing file: B\noperation 2: 2 added; {own} has 14 items\n"
    )
    found = json.loads(told("query", own, home / "a.png", "--filter", "shelf=7", "--filter", "shelf=9", "--json"))
    phash = found["answers"][0]["found"]
    assert [(one["id"], one["label"], one["category"], one["distance"]) for one in phash] == [
        ("A", "cup", "kitchen", 0.0),
        ("C", None, None, 0.0),
    ]
    assert "path is missing" in refused("add", own, "--manifest", write(home / "bad.csv", "path,label\n,x\n"))
    assert "leave --label and --category out" in refused("add", own, "--manifest", home / "list.csv", "--label", "x")
    assert "name images or folders to add" in refused("add", own)
    assert "no file or folder has this name" in refused("add", own, home / "nothing")


def write(file: Path, text: str) -> Path:
    file.write_text(text)
    return file


def test_query_shows_a_table_that_fits_and_filters(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, query = home / "own", home / "shelf" / "query" / "product-1" / "0.png"
    monkeypatch.setenv("COLUMNS", "60")
    lines = told("query", own, query, "--k", 3).splitlines()
    assert lines[0] == f"{query}:"
    assert [line.split(":")[0].strip() for line in lines if "describe" in line] == ["phash", "hsv"]
    assert len(lines) == 1 + 2 * (1 + 3)
    assert max(map(len, lines[1:])) <= 60
    assert lines[2].split()[::2] == ["1", "product-1"]
    only = told("query", own, query, query, "--method", "hsv", "--filter", "label!=product-1", "--filter", "id=/0.png")
    assert "product-1" not in only.replace(str(query), "")
    assert only.count("product-0/0.png") == 2
    assert told("query", own, query, "--filter", "label=nobody").count("nothing") == 2
    found = json.loads(told("query", own, query, "--k", 500, "--json"))
    assert (found["version"], [len(one["found"]) for one in found["answers"]]) == (1, [12, 12])
    assert "write KEY=VALUE, such as label=cup" in refused("query", own, query, "--filter", "cup")
    assert "only label and category can be left out" in refused("query", own, query, "--filter", "shelf!=1")
    assert "unknown attribute 'shelv'; known are category, id, label" in refused(
        "query", own, query, "--filter", "shelv=1"
    )
    assert "has no method 'hog'; it has phash, hsv" in refused("query", own, query, "--method", "hog")
    assert "not an image" in refused("query", own, home / "own" / "index.json")


def test_words_that_no_method_reads_are_said_to_be_unread(home: Path) -> None:
    own, query = home / "own", home / "shelf" / "query" / "product-1" / "0.png"
    assert told("query", own, query, "--text", "red mug").count("; the words are not read") == 2
    assert "not read" not in told("query", own, query)
    answers = json.loads(told("query", own, query, "--text", "red mug", "--json"))["answers"]
    assert [(one["method"], one["text_read"]) for one in answers] == [("phash", False), ("hsv", False)]


def test_info_tells_what_an_index_is(home: Path) -> None:
    text = told("info", home / "own")
    assert ["phash", "hamming", "bits", "64", "8", "-"] in [line.split()[:6] for line in text.splitlines()]
    facts = json.loads(told("info", home / "own", "--json"))
    assert (facts["items"], facts["removed"], facts["skipped"]) == (12, 0, {"not an image": 1})
    assert [method["method"] for method in facts["methods"]] == ["phash", "hsv"]
    assert facts["methods"][0]["recipes"][0]["options"] == {"size": 8}
    assert facts["data_root"].endswith("shelf")


def test_what_cannot_be_built_is_one_sentence(home: Path) -> None:
    assert "is there already" in refused("build", "--methods", "phash", "--out", home / "own")
    assert f"lies in the index {home / 'own'}" in refused("build", "--methods", "phash", "--out", home / "own" / "two")
    assert "is a control" in refused("build", "--methods", "oracle", "--out", home / "other")
    assert "unknown method" in refused("build", "--methods", "phush", "--out", home / "other")
    assert f"{home / 'other'}: no index is there" in refused("info", home / "other")
    assert sorted(one.name for one in home.iterdir()) == ["own", "shelf"]
