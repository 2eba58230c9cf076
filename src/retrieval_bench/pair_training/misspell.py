"""Words as customers type them: a few of them, in any order, misspelt. Texts are learned from in such versions.

It knows no language: letters are swapped, dropped, doubled, or replaced by letters that the texts of train have.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from retrieval_bench.texts.misspelling import MISTAKES, with_mistake

LEAST_LEFT, MOST_LEFT = 2, 7
"""How many words are left of a text that is cut down."""
MOST_READ = 48
"""Words of a longer text that are learned from at once: a run of them that begins anywhere."""
FEW_LETTERS = 3
"""A word of so many letters or fewer is spelt right."""


def changed(
    words: Sequence[str], letters: Sequence[str], typos: float, drop: float, rng: np.random.Generator
) -> list[str]:
    """A customer's version of some words.

    Args:
        words: of a text, at least one.
        letters: what a wrong letter is drawn from.
        typos: probability that a word is misspelt.
        drop: probability that a few words in any order are left of the text.
        rng: what is drawn from.

    Returns:
        At least one word.
    """
    chosen = list(words)
    if len(chosen) > LEAST_LEFT and rng.random() < drop:
        left = int(rng.integers(LEAST_LEFT, min(MOST_LEFT, len(chosen)) + 1))
        chosen = [chosen[place] for place in rng.permutation(len(chosen))[:left]]
    elif len(chosen) > MOST_READ:
        begin = int(rng.integers(len(chosen) - MOST_READ + 1))
        chosen = chosen[begin : begin + MOST_READ]
    wrong = rng.random(len(chosen)) < typos
    return [misspelt(word, letters, rng) if bad else word for word, bad in zip(chosen, wrong, strict=True)]


def misspelt(word: str, letters: Sequence[str], rng: np.random.Generator) -> str:
    """A word with one mistake: two letters swapped, one dropped, doubled, or replaced.

    Args:
        word: the right one; one of `FEW_LETTERS` or fewer comes back as it is.
        letters: what a wrong letter is drawn from.
        rng: what is drawn from.

    Returns:
        The word, perhaps the same.
    """
    if len(word) <= FEW_LETTERS:
        return word
    at = int(rng.integers(len(word) - 1))
    other = letters[int(rng.integers(len(letters)))] if letters else word[at]
    return with_mistake(word, int(rng.integers(MISTAKES)), at, other)
