"""Steps that look again at the first of a ranking, one file a step, found through the STEPS registry.

Importing this package registers them all. The first ranking itself belongs in `search`.
"""

from retrieval_bench.methods.reranking import cross, k_reciprocal, query_expansion, spatial

__all__ = ["cross", "k_reciprocal", "query_expansion", "spatial"]
