"""RP2K: packages cut out of photos of supermarket shelves, 2,388 kinds.

Peng, Xiao, Li: "RP2K: A Large-Scale Retail Product Dataset for Fine-Grained Image Classification", arXiv:2006.12634.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from retrieval_bench.core import Dataset
from retrieval_bench.datasets.folder import folder
from retrieval_bench.datasets.published import home_of
from retrieval_bench.registry import DATASETS

SOURCE = "its authors give it away as rp2k_dataset.zip"


@DATASETS("rp2k", about="RP2K (Peng et al., 2020): packages on shelves, 2,388 kinds, from your copy")
def rp2k(root: Path | None, *, gallery: Literal["train", "test"] = "train") -> Dataset:
    """Read the folders all/train and all/test, each with a folder for each kind of package.

    The paper classifies test images by what was learned from train; as a search, test is query and train is the
    gallery, and the accuracy of the nearest neighbour stands for the paper's accuracy.

    Args:
        root: the folder rp2k_dataset, its folder all, or the one that holds train and test.
        gallery: `train` searches in train; `test` searches for each test image among all others of test.
    """
    home = home_of("rp2k", root, "train", SOURCE, ("all", "rp2k_dataset/all"))
    home_of("rp2k", home, "test", SOURCE)
    found = folder(home, splits="train:train+gallery,test:query" if gallery == "train" else "train:train,test:both")
    return replace(found, name="rp2k")
