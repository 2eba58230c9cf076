"""Items to the rows of all methods, as a stream: each picture is read, decoded and described by every part once, and
let go; so is each text.

Parts that several methods share describe a picture once. Features that the cache knows are taken from there, and a
picture of which it knows all is not decoded.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from retrieval_bench.core import BadImage, Images
from retrieval_bench.experiment.extraction import CHUNK, both, checked, described_texts, text_digest
from retrieval_bench.experiment.features import features_key, recipe_of
from retrieval_bench.images.decoded_cache import DecodedOnce
from retrieval_bench.images.decoding import Decoded, Decoding, decoded
from retrieval_bench.indexing.part_rows import counts_words, sides_of, unwritable
from retrieval_bench.methods.modalities import IMAGE, TEXT
from retrieval_bench.methods.pipeline import Part, Pipeline
from retrieval_bench.system.cache import FeatureCache
from retrieval_bench.system.threads import mapped

AT_ONCE = 32
"""Pictures that a thread takes at once: the cache is asked once for all of them."""
STORE_EVERY = 256

_Rows = dict[str, dict[str, np.ndarray]]
"""By part and digest, of pictures and of texts alike: these are never the same."""


@dataclass(frozen=True, eq=False)
class Incoming:
    """An item that is to be described. facts: what is known of it, for whoever asked. Two ways to its pixels:

    read: its bytes; digest: sha256 of them, None for who reads it. picture: (h, w, 3) uint8, where there are no bytes.
    known: its pixels, where somebody has decoded it already. text: "" where it has none.
    """

    facts: Any
    read: Callable[[], bytes] | None = None
    digest: Callable[[], str] | None = None
    picture: np.ndarray | None = None
    known: Callable[[], Decoded] | None = None
    text: str = ""


@dataclass(frozen=True, eq=False)
class DescribedPicture:
    """One item: the digest of its picture and, of every method in turn, the row of each of its arrays; or why the
    picture cannot be used."""

    incoming: Incoming
    digest: str = ""
    rows: tuple[np.ndarray, ...] = ()
    bad: BadImage | None = None
    notes: tuple[str, ...] = field(default=())


class Describer:
    """Describes items by all methods of an index.

    An item whose picture cannot be decoded cannot be used, also where no method looks at it: a run leaves it out, too.

    Args:
        pipelines: that have learned.
        decoding: how bytes become pixels.
        threads: how many items are worked on at a time.
        cache: where features are looked up and kept.
        keys: by name of the part, under which key the cache keeps its features.
        gallery: they are items of the gallery; else queries, of which a method may read something else.
    """

    def __init__(
        self,
        pipelines: Sequence[Pipeline],
        decoding: Decoding,
        threads: int,
        cache: FeatureCache | None = None,
        keys: Mapping[str, str] = MappingProxyType({}),
        *,
        gallery: bool = True,
    ) -> None:
        self._order = [
            (part.name, side)
            for pipeline in pipelines
            for part, side in zip(pipeline.parts, sides_of(pipeline, gallery=gallery), strict=True)
        ]
        parts: dict[str, Part] = {part.name: part for pipeline in pipelines for part in pipeline.parts}
        self._looking = {name: parts[name] for name, side in self._order if side != TEXT}
        self._reading = {name: parts[name] for name, side in self._order if side != IMAGE}
        self._decoding, self._threads, self._keys = decoding, threads, keys
        self._cache = cache if cache is not None and cache.root is not None else None
        self._cached = [name for name, part in parts.items() if not counts_words(part)]
        self._chunk = max(CHUNK, *(getattr(part.extractor, "chunk", CHUNK) for part in parts.values()))
        self.notes: Counter[str] = Counter()

    def __call__(self, incoming: Iterable[Incoming]) -> Iterator[DescribedPicture]:
        """Describe items in their order; a few of them are in memory at a time."""
        unstored: _Rows = {name: {} for name in self._cached}
        waiting = iter(incoming)
        size = max(AT_ONCE, self._chunk)
        chunks = iter(lambda: list(itertools.islice(waiting, size)), [])
        try:
            for found, new in mapped(self._described, chunks, self._threads):
                for name, features in new.items():
                    unstored[name] |= features
                    if len(unstored[name]) >= STORE_EVERY:
                        self._store(name, unstored)
                for one in found:
                    self.notes.update(one.notes)
                yield from found
        finally:
            for name in self._cached:
                self._store(name, unstored)

    def _store(self, name: str, unstored: _Rows) -> None:
        if self._cache is not None and unstored[name]:
            self._cache.put(self._keys[name], unstored[name])
            unstored[name] = {}

    def _described(self, some: Sequence[Incoming]) -> tuple[list[DescribedPicture], _Rows]:
        """What became of each item, in order, and what the cache did not know, by part and digest."""
        found: list[DescribedPicture] = []
        new: _Rows = {name: {} for name in self._cached}
        known: _Rows = {name: {} for name in self._cached}
        if self._cache is not None:
            pictures = [digest for one in some if (digest := _digest_of(one))]
            texts = [text_digest(one.text) for one in some]
            for name in known:
                wanted = [*(pictures if name in self._looking else ()), *(texts if name in self._reading else ())]
                known[name] = self._cache.get(self._keys[name], wanted)
        for start in range(0, len(some), self._chunk):
            found += self._few(some[start : start + self._chunk], known, new)
        return found, new

    def _few(self, some: Sequence[Incoming], known: _Rows, new: _Rows) -> list[DescribedPicture]:
        found: list[DescribedPicture] = []
        pictures: list[np.ndarray] = []
        place: dict[int, int] = {}
        for number, one in enumerate(some):
            digest, notes = "", tuple[str, ...]()
            try:
                if self._cache is not None:
                    digest = _digest_of(one)
                if not digest or not self._looking or not all(digest in known[name] for name in self._looking):
                    pixels, digest, notes = self._pixels(one, digest)
                    place[number] = len(pictures)
                    pictures.append(unwritable(pixels))
            except BadImage as bad:
                found.append(DescribedPicture(one, bad=bad))
                continue
            found.append(DescribedPicture(one, digest, (), None, notes))
        seen: dict[str, np.ndarray] = {}
        if pictures:
            for name, part in self._looking.items():
                distance = part.extractor.distance
                seen[name] = checked(part.extractor.transform(pictures), len(pictures), distance)
        told = self._told([one.text for one in some], known, new)
        for number, done in enumerate(found):
            if done.bad is not None:
                continue
            rows: dict[str, np.ndarray] = {}
            for name in self._looking:
                if number in place:
                    rows[name] = new[name][done.digest] = seen[name][place[number]]
                else:
                    rows[name] = known[name][done.digest]
            own = tuple(_row(side, rows.get(name), told.get(name, {}).get(number)) for name, side in self._order)
            found[number] = DescribedPicture(done.incoming, done.digest, own, None, done.notes)
        return found

    def _told(self, texts: Sequence[str], known: _Rows, new: _Rows) -> dict[str, dict[int, np.ndarray]]:
        """By part that reads texts, the row of each of these."""
        told: dict[str, dict[int, np.ndarray]] = {}
        digests = [text_digest(text) for text in texts] if self._reading else []
        for name, part in self._reading.items():
            if name not in known:  # words, of which the cache keeps nothing
                told[name] = dict(enumerate(described_texts(part.extractor, texts)))
                continue
            missing = {digest: text for digest, text in zip(digests, texts, strict=True) if digest not in known[name]}
            if missing:
                fresh = dict(zip(missing, described_texts(part.extractor, list(missing.values())), strict=True))
                known[name] |= fresh
                new[name] |= fresh
            told[name] = {number: known[name][digest] for number, digest in enumerate(digests)}
        return told

    def _pixels(self, one: Incoming, digest: str) -> tuple[np.ndarray, str, tuple[str, ...]]:
        if one.read is None:
            assert one.picture is not None
            return one.picture, digest or _digest_of(one), ()
        if one.known is not None and one.digest is not None:
            pixels, notes = one.known()
            return pixels, one.digest(), notes
        data = one.read()
        if not digest:
            digest = one.digest() if one.digest is not None else hashlib.sha256(data).hexdigest()
        pixels, notes = decoded(data, self._decoding)
        return pixels, digest, notes


def _row(side: str, seen: np.ndarray | None, told: np.ndarray | None) -> np.ndarray:
    """What is compared of an item, from the row of its picture, of its text, or of both."""
    if side == IMAGE:
        assert seen is not None
        return seen
    assert told is not None
    if side == TEXT:
        return told
    assert seen is not None
    row: np.ndarray = both(seen[None], told[None])[0]
    return row


def _digest_of(one: Incoming) -> str:
    """What identifies a picture; "" where it cannot be read."""
    if one.digest is not None:
        return one.digest()
    try:
        if one.read is not None:
            return hashlib.sha256(one.read()).hexdigest()
    except BadImage:
        return ""
    assert one.picture is not None
    return hashlib.sha256(repr(one.picture.shape).encode() + one.picture.tobytes()).hexdigest()


def of_images(images: Images, row: int, facts: Any, text: str = "") -> Incoming:
    """One image of a split, with its text; its digest is asked for where the bytes are not what identifies it."""

    def known() -> Decoded:
        return Decoded(images[row], images.notes(row) if isinstance(images, DecodedOnce) else ())

    once = isinstance(images, DecodedOnce)
    return Incoming(facts, lambda: images.read(row), lambda: images.digest(row), None, known if once else None, text)


def cache_keys(
    pipelines: Sequence[Pipeline], setup: Any, decoding: Decoding, learned_from: Mapping[str, str | None]
) -> dict[str, str]:
    """Name of a part -> the key under which a run keeps its features. learned_from: by the same names."""
    return {
        part.name: features_key(recipe_of(part, setup, decoding.key), learned_from[part.name])
        for pipeline in pipelines
        for part in pipeline.parts
    }
