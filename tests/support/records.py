"""A valid record without a run, for tests of what reads records."""

from __future__ import annotations

from typing import Any

from retrieval_bench.records.schema import (
    DatasetFacts,
    Environment,
    Failure,
    Features,
    MetricFacts,
    Record,
    Row,
    Settings,
    TimeFigure,
)


def row(method: str = "sift", **changes: Any) -> Row:
    fields: dict[str, Any] = {
        "method": method,
        "family": "local",
        "status": "ok",
        "scores": {"accuracy": 0.5, "macro_f1@1": 0.45, "recall@10": 0.75, "f1@10": 0.4, "map@r": 0.375},
        "times": {
            "end_to_end_p50": TimeFigure(value=12.345, unit="ms", n=128),
            "end_to_end_p95": TimeFigure(value=None, unit="ms", n=12),
            "extract_throughput": TimeFigure(value=1234.5, unit="images/s", n=128),
            "fit": TimeFigure(value=None, unit="s"),
        },
        "features": Features(
            distance="cosine",
            dim=1024,
            dtype="float32",
            bytes_per_image=4096,
            index_bytes=400_000,
            zero_rows=0,
            computed=10,
            from_cache=0,
            fit="learned",
            learned_from="0" * 64,
        ),
    }
    return Row(**(fields | changes))


def failed(method: str = "vgg16", sentence: str = "no weights") -> Row:
    error = Failure(kind="BenchError", sentence=sentence)
    return row(method, status="failed", scores={}, times={}, features=None, error=error)


def record(*rows: Row, **changes: Any) -> Record:
    dataset = {
        "name": "shop",
        "spec": "shop",
        "root": None,
        "fingerprint": "ab" * 32,
        "images": {"train": 8, "gallery": 12, "query": 10},
        "labels": 4,
        "categories": 2,
        "leave_one_out": False,
        "queries_left_out": 0,
        "skipped": (),
        "notices": (),
    } | changes.pop("dataset", {})
    settings = {
        "methods": tuple(r.method for r in rows),
        "k": (1, 5, 10),
        "seed": 0,
        "weights": "auto",
        "device": "cpu",
        "threads": 2,
        "limit": None,
        "backend": "exact",
        "depth": 12,
    } | changes.pop("settings", {})
    environment = {
        "version": "0",
        "commit": None,
        "dirty": None,
        "python": "3.11",
        "libraries": {"numpy": "2"},
        "system": "Linux",
        "machine": "x86_64",
        "processor": "a processor",
        "cores": 2,
        "memory_gib": 16.0,
        "gpu": None,
        "thread_counts": {},
        "allocator": "as the system sets it",
    } | changes.pop("environment", {})
    about = MetricFacts(
        about="x",
        definition="rel(1)",
        short="x",
        at_k=False,
        per_query=True,
        whole_ranking=False,
        higher_is_better=True,
        has_ceiling=True,
    )
    fields: dict[str, Any] = {
        "status": "finished",
        "created": "2026-01-01T00:00:00Z",
        "command": ("python -m benchmark", "run"),
        "dataset": DatasetFacts(**dataset),
        "settings": Settings(**settings),
        "environment": Environment(**environment),
        "metrics": {"accuracy": about},
        "ceilings": {"accuracy": 1.0, "macro_f1@1": 1.0, "recall@10": 1.0, "f1@10": 0.5714, "map@r": 1.0},
        "rows": rows,
    }
    return Record(**(fields | changes))
