"""A manifest in CSV or JSONL: what it may say, and the line that is named when it says something else."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from retrieval_bench.core import BenchError, Dataset
from retrieval_bench.datasets.manifest import manifest
from retrieval_bench.images.fence import ALLOWED
from retrieval_bench.images.screening import screen
from tests.support.nasty import photo

GOOD = """path,label,split
a.png,mug,train
b.png,mug,gallery
c.png,bag,gallery
d.png,mug,query
"""


def written(folder: Path, text: str | bytes, name: str = "manifest.csv") -> Path:
    for seed, image in enumerate("abcd"):
        photo(folder / f"{image}.png", seed)
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def jsonl(*records: dict[str, object]) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def refused(folder: Path, text: str | bytes, message: str, name: str = "manifest.csv") -> None:
    path = written(folder, text, name)
    with pytest.raises(BenchError, match=re.escape(message)) as caught:
        manifest(path)
    assert str(path) in str(caught.value)


def is_the_good_one(dataset: Dataset) -> bool:
    assert dataset.label_names == ("bag", "mug")
    assert {name: split.ids for name, split in dataset.splits.items()} == {
        "train": ("a.png",),
        "gallery": ("b.png", "c.png"),
        "query": ("d.png",),
    }
    assert dataset.gallery.labels.tolist() == [1, 0]
    assert dataset.query.images[0].shape == (40, 60, 3)
    assert screen(dataset)[1] == ()
    return True


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        "\ufeff" + GOOD,
        GOOD.replace("\n", "\r\n"),
        GOOD.replace("\n", "\r"),
        GOOD.replace("\n", "\n\n , , \n"),
        GOOD.replace(",", ", "),
        GOOD.replace("mug", '"mug"').rstrip(),
        "\n\n" + GOOD,
    ],
    ids=["plain", "bom", "crlf", "cr", "blank lines", "spaces", "quotes, no last newline", "blank first lines"],
)
def test_ways_to_write_the_same_csv(tmp_path: Path, text: str) -> None:
    assert is_the_good_one(manifest(written(tmp_path, text)))


@pytest.mark.parametrize("separator", ["\n", "\r\n", "\n\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_the_same_as_jsonl(tmp_path: Path, separator: str, mark: str) -> None:
    rows = [line.split(",") for line in GOOD.split()[1:]]
    text = jsonl(*({"split": split, "path": path, "label": label} for path, label, split in rows))
    assert is_the_good_one(manifest(written(tmp_path, mark + text.replace("\n", separator), "list.JSONL")))


def test_the_root_may_be_the_folder(tmp_path: Path) -> None:
    written(tmp_path, GOOD)
    assert is_the_good_one(manifest(tmp_path))
    (tmp_path / "manifest.jsonl").touch()
    with pytest.raises(BenchError, match=r"holds both manifest.csv and manifest.jsonl"):
        manifest(tmp_path)


def test_a_root_that_is_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"needs --data-root with a .csv or .jsonl file"):
        manifest(None)
    with pytest.raises(BenchError, match=r"holds neither manifest.csv nor manifest.tsv nor"):
        manifest(tmp_path)
    with pytest.raises(BenchError, match="there is no file"):
        manifest(tmp_path / "list.csv")
    with pytest.raises(BenchError, match=r"neither \.csv nor \.tsv nor \.jsonl"):
        manifest(written(tmp_path, GOOD, "list.txt"))


def test_all_columns(tmp_path: Path) -> None:
    text = """id,path,label,split,category,group,text,shelf
