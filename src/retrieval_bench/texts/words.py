"""A text as words, in any script: what is compared where words are counted, and what towers are trained on."""

from __future__ import annotations

import re
import unicodedata

MOST_CHARACTERS = 100_000
"""What is read of a text. A title has a hundred, a long description some thousands."""

_WITHOUT_SPACES = re.compile("[\u2e80-\u9fff\u3040-\u30ff\uac00-\ud7af\u0e00-\u0eff\u1780-\u17ff\uf900-\ufaff]")
"""Letters of scripts that put no spaces between words."""
_MARKUP = re.compile(r"</?[a-zA-Z!][^<>]{0,1000}>|&[a-zA-Z]{2,8};|&#\d{1,7};")


def normalised(text: str) -> str:
    """Lower case, one form of each character (NFKC), no markup, no control characters; at most MOST_CHARACTERS."""
    text = _MARKUP.sub(" ", text[:MOST_CHARACTERS])
    text = unicodedata.normalize("NFKC", text).casefold()
    return "".join(" " if unicodedata.category(character) in ("Cc", "Cs", "Co") else character for character in text)


def words_of(text: str) -> list[str]:
    """The words of a text, in order: runs of letters, digits and their marks, and each emoji or symbol alone.

    Everything else parts words and is dropped. Scripts that put no spaces between words give pairs of neighbouring
    characters, as search engines take them.
    """
    found: list[str] = []
    letters: list[str] = []

    def close() -> None:
        word = "".join(letters)
        letters.clear()
        if len(word) > 1 and _WITHOUT_SPACES.match(word):
            found.extend(word[at : at + 2] for at in range(len(word) - 1))
        elif word:
            found.append(word)

    for character in normalised(text):
        kind = unicodedata.category(character)
        if kind[0] == "M":
            if letters:  # else a mark without a letter, as behind an emoji
                letters.append(character)
        elif kind[0] in "LN":
            if letters and bool(_WITHOUT_SPACES.match(letters[0])) != bool(_WITHOUT_SPACES.match(character)):
                close()
            letters.append(character)
        else:
            close()
            if kind == "So":
                found.append(character)
    close()
    return found
