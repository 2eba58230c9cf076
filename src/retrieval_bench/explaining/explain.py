"""A query of a record explained: what each method found for it and what made that near, method by method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from retrieval_bench.core import BadImage, BenchError, Dataset, Split
from retrieval_bench.evaluation.relevance import relevant_among
from retrieval_bench.experiment.features import fitted
from retrieval_bench.experiment.prepare import FROM_GALLERY, Plan, decoded_once, learned_split, relevant_by
from retrieval_bench.explaining import choice
from retrieval_bench.explaining.by_extractor import clues_of, step_clues, word_clues
from retrieval_bench.explaining.clues import Band, Clue, Explanation, Neighbour, PartClues, Shown, Unexplained
from retrieval_bench.methods.modalities import TEXT, side_of
from retrieval_bench.methods.parse import Method, parse_method
from retrieval_bench.records.conversion import label_sets
from retrieval_bench.records.schema import Record, Row
from retrieval_bench.registry import Spec
from retrieval_bench.system.progress import Progress, silent
from retrieval_bench.system.timing import pinned

UNTRAINED = "[untrained]"
ROOM = {"cosine": 0.01, "hamming": 0.0}
"""How far a distance may lie from the record's: networks of int8 and float16 were rounded there."""


def explain(
    name: str,
    record: Record,
    arrays: Mapping[str, np.ndarray],
    dataset: Dataset,
    plan: Plan,
    methods: Sequence[str],
    query: str | None,
    top: int,
    progress: Progress = silent,
) -> Explanation:
    """name: what the record is called. arrays: its rankings. dataset: as in the run. plan: how its methods are built,
    and the cache of what they learned. methods: rows of the record. query: an id; None: the most disputed.

    Raises BenchError for an unknown query.
    """
    chosen = ""
    if query is None:
        disputing = [one for one in methods if _row(record, one).family != "control"] or list(methods)
        place, chosen = choice.most_disputed(arrays, disputing)
    else:
        place = choice.query_row(arrays, query)
    dataset = decoded_once(dataset, plan.decoding)
    asked = _Images(dataset.query, dataset.label_names)
    gallery = _Images(dataset.gallery, dataset.label_names)
    shown = asked[str(arrays["query_ids"][place])]
    right = label_sets(arrays, "query")[[place]], label_sets(arrays, "gallery")
    train = learned_split(relevant_by(dataset, record.settings.relevance), record.settings.learn_from)
    bands = []
    for number, method in enumerate(methods):
        progress("explaining", number, len(methods))
        found = [
            Neighbour(
                gallery[str(arrays["gallery_ids"][row])],
                rank,
                distance,
                bool(relevant_among(np.array([[row]]), *right)[0, 0]),
            )
            for rank, (row, distance) in enumerate(choice.nearest(arrays, method, place, top), 1)
        ]
        row = _row(record, method)
        texts = dataset.gallery.texts or ()
        layers = _layers(row, _asked_for(record, row), plan, train, texts, shown, found, progress)
        bands.append(Band(method, row.family, tuple(found), tuple(layers)))
    return Explanation(name, record.dataset.spec, shown, chosen, tuple(bands))


class _Images:
    """The images of a split by their ids, each decoded once."""

    def __init__(self, split: Split, label_names: Sequence[str]) -> None:
        self._split, self._names = split, label_names
        self._row_of = {item: row for row, item in enumerate(split.ids)}
        self._known: dict[str, Shown] = {}

    def __getitem__(self, item: str) -> Shown:
        if item not in self._known:
            row = self._row_of.get(item)
            if row is None:
                raise BenchError(f"the record names an image {item!r} that its dataset does not have; run again")
            try:
                pixels = self._split.images[row]
            except BadImage:
                pixels = None
            text = "" if self._split.texts is None else self._split.texts[row]
            self._known[item] = Shown(item, self._names[int(self._split.labels[row])], pixels, text)
        return self._known[item]


def _row(record: Record, method: str) -> Row:
    return next(row for row in record.rows if row.method == method)


def _asked_for(record: Record, row: Row) -> Method:
    """What the row was run as: a run adds its rows in the order of its methods."""
    return parse_method(record.settings.methods[record.rows.index(row)])


def _layers(
    row: Row,
    method: Method,
    plan: Plan,
    train: Split,
    texts: Sequence[str],
    query: Shown,
    found: Sequence[Neighbour],
    progress: Progress,
) -> list[PartClues]:
    """What each member of the method has to say, then its verification, then what cannot be shown of the rest."""
    if query.pixels is None or any(one.image.pixels is None for one in found):
        return [PartClues(row.method, "an image can no longer be read")]
    if not found:
        return [PartClues(row.method, "nothing was found")]
    pixels: list[np.ndarray] = [one.image.pixels for one in found if one.image.pixels is not None]
    explained = []
    for place, spec in enumerate(method.members):
        facts = row.parts[place] if row.parts else row
        name = row.parts[place].name if row.parts else row.method
        weight = row.parts[place].weight if row.parts else None
        title = name if weight is None else f"{name} (weight {weight:.2g})"
        try:
            part = _built(spec, name, facts.weights, plan, train, progress)
            with pinned(1):
                if TEXT in side_of(spec, method.sides.query):
                    asked_of = side_of(spec, method.sides.gallery)
                    about, clues = word_clues(part, query.text, [one.image for one in found], asked_of, texts)
                else:
                    about, clues = clues_of(spec, part, query.pixels, pixels)
        except (Unexplained, BenchError) as error:
            explained.append(PartClues(title, str(error)))
            continue
        if method.plain:
            about += _otherwise(row, clues, found)
        explained.append(PartClues(title, about, tuple(clues)))
    for spec in method.steps:
        explained.append(step_clues(spec, query.pixels, pixels))
    return explained


def _built(
    spec: Spec, name: str, weights: Mapping[str, Any] | None, plan: Plan, train: Split, progress: Progress
) -> Any:
    """The extractor as it was in the run. Raises Unexplained where its weights are others now."""
    if spec.entry.family == "control":
        return spec.build(plan.setup)
    if spec.entry.family == "deep" and spec.resolved.get("compute", "float32") != "float32":
        # What runs faster gives no gradients; what it learned is learned anew from float32, a few last bits apart.
        spec = replace(spec, options={**spec.options, "compute": "float32"})
    if name.removesuffix(FROM_GALLERY).endswith(UNTRAINED):
        plan = replace(plan, weights="random")
    extractor = fitted(spec, plan, train, progress)
    now = getattr(extractor, "weights", None)
    if weights and now and weights.get("sha256") != now.get("sha256"):
        raise Unexplained(
            f"its weights ({now.get('source')}) are not the weights of the record ({weights.get('source')}); "
            "name the folder that has them with --weights"
        )
    return extractor


def _otherwise(row: Row, clues: Sequence[Clue], found: Sequence[Neighbour]) -> str:
    """A warning where the distances are not those of the record; "" where they are."""
    room = ROOM.get(row.features.distance if row.features else "")
    if room is None:
        return ""
    for clue, one in zip(clues, found, strict=True):
        if clue.distance is not None and abs(clue.distance - one.distance) > room:
            return f"; warning: the distance is {clue.distance:.4g} now, {one.distance:.4g} in the record"
    return ""
