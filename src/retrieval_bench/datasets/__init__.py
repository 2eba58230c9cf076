"""From a name to train, gallery and query: one file a dataset, found through the DATASETS registry.

Importing this package registers them all. What is wrong with a dataset is found in `data_audit`.
"""

from retrieval_bench.datasets import (
    cub,
    folder,
    grocery,
    holidays,
    inshop,
    manifest,
    products,
    products10k,
    rp2k,
    smvs,
    sop,
    ukbench,
    webdataset,
)

__all__ = [
    "cub",
    "folder",
    "grocery",
    "holidays",
    "inshop",
    "manifest",
    "products",
    "products10k",
    "rp2k",
    "smvs",
    "sop",
    "ukbench",
    "webdataset",
]
