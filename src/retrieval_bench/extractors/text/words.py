"""A text as words, in any script: what is compared where words are counted."""

from __future__ import annotations

import re
import unicodedata

MOST_CHARACTERS = 100_000
"""What is read of a text. A title has a hundred, a long description some thousands."""

_WITHOUT_SPACES = "\u2e80-\u9fff\u3040-\u30ff\uac00-\ud7af\u0e00-\u0eff\u1780-\u17ff\uf900-\ufaff"
_WORDS = re.compile(rf"[{_WITHOUT_SPACES}]+|[^\W{_WITHOUT_SPACES}]+|[\u2190-\u2bff\U0001f000-\U0001faff]")
_MARKUP = re.compile(r"</?[a-zA-Z!][^<>]{0,1000}>|&[a-zA-Z]{2,8};|&#\d{1,7};")
_RUN = re.compile(rf"[{_WITHOUT_SPACES}]")


def cleaned(text: str) -> str:
    """Lower case, one form of each character (NFKC), no markup, no control characters; at most MOST_CHARACTERS."""
    text = _MARKUP.sub(" ", text[:MOST_CHARACTERS])
    text = unicodedata.normalize("NFKC", text).casefold()
    return "".join(" " if unicodedata.category(character) in ("Cc", "Cs", "Co") else character for character in text)


def words_of(text: str) -> list[str]:
    """The words, in order. Scripts that put no spaces between words give pairs of neighbouring characters, as search
    engines take them; an emoji is a word of its own."""
    found: list[str] = []
    for word in _WORDS.findall(cleaned(text)):
        if _RUN.match(word) and len(word) > 1:
            found += [word[at : at + 2] for at in range(len(word) - 1)]
        else:
            found.append(word)
    return found
