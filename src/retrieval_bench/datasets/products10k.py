"""Products-10k: 9,691 products of a large shop, photographed by the shop and by customers.

Bai, Chen, Yu, Wang, Zhang: "Products-10K: A Large-scale Product Recognition Dataset", arXiv:2008.10545.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from retrieval_bench.core import BenchError, Dataset, Split, printable
from retrieval_bench.datasets.published import home_of, in_order, named_split, table_of
from retrieval_bench.registry import DATASETS

SOURCE = "its authors give it away as train.zip, test.zip, train.csv and test_kaggletest.csv"
TEST = "test_kaggletest.csv"


@DATASETS("products10k", about="Products-10k (Bai et al., 2020): 9,691 products of a shop, from your copy")
def products10k(root: Path | None, *, queries: Literal["all", "public", "private"] = "all") -> Dataset:
    """Read train.csv and test_kaggletest.csv; images lie in the folders train and test.

    The paper classifies test images by what was learned from train; as a search, test is query, and train is train and
    gallery. Labels are classes; categories the groups of the lists.

    Args:
        root: the folder with both lists and both folders.
        queries: all test images, or those whose column Usage says Public or Private.
    """
    home = home_of("products10k", root, "train.csv", SOURCE)
    train = table_of(home / "train.csv", ("name", "class", "group"))
    test = table_of(home / TEST, ("name", "class", "group", *(("Usage",) if queries != "all" else ())))
    asked = [row for row in test if queries in ("all", row.get("Usage", "").casefold())]
    if not asked:
        raise BenchError(f"{printable(home / TEST)}: no line has Usage {queries}; write queries=all")
    labels = in_order(row["class"] for row in [*train, *asked])
    groups = in_order(row["group"] for row in [*train, *asked])

    def split(rows: list[dict[str, str]], below: str) -> Split:
        paths = [f"{below}/{row['name']}" for row in rows]
        return named_split(home, paths, [row["class"] for row in rows], labels, [row["group"] for row in rows], groups)

    known = split(train, "train")
    return Dataset("products10k", known, known, split(asked, "test"), labels, groups)
