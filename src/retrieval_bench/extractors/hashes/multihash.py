"""Search among images that have several hashes each: the more hashes of the query find a near one, the nearer.

The distance is that of imagehash's ImageMultiHash: q - m + s / (m * bits), where q is the number of the query's hashes,
m how many of them have one within the bit-error rate among those of the gallery image, and s the sum of the distances
to the nearest. It is not symmetric. Without a match it is q, which is more than any with a match.
"""

from __future__ import annotations

import numpy as np

from retrieval_bench.core import BenchError, Ranking
from retrieval_bench.search.checks import check_exclude, check_k, check_matrix
from retrieval_bench.search.index import ExactIndex

MOST_SEGMENTS = 255
"""As many as the first byte of a row can count."""

_PAIRS_AT_ONCE = 4 << 20  # a pair of hashes takes 60 bytes at most while neighbours are sorted


def row_bytes(segments: int, bits: int) -> int:
    """Bytes of a row that holds so many codes of `bits` bits."""
    return 1 + segments * -(-bits // 8)


class SegmentIndex:
    """rows: (n, 1 + segments * ceil(bits / 8)) uint8: a count, so many packed codes, zeros. n may be 0.

    errors: hashes match when at most this share of their bits differs.

    All hashes of the gallery lie in one ExactIndex; those of the queries find theirs by its Hamming kernel. `bytes` is
    what it and the rows of the gallery that the hashes belong to occupy. Raises BenchError for rows of another width,
    or whose count is more than they hold.
    """

    def __init__(self, rows: np.ndarray, bits: int, errors: float) -> None:
        self._bits, self._cutoff = bits, bits * errors
        self._width = -(-bits // 8)
        rows = self._checked("gallery", rows)
        self._columns = rows.shape[1]
        self._n = len(rows)
        codes, self._owners, _ = self._codes(rows)
        self._index = ExactIndex(codes, "hamming")

    @property
    def bytes(self) -> int:
        return self._index.bytes + self._owners.nbytes

    def __call__(self, queries: np.ndarray, k: int, exclude: np.ndarray | None = None) -> Ranking:
        """Arguments and result as in core.Searcher. A query without hashes is at distance 1 from everything; a gallery
        row without hashes matches nothing."""
        queries = self._checked("queries", queries, self._columns)
        k = check_k(k)
        hidden = check_exclude(exclude, len(queries), self._n)
        ranking = Ranking(np.full((len(queries), k), -1, np.int64), np.full((len(queries), k), np.inf, np.float32))
        most = max(1, int(queries[:, 0].max(initial=0)))
        step = max(1, _PAIRS_AT_ONCE // (most * max(len(self._owners), self._n, 1)))
        for start in range(0, len(queries), step):
            for query, distances in enumerate(self._distances(queries[start : start + step]), start):
                out = hidden[query][hidden[query] >= 0]
                distances[out] = np.inf
                nearest = _nearest(distances, min(k, self._n - len(np.unique(out))))
                ranking.indices[query, : len(nearest)] = nearest
                ranking.distances[query, : len(nearest)] = distances[nearest]
        return ranking

    def _distances(self, queries: np.ndarray) -> np.ndarray:
        """(q, n) float32."""
        codes, owners, places = self._codes(queries)
        found = self._index.search_radius(codes, self._cutoff)
        # What is nearest to each hash of each query in each gallery image. Neighbours come the nearest first; read
        # backwards, the nearest is the last to be written, and stays.
        nearest = np.full((len(queries), int(queries[:, 0].max(initial=0)), self._n), np.inf, np.float32)
        hashes = np.repeat(np.arange(len(codes)), np.diff(found.offsets))[::-1]
        nearest[owners[hashes], places[hashes], self._owners[found.indices[::-1]]] = found.distances[::-1]
        matched = np.isfinite(nearest)
        matches = matched.sum(axis=1)
        sums = np.where(matched, nearest, 0).sum(axis=1, dtype=np.float64)
        q = queries[:, :1].astype(np.float64)
        score = matches - sums / (np.maximum(matches, 1) * self._bits)
        return np.where(matches > 0, q - score, np.maximum(q, 1)).astype(np.float32)

    def _codes(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """All codes, (t, bytes) uint8, the row of each, (t,) int64 ascending, and its place within the row."""
        codes = rows[:, 1:].reshape(len(rows), (rows.shape[1] - 1) // self._width, self._width)
        owners, places = np.nonzero(np.arange(codes.shape[1]) < rows[:, :1])
        return codes[owners, places], owners, places

    def _checked(self, name: str, rows: np.ndarray, columns: int | None = None) -> np.ndarray:
        rows = check_matrix(name, rows, "hamming", columns)
        places, left = divmod(rows.shape[1] - 1, self._width)
        if left or not places:
            raise BenchError(
                f"{name} has {rows.shape[1]} columns; rows of {self._bits}-bit hashes have one byte that counts them "
                f"and {self._width} for each"
            )
        if len(rows) and int(rows[:, 0].max()) > places:
            row = int(rows[:, 0].argmax())
            raise BenchError(f"{name} row {row} counts {rows[row, 0]} hashes; there is place for {places}")
        return rows


def _nearest(distances: np.ndarray, k: int) -> np.ndarray:
    """The k lowest of (n,) float32, equal ones by their place."""
    if k < 1:
        return np.empty(0, np.int64)
    if k < len(distances):
        among = np.flatnonzero(distances <= np.partition(distances, k - 1)[k - 1])
        return among[np.argsort(distances[among], kind="stable")[:k]]
    return np.argsort(distances, kind="stable")[:k]
