"""Methods that read texts: words that are counted, and encoders of sentences.

What reads both pictures and texts belongs in `deep`; how texts are joined with pictures belongs in `methods`.
"""

from retrieval_bench.extractors.text import bm25, tfidf

__all__ = ["bm25", "tfidf"]
