"""Grocery Store: phone photos of 81 products, taken in shops, with a catalogue image and a description of each.

Klasson, Zhang, Kjellstrom: "A Hierarchical Grocery Store Image Dataset with Visual and Semantic Labels", WACV 2019.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from retrieval_bench.core import BenchError, Dataset, Split, printable
from retrieval_bench.datasets.published import refuse_url
from retrieval_bench.images.reading import ImageFiles
from retrieval_bench.registry import DATASETS

SOURCE = "git clone https://github.com/marcusklasson/GroceryStoreDataset"


@DATASETS("grocery", about="81 grocery products photographed in shops (Klasson et al., WACV 2019); reads a clone")
def grocery(
    root: Path | None,
    *,
    gallery: Literal["train", "iconic"] = "train",
    queries: Literal["test", "val"] = "test",
) -> Dataset:
    """Read the published lists: train.txt is train and, by default, gallery; test.txt or val.txt is query.

    Labels are the 81 products; categories the coarse classes of classes.csv (43 in it, where the paper says 42).
    Attribute "text" is the product's description, "" where the clone has none.

    Args:
        root: the clone, or its folder `dataset`.
        gallery: `train` searches the photos of train.txt, `iconic` the 81 catalogue images; train stays train.txt.
        queries: `test` to report, `val` to choose options by, so that the test list plays no part in them.
    """
    if root is None:
        raise BenchError(f"dataset grocery needs --data-root with a clone; get it by `{SOURCE}`")
    refuse_url("grocery", root)
    home = root / "dataset" if (root / "dataset" / "classes.csv").is_file() else root
    if not (home / "classes.csv").is_file():
        raise BenchError(
            f"dataset grocery: {printable(root)} has no classes.csv, nor has its folder dataset/; "
            f"get it with `{SOURCE}`"
        )
    products = _products(home)
    train = _listed(home, "train.txt", products)
    categories: dict[int, str] = {product.coarse: product.category for product in products.values()}
    return Dataset(
        name="grocery",
        train=train,
        gallery=train if gallery == "train" else _iconic(home, products),
        query=_listed(home, f"{queries}.txt", products),
        label_names=tuple(products[fine].name for fine in range(len(products))),
        category_names=tuple(categories[coarse] for coarse in range(len(categories))),
    )


@dataclass(frozen=True)
class _Product:
    name: str
    category: str
    coarse: int
    iconic: str
    text: str


def _products(home: Path) -> dict[int, _Product]:
    """classes.csv: name, fine number, category, coarse number, catalogue image, description. Numbers run from 0."""
    products: dict[int, _Product] = {}
    for line, cells in _rows(home / "classes.csv")[1:]:
        if len(cells) != 6 or not (cells[1].isdecimal() and cells[3].isdecimal()):
            raise BenchError(f"classes.csv, line {line}: expected name, number, category, number, image, description")
        name, fine, category, coarse, iconic, description = cells
        told = home / description.lstrip("/")
        text = told.read_text("utf-8", errors="replace").strip() if told.is_file() else ""
        products[int(fine)] = _Product(name, category, int(coarse), iconic.lstrip("/"), text)
    for what, numbers in (("product", set(products)), ("category", {p.coarse for p in products.values()})):
        if numbers != set(range(len(numbers))) or not numbers:
            raise BenchError(f"classes.csv: the {what} numbers must run from 0 without a gap; get it by `{SOURCE}`")
    return products


def _listed(home: Path, name: str, products: dict[int, _Product]) -> Split:
    """One of the published lists; its lines are `path, fine number, coarse number`."""
    items, labels = [], []
    for line, cells in _rows(home / name):
        if len(cells) != 3 or not (cells[1].isdecimal() and cells[2].isdecimal()):
            raise BenchError(f"{name}, line {line}: expected `path, product number, category number`, got {cells}")
        item, fine, coarse = cells[0], int(cells[1]), int(cells[2])
        if fine not in products or products[fine].coarse != coarse:
            raise BenchError(f"{name}, line {line}: product {fine} in category {coarse} is not in classes.csv")
        items.append(item)
        labels.append(fine)
    return _split(home, items, labels, products)


def _iconic(home: Path, products: dict[int, _Product]) -> Split:
    return _split(home, [products[fine].iconic for fine in range(len(products))], list(range(len(products))), products)


def _split(home: Path, items: list[str], labels: list[int], products: dict[int, _Product]) -> Split:
    return Split(
        ids=tuple(items),
        labels=np.array(labels, np.int64),
        images=ImageFiles([home / item for item in items], within=home),
        categories=np.array([products[label].coarse for label in labels], np.int64),
        attributes={"text": np.array([products[label].text for label in labels], dtype=object)},
        texts=tuple(products[label].text for label in labels),
    )


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    """The lines that are not blank, cut at commas and stripped, each with its number."""
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(f"dataset grocery: {printable(path)} cannot be read ({error}); get it by `{SOURCE}`") from None
    rows = csv.reader(text.splitlines())
    return [(rows.line_num, [cell.strip() for cell in cells]) for cells in rows if any(cells)]
