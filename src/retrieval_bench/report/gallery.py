"""Who wins and who loses, query by query: chosen from the rankings, shown with small images where these are at hand."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from PIL import Image

from retrieval_bench.core import Split
from retrieval_bench.evaluation import metrics
from retrieval_bench.records.schema import Row
from retrieval_bench.report.evidence import Evidence

SIDE = 92  # pixels of a thumbnail's longer side; shown smaller
QUALITY = 58
FOUND = 5  # images shown of each ranking
EACH = 4  # queries shown of each pair
FAMILIES = 3  # whose pairs are shown; the counts are of all
HARDEST = 4


@dataclass(frozen=True, eq=False)
class Example:
    """One query and what methods found. methods: those whose first images are shown, the winner first."""

    query: int
    methods: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Duel:
    """Queries that the nearest neighbour of `winner` gets right and that of `loser` wrong: `count`, and a few."""

    winner: str
    loser: str
    count: int
    examples: tuple[Example, ...]


@dataclass(frozen=True, eq=False)
class Gallery:
    """champions: (family, its most accurate method), best first. won: [i, j] counts queries that champion i gets right
    and j wrong. hardest: queries that all champions get wrong, `unsolved` in all."""

    champions: tuple[tuple[str, str], ...]
    won: np.ndarray
    duels: tuple[Duel, ...]
    hardest: tuple[Example, ...]
    unsolved: int


def choose(evidence: Evidence) -> Gallery | None:
    """The gallery of a record; None where fewer than two families have a ranking."""
    champions = _champions([row for row in evidence.contestants if evidence.has_ranking(row.method)])
    if len(champions) < 2:
        return None
    judged = {row.method: evidence.judged(row.method) for row in champions}
    right = {name: metrics.accuracy(one) > 0 for name, one in judged.items()}
    quality = {name: metrics.map_at_r(one) for name, one in judged.items()}
    names = [row.method for row in champions]
    won = np.array([[int((right[one] & ~right[other]).sum()) for other in names] for one in names])
    labels = evidence.arrays["query_labels"]
    duels = []
    for winner, loser in permutations(names[:FAMILIES], 2):
        rows = np.flatnonzero(right[winner] & ~right[loser])
        lead = quality[winner][rows] - quality[loser][rows]
        picked = _of_different_labels(rows[np.argsort(-lead, kind="stable")], labels, EACH)
        examples = tuple(Example(query, (winner, loser)) for query in picked)
        if examples:
            duels.append(Duel(winner, loser, len(rows), examples))
    lost = np.flatnonzero(~np.any([right[name] for name in names], axis=0))
    total = np.sum([quality[name][lost] for name in names], axis=0)
    hardest = _of_different_labels(lost[np.argsort(total, kind="stable")], labels, HARDEST)
    return Gallery(
        tuple((row.family, row.method) for row in champions),
        won,
        tuple(duels),
        tuple(Example(query, tuple(names[:FAMILIES])) for query in hardest),
        len(lost),
    )


def _champions(rows: Sequence[Row]) -> list[Row]:
    best: dict[str, Row] = {}
    for row in rows:
        if row.family not in best or row.scores["accuracy"] > best[row.family].scores["accuracy"]:
            best[row.family] = row
    return sorted(best.values(), key=lambda row: -row.scores["accuracy"])


def _of_different_labels(rows: np.ndarray, labels: np.ndarray, most: int) -> list[int]:
    """The first of these rows, no label twice."""
    first = np.sort(np.unique(labels[rows], return_index=True)[1])
    return [int(row) for row in rows[first][:most]]


class Thumbnails:
    """Small JPEGs of a split as data URIs, by the image's id."""

    def __init__(self, split: Split) -> None:
        self._split = split
        self._row_of = {item: row for row, item in enumerate(split.ids)}
        self._made: dict[str, str] = {}

    def __getitem__(self, item: str) -> str:
        """The data URI; raises BadImage where the image can no longer be read, KeyError for an unknown id."""
        if item not in self._made:
            self._made[item] = _data_uri(self._split.images[self._row_of[item]])
        return self._made[item]


def _data_uri(pixels: np.ndarray) -> str:
    image = Image.fromarray(pixels)
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def heat_map(matrix: np.ndarray) -> str:
    """(n, n) counts as a PNG data URI: right ones on the diagonal in blue, mistakes in red, nothing clear.

    A row's strength is its share of the row, so that labels with many queries look like those with few. More than 240
    labels are put together, several a pixel.
    """
    n = len(matrix)
    block = -(-n // 240)
    size = -(-n // block)
    padded = np.zeros((size * block, size * block))
    padded[:n, :n] = matrix
    right = np.diag(np.diag(padded)).reshape(size, block, size, block).sum(axis=(1, 3))
    whole = padded.reshape(size, block, size, block).sum(axis=(1, 3))
    rows = np.maximum(whole.sum(axis=1, keepdims=True), 1)
    picture = np.zeros((size, size, 4), np.uint8)
    picture[..., :3] = (217, 72, 47)
    share = whole / rows
    mostly_right = right * 2 > whole
    picture[mostly_right, :3] = (37, 117, 221)
    picture[..., 3] = np.where(whole > 0, np.round(70 + 185 * np.sqrt(share)), 0).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(picture).quantize(64).save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
