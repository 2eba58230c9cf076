"""One mistake in a word, as fingers make it: what perturbs queries, and what towers learn to read."""

from __future__ import annotations

MISTAKES = 4
"""Two letters swapped, one lost, one doubled, or one wrong."""


def with_mistake(word: str, kind: int, at: int, letter: str) -> str:
    """Misspell a word.

    Args:
        word: the right one, of two letters or more.
        kind: which of MISTAKES, from 0.
        at: where, from 0; the last letter but one at most.
        letter: what stands in the place of a wrong one.

    Returns:
        The word with the mistake, perhaps the same.
    """
    return (
        word[:at] + word[at + 1] + word[at] + word[at + 2 :],
        word[:at] + word[at + 1 :],
        word[:at] + word[at] + word[at:],
        word[:at] + letter + word[at + 1 :],
    )[kind]
