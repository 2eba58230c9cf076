"""Perturbations of texts: queries as people type them in a hurry, in other words, or in another language.

Like those of images, each is a pure function of the text, the severity and the seed, and what is drawn does not depend
on the severity: along a curve one and the same change only grows.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from retrieval_bench.core import SEVERITIES, BenchError
from retrieval_bench.registry import PERTURBATIONS, TEXT_PERTURBATIONS, Entry, unknown
from retrieval_bench.texts.misspelling import MISTAKES, with_mistake
from retrieval_bench.texts.thesaurus import in_spanish, other_words

Change = Callable[[str, int, np.random.Generator], str]


def perturbed_text(name: str, text: str, severity: int, seed: int = 0) -> str:
    """Perturb one text.

    Args:
        name: a registered perturbation of texts, e.g. "typos".
        text: any text; an empty one stays empty.
        severity: 1 (slight) to 5 (severe).
        seed: seed of what is random, from 0. The text enters, too.

    Returns:
        The perturbed text; never empty where `text` has a word.

    Raises:
        BenchError: The name or the severity is unknown.
    """
    change: Change = TEXT_PERTURBATIONS[name].build
    if severity not in SEVERITIES:
        raise BenchError(f"severity {severity} of {name} is not one of {', '.join(map(str, SEVERITIES))}")
    content = hashlib.sha256(f"{seed} {name} {text}".encode(errors="surrogatepass")).digest()
    return change(text, severity, np.random.default_rng(int.from_bytes(content, "big")))


def entry_of(name: str) -> Entry:
    """A perturbation of images or of texts. Raises BenchError for an unknown name."""
    return TEXT_PERTURBATIONS[name] if changes_texts(name) else PERTURBATIONS[name]


def changes_texts(name: str) -> bool:
    """Whether it is texts that this perturbation changes."""
    return name in TEXT_PERTURBATIONS


def levels(name: str, severities: Sequence[int]) -> tuple[int, ...]:
    """Select the severities that differ: all of them, or only 1 for a perturbation without degrees.

    Args:
        name: a registered perturbation of images or of texts.
        severities: the wanted severities, 1 to 5.

    Returns:
        The severities to run.
    """
    return tuple(severities) if entry_of(name).facts["graded"] else SEVERITIES[:1]


def parse_perturbations(text: str, read: frozenset[str]) -> tuple[str, ...]:
    """Parse the value of `--perturb`.

    Args:
        text: names with commas, e.g. "rotate,typos", or "all".
        read: what the queries of the run are, of MODALITIES: "all" means those of it.

    Returns:
        The names, without repeats.

    Raises:
        BenchError: There is no name, one is unknown, it changes what no query has, or no method reads any.
    """
    names = dict.fromkeys(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise BenchError(f"--perturb {text!r} names nothing; write e.g. --perturb rotate,blur or --perturb all")
    of = {"image": [one.name for one in PERTURBATIONS], "text": [one.name for one in TEXT_PERTURBATIONS]}
    possible = [name for modality in ("image", "text") if modality in read for name in of[modality]]
    if not possible:
        raise BenchError(f"--perturb {text}: no method of this run reads queries; add one that does, e.g. phash")
    if "all" in names:
        return tuple(possible)
    for name in names:
        if name not in (*of["image"], *of["text"]):
            raise BenchError(unknown("perturbation", name, [*of["image"], *of["text"], "all"]))
        if name not in possible:
            missing = "texts" if name in of["text"] else "pictures"
            raise BenchError(
                f"--perturb {name} changes {missing}, and no method of this run reads {missing} of queries"
            )
    return tuple(names)


# --- what they do -----------------------------------------------------------------------------------------------------

SHARES = (0.2, 0.4, 0.6, 0.8, 1.0)
DROPPED = (0.1, 0.2, 0.35, 0.5, 0.7)
_WORD = re.compile(r"\w+", re.UNICODE)
_LETTERS = "aeioustrnl"


def _register(name: str, about: str, *, graded: bool = True) -> Callable[[Change], Change]:
    return TEXT_PERTURBATIONS(name, about=about, graded=graded)


def _share(places: int, share: float, dice: np.random.Generator) -> set[int]:
    """Which of so many are changed; at a higher share these and more."""
    order = dice.permutation(places)
    return set(order[: round(share * places)].tolist())


@_register("typos", "two letters swapped, one lost, doubled or wrong, in 20, 40, 60, 80, 100 % of the longer words")
def typos(text: str, severity: int, dice: np.random.Generator) -> str:
    """Misspell words of four letters and more."""
    words = [match for match in _WORD.finditer(text) if len(match[0]) >= 4 and match[0].isalpha()]
    chosen = _share(len(words), SHARES[severity - 1], dice)
    kinds, ats = dice.integers(0, MISTAKES, len(words)), dice.random(len(words))
    letters = dice.integers(0, len(_LETTERS), len(words))
    parts, end = [], 0
    for place, match in enumerate(words):
        word = match[0]
        if place in chosen:
            at = 1 + int(ats[place] * (len(word) - 2))
            word = with_mistake(word, kinds[place], at, _LETTERS[letters[place]])
        parts += [text[end : match.start()], word]
        end = match.end()
    return "".join([*parts, text[end:]])


@_register("drop-words", "10, 20, 35, 50, 70 % of the words are not there; one always is")
def drop_words(text: str, severity: int, dice: np.random.Generator) -> str:
    """Leave words out, at any place."""
    words = text.split()
    if len(words) < 2:
        return text
    gone = _share(len(words), DROPPED[severity - 1], dice)
    return " ".join(word for place, word in enumerate(words) if place not in gone) or words[0]


@_register("synonyms", "other words for 20, 40, 60, 80, 100 % of the kinds, colours and prints that have some")
def synonyms(text: str, severity: int, dice: np.random.Generator) -> str:
    """Say it in other words, as far as `thesaurus` knows some."""
    others = other_words()

    def other(words: str, chance: float) -> str:
        known = others[words]
        return known[int(chance * len(known))]

    return _replaced(text, {word: "" for word, known in others.items() if known}, other, SHARES[severity - 1], dice)


@_register("spanish", "20, 40, 60, 80, 100 % of the words of shops in Spanish, for encoders of several languages")
def spanish(text: str, severity: int, dice: np.random.Generator) -> str:
    """Translate word by word what `thesaurus` knows; names and printed words stay."""
    known = in_spanish()
    return _replaced(text, known, lambda words, chance: known[words], SHARES[severity - 1], dice)


@_register("capitals", "all letters are capitals; all severities are the same", graded=False)
def capitals(text: str, severity: int, dice: np.random.Generator) -> str:
    """Type with the caps lock on."""
    return text.upper()


def _replaced(
    text: str,
    known: Mapping[str, str],
    other: Callable[[str, float], str],
    share: float,
    dice: np.random.Generator,
) -> str:
    """Replace a share of the known words; those that belong together, such as dark blue, as one."""
    longest = sorted(known, key=len, reverse=True)
    pattern = re.compile(rf"\b({'|'.join(map(re.escape, longest))})\b", re.IGNORECASE)
    found = list(pattern.finditer(text))
    chosen, chances = _share(len(found), share, dice), dice.random(len(found))
    parts, end = [], 0
    for place, match in enumerate(found):
        word = match[0]
        if place in chosen:
            word = other(word.casefold(), chances[place])
        parts += [text[end : match.start()], word]
        end = match.end()
    return "".join([*parts, text[end:]])
