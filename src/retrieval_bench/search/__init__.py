"""Backends that find the k nearest; importing this package registers them and loads no compiled code."""

from retrieval_bench.search import gpu, index, reference

__all__ = ["gpu", "index", "reference"]
