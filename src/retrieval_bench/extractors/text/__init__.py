"""Texts to vectors: sentence encoders whose weights an installed package holds, and means of word vectors.

Extractors that look at pictures belong in the rooms beside this one.
"""

from retrieval_bench.extractors.text import glove, minilm, universal_sentence_encoder

__all__ = ["glove", "minilm", "universal_sentence_encoder"]
