"""Images and texts to features over all cores, through the cache: what is stored is not computed, and what is computed
is stored."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from retrieval_bench.core import BenchError, Distance, Extractor, Images, Split
from retrieval_bench.distributed.engine import Chunks
from retrieval_bench.experiment.filled_rows import FilledRows
from retrieval_bench.images.screening import digests_of, pictured_rows
from retrieval_bench.linalg.rows import unit_rows
from retrieval_bench.methods.modalities import BOTH, IMAGE, TEXT
from retrieval_bench.system.cache import FeatureCache
from retrieval_bench.system.threads import mapped

CHUNK = 8
"""Images a worker takes at once, unless the extractor names its own `chunk`.

Small enough for an even finish, large enough that handing over costs nothing.
"""

_STORE_EVERY = 256


@dataclass(frozen=True, eq=False)
class Extracted:
    """features: (n, d) float32 or (n, bytes) uint8; `computed` and `from_cache` count distinct images."""

    features: np.ndarray
    computed: int
    from_cache: int


def extract(
    extractor: Extractor,
    split: Split,
    *,
    threads: int,
    cache: FeatureCache,
    key: str,
    progress: Callable[[int, int], None],
    chunks: Chunks | None = None,
    what: str = "",
    side: str = IMAGE,
) -> Extracted:
    """Features of a whole split, row by row. An image, or a text, that occurs twice is computed once.

    what: the name of the split, for what is found by id.
    chunks: who describes the images; by default the threads of this process, `in_chunks`.
    side: what is read of each item, one of modalities.CHOICES.
    """
    chunks = chunks or in_chunks
    if hasattr(extractor, "transform_split"):
        features = checked(extractor.transform_split(split), len(split), extractor.distance)
        return Extracted(features, len(split), 0)
    if hasattr(extractor, "describe_split"):
        features = checked(extractor.describe_split(split, what), len(split), extractor.distance)
        return Extracted(features, len(split), 0)
    if side == TEXT:
        return _of_texts(extractor, split, threads, cache, key, progress)
    if side == BOTH:
        seen = extract(
            *(extractor, split), threads=threads, cache=cache, key=key, progress=progress, chunks=chunks, what=what
        )
        told = _of_texts(extractor, split, threads, cache, key, progress)
        features = both(seen.features, told.features)
        return Extracted(features, seen.computed + told.computed, seen.from_cache + told.from_cache)
    if split.pictured is not None:
        return _of_some(extractor, split, threads=threads, cache=cache, key=key, progress=progress, chunks=chunks)
    digests = digests_of(split.images, threads)

    def compute(missing: Sequence[int]) -> Iterator[tuple[Sequence[int], np.ndarray]]:
        return chunks(extractor, split.images, missing, threads)

    return _through_cache(digests, compute, cache, key, progress)


def _of_some(extractor: Extractor, split: Split, **how: Any) -> Extracted:
    """Features of a split in which some items have no picture; the row of one without is zeros."""
    rows = np.flatnonzero(pictured_rows(split))
    if not len(rows):
        raise BenchError("no item has a picture to look at; drop this method, or compare texts")
    seen = extract(extractor, split.with_pictures, **how)
    features = np.zeros((len(split), *seen.features.shape[1:]), seen.features.dtype)
    features[rows] = seen.features
    return Extracted(features, seen.computed, seen.from_cache)


def _of_texts(
    extractor: Extractor,
    split: Split,
    threads: int,
    cache: FeatureCache,
    key: str,
    progress: Callable[[int, int], None],
) -> Extracted:
    texts = texts_of(split)
    if getattr(extractor, "lexical", False):
        return Extracted(extractor.transform_texts(texts), len(texts), 0)  # type: ignore[attr-defined]
    digests = [text_digest(text) for text in texts]

    def work(rows: Sequence[int]) -> tuple[Sequence[int], np.ndarray]:
        return rows, described_texts(extractor, [texts[row] for row in rows])

    def compute(missing: Sequence[int]) -> Iterator[tuple[Sequence[int], np.ndarray]]:
        size = getattr(extractor, "chunk", CHUNK)
        some = [missing[start : start + size] for start in range(0, len(missing), size)]
        return mapped(work, some, threads, in_order=False)

    return _through_cache(digests, compute, cache, key, progress)


def text_digest(text: str) -> str:
    """What identifies a text in the cache, where those of images are sha256 of their bytes."""
    return hashlib.sha256(b"text " + text.encode(errors="surrogatepass")).hexdigest()


def texts_of(split: Split) -> Sequence[str]:
    """The texts of a split that has some. BenchError for one that has none."""
    if split.texts is None:
        raise BenchError("this dataset has no texts; a manifest has them in its columns title, text and description")
    return split.texts


def described_texts(extractor: Extractor, texts: Sequence[str]) -> np.ndarray:
    """Features of some texts; an error where the extractor breaks its contract."""
    features: np.ndarray = extractor.transform_texts(texts)  # type: ignore[attr-defined]
    return features if getattr(extractor, "lexical", False) else checked(features, len(texts), extractor.distance)


def described_items(
    extractor: Extractor, side: str, images: Sequence[np.ndarray | None], texts: Sequence[str]
) -> np.ndarray:
    """(n, ...) features of n items.

    Args:
        extractor: that has learned.
        side: what is read of an item, one of modalities.CHOICES.
        images: (h, w, 3) uint8 RGB. None: an item without one, where its text is read, too.
        texts: of the same items, "" for none.
    """
    told = None if side == IMAGE else described_texts(extractor, texts)
    if told is not None and side == TEXT:
        return told
    seen = [image for image in images if image is not None]
    if told is None:
        return checked(extractor.transform(seen), len(images), extractor.distance)
    looked_at = np.zeros(told.shape, np.float32)  # an item without a picture has the vector of its text
    if seen:
        rows = [row for row, image in enumerate(images) if image is not None]
        looked_at[rows] = checked(extractor.transform(seen), len(seen), extractor.distance)
    return both(looked_at, told)


def both(seen: np.ndarray, told: np.ndarray) -> np.ndarray:
    """One vector of an item, from those of its picture and its text in one space: their sum, each of length 1.

    An item that lacks one of the two has the vector of the other.
    """
    total: np.ndarray = unit_rows(unit_rows(seen.astype(np.float32)) + unit_rows(told.astype(np.float32)))
    return total


def _through_cache(
    digests: Sequence[str],
    compute: Callable[[Sequence[int]], Iterable[tuple[Sequence[int], np.ndarray]]],
    cache: FeatureCache,
    key: str,
    progress: Callable[[int, int], None],
) -> Extracted:
    """digests: what identifies each row. compute: (rows that the cache lacks) -> (rows, features) in any order."""
    first_row: dict[str, int] = {}
    for row, digest in enumerate(digests):
        first_row.setdefault(digest, row)
    filled = FilledRows(len(digests))
    cache.each(key, first_row, lambda digest, vector: filled.put(first_row[digest], vector))
    from_cache = filled.count
    missing = [row for row in first_row.values() if not filled.has(row)]
    unstored: dict[str, np.ndarray] = {}
    progress(from_cache, len(first_row))
    try:
        for rows, features in compute(missing):
            for row, vector in zip(rows, features, strict=True):
                filled.put(row, vector)
                unstored[digests[row]] = vector
            if len(unstored) >= _STORE_EVERY:
                cache.put(key, unstored)
                unstored = {}
            progress(filled.count, len(first_row))
    finally:
        if unstored:
            cache.put(key, unstored)
    if len(first_row) < len(digests):
        filled.repeat([first_row[digest] for digest in digests])
    return Extracted(filled.whole(), len(missing), from_cache)


class Watched:
    """The same images; `seen(n)` is called after the n-th was decoded, which shows how far a `fit` has come."""

    def __init__(self, images: Images, seen: Callable[[int], None]) -> None:
        self.images = images
        self._seen = seen
        self._count = 0

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> np.ndarray:
        decoded = self.images[row]
        self._count += 1
        self._seen(self._count)
        return decoded

    def read(self, row: int) -> bytes:
        return self.images.read(row)

    def digest(self, row: int) -> str:
        return self.images.digest(row)

    def take(self, rows: Sequence[int]) -> Images:
        return self.images.take(rows)


def in_chunks(
    extractor: Extractor, images: Images, rows: Sequence[int], threads: int
) -> Iterator[tuple[Sequence[int], np.ndarray]]:
    """(rows, features) in the order in which they finish; at most two chunks per worker are under way."""

    def work(some: Sequence[int]) -> tuple[Sequence[int], np.ndarray]:
        return some, checked(extractor.transform(decoded(images, some)), len(some), extractor.distance)

    if hasattr(extractor, "chunk") or threads == 1:
        chunks = _pieces(rows, getattr(extractor, "chunk", CHUNK))
    else:  # small ones at the end, so that no worker waits long for another
        end = max(0, len(rows) - CHUNK * threads)
        chunks = [*_pieces(rows[:end], CHUNK), *_pieces(rows[end:], CHUNK // 4)]
    return mapped(work, chunks, threads, in_order=False)


def _pieces(rows: Sequence[int], size: int) -> list[Sequence[int]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def decoded(images: Images, rows: Sequence[int]) -> list[np.ndarray]:
    """Pictures that nobody can write into: others may look at the same one."""
    pictures = [images[row] for row in rows]
    for picture in pictures:
        picture.flags.writeable = False
    return pictures


def checked(features: np.ndarray, n: int, distance: Distance) -> np.ndarray:
    """What came out of an extractor, contiguous; an error when it breaks its contract."""
    wanted = ("uint8",) if distance == "hamming" else ("float32", "float16", "int8")
    if not isinstance(features, np.ndarray):
        raise ValueError(f"the extractor returned a {type(features).__name__}, expected a numpy array")
    if features.ndim != 2 or len(features) != n or features.dtype.name not in wanted:
        raise ValueError(
            f"the extractor returned {features.dtype} {features.shape}, expected {' or '.join(wanted)} ({n}, d)"
        )
    if not np.isfinite(features).all():
        raise BenchError("the extractor returned NaN or infinite features; a describable image must give finite ones")
    return np.ascontiguousarray(features)
