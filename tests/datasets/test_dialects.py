"""Manifests as spreadsheets, pandas and other datasets write them, and files that are missing for a reason."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import pytest

from retrieval_bench.core import BenchError, Dataset
from retrieval_bench.datasets.manifest import manifest
from retrieval_bench.images.screening import screen
from retrieval_bench.registry import DATASETS, parse
from tests.support.nasty import photo

ROWS = (
    ("a.png", "mug", "train"),
    ("b.png", "mug", "gallery"),
    ("c.png", "bag, blue", "gallery"),
    ("d.png", "mug", "query"),
)


def table(delimiter: str = ",", head: tuple[str, ...] = ("path", "label", "split")) -> str:
    lines = [delimiter.join(f'"{cell}"' if delimiter in cell else cell for cell in row) for row in (head, *ROWS)]
    return "\n".join(lines) + "\n"


def read(folder: Path, text: str | bytes, name: str = "list.csv", **options: str) -> Dataset:
    for seed, image in enumerate("abcd"):
        photo(folder / f"{image}.png", seed)
    file = folder / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return manifest(file, **options)


def is_the_same(dataset: Dataset) -> bool:
    assert dataset.label_names == ("bag, blue", "mug")
    assert {name: split.ids for name, split in dataset.splits.items()} == {
        "train": ("a.png",),
        "gallery": ("b.png", "c.png"),
        "query": ("d.png",),
    }
    assert dataset.gallery.attributes == {}
    return True


@pytest.mark.parametrize(
    "text",
    [
        table(";"),
        table("\t"),
        table("|"),
        "sep=;\n" + table(";"),
        '"sep=;"\r\n' + table(";").replace("\n", "\r\n"),
        "sep=,\n" + table(),
        "sep=;\n" + table(),
        "sep=/\n" + table("/"),
        "\ufeffsep=\t\n" + table("\t"),
        table().encode("utf-16"),
        table(";").encode("utf-16-le"),
        b"\xfe\xff" + table("\t").encode("utf-16-be"),
        table().encode("utf-32"),
        table(head=("Path", "LABEL", " Split ")),
        table(head=("file_name", "class", "subset")),
        table(head=("filename", "sku", "split")),
        table(head=("image", "Product ID", "split")),
        table().replace("\n", ",\n"),
    ],
)
def test_ways_to_write_the_same_table(tmp_path: Path, text: str | bytes) -> None:
    assert is_the_same(read(tmp_path, text))


def test_names_of_the_file(tmp_path: Path) -> None:
    assert is_the_same(read(tmp_path, table("\t"), "list.TSV"))
    assert is_the_same(read(tmp_path, table("\t"), "manifest.tsv"))
    assert is_the_same(manifest(tmp_path))


def test_other_names_of_columns_are_told(tmp_path: Path) -> None:
    notices = read(tmp_path, table(head=("file_name", "product_id", "split"))).notices
    assert "the column 'file_name' is taken for path" in notices
    assert "the column 'product_id' is taken for label" in notices
    assert not any("taken for" in notice for notice in read(tmp_path, table()).notices)


def test_an_index_of_pandas_is_dropped_and_told(tmp_path: Path) -> None:
    for name in ("", "Unnamed: 0"):
        lines = table().splitlines()
        text = "\n".join([f"{name},{lines[0]}", *(f"{row},{line}" for row, line in enumerate(lines[1:]))])
        dataset = read(tmp_path, text)
        assert is_the_same(dataset)
        assert any("pandas' index" in notice for notice in dataset.notices)


def test_lines_are_counted_from_the_top_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="line 7: unknown split 'trin'"):
        read(tmp_path, "sep=;\n" + table(";") + "x.png;mug;trin\n")
    with pytest.raises(BenchError, match="line 6: 4 cells for 3 columns; quote cells that hold semicolons"):
        read(tmp_path, table(";") + "x.png;mug;red;train\n")


def test_two_columns_that_may_be_the_label_are_asked_about(tmp_path: Path) -> None:
    text = "image,sku,class,split\na.png,1,x,gallery\nb.png,2,x,gallery\nd.png,1,y,query\n"
    with pytest.raises(BenchError, match="line 1: the label may be in 'class' or 'sku'; say which"):
        read(tmp_path, text)
    assert read(tmp_path, text, label="sku").label_names == ("1", "2")
    assert read(tmp_path, text, label="sku").gallery.attributes["class"].tolist() == ["x", "x"]
    both = "path,label,labels,split\na.png,1,1|2,gallery\nb.png,2,2,gallery\nd.png,1,1,query\n"
    with pytest.raises(BenchError, match="the label may be in 'label' or 'labels'"):
        read(tmp_path, both)
    assert read(tmp_path, both, label="labels").gallery.label_sets.tolist() == [[0, 1], [1, -1]]
    with pytest.raises(BenchError, match="no column 'ean' among image, sku, class, split"):
        read(tmp_path, text, label="ean")


def test_a_list_without_splits_is_divided_by_content(tmp_path: Path) -> None:
    for seed in range(40):
        photo(tmp_path / f"{seed}.png", seed)
    text = "file_name,label\n" + "".join(f"{seed}.png,{'mug' if seed % 2 else 'bag'}\n" for seed in range(40))
    (tmp_path / "metadata.csv").write_text(text)
    dataset = manifest(tmp_path / "metadata.csv")
    assert sum(map(len, dataset.splits.values())) == 40
    assert any("no column split" in notice for notice in dataset.notices)
    assert len(manifest(tmp_path / "metadata.csv", split="0/50/50").train) == 0
    everyone = manifest(tmp_path / "metadata.csv", split="leave-one-out")
    assert everyone.leave_one_out
    assert everyone.query.ids == everyone.gallery.ids


def test_what_decides_the_split_of_a_group_is_the_group(tmp_path: Path) -> None:
    lines = []
    for seed in range(60):
        photo(tmp_path / f"{seed}.png", seed)
        lines.append(f"{seed}.png,{'mug' if seed < 30 else 'bag'},{seed // 3}\n")
    (tmp_path / "list.csv").write_text("path,label,group\n" + "".join(lines))
    dataset = manifest(tmp_path / "list.csv")
    groups = [set(split.attributes["group"].tolist()) for split in dataset.splits.values()]
    assert sum(map(len, groups)) == 20 == len(set.union(*groups))


SPLIT_NAMES = "path,label,split\na.png,mug,train\nb.png,mug,val\nc.png,bag,val\nd.png,mug,test\n"


def test_other_names_of_splits_are_mapped_or_offered(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="unknown split 'val'; say which is which") as caught:
        read(tmp_path, SPLIT_NAMES)
    (offer, *_) = re.findall(r"manifest:splits=(\S+)", str(caught.value))
    assert offer == "train:train,val:gallery,test:query"
    spec = parse(DATASETS, f"manifest:splits={offer}:label=label")
    assert parse(DATASETS, str(spec)).options == spec.options
    dataset = spec.build(tmp_path / "list.csv")
    assert [len(split) for split in dataset.splits.values()] == [1, 2, 1]
    without = read(tmp_path, SPLIT_NAMES, splits="train:none, val:gallery, test:query")
    assert len(without.train) == 0
    assert "1 rows of the split 'train' are left out, as splits= says" in without.notices
    shared = read(tmp_path, SPLIT_NAMES, splits="Train:train,VAL:train+gallery,test:query")
    assert shared.train.ids == ("a.png", "b.png", "c.png")


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ("", "unknown split 'val'; say which is which"),
        ("val", "splits has 'val'; write their name, a colon"),
        ("val:galery", "splits has 'val:galery'"),
        ("val:gallery,val:query", "names 'val' twice"),
        ("val:train+query", "puts 'val' into train and query"),
        ("val:gallery,test:query", "line 2: split 'train' is not among those that splits= maps"),
        ("train:train,val:gallery,test:query,dev:none", "splits= maps 'dev', and no row has it"),
    ],
)
def test_mappings_that_cannot_be(tmp_path: Path, mapping: str, message: str) -> None:
    with pytest.raises(BenchError, match=re.escape(message)):
        read(tmp_path, SPLIT_NAMES, splits=mapping)


def test_leave_one_out_of_a_list_that_has_splits_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="has a column split, so that split=leave-one-out has nothing to divide"):
        read(tmp_path, table(), split="leave-one-out")


def causes(folder: Path, *paths: str) -> dict[str, str]:
    """id -> reason, of what is missing."""
    extra = "".join(f'"{path}",mug,query\n' for path in paths)
    _, skipped = screen(read(folder, table() + extra))
    return {bad.id: bad.reason for bad in skipped}


def test_why_a_file_is_missing(tmp_path: Path) -> None:
    composed = unicodedata.normalize("NFC", "Größe Café.png")
    photo(tmp_path / "Shop" / composed, 9)
    decomposed = unicodedata.normalize("NFD", composed)
    assert causes(
        tmp_path,
        "gone.png",
        f"Shop/{decomposed}",
        f"Shop\\{composed}",
        "gone\\x.png",
        "B.PNG",
        f"shop/{composed}",
        f"shop/{decomposed}",
        "https://shop.example/a.png",
        "s3://bucket/a.png",
        "Shop/GrößeCafé.png",
    ) == {
        "gone.png": "missing file",
        f"Shop/{decomposed}": "missing file: its name differs in the Unicode form",
        f"Shop\\{composed}": "missing file: the path has backslashes",
        "gone\\x.png": "missing file: the path has backslashes",
        "B.PNG": "missing file: its name differs in upper and lower case",
        f"shop/{composed}": "missing file: its name differs in upper and lower case",
        f"shop/{decomposed}": (
            "missing file: its name differs in the Unicode form, its name differs in upper and lower case"
        ),
        "https://shop.example/a.png": "missing file: the path is a URL",
        "s3://bucket/a.png": "missing file: the path is a URL",
        "Shop/GrößeCafé.png": "missing file: its name differs in spaces",
    }


def test_the_details_say_what_is_there(tmp_path: Path) -> None:
    photo(tmp_path / unicodedata.normalize("NFC", "é.png"), 9)
    dataset = read(tmp_path, table() + f"{unicodedata.normalize('NFD', 'é')}.png,mug,query\nA.png,mug,query\n")
    details = [bad.detail for bad in screen(dataset)[1]]
    assert "NFD in the list and NFC on disk" in details[0]
    assert details[1] == "'a.png' is there, not 'A.png'"


def test_parquet(tmp_path: Path) -> None:
    pyarrow, parquet = (
        pytest.importorskip("pyarrow", reason='needs pip install "retrieval-bench[parquet]"'),
        pytest.importorskip("pyarrow.parquet", reason='needs pip install "retrieval-bench[parquet]"'),
    )
    columns = dict(zip(("path", "label", "split"), map(list, zip(*ROWS, strict=True)), strict=True))
    read(tmp_path, table())
    parquet.write_table(pyarrow.table(columns), tmp_path / "manifest.parquet")
    assert is_the_same(manifest(tmp_path / "manifest.parquet"))
    lists = {**columns, "labels": [["mug"], ["mug", "bag, blue"], ["bag, blue"], ["mug"]], "__index_level_0__": [0] * 4}
    del lists["label"]
    parquet.write_table(pyarrow.table(lists), tmp_path / "manifest.parquet")
    dataset = manifest(tmp_path / "manifest.parquet")
    assert is_the_same(dataset)
    assert dataset.gallery.label_sets.tolist() == [[1, 0], [0, -1]]
    (tmp_path / "manifest.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(BenchError, match="cannot be read as Parquet"):
        manifest(tmp_path / "manifest.parquet")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([("", "mug", "train")], "manifest.parquet, row 1: path is missing"),
        ([("a.png", "mug", "train"), ("b.png", "mug", "tran")], "manifest.parquet, row 2: unknown split 'tran'"),
        (
            [("a.png", "mug", "train"), ("a.png", "mug", "train")],
            "row 2: id 'a.png' is in train already, by row 1; ids are unique",
        ),
        (
            [("a.png", "mug", "gallery"), ("a.png", "mug", "query")],
            "row 2: id 'a.png' is in two splits, gallery in row 1 and query here",
        ),
        (
            [("a.png", "mug", "gallery"), ("a.png", "", "gallery")],
            "row 2: 'a.png' has a label in another row and none here",
        ),
    ],
)
def test_rows_of_parquet_are_called_rows(tmp_path: Path, rows: list[tuple[str, ...]], said: str) -> None:
    pyarrow, parquet = (
        pytest.importorskip("pyarrow", reason='needs pip install "retrieval-bench[parquet]"'),
        pytest.importorskip("pyarrow.parquet", reason='needs pip install "retrieval-bench[parquet]"'),
    )
    columns = dict(zip(("path", "label", "split"), map(list, zip(*rows, strict=True)), strict=True))
    parquet.write_table(pyarrow.table(columns), tmp_path / "manifest.parquet")
    with pytest.raises(BenchError) as caught:
        manifest(tmp_path / "manifest.parquet")
    assert said in str(caught.value)
    assert "line" not in str(caught.value).replace(str(tmp_path), "")
    del columns["label"]
    parquet.write_table(pyarrow.table(columns), tmp_path / "manifest.parquet")
    with pytest.raises(BenchError, match="no column 'label'") as caught:
        manifest(tmp_path / "manifest.parquet")
    assert "separated by" not in str(caught.value)


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(BenchError, match=r"pip install 'retrieval-bench\[parquet\]'"):
        read(tmp_path, b"PAR1", "list.parquet")
