"""UKBench: 2,550 objects and scenes, four photos of each.

Nister, Stewenius: "Scalable Recognition with a Vocabulary Tree", CVPR 2006.
"""

from __future__ import annotations

import re
from pathlib import Path

from retrieval_bench.core import BenchError, Dataset, printable
from retrieval_bench.datasets.published import folder_of, in_order, named_split
from retrieval_bench.images.listing import names_in
from retrieval_bench.registry import DATASETS

SOURCE = "its authors give it away as ukbench.zip, which unpacks to full/"
NAME = re.compile(r"ukbench(\d{5})\.jpe?g", re.I)
EACH = 4


@DATASETS("ukbench", about="UKBench (Nister and Stewenius, CVPR 2006): 2,550 objects, four photos of each, your copy")
def ukbench(root: Path | None) -> Dataset:
    """Read the file names: ukbench00000.jpg to ukbench00003.jpg are one object, and so on.

    The published protocol counts how many of the first four hits show the query's object, the query itself among them
    (N-S score, 4 at best). Here each image is searched for among all others, so that N-S = 1 + 3 recall@3, wherever an
    image is the nearest of itself. There is no train image.

    Args:
        root: the folder full, or the one that holds it.
    """
    home = folder_of("ukbench", root, "full", SOURCE)
    found = {name: int(match[1]) // EACH for name in names_in(home) if (match := NAME.fullmatch(name))}
    if not found:
        raise BenchError(f"dataset ukbench: {printable(home)} has no image called ukbench00000.jpg and so on; {SOURCE}")
    objects = [f"{number:04}" for number in found.values()]
    labels = in_order(objects)
    split = named_split(home, list(found), objects, labels)
    return Dataset("ukbench", named_split(home, [], [], labels), split, split, labels, leave_one_out=True)
