"""What queries bring and what the gallery is described by: pictures, texts, or both.

A method says it behind its name, `clip:ViT-B-32[text-to-image]`, `minilm[text]`; left out, it is what its extractors
read: `sift` compares pictures with pictures, `bm25` texts with texts, `sift+bm25` both with both. An extractor that
reads both has one space for them, and reads pictures where nothing is said.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from retrieval_bench.core import BenchError, Sides
from retrieval_bench.registry import Spec

IMAGE, TEXT, BOTH = "image", "text", "image+text"
CHOICES = (IMAGE, TEXT, BOTH)

_ONE = r"(image|text|image\+text)"
_SUFFIX = re.compile(rf"\[\s*{_ONE}\s*(?:-to-\s*{_ONE}\s*)?\]\s*$")


def split_suffix(text: str) -> tuple[str, Sides | None]:
    """`bm25[text]` -> `bm25` and its sides; None where the name says nothing."""
    found = _SUFFIX.search(text)
    if found is None:
        return text, None
    return text[: found.start()].rstrip(), Sides(found[1], found[2] or found[1])


def without_suffix(name: str) -> str:
    """The name of a row without what it says of its sides."""
    return split_suffix(name)[0]


def natural_sides(members: Sequence[Spec]) -> Sides:
    """What is compared where nobody says it."""
    read = {member.modalities[0] for member in members}  # of two, the first
    both = BOTH if len(read) == 2 else next(iter(read))
    return Sides(both, both)


def side_of(spec: Spec, side: str) -> str:
    """What an extractor reads of an item that has `side`: all of it, or the one modality that it knows."""
    known = spec.modalities
    return side if len(known) == 2 else known[0]


def refuse_wrong_sides(name: str, members: Sequence[Spec], sides: Sides) -> None:
    """BenchError where an extractor would lack what it reads, or nothing would read what is there."""
    for member in members:
        known = member.modalities
        for what, side in (("queries", sides.query), ("gallery", sides.gallery)):
            if len(known) == 1 and known[0] not in side.split("+"):
                raise BenchError(
                    f"method {name!r}: {member.entry.name} reads {_plural(known[0])}, and the {what} would be "
                    f"{_plural(side)}; say {BOTH}, or leave {member.entry.name} out"
                )
    for what, side in (("queries", sides.query), ("gallery", sides.gallery)):
        for modality in side.split("+"):
            if not any(modality in member.modalities for member in members):
                raise BenchError(
                    f"method {name!r}: nothing in it reads the {_plural(modality)} of the {what}; add a method that "
                    f"does, for example {'bm25' if modality == TEXT else 'color'}, or leave {modality} out"
                )


def _plural(side: str) -> str:
    return {IMAGE: "pictures", TEXT: "texts", BOTH: "pictures with texts"}[side]
