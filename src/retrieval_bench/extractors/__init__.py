"""Extractors, from images to vectors or codes: a folder a family, found through the EXTRACTORS registry.

Importing this package registers them all. What joins several of them into one method belongs in `methods`.
"""

from retrieval_bench.extractors import (
    controls,
    deep,
    embedding_service,
    embeddings,
    hashes,
    histograms,
    local,
    rankings,
    text,
)

__all__ = ["controls", "deep", "embedding_service", "embeddings", "hashes", "histograms", "local", "rankings", "text"]
