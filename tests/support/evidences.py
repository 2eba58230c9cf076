"""Records with rankings, made without a run, and pages read back, for tests of reports."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np

from retrieval_bench.classifiers.metrics import judge_classifier
from retrieval_bench.core import Ranking
from retrieval_bench.evaluation import metrics
from retrieval_bench.evaluation.relevance import judge
from retrieval_bench.evaluation.uncertainty import class_mean_intervals_of, comparisons, intervals_of, statistics
from retrieval_bench.records.files import save
from retrieval_bench.records.schema import ClassifierFacts, Row, TimeFigure
from retrieval_bench.report.markup import VOID
from tests.support.records import record, row

GALLERY = np.repeat(np.arange(4), (1, 2, 4, 5))
QUERY = np.arange(20) % 4
METHODS = {"sift": "local", "color": "color", "phash": "hash", "random": "control"}
K = (1, 5, 10)


def saved(
    folder: Path,
    methods: dict[str, str] | None = None,
    classifiers: tuple[str, ...] = ("knn",),
    names: tuple[str, ...] = ("apple", "pear", "plum", "fig"),
    more: tuple[Row, ...] = (),
    whole: bool = True,
    **changes: Any,
) -> Path:
    """A finished record in `folder`: 4 labels, 12 gallery images, 20 queries; seeded rankings, honest scores.

    names: the folders that images of a label lie in. more: rows behind the methods'. whole: relevant ranks are known.
    """
    methods = METHODS if methods is None else methods
    rng = np.random.default_rng(0)
    relevant = QUERY[:, None] == GALLERY
    arrays: dict[str, np.ndarray] = {
        "gallery_ids": np.array([f"gallery/{names[label]}/{n}.png" for n, label in enumerate(GALLERY)]),
        "gallery_labels": GALLERY,
        "query_ids": np.array([f"query/{names[label]}/{n}.png" for n, label in enumerate(QUERY)]),
        "query_labels": QUERY,
        "n_relevant": relevant.sum(axis=1),
    }
    how = statistics(QUERY, 0)
    rows, values = [], {}
    for place, (name, family) in enumerate(methods.items()):
        distances = rng.random((20, 12)).astype(np.float32) + ~relevant * np.float32(0.6 - 0.2 * place)
        order = np.argsort(distances, axis=1, kind="stable")
        arrays[f"{name}/indices"] = order.astype(np.int32)
        arrays[f"{name}/distances"] = np.take_along_axis(distances, order, axis=1)
        ranks = None
        if whole:
            ranks = np.full((20, 5), -1)
            for query in range(20):
                found = np.flatnonzero(relevant[query][order[query]])
                ranks[query, : len(found)] = found
            arrays[f"{name}/relevant_ranks"] = ranks.astype(np.int32)
        ranking = Ranking(order, arrays[f"{name}/distances"])
        judged = judge(QUERY, GALLERY, ranking, arrays["n_relevant"], ranks)
        values[name] = metrics.per_query(judged, K)
        facts = {}
        for classifier in classifiers:
            scores = rng.random((20, 4)) + (QUERY[:, None] == np.arange(4)) * 0.5
            arrays[f"{name}/heads/{classifier}/scores"] = scores
            arrays[f"{name}/heads/{classifier}/classes"] = np.arange(4)
            arrays[f"{name}/heads/{classifier}/predicted"] = scores.argmax(axis=1)
            facts[classifier] = ClassifierFacts(scores=judge_classifier(QUERY, scores, np.arange(4)))
        times = {
            f"{phase}_{part}": TimeFigure(value=(place + 1) * step * scale, unit="ms", n=128)
            for phase, scale in (("decode", 1.0), ("extract", 3.0), ("search", 0.25), ("end_to_end", 4.25))
            for part, step in (("p50", 1.0), ("p95", 1.5), ("p99", 2.0))
        }
        rows.append(
            row(
                name,
                family=family,
                scores=metrics.scores(judged, K),
                intervals=intervals_of(values[name], QUERY, how) | class_mean_intervals_of(values[name], QUERY, how),
                times=times | {"fit": TimeFigure(value=1.0 + place, unit="s")},
                classifiers=facts,
            )
        )
    fields = {"statistics": how, "comparisons": comparisons(values, QUERY, how)} | changes
    settings = {"k": K, "classifiers": classifiers} | fields.pop("settings", {})
    save(record(*rows, *more, settings=settings, **fields), folder, arrays)
    return folder


@dataclass
class Read:
    """A page as html.parser sees it. tables: rows of cells. attributes: (tag, name, value)."""

    tags: list[str] = field(default_factory=list)
    attributes: list[tuple[str, str, str]] = field(default_factory=list)
    tables: list[list[list[str]]] = field(default_factory=list)
    text: str = ""
    style: str = ""
    unbalanced: list[str] = field(default_factory=list)

    def values(self, name: str) -> list[str]:
        return [value for _, key, value in self.attributes if key == name]


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.read = Read()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.read.tags.append(tag)
        self.read.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.read.tables.append([])
        if tag == "tr":
            self.read.tables[-1].append([])
        if tag in ("td", "th"):
            self.read.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.read.unbalanced.append(tag)

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            self.read.style += data
            return
        self.read.text += data
        if "td" in self.open or "th" in self.open:
            self.read.tables[-1][-1][-1] += data


def read_page(text: str) -> Read:
    reader = _Reader()
    reader.feed(text)
    reader.close()
    reader.read.unbalanced += reader.open
    return reader.read


def assert_safe(read: Read) -> None:
    """Nothing runs, nothing is loaded, nothing is sent, and every element is closed."""
    assert read.unbalanced == []
    assert not {"script", "iframe", "object", "embed", "link", "base", "form", "audio", "video"} & set(read.tags)
    assert not [name for _, name, _ in read.attributes if name.startswith("on") or name == "style"]
    for _, name, value in read.attributes:
        if name in ("src", "srcset", "href", "xlink:href", "data", "action", "poster"):
            assert value.startswith(("#", "data:image/png;base64,", "data:image/jpeg;base64,")), value
    assert not re.search(r"url\(|@import|expression", read.style)
    (content,) = [
        value for kind, name, value in read.attributes if (kind, name) == ("meta", "content") and "default-src" in value
    ]
    digest = base64.b64encode(hashlib.sha256(read.style.encode()).digest()).decode()
    assert content == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
