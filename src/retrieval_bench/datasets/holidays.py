"""INRIA Holidays: 1,491 holiday photos of 500 scenes and objects.

Jegou, Douze, Schmid: "Hamming Embedding and Weak Geometric Consistency for Large Scale Image Search", ECCV 2008.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from retrieval_bench.core import BenchError, Dataset, Split, printable
from retrieval_bench.datasets.published import folder_of, in_order, named_split
from retrieval_bench.images.listing import names_in
from retrieval_bench.registry import DATASETS

SOURCE = "its authors give it away as jpg1.tar.gz and jpg2.tar.gz, which unpack to jpg/"
NAME = re.compile(r"1\d{5}\.jpe?g", re.I)


@DATASETS("holidays", about="INRIA Holidays (Jegou et al., ECCV 2008): 500 scenes and objects, from your copy")
def holidays(root: Path | None, *, gallery: Literal["all", "rest"] = "all") -> Dataset:
    """Read the file names: of 100000.jpg the first four digits are the group, and 00 at the end is its query.

    The published protocol: each of the 500 queries is searched for among all other images, those of other groups'
    queries included. Its mAP takes the mean of the precisions before and after each hit; our `map` takes the one after,
    and is a little higher. There is no train image.

    Args:
        root: the folder jpg, or the one that holds it.
        gallery: `all` searches in all images but the query; `rest` in those that are no query.
    """
    home = folder_of("holidays", root, "jpg", SOURCE)
    names = [name for name in names_in(home) if NAME.fullmatch(name)]
    if not names:
        raise BenchError(f"dataset holidays: {printable(home)} has no image called 100000.jpg and so on; {SOURCE}")
    groups = in_order(_group(name) for name in names)

    def split(chosen: list[str]) -> Split:
        return named_split(home, chosen, [_group(name) for name in chosen], groups)

    queries = [name for name in names if name[4:6] == "00"]
    rest = [name for name in names if name[4:6] != "00"]
    searched = names if gallery == "all" else rest
    return Dataset("holidays", split([]), split(searched), split(queries), groups, leave_one_out=gallery == "all")


def _group(name: str) -> str:
    return name[:4]
