"""Stanford Online Products: photos of 22,634 things for sale, a few of each, from other sellers' listings.

Oh Song, Xiang, Jegelka, Savarese: "Deep Metric Learning via Lifted Structured Feature Embedding", CVPR 2016.
"""

from __future__ import annotations

from pathlib import Path

from retrieval_bench.core import Dataset, Split
from retrieval_bench.datasets.published import columns_of, home_of, in_order, named_split
from retrieval_bench.registry import DATASETS

SOURCE = "its authors give it away as Stanford_Online_Products.zip"
COLUMNS = ("image_id", "class_id", "super_class_id", "path")


@DATASETS("sop", about="Stanford Online Products (Oh Song et al., CVPR 2016): 22,634 things for sale, from your copy")
def sop(root: Path | None) -> Dataset:
    """Read Ebay_train.txt and Ebay_test.txt.

    The published protocol: methods learn from the 11,318 classes of the train list; each image of the test list is
    searched for among all others of it. Its Recall@K is our hit_rate@K. Labels are class ids; categories the twelve
    kinds of things.

    Args:
        root: the folder Stanford_Online_Products, or the one that holds it.
    """
    home = home_of("sop", root, "Ebay_train.txt", SOURCE, ("Stanford_Online_Products",))
    train, test = (columns_of(home / f"Ebay_{name}.txt", COLUMNS, skip=1) for name in ("train", "test"))
    labels = in_order(row[1] for row in [*train, *test])
    kinds = tuple(sorted({_kind(row[3]) for row in [*train, *test]}))

    def split(rows: list[list[str]]) -> Split:
        paths = [row[3] for row in rows]
        return named_split(home, paths, [row[1] for row in rows], labels, list(map(_kind, paths)), kinds)

    found = split(test)
    return Dataset("sop", split(train), found, found, labels, kinds, leave_one_out=True)


def _kind(path: str) -> str:
    """bicycle_final/111085122871_0.JPG: a bicycle."""
    return path.partition("/")[0].removesuffix("_final")
