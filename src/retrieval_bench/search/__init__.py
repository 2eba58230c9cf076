"""Backends that find the k nearest; importing this package registers them and loads no compiled code."""

from retrieval_bench.search import index, reference

__all__ = ["index", "reference"]
