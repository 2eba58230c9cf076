"""A file of rankings, whatever its format: of each query, items with a score or a rank."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

from retrieval_bench.core import BenchError, printable
from retrieval_bench.records.ranking_faults import first_not_ascending
from retrieval_bench.stored.numpy_files import read_npz
from retrieval_bench.stored.vectors import as_text, there
from retrieval_bench.system.csv_dialect import told_delimiter

QUERY_NAMES = ("query", "query_id", "qid", "queries", "query_ids")
ITEM_NAMES = ("item", "item_id", "docid", "doc_id", "image", "gallery", "items", "item_ids")
SCORE_NAMES = ("score", "scores", "similarity")
RANK_NAMES = ("rank", "ranks")
TREC_COLUMNS = 6


@dataclass(frozen=True, eq=False)
class StoredRankings:
    """queries, items: names, each once. All others have an entry for each item that a query found, in any order: asked
    and found are rows of queries and items; distances float64, the nearest lowest. scored: they are the file's scores,
    not its ranks, so that equal ones are ties."""

    queries: tuple[str, ...]
    items: tuple[str, ...]
    asked: np.ndarray
    found: np.ndarray
    distances: np.ndarray
    scored: bool


def read_rankings(file: Path, called: str, method: str = "") -> StoredRankings:
    """Read a TREC run file, a CSV or TSV with columns query, item and score or rank, or an npz file.

    called: the method, for sentences. method: of a record's rankings.npz that holds several.
    Raises BenchError where the file is none of these, a score or rank is no number, or a query has an item twice.
    """
    there(file, called)
    suffix = file.suffix.lower()
    if method and suffix != ".npz":
        raise BenchError(f"{called}: method={method} is of a record's rankings.npz, and {printable(file)} is none")
    if suffix == ".npz":
        found = _npz(file, called, method)
    elif suffix in (".csv", ".tsv"):
        found = _csv(file, called)
    else:
        found = _trec(file, called)
    if not len(found.asked):
        raise BenchError(f"{called}: {printable(file)} ranks nothing")
    if np.abs(found.distances).max() > np.finfo(np.float32).max:
        raise BenchError(f"{called}: {printable(file)} has scores or ranks that are too large for float32; scale them")
    _refuse_doubled(found, file, called)
    return found


def _trec(file: Path, called: str) -> StoredRankings:
    """Lines `query Q0 item rank score tag`; the score decides, as in trec_eval. %XX in names is undone."""
    columns: list[list[str]] = [[], [], []]
    for number, line in enumerate(_text(file, called).splitlines(), 1):
        words = line.split()
        if not words:
            continue
        if len(words) != TREC_COLUMNS:
            raise BenchError(
                f"{called}: {printable(file)}, line {number}: {len(words)} columns; a TREC run has 6: "
                "query Q0 item rank score tag (a table with names of columns must end in .csv)"
            )
        for column, word in zip(columns, (words[0], words[2], words[4]), strict=True):
            column.append(word)
    queries, items = ([unquote(name) for name in column] for column in columns[:2])
    return _of_columns(queries, items, _numbers(columns[2], "score", file, called), True)


def _csv(file: Path, called: str) -> StoredRankings:
    """Cells divided by what divides the names of the columns: spreadsheets write a .csv with semicolons, too."""
    text = _text(file, called)
    delimiter = told_delimiter(text, (*QUERY_NAMES, *ITEM_NAMES, *SCORE_NAMES, *RANK_NAMES))
    try:
        return _of_lines(csv.reader(io.StringIO(text), delimiter=delimiter), file, called)
    except csv.Error as error:
        raise BenchError(f"{called}: {printable(file)} is no table that can be read ({error})") from None


def _of_lines(lines: Any, file: Path, called: str) -> StoredRankings:
    """lines: a reader of csv, which raises csv.Error where a quote is never closed."""
    heads = [head.strip() for head in next(lines, [])]
    places, scored = _told(heads, file, called)
    columns: list[list[str]] = [[], [], []]
    for cells in lines:
        if not cells:
            continue
        if len(cells) != len(heads):
            raise BenchError(
                f"{called}: {printable(file)}, line {lines.line_num}: {len(cells)} cells for {len(heads)} columns"
            )
        for column, name in zip(columns, places, strict=True):
            column.append(cells[heads.index(name)].strip())
    return _of_columns(columns[0], columns[1], _numbers(columns[2], places[2], file, called), scored)


def _npz(file: Path, called: str, method: str) -> StoredRankings:
    arrays = read_npz(file, called)
    if {"query_ids", "gallery_ids"} <= arrays.keys():
        return _of_a_record(arrays, file, called, method)
    if method:
        raise BenchError(f"{called}: method={method} is of a record's rankings.npz, and {printable(file)} is none")
    places, scored = _told(list(arrays), file, called)
    queries, items, values = (arrays[name] for name in places)
    if not (queries.ndim == items.ndim == values.ndim == 1 and len(queries) == len(items) == len(values)):
        shapes = ", ".join(f"{name} {arrays[name].shape}" for name in places)
        raise BenchError(f"{called}: {printable(file)}: {shapes}; an entry of each is wanted for each item found")
    if values.dtype.kind not in "fiu" or not np.isfinite(values).all():
        raise BenchError(f"{called}: {printable(file)}: {places[2]} holds what is no number")
    return _of_columns(list(as_text(queries)), list(as_text(items)), values.astype(np.float64), scored)


def _of_a_record(arrays: Mapping[str, np.ndarray], file: Path, called: str, method: str) -> StoredRankings:
    """From the rankings.npz of a record: equal distances are ties there and here."""
    methods = [name.removesuffix("/indices") for name in arrays if name.endswith("/indices")]
    if method and method not in methods:
        raise BenchError(f"{called}: {printable(file)} has no method {method!r}; it has {', '.join(methods)}")
    if not method and len(methods) != 1:
        raise BenchError(
            f"{called}: {printable(file)} has {', '.join(methods) or 'no method'}; say which by method=NAME"
        )
    chosen = method or methods[0]
    indices, distances = arrays[f"{chosen}/indices"], arrays.get(f"{chosen}/distances")
    gallery = arrays["gallery_ids"]
    fits = indices.ndim == 2 and len(indices) == len(arrays["query_ids"]) and distances is not None
    if not fits or distances is None or distances.shape != indices.shape or indices.max(initial=-1) >= len(gallery):
        raise BenchError(f"{called}: the arrays of {chosen} in {printable(file)} are no ranking of its gallery")
    if (query := first_not_ascending(distances)) is not None:
        name = as_text(arrays["query_ids"])[query]
        raise BenchError(
            f"{called}: {chosen}/distances of the query {name!r} in {printable(file)} do not ascend, and a record's "
            "rankings have the nearest first; write them again"
        )
    asked, place = np.nonzero(indices >= 0)
    return StoredRankings(
        as_text(arrays["query_ids"]),
        as_text(gallery),
        asked,
        indices[asked, place].astype(np.int64),
        distances[asked, place].astype(np.float64),
        True,
    )


def _of_columns(queries: list[str], items: list[str], values: np.ndarray, scored: bool) -> StoredRankings:
    asked, found = ({name: row for row, name in enumerate(dict.fromkeys(names))} for names in (queries, items))
    return StoredRankings(
        tuple(asked),
        tuple(found),
        np.array([asked[name] for name in queries], np.int64),
        np.array([found[name] for name in items], np.int64),
        -values if scored else values,
        scored,
    )


def _told(heads: Sequence[str], file: Path, called: str) -> tuple[tuple[str, str, str], bool]:
    """The names of query, item and score or rank; whether it is a score, which counts where there are both."""
    folded = {head.casefold(): head for head in heads}
    query, item, score, rank = (
        next((folded[name] for name in names if name in folded), None)
        for names in (QUERY_NAMES, ITEM_NAMES, SCORE_NAMES, RANK_NAMES)
    )
    value = score or rank
    if query is None or item is None or value is None:
        divided = "" if file.suffix.lower() == ".npz" else ", separated by commas, semicolons or tabs"
        raise BenchError(
            f"{called}: {printable(file)} has {', '.join(heads) or 'nothing'}; it needs query, item, and score or rank"
            f"{divided}"
        )
    return (query, item, value), score is not None


def _numbers(words: Sequence[str], what: str, file: Path, called: str) -> np.ndarray:
    try:
        numbers = np.array(words, np.float64)
    except ValueError as error:
        raise BenchError(f"{called}: {printable(file)}: a {what} is no number ({error})") from None
    if not np.isfinite(numbers).all():
        bad = words[int(np.isfinite(numbers).argmin())]
        raise BenchError(f"{called}: {printable(file)}: a {what} is {bad}, which ranks nothing")
    return numbers


def _text(file: Path, called: str) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(f"{called}: {printable(file)} cannot be read as UTF-8 text ({error})") from None


def _refuse_doubled(found: StoredRankings, file: Path, called: str) -> None:
    order = np.lexsort((found.found, found.asked))
    asked, item = found.asked[order], found.found[order]
    twice = np.flatnonzero((asked[1:] == asked[:-1]) & (item[1:] == item[:-1]))
    if len(twice):
        raise BenchError(
            f"{called}: {printable(file)} ranks {found.items[item[twice[0]]]!r} twice for the query "
            f"{found.queries[asked[twice[0]]]!r}"
        )
