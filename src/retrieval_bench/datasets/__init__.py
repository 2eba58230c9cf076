"""Datasets: one file each, found through the DATASETS registry. Importing this package registers them all."""

from retrieval_bench.datasets import folder, grocery, manifest, products

__all__ = ["folder", "grocery", "manifest", "products"]
