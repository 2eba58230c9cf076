"""What `index` prints: answers to queries, and what an index holds."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from retrieval_bench.core import printable

if TYPE_CHECKING:
    import numpy as np

    from retrieval_bench.indexing.description import Description
    from retrieval_bench.indexing.index import StoredIndex
    from retrieval_bench.indexing.items import Item
    from retrieval_bench.indexing.snapshot import Snapshot

WIDTH = 100
"""Columns of a table, at most, where the terminal has as many."""


def found_items(snapshot: Snapshot, numbers: np.ndarray, distances: np.ndarray) -> list[dict[str, Any]]:
    """What is told of the items that one query found, nearest first; -1 pads their numbers."""
    there = numbers >= 0
    items: list[Item] = snapshot.items(numbers[there])
    return [
        {
            "rank": rank,
            "number": item.number,
            "id": item.id,
            "label": item.label,
            "category": item.category,
            "distance": float(distance),
        }
        for rank, (item, distance) in enumerate(zip(items, distances[there], strict=True), 1)
    ]


def answer_lines(answers: Sequence[dict[str, Any]]) -> list[str]:
    """Answers as a table that fits the terminal, image by image."""
    import shutil

    from rich.cells import cell_len, set_cell_size

    from retrieval_bench.report.markup import visible

    width = max(40, min(shutil.get_terminal_size((WIDTH, 24)).columns, WIDTH))
    lines: list[str] = []
    shown: tuple[str | None, str | None] | None = None
    for answer in answers:
        if (answer["image"], answer["text"]) != shown:
            image, text = shown = answer["image"], answer["text"]
            asked = [*([] if image is None else [visible(image)]), *([f'"{visible(text)}"'] if text else [])]
            lines += [*([""] if lines else []), f"{' with '.join(asked)}:"]
        times = f"describe {answer['describe_ms']:.1f} ms, search {answer['search_ms']:.1f} ms"
        unread = "; the words are not read" if answer["text"] and not answer["text_read"] else ""
        lines.append(f"  {answer['method']}: {times}{unread}")
        labels = [visible(one["label"] or "-") for one in answer["found"]]
        of_label = min(max(map(cell_len, labels), default=0), width // 3)
        for one, label in zip(answer["found"], labels, strict=True):
            name = visible(one["id"])
            room = width - of_label - 24
            while cell_len(name) > room:  # the end of an id tells more than its beginning
                name = f"...{name[4:].removeprefix('...')}"
            line = f"    {one['rank']:>3} {one['distance']:>11.5g}  {set_cell_size(label, of_label)}  {name}"
            lines.append(line.rstrip())
        if not answer["found"]:
            lines.append("    nothing")
    return lines


def facts_of(opened: StoredIndex) -> dict[str, Any]:
    """All that is told of an index, for JSON."""
    from dataclasses import asdict

    about = opened.description
    snapshot = opened.snapshot()
    size = sum(os.path.getsize(os.path.join(home, name)) for home, _, names in os.walk(opened.folder) for name in names)
    return {
        "index": printable(opened.folder),
        "created": about.created,
        "version": about.version,
        "dataset": about.dataset,
        "data_root": about.data_root,
        "items": len(snapshot),
        "removed": snapshot.state.rows - len(snapshot),
        "bytes": size,
        "dtype": about.dtype,
        "store": None if about.store is None else about.store.model_dump(),
        "seed": about.seed,
        "device": about.device,
        "learn_from": about.learn_from,
        "skipped": about.skipped,
        "notices": list(about.notices),
        "methods": [
            {
                "method": method.name,
                "text": method.text,
                "family": method.family,
                "distance": method.distance,
                "bytes_per_item": method.bytes_per_item,
                "arrays": [array.model_dump() for array in method.facts.arrays],
                "learned_from": method.facts.learned_from,
                "recipes": list(method.facts.recipes),
            }
            for method in opened.methods
        ],
        "operations": [asdict(one) for one in opened.operations(5)],
    }


def info_lines(about: Description, facts: dict[str, Any]) -> list[str]:
    """The most important of it, for a terminal."""
    from retrieval_bench.report.lines import aligned

    removed = f", {facts['removed']:,} removed" if facts["removed"] else ""
    root = f" in {printable(about.data_root)}" if about.data_root else ""
    lines = [
        f"{facts['index']}: {in_words(facts['items'])}{removed}, {facts['bytes']:,} bytes, built {about.created}",
        f"dataset {printable(about.dataset)}{root}; seed {about.seed}, {about.device}, learned from {about.learn_from}",
    ]
    if about.store is not None:
        server = about.store.dsn
        where = "the folder store" if server is None else f"tables {', '.join(about.store.tables)} of {server}"
        lines.append(printable(f"vectors lie in {about.store.backend}, in {where}"))
    lines += [f"left out: {count:,} {reason}" for reason, count in about.skipped.items()]
    lines += [f"note: {printable(notice)}" for notice in about.notices]
    table = [["method", "distance", "kept as", "numbers", "bytes/item", "weights", "code"]]
    for method in facts["methods"]:
        kept = zip(method["arrays"], method["recipes"], strict=True)
        kinds = dict.fromkeys(_kind(one["kept"], recipe["method"]) for one, recipe in kept)
        weights = [recipe["weights"]["sha256"][:8] for recipe in method["recipes"] if recipe.get("weights")]
        codes = dict.fromkeys(recipe["code"][:8] for recipe in method["recipes"])
        table.append(
            [
                printable(method["method"]),
                method["distance"],
                "+".join(kinds),
                f"{sum(one['width'] * (8 if one['kept'] == 'uint8' else 1) for one in method['arrays']):,}",
                f"{method['bytes_per_item']:,}",
                "+".join(weights) or "-",
                "+".join(codes),
            ]
        )
    lines += ["", *aligned(table)]
    last = facts["operations"][-1]
    lines += ["", f"last operation: {last['number']}, {last['what']} of {last['count']:,} at {last['at']}"]
    return lines


def _kind(kept: str, extractor: str) -> str:
    """What is kept of an item: numbers, bits, or words, which lie in its text."""
    from retrieval_bench.registry import EXTRACTORS

    if kept != "uint8":
        return kept
    texts_alone = extractor in EXTRACTORS and EXTRACTORS[extractor].facts.get("modalities") == ("text",)
    return "words" if texts_alone else "bits"


def in_words(n: int, kind: str = "") -> str:
    """A number of items, as in: 2 removed items."""
    return f"{n:,} {kind}{'item' if n == 1 else 'items'}"
