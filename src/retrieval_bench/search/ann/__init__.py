"""Approximate search: indexes of other libraries, each behind the same interface as the exact engine.

What decides exactly belongs in `search`; what is measured of these belongs in `evaluation` and `peer_benchmarks`.
"""

from retrieval_bench.search.ann import faiss_indexes, neighbour_descent, scann_tree, usearch_graph

__all__ = ["faiss_indexes", "neighbour_descent", "scann_tree", "usearch_graph"]
