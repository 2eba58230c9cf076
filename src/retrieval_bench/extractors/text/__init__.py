"""Methods that read texts: words that are counted, encoders of sentences, and means of word vectors.

What reads both pictures and texts belongs in `deep`; how texts are joined with pictures belongs in `methods`.
"""

from retrieval_bench.extractors.text import bm25, glove, minilm, tfidf, universal_sentence_encoder

__all__ = ["bm25", "glove", "minilm", "tfidf", "universal_sentence_encoder"]
