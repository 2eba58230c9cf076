"""Which words of a query made an item near: what `bm25` adds up, or what the similarity loses without each word."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from retrieval_bench.explaining.clues import Unexplained, WordPair
from retrieval_bench.extractors.text.bm25 import Bm25
from retrieval_bench.linalg.rows import unit_rows

MOST_WORDS = 32
"""Of a query; each costs one more text that is described."""

TERMS = "what each word of the query adds to the score"
OCCLUDED = "what the similarity loses without each word of the query"


def term_pairs(extractor: Bm25, query: str, found: Sequence[str], gallery: Sequence[str]) -> list[WordPair]:
    """The score of each item, word by word. gallery: all its texts, which say how rare a word is."""
    words = list(dict.fromkeys(extractor.transform_texts([query])[0, 0]))
    _none(words, query)
    searcher, kept = extractor.searcher(extractor.transform_texts(gallery)), list(gallery)
    places = [kept.index(text) for text in found]
    each = np.stack([searcher.scores([word])[places] for word in words])
    counts = extractor.transform_texts([query])[0, 0]
    each *= np.array([[counts.count(word)] for word in words])
    pairs = []
    for item in range(len(found)):
        shared = int((each[:, item] > 0).sum())
        said = f"score {each[:, item].sum():.3g} from {shared} of {len(words)} words"
        pairs.append(WordPair(_ranked(words, each[:, item]), said, -float(each[:, item].sum())))
    return pairs


def occlusion_pairs(describe: Callable[[Sequence[str]], np.ndarray], query: str, found: np.ndarray) -> list[WordPair]:
    """describe: texts to (n, d) vectors. found: (m, d) vectors of the items, of the same space; compared by cosine."""
    words = query.split()
    _none(words, query)
    left_out = [" ".join(words[:place] + words[place + 1 :]) for place in range(min(len(words), MOST_WORDS))]
    vectors = unit_rows(np.asarray(describe([query, *left_out]), np.float64))
    similarity = vectors @ unit_rows(np.asarray(found, np.float64)).T
    lost = similarity[0] - similarity[1:]
    pairs = []
    for item in range(similarity.shape[1]):
        said = f"cosine {similarity[0, item]:.3f}; bars: what it loses without the word"
        pairs.append(WordPair(_ranked(words[: len(lost)], lost[:, item]), said, 1 - float(similarity[0, item])))
    return pairs


def _none(words: Sequence[str], query: str) -> None:
    if not words:
        raise Unexplained(f"the query's text {query[:30]!r} has no words")


def _ranked(words: Sequence[str], amounts: np.ndarray) -> tuple[tuple[str, float], ...]:
    return tuple((word, float(amount)) for word, amount in zip(words, amounts, strict=True))
