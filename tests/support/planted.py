"""Records with planted qualities and costs: which queries each method gets right, and what it costs, is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from retrieval_bench.evaluation.uncertainty import comparisons, intervals_of, statistics
from retrieval_bench.records.schema import Features, MetricFacts, Row, TimeFigure
from retrieval_bench.report.evidence import Evidence
from tests.support.records import record, row

ABOUT = MetricFacts(
    about="x", definition="rel(1)", short="x", at_k=False, per_query=True, whole_ranking=False,
    higher_is_better=True, has_ceiling=True,
)  # fmt: skip


def costs(p95: float, size: int = 100, fit: float | None = 1.0, search: float = 0.5, **more: float) -> dict[str, Any]:
    """What a row says of its costs: ms end to end and of the search, bytes an image, seconds; None: unsaid."""
    times = {"end_to_end_p95": p95, "search_p95": search, "search_p50": search / 2, **more}
    features = Features(
        distance="cosine", dim=4, dtype="float32", bytes_per_image=size, index_bytes=1, zero_rows=0, computed=1,
        from_cache=0, fit="from cache" if fit is None else "learned", learned_from="0" * 64,
    )  # fmt: skip
    known = {name: TimeFigure(value=value, unit="ms", n=128) for name, value in times.items()}
    return {"times": known | {"fit": TimeFigure(value=fit, unit="s")}, "features": features}


def planted(
    right: Mapping[str, np.ndarray],
    clusters: np.ndarray,
    prices: Mapping[str, Mapping[str, Any]],
    name: str = "one",
    *,
    rankings: bool = False,
    compared: bool = True,
    more: Sequence[Row] = (),
    **changes: Any,
) -> Evidence:
    """A record whose methods get these queries right.

    Args:
        right: method -> (q,) 0 or 1, which is its accuracy and, as a product has one image in the gallery, its map@r.
        clusters: (q,) product of each query, from 0.
        prices: method -> what `costs` gives.
        name: of the record.
        rankings: give it the rankings, too.
        compared: let it hold the comparison of all pairs.
        more: further rows.
        changes: of the record.
    """
    n, how = int(clusters.max()) + 1, statistics(clusters, 0)
    values = {method: {"accuracy": one.astype(float), "map@r": one.astype(float)} for method, one in right.items()}
    rows = [
        row(
            method,
            scores={metric: float(one.mean()) for metric, one in found.items()},
            intervals=intervals_of(found, clusters, how),
            **prices[method],
        )
        for method, found in values.items()
    ]
    made = record(
        *rows,
        *more,
        **{
            "statistics": how,
            "comparisons": comparisons(values, clusters, how) if compared else {},
            "metrics": {"accuracy": ABOUT, "map@r": ABOUT},
            "settings": {"k": (1,)} | changes.pop("settings", {}),
            "dataset": {"images": {"train": 8, "gallery": n, "query": len(clusters)}} | changes.pop("dataset", {}),
            **changes,
        },
    )
    arrays: dict[str, np.ndarray] = {}
    if rankings:
        arrays = {
            "query_ids": np.array([f"q/{number}" for number in range(len(clusters))]),
            "gallery_ids": np.array([f"g/{number}" for number in range(n)]),
            "query_labels": clusters,
            "gallery_labels": np.arange(n),
            "n_relevant": np.ones(len(clusters), int),
        }
        for method, one in right.items():
            arrays[f"{method}/indices"] = np.where(one > 0, clusters, (clusters + 1) % n)[:, None].astype(np.int32)
            arrays[f"{method}/distances"] = np.zeros((len(clusters), 1), np.float32)
    return Evidence(name, made, arrays)
