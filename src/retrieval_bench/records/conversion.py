"""A record for other programs: rankings as TREC files, scores of each query as a table in CSV or Parquet.

TREC tools order equal scores by a rule of their own. So a run file holds no distances but scores that fall by one from
rank to rank: whoever sorts them gets the ranking of the record, with its tie rule.

A query that a run does not name is no miss to all of them: trec_eval leaves it out of its means, and ranx refuses the
run. So a query that found nothing has one line, with the image NOTHING that no gallery holds: a miss to every program.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import numpy as np

from retrieval_bench.core import BenchError
from retrieval_bench.records.switch import RANKINGS_FILE
from retrieval_bench.system.csv_text import csv_text

QRELS_FILE = "qrels.trec"
RUN_SUFFIX = ".run.trec"
NOTHING = "%nothing%"
"""What a query found that found nothing. It is no token of an image: in those, each % begins a %XX."""
TABLE_FORMATS = ("csv", "parquet")

_IN_A_COLUMN = string.punctuation.replace("%", "")
_IN_A_FILE_NAME = "+=,[]()@"


def trec_files(arrays: Mapping[str, np.ndarray], methods: Sequence[str]) -> dict[str, bytes]:
    """File name -> content: one file of relevance judgements for all methods, and one run file for each method."""
    files = {QRELS_FILE: qrels(arrays).encode("ascii")}
    for method in methods:
        files[f"{quote(method, safe=_IN_A_FILE_NAME)}{RUN_SUFFIX}"] = run(arrays, method).encode("ascii")
    return files


def token(name: str) -> str:
    """A name as one column of a TREC file: spaces, `%` and all that is not ASCII as %XX. `urllib.parse.unquote` undoes
    it."""
    return quote(name, safe=_IN_A_COLUMN, errors="surrogatepass")


def qrels(arrays: Mapping[str, np.ndarray]) -> str:
    """A line `query 0 image 1` for each relevant gallery image of each query; excluded images are not relevant."""
    queries, images = _tokens(arrays, "query_ids"), _tokens(arrays, "gallery_ids")
    hidden = arrays.get("exclude", np.full(len(queries), -1))
    labels, asked = label_sets(arrays, "gallery"), label_sets(arrays, "query")
    table = labels.reshape(len(labels), -1)
    owners, columns = np.nonzero(table >= 0)
    held = table[owners, columns]
    by_label = np.argsort(held, kind="stable")
    owners, held = owners[by_label], held[by_label]
    lines = []
    for query, name in enumerate(queries):
        own = [label for label in np.atleast_1d(asked[query]).tolist() if label >= 0]
        spans = [np.searchsorted(held, label, side) for label in own for side in ("left", "right")]
        found = [owners[start:end] for start, end in zip(spans[::2], spans[1::2], strict=True)]
        rows = np.unique(np.concatenate(found))
        rows = rows[~np.isin(rows, hidden[query])].tolist()
        if len(rows) != arrays["n_relevant"][query]:
            raise BenchError(
                f"{RANKINGS_FILE}: {len(rows)} gallery images have the label of query {name} and n_relevant says "
                f"{arrays['n_relevant'][query]}; run again"
            )
        lines += [f"{name} 0 {images[row]} 1\n" for row in rows]
    return "".join(lines)


def label_sets(arrays: Mapping[str, np.ndarray], of: str) -> np.ndarray:
    """All labels of each image, of "gallery" or "query": (n,), or (n, m) padded with -1 where any has several."""
    first, others = arrays[f"{of}_labels"], arrays.get(f"{of}_other_labels")
    return first if others is None else np.column_stack([first, others])


def run(arrays: Mapping[str, np.ndarray], method: str) -> str:
    """A line `query Q0 image rank score method` for each image found, and one for a query that found none. rank: from
    1. score: depth + 1 - rank."""
    queries, images = _tokens(arrays, "query_ids"), _tokens(arrays, "gallery_ids")
    tag, depth = token(method), arrays[f"{method}/indices"].shape[1]
    lines = []
    for name, rows in zip(queries, arrays[f"{method}/indices"].tolist(), strict=True):
        found = [(rank, images[row]) for rank, row in enumerate(rows) if row >= 0] or [(0, NOTHING)]
        lines += [f"{name} Q0 {image} {rank + 1} {depth - rank} {tag}\n" for rank, image in found]
    return "".join(lines)


def _tokens(arrays: Mapping[str, np.ndarray], name: str) -> list[str]:
    tokens = [token(item) for item in arrays[name].tolist()]
    if len(set(tokens)) < len(tokens):
        raise BenchError(f"{RANKINGS_FILE}: {name} holds a name twice; a TREC file needs a name for each image")
    return tokens


def score_columns(
    arrays: Mapping[str, np.ndarray], by_method: Mapping[str, Mapping[str, np.ndarray]]
) -> dict[str, list[Any]]:
    """Column -> values, with one row for each method and query, in the order of the record.

    by_method: method -> metric -> (q,) values, as `compare.reload.values_of` has them. A metric that a method lacks is
    None.
    """
    numbers = arrays["query_labels"].tolist()
    names = arrays.get("label_names")
    labels = [str(number) if names is None else str(names[number]) for number in numbers]
    metrics = list(dict.fromkeys(metric for values in by_method.values() for metric in values))
    columns: dict[str, list[Any]] = {name: [] for name in ("method", "query", "label", "n_relevant", *metrics)}
    for method, values in by_method.items():
        columns["method"] += [method] * len(numbers)
        columns["query"] += arrays["query_ids"].tolist()
        columns["label"] += labels
        columns["n_relevant"] += arrays["n_relevant"].tolist()
        for metric in metrics:
            columns[metric] += values[metric].tolist() if metric in values else [None] * len(numbers)
    return columns


def table_bytes(columns: Mapping[str, Sequence[Any]], form: str) -> bytes:
    """form: one of TABLE_FORMATS. Numbers read back from either are the same to the last bit, and so are names; what
    of a name is no Unicode is escaped, as in `core.printable`."""
    told = {
        name: [_encodable(value) if isinstance(value, str) else value for value in values]
        for name, values in columns.items()
    }
    return {"csv": _csv, "parquet": _parquet}[form](told)


def need_packages(form: str) -> None:
    """BenchError where a package that this form needs is not installed."""
    if form != "parquet":
        return
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise BenchError(
            "--to parquet needs pyarrow, which is not installed; install it by pip install 'retrieval-bench[parquet]', "
            "or use --to csv"
        ) from None


def _encodable(text: str) -> str:
    r"""Bytes of a file name that are not UTF-8 become \xNN, other halves of surrogate pairs \uNNNN."""
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()


def _csv(columns: Mapping[str, Sequence[Any]]) -> bytes:
    return csv_text([columns, *zip(*columns.values(), strict=True)]).encode()


def _parquet(columns: Mapping[str, Sequence[Any]]) -> bytes:
    need_packages("parquet")
    import pyarrow
    import pyarrow.parquet

    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.table(dict(columns)), sink)
    return bytes(sink.getvalue().to_pybytes())
