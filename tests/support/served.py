"""A small index and a service over it."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from retrieval_bench.experiment.prepare import Plan
from retrieval_bench.indexing.build import build
from retrieval_bench.indexing.index import StoredIndex
from retrieval_bench.methods.parse import parse_method
from retrieval_bench.registry import DATASETS, fill, parse
from retrieval_bench.serving.answering.approximate_search import ApproximateColumns
from retrieval_bench.serving.answering.open_indexes import OpenIndex
from retrieval_bench.serving.answering.service import Capacity, SearchService
from tests.support.pair_tasks import shop_with_texts
from tests.support.shop import picture

METHODS = ("phash", "color", "phash+color+rrf")
LOCAL = "http://127.0.0.1:8000"
OURS = {"X-Retrieval-Bench": "test"}


def shelf_at(folder: Path, labels: int = 5, each: int = 12) -> Path:
    """A folder of labelled images, split already: `each` of every label in every split."""
    for first, part in enumerate(("train", "gallery", "query")):
        for label in range(labels):
            own = folder / part / f"product-{label}"
            own.mkdir(parents=True)
            for number in range(each):
                Image.fromarray(picture(label, 100 * first + number)).save(own / f"{number}.png")
    return folder


def plan_of(shelf: Path) -> Plan:
    fill()
    methods = tuple(map(parse_method, METHODS))
    return Plan(methods=methods, dataset=parse(DATASETS, "folder"), root=shelf, threads=2)


def index_at(folder: Path, shelf: Path) -> Path:
    build(plan_of(shelf), folder).close()
    return folder


def service_over(
    *folders: Path,
    capacity: Capacity | None = None,
    writable: bool = True,
    approximate: ApproximateColumns | None = None,
) -> SearchService:
    indexes = [
        OpenIndex(number, f"{folder.name}-{number}", StoredIndex.open(folder, writable=writable), writable)
        for number, folder in enumerate(folders)
    ]
    return SearchService(indexes, capacity or Capacity(), approximate)


TEXT_METHODS = ("hsv", "tfidf", "bm25", "hsv+tfidf")


def told_index_at(folder: Path) -> Path:
    """An index of a list of pictures with titles; a title says the colour and the kind of its label."""
    data = shop_with_texts(5, 4)
    rows = ["path,label,split,title"]
    shelf = folder / "shelf"
    shelf.mkdir(parents=True)
    for part, split in data.splits.items():
        for row, text in enumerate(split.texts or ()):
            name = f"{part}-{row}.png"
            (shelf / name).write_bytes(split.images.read(row))
            rows.append(f"{name},{data.label_names[int(split.labels[row])]},{part},{text}")
    (shelf / "manifest.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    fill()
    methods = tuple(map(parse_method, TEXT_METHODS))
    plan = Plan(methods=methods, dataset=parse(DATASETS, "manifest"), root=shelf, threads=2)
    build(plan, folder / "index").close()
    return folder / "index"
