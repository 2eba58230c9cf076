"""Readers of published datasets, each on a tiny replica of its layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from retrieval_bench.core import BenchError, Dataset
from retrieval_bench.datasets import published
from retrieval_bench.evaluation.evaluate import evaluate
from retrieval_bench.images.screening import screen
from retrieval_bench.registry import DATASETS, parse
from retrieval_bench.remote.place import root_of
from tests.support.nasty import photo


def filled(root: Path, *paths: str) -> Path:
    for seed, path in enumerate(paths):
        photo(root / path, seed)
    return root


def sop_at(root: Path) -> Path:
    header = "image_id class_id super_class_id path\n"
    train, test = ["bicycle_final/1_0.JPG", "bicycle_final/1_1.JPG"], ["sofa_final/9_0.JPG", "sofa_final/9_1.JPG"]
    other = ["bicycle_final/10_0.JPG", "bicycle_final/10_1.JPG"]
    (root / "Ebay_train.txt").write_text(header + "".join(f"{n} 1 1 {one}\n" for n, one in enumerate(train)))
    lines = [f"{n} 9 12 {one}" for n, one in enumerate(test)] + [f"{n} 10 1 {one}" for n, one in enumerate(other)]
    (root / "Ebay_test.txt").write_text(header + "\n".join(lines))
    return filled(root, *train, *test, *other)


def inshop_at(root: Path) -> Path:
    rows = {
        "img/WOMEN/Dresses/id_00000002/02_1_front.jpg": ("id_00000002", "train"),
        "img/WOMEN/Dresses/id_00000003/02_1_front.jpg": ("id_00000003", "query"),
        "img/WOMEN/Dresses/id_00000003/02_2_side.jpg": ("id_00000003", "gallery"),
        "img/MEN/Denim/id_00000080/01_1_front.jpg": ("id_00000080", "query"),
        "img/MEN/Denim/id_00000080/01_3_back.jpg": ("id_00000080", "gallery"),
    }
    lines = [f"{path:60}{item} {state}" for path, (item, state) in rows.items()]
    (root / "Eval").mkdir()
    text = "\n".join([str(len(rows)), "image_name item_id evaluation_status", *lines, ""])
    (root / "Eval" / "list_eval_partition.txt").write_text(text)
    return filled(root, *(f"Img/{path}" for path in rows))


def rp2k_at(root: Path) -> Path:
    return filled(
        root, *(f"all/{part}/可乐{sku}/{n}.png" for part in ("train", "test") for sku in (1, 2) for n in (1, 2))
    )


def products10k_at(root: Path) -> Path:
    (root / "train.csv").write_text("name,class,group\n1.jpg,0,3\n2.jpg,11,3\n3.jpg,2,40\n")
    (root / "test_kaggletest.csv").write_text("name,class,group,Usage\n7.jpg,11,3,Public\n8.jpg,2,40,Private\n")
    return filled(root, "train/1.jpg", "train/2.jpg", "train/3.jpg", "test/7.jpg", "test/8.jpg")


def cub_at(root: Path) -> Path:
    home = root / "CUB_200_2011"
    classes = {1: "001.Albatross", 100: "100.Pelican", 101: "101.White_Pelican", 200: "200.Yellowthroat"}
    images = [(number, f"{name}/{name[4:]}_{n}.jpg") for number, name in classes.items() for n in (1, 2)]
    home.mkdir()
    (home / "classes.txt").write_text("".join(f"{number} {name}\n" for number, name in classes.items()))
    (home / "images.txt").write_text("".join(f"{n} {path}\n" for n, (_, path) in enumerate(images, 1)))
    (home / "image_class_labels.txt").write_text("".join(f"{n} {one}\n" for n, (one, _) in enumerate(images, 1)))
    (home / "train_test_split.txt").write_text("".join(f"{n} {n % 2}\n" for n in range(1, 9)))
    filled(home / "images", *(path for _, path in images))
    return root


def holidays_at(root: Path) -> Path:
    return filled(root, *(f"jpg/{name}.jpg" for name in (100000, 100001, 100002, 100100, 100101)))


def ukbench_at(root: Path) -> Path:
    return filled(root, *(f"full/ukbench{number:05}.jpg" for number in range(8)))


def smvs_at(root: Path) -> Path:
    covers = [f"book_covers/{folder}/{n:03}.jpg" for folder in ("Reference", "Droid", "Canon") for n in (1, 2)]
    return filled(root, *covers, "landmarks/Reference/001.jpg", "landmarks/Droid/001.jpg")


REPLICAS: dict[str, Callable[[Path], Path]] = {
    "sop": sop_at,
    "inshop": inshop_at,
    "rp2k": rp2k_at,
    "products10k": products10k_at,
    "cub": cub_at,
    "holidays": holidays_at,
    "ukbench": ukbench_at,
    "smvs": smvs_at,
}


def built(spec: str, root: Path) -> Dataset:
    found: Dataset = parse(DATASETS, spec).build(REPLICAS[spec.partition(":")[0]](root))
    return found


def sizes(dataset: Dataset) -> tuple[int, ...]:
    return tuple(len(split) for split in dataset.splits.values())


@pytest.mark.parametrize(
    ("spec", "expected", "leave_one_out"),
    [
        ("sop", (2, 4, 4), True),
        ("inshop", (1, 2, 2), False),
        ("rp2k", (4, 4, 4), False),
        ("rp2k:gallery=test", (4, 4, 4), True),
        ("products10k", (3, 3, 2), False),
        ("products10k:queries=private", (3, 3, 1), False),
        ("cub", (4, 4, 4), True),
        ("cub:protocol=published", (4, 4, 4), False),
        ("holidays", (0, 5, 2), True),
        ("holidays:gallery=rest", (0, 3, 2), False),
        ("ukbench", (0, 8, 8), True),
        ("smvs", (0, 3, 5), False),
        ("smvs:category=book_covers:camera=Droid", (0, 2, 2), False),
    ],
)
def test_the_published_splits(spec: str, expected: tuple[int, ...], leave_one_out: bool, tmp_path: Path) -> None:
    dataset = built(spec, tmp_path)
    assert sizes(dataset) == expected
    assert dataset.leave_one_out == leave_one_out
    assert dataset.name == spec.partition(":")[0]
    assert screen(dataset)[1] == ()
    answered = set(dataset.gallery.labels.tolist())
    assert set(dataset.query.labels.tolist()) <= answered


def names(dataset: Dataset, split: str) -> list[str]:
    return [dataset.label_names[label] for label in dataset.splits[split].labels]


def test_labels_and_categories_are_those_of_the_lists(tmp_path: Path) -> None:
    roots = {name: tmp_path / name for name in REPLICAS}
    for root in roots.values():
        root.mkdir()
    found = {name: built(name, root) for name, root in roots.items()}
    assert found["sop"].category_names == ("bicycle", "sofa")
    assert names(found["sop"], "query") == ["9", "9", "10", "10"]
    assert found["sop"].label_names == ("1", "9", "10")
    assert found["inshop"].category_names == ("MEN/Denim", "WOMEN/Dresses")
    assert names(found["inshop"], "gallery") == ["id_00000003", "id_00000080"]
    assert set(names(found["rp2k"], "query")) == {"可乐1", "可乐2"}
    assert names(found["products10k"], "query") == ["11", "2"]
    assert found["products10k"].category_names == ("3", "40")
    assert set(names(found["cub"], "train")) == {"001.Albatross", "100.Pelican"}
    assert set(names(found["cub"], "query")) == {"101.White_Pelican", "200.Yellowthroat"}
    assert found["holidays"].query.ids == ("100000.jpg", "100100.jpg")
    assert names(found["ukbench"], "query") == ["0000"] * 4 + ["0001"] * 4
    assert names(found["smvs"], "gallery") == ["book_covers/001", "book_covers/002", "landmarks/001"]
    assert found["smvs"].query.attributes["camera"].tolist() == ["Canon", "Canon", "Droid", "Droid", "Droid"]


@pytest.mark.parametrize("name", REPLICAS)
def test_what_is_not_the_dataset_is_one_sentence(name: str, tmp_path: Path) -> None:
    build = DATASETS[name].build
    with pytest.raises(BenchError, match=f"dataset {name} needs --data-root"):
        build(None)
    with pytest.raises(BenchError, match=rf"dataset {name}: .* has no .*its authors"):
        build(tmp_path)


@pytest.mark.parametrize("name", [*REPLICAS, "grocery"])
def test_a_url_is_one_sentence(name: str) -> None:
    with pytest.raises(BenchError, match=f"dataset {name} is read from a folder of this machine; fetch https://a.b/c"):
        DATASETS[name].build(root_of("https://a.b/c.zip"))


def test_damaged_lists_name_the_line(tmp_path: Path) -> None:
    root = sop_at(tmp_path)
    (root / "Ebay_test.txt").write_text("image_id class_id super_class_id path\n1 2\n")
    with pytest.raises(BenchError, match=r"Ebay_test.txt, line 2: expected image_id class_id .*got '1 2'"):
        DATASETS["sop"].build(root)
    (root / "Ebay_test.txt").write_text("header\n")
    with pytest.raises(BenchError, match="lists nothing"):
        DATASETS["sop"].build(root)
    (root / "Ebay_test.txt").unlink()
    with pytest.raises(BenchError, match="cannot be read"):
        DATASETS["sop"].build(root)
    (root / "list.csv").write_text("name,class\n1.jpg,\n")
    with pytest.raises(BenchError, match="line 2: expected name, class"):
        published.table_of(root / "list.csv", ("name", "class"))
    with pytest.raises(BenchError, match="has no column group"):
        published.table_of(root / "list.csv", ("name", "group"))
    (root / "list.csv").write_text(f"name,class\n{'a' * 200_000},1\n")
    with pytest.raises(BenchError, match=r"list.csv, line 2: field larger than"):
        published.table_of(root / "list.csv", ("name", "class"))
    (root / "list.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BenchError, match="is no UTF-8"):
        published.table_of(root / "list.csv", ("name",))


def test_other_mistakes_of_layouts(tmp_path: Path) -> None:
    for name in ("inshop", "cub", "smvs", "products10k"):
        (tmp_path / name).mkdir()
        REPLICAS[name](tmp_path / name)
    listed = tmp_path / "inshop" / "Eval" / "list_eval_partition.txt"
    listed.write_text(listed.read_text().replace("query", "asked"))
    with pytest.raises(BenchError, match="'asked' is none of train, query, gallery"):
        DATASETS["inshop"].build(tmp_path / "inshop")
    labels = tmp_path / "cub" / "CUB_200_2011" / "image_class_labels.txt"
    labels.write_text(labels.read_text().replace(" 200", " 7"))
    with pytest.raises(BenchError, match="image 7 of class 7 is not in"):
        DATASETS["cub"].build(tmp_path / "cub")
    for spec, said in (
        ("smvs:category=prints", "category=prints is none of book_covers, landmarks"),
        ("smvs:camera=Nokia", "camera=Nokia is none of Canon, Droid"),
    ):
        with pytest.raises(BenchError, match=said):
            parse(DATASETS, spec).build(tmp_path / "smvs")
    test = tmp_path / "products10k" / "test_kaggletest.csv"
    test.write_text("name,class,group,Usage\n7.jpg,11,3,Public\n")
    with pytest.raises(BenchError, match="no line has Usage private"):
        parse(DATASETS, "products10k:queries=private").build(tmp_path / "products10k")


def test_the_ukbench_score_is_what_the_page_says(tmp_path: Path) -> None:
    """N-S counts hits among the first four of a search that finds the query itself first: 1 + 3 recall@3."""
    labels = built("ukbench", tmp_path).query.labels
    others = np.array(
        [[row for row in np.random.default_rng(query).permutation(8) if row != query] for query in range(8)]
    )
    scored = evaluate(others, labels, labels, k=(3,), exclude=np.arange(8))
    with_itself = np.column_stack([np.arange(8), others])[:, :4]
    score = (labels[with_itself] == labels[:, None]).sum(axis=1).mean()
    assert 1 + 3 * scored.scores["recall@3"] == pytest.approx(score)
