"""Whether a record, and the arrays beside it, are what everything that reads them takes for granted.

A file that was cut, edited, or written by another program is told in one sentence here, and nowhere fails halfway.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

import numpy as np

from retrieval_bench.records.ranking_faults import fault_of_ranking
from retrieval_bench.records.schema import MOMENT, Interval, Record, Row
from retrieval_bench.registry import SCORE_RANGE

OF_EACH_QUERY = (
    "query_labels",
    "n_relevant",
    "exclude",
    "query_categories",
    "query_class_sizes",
    "n_partly",
)
SETS = ("gallery_other_labels", "query_other_labels", "gallery_category_sets", "query_category_sets")
"""Arrays with a row of labels or categories for each image, padded with -1."""

ACCURACY = "accuracy"
"""What every method has, and every reader of a record counts on."""

DIGITS = 9
"""Digits of a score that count: a mean of values up to 1 may come out a rounding above it."""

NAMES = ("gallery_ids", "query_ids", "unanswerable_ids", "label_names", "category_names")
COMMON = ("gallery_ids", "gallery_labels", "query_ids", "query_labels", "n_relevant")


def fault_of_record(record: Record) -> str:
    """What in a record contradicts itself, with the name of the field; "" where nothing does."""
    if not _is_moment(record.created):
        return f"created is {record.created[:40]!r}, and no time such as 2026-01-31T12:00:00Z"
    names = Counter(row.method for row in record.rows)
    if twice := next((name for name, count in names.items() if count > 1), ""):
        return f"two rows are called {twice!r}"
    for number, row in enumerate(record.rows):
        if wrong := _fault_of_row(row):
            return f"rows.{number}.{wrong} (method {row.method[:200]!r})"
    for metric, compared in record.comparisons.items():
        named = {*compared.groups, *(name for pair in compared.pairs for name in (pair.first, pair.second))}
        if named - names.keys():
            return f"comparisons.{metric} names methods that no row has"
    every = {"ceilings": record.ceilings} | {f"controls.{name}": one for name, one in record.controls.items()}
    return next((told for place, scores in every.items() if (told := _beyond(place, scores))), "")


def _is_moment(text: str) -> bool:
    """Whether it is written as `environment.now` writes it: records are put in order by it."""
    try:
        return datetime.strptime(text, MOMENT).strftime(MOMENT) == text
    except ValueError:
        return False


def _fault_of_row(row: Row) -> str:
    if row.status == "failed":
        return "" if row.error else "error is missing, and the method failed"
    if ACCURACY not in row.scores:
        return f"scores lacks {ACCURACY}"
    for place, one in enumerate(row.robustness):
        if ACCURACY not in one.scores:
            return f"robustness.{place}.scores lacks {ACCURACY}"
    for where, intervals in _intervals_of(row):
        for metric, reach in intervals.items():
            if reach.low > reach.high:
                return f"{where}.{metric} has its low end above its high one"
    return next((told for where, scores in _scores_of(row) if (told := _beyond(where, scores))), "")


def _beyond(place: str, scores: Mapping[str, float]) -> str:
    """Which of these is no score of a metric, whatever was measured."""
    for metric, value in scores.items():
        if value not in SCORE_RANGE and round(value, DIGITS) not in SCORE_RANGE:
            return f"{place}.{metric} is {value:.6g}, which {SCORE_RANGE}"
    return ""


def _intervals_of(row: Row) -> Iterator[tuple[str, Mapping[str, Interval]]]:
    """All intervals of scores in a row, with the name of the field that holds them."""
    yield "intervals", row.intervals
    for place, one in enumerate(row.robustness):
        yield f"robustness.{place}.intervals", one.intervals
    if row.open_set is not None:
        yield "open_set.intervals", row.open_set.intervals
    if row.by_threshold is not None:
        yield "by_threshold.intervals", row.by_threshold.intervals


def _scores_of(row: Row) -> Iterator[tuple[str, Mapping[str, float]]]:
    """All scores in a row, and the ends of their intervals and ties, with the name of the field that holds them."""
    yield "scores", row.scores
    for classifier, facts in row.classifiers.items():
        yield f"heads.{classifier}.scores", facts.scores
    for place, one in enumerate(row.robustness):
        yield f"robustness.{place}.scores", one.scores
    if row.open_set is not None:
        yield "open_set.scores", row.open_set.scores
    if row.by_threshold is not None:
        yield "by_threshold.train", row.by_threshold.train
        yield "by_threshold.scores", row.by_threshold.scores
    if row.approximation is not None:
        yield "approximation.exact", row.approximation.exact
    for where, intervals in _intervals_of(row):
        for metric, reach in intervals.items():
            yield f"{where}.{metric}", {"low": reach.low, "high": reach.high}
    for metric, span in row.ties.items():
        yield f"ties.{metric}", {"worst": span.worst, "expected": span.expected, "best": span.best}


def fault(arrays: Mapping[str, np.ndarray], methods: Sequence[str]) -> str:
    """What is wrong with them, in a few words; "" where nothing is. methods: those that found something."""
    if "query_labels" not in arrays and not any(f"{method}/indices" in arrays for method in methods):
        return ""  # a record without rankings, of which its readers know
    missing = [name for name in COMMON if name not in arrays]
    if missing:
        return f"it lacks {', '.join(missing)}"
    gallery, queries = len(arrays["gallery_ids"]), len(arrays["query_ids"])
    shapes: dict[str, tuple[int | None, ...]] = {
        "gallery_ids": (gallery,),
        "gallery_labels": (gallery,),
        "query_ids": (queries,),
        **dict.fromkeys(OF_EACH_QUERY, (queries,)),
        **dict.fromkeys(("gallery_other_labels", "gallery_category_sets"), (gallery, None)),
        **dict.fromkeys(("query_other_labels", "query_category_sets"), (queries, None)),
        **{name: (queries,) for name in arrays if name.startswith("query_attributes/")},
    }
    whole = {"gallery_labels", "unanswerable_labels", *OF_EACH_QUERY, *SETS}
    unanswerable = arrays.get("unanswerable_ids", np.empty(0, str)).shape[:1]
    shapes |= {"unanswerable_ids": (None,), "unanswerable_labels": unanswerable}
    shapes |= {"label_names": (None,), "category_names": (None,)}
    graded = [name for name in ("n_partly", "gallery_category_sets", "query_category_sets") if name in arrays]
    if 0 < len(graded) < 3:
        return f"it has {', '.join(graded)} and not all that grades need"
    for method in methods:
        found = arrays.get(f"{method}/indices")
        if found is None:
            return f"it lacks {method}/indices"
        if f"{method}/distances" not in arrays:
            return f"it lacks {method}/distances"
        depth = found.shape[1] if found.ndim == 2 else None
        shapes |= {f"{method}/{name}": (queries, depth) for name in ("indices", "distances")}
        ranks = arrays.get(f"{method}/relevant_ranks", np.empty((queries, 0)))
        most = ranks.shape[1] if ranks.ndim == 2 else None
        shapes[f"{method}/relevant_ranks"] = (queries, None)
        shapes |= {f"{method}/{name}": (queries, most) for name in ("tie_starts", "tie_sizes")}
        shapes[f"{method}/held"] = (queries,)
        shapes[f"{method}/unanswerable_distances"] = unanswerable
        whole |= {f"{method}/{name}" for name in ("indices", "relevant_ranks", "held", "tie_starts", "tie_sizes")}
        for name in (name for name in arrays if name.startswith(f"{method}/heads/") and name.endswith("/classes")):
            place, classes = name.removesuffix("/classes"), arrays[name]
            shapes |= {name: (None,), f"{place}/scores": (queries, len(classes) if classes.ndim else None)}
            shapes[f"{place}/predicted"] = (queries,)
            if f"{place}/scores" not in arrays or f"{place}/predicted" not in arrays:
                return f"it lacks scores or predictions of {place}"
    for name, shape in shapes.items():
        if name in arrays and not _fits(arrays[name].shape, shape):
            wanted = " x ".join("any" if side is None else str(side) for side in shape)
            return f"{name} has the shape {' x '.join(map(str, arrays[name].shape)) or 'of one number'}, not {wanted}"
        if name in whole and name in arrays and arrays[name].dtype.kind not in "iu":
            return f"{name} holds {arrays[name].dtype}, not whole numbers"
        if name in NAMES and name in arrays and arrays[name].dtype.kind != "U":
            return f"{name} holds {arrays[name].dtype}, not text"
    return _wrong_values(arrays, methods, gallery)


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(shape) == len(wanted) and all(
        have == want for have, want in zip(shape, wanted, strict=True) if want is not None
    )


def _wrong_values(arrays: Mapping[str, np.ndarray], methods: Sequence[str], gallery: int) -> str:
    for name in ("gallery_ids", "query_ids"):
        if len(np.unique(arrays[name])) < len(arrays[name]):
            return f"{name} names an image twice"
    names = arrays.get("label_names")
    for name in ("gallery_labels", "query_labels"):
        labels = arrays[name]
        others = arrays.get(name.replace("_labels", "_other_labels"), labels)
        if labels.size and (labels.min() < 0 or others.min(initial=0) < -1):
            return f"{name} holds labels that have no name"
        if names is not None and max(labels.max(initial=-1), others.max(initial=-1)) >= len(names):
            return f"{name} holds labels that have no name"
    categories = arrays.get("query_categories")
    if categories is not None and categories.size and categories.max() >= len(arrays.get("category_names", ())):
        return "query_categories holds categories that have no name"
    for name, least, most in (
        ("n_relevant", 0, gallery),
        ("n_partly", 0, gallery),
        ("query_class_sizes", 0, 2**53),
        ("exclude", -1, gallery - 1),
        ("unanswerable_labels", -1, 2**53),
        *((f"{method}/relevant_ranks", -1, gallery - 1) for method in methods),
        *((f"{method}/tie_starts", -1, gallery) for method in methods),
        *((f"{method}/tie_sizes", -1, gallery) for method in methods),
        *((f"{method}/held", 0, gallery) for method in methods),
    ):
        numbers = arrays.get(name)
        if numbers is not None and numbers.size and (numbers.min() < least or numbers.max() > most):
            return f"{name} holds {int(numbers.min()):,} to {int(numbers.max()):,}, beyond {least:,} to {most:,}"
    for method in methods:
        indices, distances = arrays[f"{method}/indices"], arrays[f"{method}/distances"]
        if wrong := fault_of_ranking(indices, distances, gallery, arrays["query_ids"]):
            return f"{method}/{wrong}"
        aside = arrays.get(f"{method}/unanswerable_distances", np.empty(0))
        if aside.dtype.kind not in "fiu" or np.isnan(aside).any():
            return f"{method}/unanswerable_distances holds what is no number"
    return ""
