"""Texts as numbers: words, whatever the script, and what each word is made of.

`WordTokens` gives a word its own number, where train has it, and the numbers of its runs of 2 to 4 letters, hashed into
buckets (Bojanowski et al., TACL 2017): a misspelt or new word shares most of them with the right one. `PieceTokens`
cuts words into parts that are frequent in train (byte-pair encoding, Sennrich et al., ACL 2016). Both are learned from
train alone, the same on every machine, and identified by a sha256.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

from retrieval_bench.core import BenchError
from retrieval_bench.pair_training.settings import TokenKind
from retrieval_bench.texts.words import words_of

RULES = 1
"""Raise it when the same text and vocabulary give other tokens: files of before are then refused."""
MOST_CHARACTERS = 10_000
"""Of a text that are read; what is behind them counts for nothing."""
MOST_TOKENS = 128
MOST_LETTERS = 40
"""Of a word that are looked at."""
MOST_WORDS = 50_000
"""In a vocabulary: the most frequent ones."""
MOST_PIECES = 4_000
BUCKETS = 8_192
"""For runs of letters."""
RUNS = (2, 3, 4)
"""Lengths of these runs, of a word between its marks of begin and end."""
BEGIN, END = "\x02", "\x03"
"""Of a word; no word can hold them."""

Token = tuple[int, ...]
"""Rows of a table whose mean is the vector of one token."""


def read_words(text: str) -> list[str]:
    """The words of a text that a tower reads: those of `words_of`, as far as the limits above go.

    Args:
        text: any text, also of other scripts, damaged or very long; `MOST_CHARACTERS` of it are read.

    Returns:
        At most `MOST_TOKENS` words of at most `MOST_LETTERS` letters; empty where it has none.
    """
    return [word[:MOST_LETTERS] for word in words_of(text[:MOST_CHARACTERS])[:MOST_TOKENS]]


@dataclass(frozen=True)
class WordTokens:
    """Known words and runs of letters.

    Args:
        vocabulary: the words of train, the most frequent first.
    """

    vocabulary: tuple[str, ...]
    kind: TokenKind = "words"

    @classmethod
    def learned(cls, texts: Iterable[str]) -> WordTokens:
        """Take the vocabulary from these texts, and from nothing else."""
        return cls(tuple(word for word, _ in _by_count(_counted(texts))[:MOST_WORDS]))

    @property
    def size(self) -> int:
        """Rows of the table."""
        return len(self.vocabulary) + BUCKETS

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {word: row for row, word in enumerate(self.vocabulary)}

    def tokens(self, words: Sequence[str]) -> list[Token]:
        """One token a word: the word itself, where it is known, and its runs of letters."""
        return [self._token(word) for word in words[:MOST_TOKENS]]

    def _token(self, word: str) -> Token:
        marked = f"{BEGIN}{word}{END}"
        runs = sorted({marked[at : at + n] for n in RUNS for at in range(len(marked) - n + 1)})
        own = [self._rows[word]] if word in self._rows else []
        return (*own, *(len(self.vocabulary) + zlib.crc32(run.encode()) % BUCKETS for run in runs))

    @property
    def data(self) -> dict[str, Any]:
        """What the file keeps."""
        return {"kind": self.kind, "rules": RULES, "vocabulary": list(self.vocabulary)}

    @cached_property
    def sha256(self) -> str:
        """What identifies this vocabulary with its rules."""
        return _sha256(self.data)


@dataclass(frozen=True)
class PieceTokens:
    """Parts of words.

    Args:
        letters: the letters of train; row 0 of the table is for every other one.
        merges: pairs of parts that become one, in this order; each result has the next row.
    """

    letters: tuple[str, ...]
    merges: tuple[tuple[str, str], ...]
    kind: TokenKind = "pieces"

    @classmethod
    def learned(cls, texts: Iterable[str]) -> PieceTokens:
        """Join the most frequent pair of neighbours again and again, within the words of these texts."""
        counts = _counted(texts)
        letters = Counter[str]()
        for word, count in counts.items():
            for letter in (*word, END):
                letters[letter] += count
        kept = tuple(letter for letter, _ in _by_count(letters)[:MOST_PIECES])
        return cls(kept, tuple(_merges(dict(_by_count(counts)[:MOST_WORDS]), MOST_PIECES)))

    @property
    def size(self) -> int:
        """Rows of the table."""
        return 1 + len(self.letters) + len(self.merges)

    @cached_property
    def _rows(self) -> dict[str, int]:
        rows: dict[str, int] = {}
        for piece in (*self.letters, *("".join(pair) for pair in self.merges)):
            rows.setdefault(piece, len(rows) + 1)
        return rows

    @cached_property
    def _order(self) -> dict[tuple[str, str], int]:
        return {pair: place for place, pair in enumerate(self.merges)}

    def tokens(self, words: Sequence[str]) -> list[Token]:
        """One token a part: the earliest pair that was learned is joined first."""
        found: list[Token] = []
        for word in words:
            found += [(self._rows.get(piece, 0),) for piece in self.pieces(word)]
            if len(found) >= MOST_TOKENS:
                break
        return found[:MOST_TOKENS]

    def pieces(self, word: str) -> list[str]:
        """The parts of a word; the last one ends with `END`."""
        parts = [*word, END]
        while len(parts) > 1:
            first = min(pairwise(parts), key=lambda pair: self._order.get(pair, len(self.merges)))
            if first not in self._order:
                break
            parts = _joined(parts, first)
        return parts

    @property
    def data(self) -> dict[str, Any]:
        """What the file keeps."""
        merges = [list(pair) for pair in self.merges]
        return {"kind": self.kind, "rules": RULES, "letters": list(self.letters), "merges": merges}

    @cached_property
    def sha256(self) -> str:
        """What identifies these parts with their rules."""
        return _sha256(self.data)


Tokens = WordTokens | PieceTokens


def learn_tokens(kind: TokenKind, texts: Iterable[str]) -> Tokens:
    """Learn a vocabulary.

    Args:
        kind: which one.
        texts: the texts of train that are learned from.

    Returns:
        The tokens.
    """
    return WordTokens.learned(texts) if kind == "words" else PieceTokens.learned(texts)


def tokens_from(data: Mapping[str, Any]) -> Tokens:
    """Read what `data` gave.

    Args:
        data: of a file.

    Returns:
        The tokens.

    Raises:
        BenchError: It is of other rules, or no vocabulary at all; behind the name of the file.
    """
    if data.get("rules") != RULES:
        raise BenchError(
            f"its tokens follow rules {str(data.get('rules'))[:20]} and this program knows {RULES}; train it again"
        )
    try:
        if data["kind"] == "words":
            return WordTokens(tuple(_text(word) for word in data["vocabulary"]))
        if data["kind"] == "pieces":
            merges = tuple((_text(first), _text(second)) for first, second in data["merges"])
            return PieceTokens(tuple(_text(letter) for letter in data["letters"]), merges)
    except (KeyError, TypeError, ValueError):
        pass
    raise BenchError("it holds no vocabulary that this program can read; train it again")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _counted(texts: Iterable[str]) -> Counter[str]:
    return Counter(word for text in texts for word in read_words(text))


def _by_count(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda one: (-one[1], one[0]))


def _sha256(data: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def _joined(parts: Sequence[str], pair: tuple[str, str]) -> list[str]:
    out: list[str] = []
    at = 0
    while at < len(parts):
        if tuple(parts[at : at + 2]) == pair:
            out.append(parts[at] + parts[at + 1])
            at += 2
        else:
            out.append(parts[at])
            at += 1
    return out


def _merges(counts: Mapping[str, int], most: int) -> list[tuple[str, str]]:
    """The pairs to join, in order; one that occurs once in all is none. Equal counts: the first by its letters."""
    words = [[*word, END] for word in counts]
    weights = list(counts.values())
    known: Counter[tuple[str, str]] = Counter()
    where: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
    for place, parts in enumerate(words):
        for pair in pairwise(parts):
            known[pair] += weights[place]
            where[pair].add(place)
    found: list[tuple[str, str]] = []
    while known and len(found) < most:
        best = min(known, key=lambda pair: (-known[pair], pair))
        if known[best] < 2:
            break
        found.append(best)
        for place in sorted(where.pop(best)):
            before, weight = words[place], weights[place]
            for pair in pairwise(before):
                known[pair] -= weight
                if known[pair] <= 0:
                    del known[pair]
            words[place] = _joined(before, best)
            for pair in pairwise(words[place]):
                known[pair] += weight
                where[pair].add(place)
        known.pop(best, None)
    return found
