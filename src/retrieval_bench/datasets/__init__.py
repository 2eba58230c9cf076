"""From a name to train, gallery and query: one file a dataset, found through the DATASETS registry.

Importing this package registers them all. What is wrong with a dataset is found in `data_audit`.
"""

from retrieval_bench.datasets import folder, grocery, manifest, products, webdataset

__all__ = ["folder", "grocery", "manifest", "products", "webdataset"]
