"""CUB-200-2011: photos of 200 kinds of birds.

Wah, Branson, Welinder, Perona, Belongie: "The Caltech-UCSD Birds-200-2011 Dataset", 2011. As a search for classes that
were not learned from: Oh Song et al., CVPR 2016.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from retrieval_bench.core import BenchError, Dataset, Split, printable
from retrieval_bench.datasets.published import by_key, home_of, named_split
from retrieval_bench.registry import DATASETS

SOURCE = "its authors give it away as CUB_200_2011.tgz"
LEARNED_CLASSES = 100


@DATASETS("cub", about="CUB-200-2011 (Wah et al., 2011): 200 kinds of birds, from your copy")
def cub(root: Path | None, *, protocol: Literal["zero-shot", "published"] = "zero-shot") -> Dataset:
    """Read images.txt, image_class_labels.txt, classes.txt and train_test_split.txt.

    Args:
        root: the folder CUB_200_2011, or the one that holds it.
        protocol: `zero-shot` learns from classes 1 to 100 and searches for each image of 101 to 200 among all others
            of these; its Recall@K is our hit_rate@K. `published` searches for the test list in the train list.
    """
    home = home_of("cub", root, "images.txt", SOURCE, ("CUB_200_2011",))
    paths = by_key(home / "images.txt", ("image", "path"))
    classes = by_key(home / "image_class_labels.txt", ("image", "class"))
    names = by_key(home / "classes.txt", ("class", "name"))
    for image, number in classes.items():
        if number not in names or not number.isdecimal() or image not in paths:
            raise BenchError(
                f"{printable(home)}: image {image} of class {number} is not in images.txt and classes.txt; {SOURCE}"
            )
    label_names = tuple(names.values())

    def split(chosen: list[str]) -> Split:
        labels = [names[classes[image]] for image in chosen]
        return named_split(home / "images", [paths[image] for image in chosen], labels, label_names)

    if protocol == "zero-shot":
        learned = [image for image, number in classes.items() if int(number) <= LEARNED_CLASSES]
        found = split([image for image, number in classes.items() if int(number) > LEARNED_CLASSES])
        return Dataset("cub", split(learned), found, found, label_names, leave_one_out=True)
    train = by_key(home / "train_test_split.txt", ("image", "is_train"))
    known = split([image for image in classes if train.get(image) == "1"])
    return Dataset("cub", known, known, split([image for image in classes if train.get(image) == "0"]), label_names)
