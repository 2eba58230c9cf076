"""`ranking:FILE`: what another program found for each query, judged like what a method of this program finds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np

from retrieval_bench.core import BenchError, Dataset, Distance, Extractor, Ranking, Setup, Split, printable
from retrieval_bench.registry import EXTRACTORS
from retrieval_bench.stored.joining import SHOWN, IdJoin
from retrieval_bench.stored.rankings import StoredRankings, read_rankings
from retrieval_bench.stored.vectors import sha256_of, there


class RankingFile:
    """Describes a query and a gallery image by their numbers in the file; its searcher looks up what the file says.

    Args:
        called: the method, for sentences.
        file: of the rankings. It is not read before it is wanted.
        method: of a record's rankings.npz.
    """

    distance: Distance = "euclidean"
    comparable = False  # a score of another program; nobody knows on which scale
    ranks_only = True
    wanted: int = 1  # it looks at no pixel

    def __init__(self, called: str, file: Path, method: str) -> None:
        self._called, self._file, self._method = called, file, method
        self._stored: tuple[StoredRankings, IdJoin, IdJoin] | None = None
        self.weights = {"source": printable(file.name), "sha256": sha256_of(file)}

    def fit(self, train: Split) -> Self:
        return self

    def transform(self, images: Sequence[np.ndarray]) -> np.ndarray:
        raise BenchError(f"{self._called} holds rankings and says nothing of pixels; name another method here")

    def describe_split(self, split: Split, what: str) -> np.ndarray:
        """(n, 1) float32, the number of each query or gallery image in the file; -1: it is not in it."""
        _, queries, items = self._read()
        rows = items.rows(split) if what == "gallery" else queries.rows(split)
        return rows.astype(np.float32)[:, None]  # exact up to 16 million

    def meet(self, dataset: Dataset) -> tuple[str, ...]:
        """Look for every query, and for every item in the gallery; how deep the rankings are.

        BenchError where the file lacks a query, or ranks what is not in the gallery.
        """
        stored, queries, items = self._read()
        asked = queries.rows_of_all(dataset.query)
        items.rows(dataset.gallery)
        unknown = [stored.items[row] for row in items.free()]
        if unknown:
            more = ", ..." if len(unknown) > SHOWN else ""
            raise BenchError(
                f"{self._called}: {printable(self._file)} ranks {len(unknown)} items that the gallery does not hold: "
                f"{', '.join(map(repr, unknown[:SHOWN]))}{more}; it must rank this very gallery, "
                "without --limit and with no image skipped"
            )
        held = np.bincount(stored.asked, minlength=len(stored.queries))[asked]
        least, most = int(held.min()), int(held.max())
        n = f"{least:,}" if least == most else f"{least:,} to {most:,}"
        what = f"its rankings hold {n} items a query"
        if least < len(dataset.gallery) - dataset.leave_one_out:
            what += f" of a gallery of {len(dataset.gallery):,}; what they do not hold counts as not found"
        ties = "" if stored.scored else "; the file has ranks and no scores, so only equal ranks are ties"
        extra = len(stored.queries) - len(asked)
        return (what + ties, *([f"{extra:,} queries of the file are not asked here"] if extra else []))

    def searcher(self, gallery: np.ndarray) -> FileSearcher:
        """Over gallery images by their numbers, (n, 1)."""
        return FileSearcher(self._read()[0], gallery)

    def _read(self) -> tuple[StoredRankings, IdJoin, IdJoin]:
        if self._stored is None:
            stored = read_rankings(self._file, self._called, self._method)
            queries, items = (IdJoin(ids, self._file, self._called) for ids in (stored.queries, stored.items))
            self._stored = stored, queries, items
        return self._stored


class FileSearcher:
    """Finds what the file says, by its scores; equal ones in the order of the gallery. gallery: (n, 1) numbers."""

    bytes = 0

    def __init__(self, stored: StoredRankings, gallery: np.ndarray) -> None:
        row_of = np.full(len(stored.items) + 1, -1, np.int64)
        numbers = gallery[:, 0].astype(np.int64)
        row_of[numbers] = np.arange(len(gallery))
        row_of[-1] = -1  # images that are in no ranking have number -1
        rows = row_of[stored.found]
        order = np.lexsort((rows, stored.distances, stored.asked))
        order = order[rows[order] >= 0]
        self._rows, self._distances = rows[order], _told_apart(stored.distances[order], stored.asked[order])
        self._starts = np.searchsorted(stored.asked[order], np.arange(len(stored.queries) + 1))

    def __call__(self, queries: np.ndarray, k: int, exclude: np.ndarray | None = None) -> Ranking:
        """As `core.Searcher` has it; padded behind what the file holds."""
        indices = np.full((len(queries), k), -1, np.int64)
        distances = np.full((len(queries), k), np.inf, np.float32)
        for place, number in enumerate(queries[:, 0].astype(np.int64).tolist()):
            if number < 0:
                continue
            own = slice(self._starts[number], self._starts[number + 1])
            rows, far = self._rows[own], self._distances[own]
            if exclude is not None:
                kept = ~np.isin(rows, exclude[place])
                rows, far = rows[kept], far[kept]
            m = min(k, len(rows))
            indices[place, :m], distances[place, :m] = rows[:m], far[:m]
        return Ranking(indices, distances)


def _told_apart(distances: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Ascending float64 distances of each query -> float32, in which no two that differ have become equal.

    Where rounding would make them so (scores such as 1e9 + 1), the query's distances become 0, 1, 2, ..., equal ones
    the same number: nobody compares these numbers between queries.
    """
    rounded = distances.astype(np.float32)
    same_query = asked[1:] == asked[:-1]
    merged = same_query & (distances[1:] != distances[:-1]) & (rounded[1:] == rounded[:-1])
    if not merged.any():
        return rounded
    steps = np.concatenate(([0], np.cumsum(same_query & (distances[1:] != distances[:-1]))))
    starts = np.searchsorted(asked, asked)  # the first row of each one's query
    return np.where(np.isin(asked, asked[1:][merged]), steps - steps[starts], rounded).astype(np.float32)


@EXTRACTORS(
    "ranking",
    family="file",
    about="rankings from a file: a TREC run, CSV, npz; judged as they are",
    argument="path",
    by_id=True,
)
def ranking(setup: Setup, *, path: str = "", method: str = "") -> Extractor:
    """What another program found, judged by every metric of rankings.

    Args:
        setup: what the run fixes for every method.
        path: the file: a TREC run (query Q0 item rank score tag), .csv or .tsv with the columns query, item, and score
            or rank, .npz with arrays of these names, or the rankings.npz of a record.
        method: the method whose rankings are taken from a record's rankings.npz.
    """
    called = f"ranking:{printable(Path(path).name)}"
    there(Path(path), called)
    return RankingFile(called, Path(path), method)