one,a.png,mug,train,home,g1,"a mug, blue",3
two,b.png,mug,gallery,home,g2,"two
lines",4
three,c.png,bag,gallery,,,,
four,d.png,mug,query,home,g3,,5
""".replace("bag,gallery,,", "bag,gallery,travel,")
    dataset = manifest(written(tmp_path, text))
    assert dataset.gallery.ids == ("two", "three")
    assert dataset.category_names == ("home", "travel")
    assert dataset.gallery.categories is not None
    assert dataset.gallery.categories.tolist() == [0, 1]
    assert {name: column.tolist() for name, column in dataset.gallery.attributes.items()} == {
        "group": ["g2", ""],
        "text": ["two\nlines", ""],
        "shelf": ["4", ""],
    }
    assert dataset.train.attributes["text"].tolist() == ["a mug, blue"]


def test_columns_that_some_json_objects_lack(tmp_path: Path) -> None:
    text = jsonl(
        {"path": "a.png", "label": 7, "split": "gallery", "text": "line separator \u2028 inside", "size": 1.5},
        {"path": "b.png", "label": 8, "split": "gallery", "text": None, "sold": True},
        {"path": "c.png", "label": 7, "split": "query"},
    )
    dataset = manifest(written(tmp_path, text, "manifest.jsonl"))
    assert dataset.label_names == ("7", "8")
    assert dataset.gallery.attributes["text"].tolist() == ["line separator \u2028 inside", ""]
    assert dataset.gallery.attributes["size"].tolist() == ["1.5", ""]
    assert dataset.gallery.attributes["sold"].tolist() == ["", "True"]
    assert dataset.query.categories is None


def test_a_list_of_which_no_file_is_there_says_so(tmp_path: Path) -> None:
    lines = "".join(f"shots/{number}.png,{'mug' if number % 2 else 'bag'}\n" for number in range(20))
    refused(tmp_path, f"path,label\n{lines}", "no image of it can be read; the first is 'shots/0.png' (missing file")


def test_paths_are_relative_to_the_manifest_and_missing_files_are_left_to_screening(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ALLOWED, "1")
    for name in "abcd":
        photo(tmp_path / "photos" / f"{name}.png", ord(name))
    elsewhere = photo(tmp_path / "elsewhere.png", 9)
    text = GOOD.replace("a.png", str(elsewhere)).replace("c.png", "../photos/./c.png")
    (tmp_path / "photos" / "manifest.csv").write_text(text + "gone.png,bag,query\n")
    screened, skipped = screen(manifest(tmp_path / "photos"))
    assert [(bad.split, bad.id, bad.reason) for bad in skipped] == [("query", "gone.png", "missing file")]
    assert screened.train.ids == (str(elsewhere),)
    assert screened.gallery.ids == ("b.png", "../photos/c.png")


def test_one_image_in_train_and_gallery(tmp_path: Path) -> None:
    dataset = manifest(written(tmp_path, GOOD + "b.png,mug,train\n"))
    assert dataset.train.ids == ("a.png", "b.png")
    assert dataset.gallery.ids == ("b.png", "c.png")


def test_a_query_class_that_the_gallery_lacks_loads(tmp_path: Path) -> None:
    photo(tmp_path / "e.png", 20)
    dataset = manifest(written(tmp_path, GOOD + "e.png,shoe,query\n"))
    assert any("1 labels have queries but no gallery image" in notice for notice in dataset.notices)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lists no image"),
        ("path,label,split\n", "lists no image"),
        ("\n\npath,split\na.png,train\n", "line 3: no column 'label' among path, split"),
        ("path/label/split\na.png/mug/train\n", "line 1: no column 'path' among path/label/split"),
        ("path,label,split,path\n", "line 1: the columns path, label, split, path are not named uniquely"),
        ("path,label,split,\na.png,mug,train,x\n", "line 2: 'x' is in a column without a name, column 4"),
        (GOOD + "e.png,mug\n", "line 6: 2 cells for 3 columns"),
        (GOOD + "e.png,mug,train,\n", "line 6: 4 cells for 3 columns"),
        (GOOD + ",mug,train\n", "line 6: path is missing"),
        (GOOD + "e.png, ,train\n", "line 6: label is missing"),
        (GOOD + "e.png,mug,galery\n", "line 6: unknown split 'galery'; did you mean 'gallery'?"),
        (GOOD + "e.png,mug,test\n", "line 6: unknown split 'test'"),
        (GOOD + '"e.png,mug,train\n', "line 6: not valid CSV"),
        (GOOD + '"e\n.png","m\nug",trin\n', "line 6: unknown split 'trin'"),
        (GOOD + '"e\n.png",mug,train\nf.png,mug,trin\n', "line 8: unknown split 'trin'"),
        (GOOD.encode() + b"caf\xe9.png,mug,train\n", "line 6: byte 0xe9 is not UTF-8"),
        (GOOD + "e\0.png,mug,train\n", "line 6: path 'e\\x00.png' cannot be the name of a file"),
        (GOOD + "b.png,mug,gallery\n", "line 6: id 'b.png' is in gallery already, by line 3"),
        (GOOD + "d.png,mug,train\n", "line 6: id 'd.png' is in two splits, query in line 5 and train here"),
        (GOOD + "./b.png,mug,query\n", "line 6: id 'b.png' is in two splits, gallery in line 3 and query here"),
    ],
)
def test_mistakes_in_csv(tmp_path: Path, text: str | bytes, message: str) -> None:
    refused(tmp_path, text, message)


def test_an_id_that_query_and_train_share(tmp_path: Path) -> None:
    text = "path,label,split,id\na.png,mug,gallery,1\nb.png,bag,train,2\nc.png,mug,query,2\nd.png,bag,query,3\n"
    refused(tmp_path, text, "line 4: id '2' is in two splits, train in line 3 and query here")


def test_a_file_that_query_and_gallery_share_under_two_ids(tmp_path: Path) -> None:
    text = "path,label,split,id\na.png,mug,gallery,1\nb.png,bag,gallery,2\n./a.png,mug,query,3\n"
    refused(tmp_path, text, "line 4: file 'a.png' is in two splits, gallery in line 2 and query here")


@pytest.mark.parametrize("beginning", ["", "file://"])
def test_a_file_that_query_and_train_share_is_one_by_its_whole_path(tmp_path: Path, beginning: str) -> None:
    text = f"path,label,split\na.png,mug,train\n{beginning}{tmp_path}/sub/../a.png,mug,query\nc.png,bag,gallery\n"
    refused(tmp_path, text, "line 3: file 'a.png' is in two splits, train in line 2 and query here")


def test_one_label_or_an_empty_split(tmp_path: Path) -> None:
    head = "path,label,split\na.png,mug,gallery\n"
    with pytest.raises(BenchError, match="labelled 'mug'"):
        manifest(written(tmp_path, head + "d.png,mug,query\n"))
    with pytest.raises(BenchError, match="the query split holds no image"):
        manifest(written(tmp_path, head + "d.png,bag,gallery\n"))


@pytest.mark.parametrize("other", ["query", "gallery"])
def test_a_group_that_crosses_splits(tmp_path: Path, other: str) -> None:
    text = f"path,label,split,group\na.png,mug,train,g\nb.png,mug,train,g\nc.png,bag,gallery,\nd.png,mug,{other},g\n"
    refused(tmp_path, text, f"line 5: group 'g' is in two splits, train in line 2 and {other} here")


def test_a_label_with_two_categories(tmp_path: Path) -> None:
    text = "path,label,split,category\na.png,mug,train,home\nb.png,bag,gallery,home\nc.png,mug,query,office\n"
    refused(tmp_path, text, "line 4: label 'mug' has two categories, 'home' in line 2 and 'office' here")


def test_a_category_for_some_only(tmp_path: Path) -> None:
    text = "path,label,split,category\na.png,mug,gallery,\nb.png,bag,query,home\n"
    refused(tmp_path, text, "line 3: give every row a category or none: line 3 has one, line 2 has none")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[1]", "line 2: a JSON list, not an object"),
        ("{", "line 2: not valid JSON"),
        ('{"path": "b.png", "label": "mug"}', "line 2: split is missing"),
        ('{"path": "b.png", "label": null, "split": "train"}', "line 2: label is missing"),
        ('{"path": "b.png", "label": {"a": 1}, "split": "query"}', 'line 2: label is {"a": 1}; it must be text'),
        ('{"path": "b.png", "label": [true], "split": "query"}', "line 2: label is true; it must be text"),
        ('{"path": "b.png", "label": true, "split": "query"}', "line 2: label is true; it must be text"),
        ('{"path": "b.png", "label": "\\ud800", "split": "query"}', "line 2: label '\\ud800' is not text"),
        ('{"path": "b.png", "label": "x", "split": "query", "text": {"a": 1}}', 'line 2: text is {"a": 1}; it must be'),
    ],
)
def test_mistakes_in_jsonl(tmp_path: Path, line: str, message: str) -> None:
    first = jsonl({"path": "a.png", "label": "mug", "split": "gallery"})
    refused(tmp_path, f"{first}{line}\n", message, "manifest.jsonl")
