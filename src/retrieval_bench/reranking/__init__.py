"""What looks again at the first of a ranking: one file a step, found through the STEPS registry."""

from retrieval_bench.reranking import expansion, reciprocal, spatial

__all__ = ["expansion", "reciprocal", "spatial"]
