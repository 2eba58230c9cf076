"""The methods of an index: built when they are needed, with what they learned, and compared with what they were."""

from __future__ import annotations

import io
import json
import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import retrieval_bench
from retrieval_bench.core import BadImage, BenchError, Bundle, Distance, Rows, Setup, Sides, Split, printable
from retrieval_bench.experiment.described_again import TOLERANCE, TOLERANCE_ON_GPU
from retrieval_bench.experiment.features import recipe_of
from retrieval_bench.images.decoding import Decoding, decode
from retrieval_bench.images.reading import ImageBytes
from retrieval_bench.indexing.description import (
    PROBES_FILE,
    Description,
    MethodFacts,
    learned_path,
    plain,
    read_file,
)
from retrieval_bench.indexing.part_rows import part_rows, sides_of, storable
from retrieval_bench.methods.fusion import VECTOR, StoredJoin
from retrieval_bench.methods.modalities import IMAGE, TEXT
from retrieval_bench.methods.parse import parse_method
from retrieval_bench.methods.pipeline import Pipeline
from retrieval_bench.methods.reranking.step import LearningStep
from retrieval_bench.system.cache import code_version
from retrieval_bench.system.device import gpu_is_there

log = logging.getLogger("retrieval_bench")

MUST_BE_EQUAL = ("method", "options", "seed", "distance")
"""Of a recipe, beside the sha256 of the weights: where one of these is another, so is what is described."""
MAY_DIFFER = ("code", "libraries", "device", "decoder")
"""Of a recipe: where one of these is another, pictures that are described again tell whether that changed anything."""
PROBE_FORMATS = ("JPEG", "PNG", "WEBP")
"""Of the files by which another decoder is compared with that of then."""
_HOME = Path(retrieval_bench.__file__).parent
_JOINING = ("methods/fusion.py", "methods/pipeline.py", "linalg/pca.py", "linalg/rows.py")


class IndexedMethod:
    """One method of an index.

    Args:
        folder: the index.
        description: what it says of itself.
        number: which of its methods.
        setup: weights, device and threads of the extractors; the seed is that of the index.

    Attributes:
        name: as a run shows it, with its mark: "resnet50[untrained]".
        text: as one writes it: "sift+color".
        family: of the method, as in the table of a run.
        distance: by which it compares.
        comparable: why the distances of two queries cannot be compared; "" where they can.
        sides: what a query brings, and what of an item it is compared with: "image", "text" or "image+text".
        learns: whether it learned anything from train.
        bytes_per_item: that the index keeps of an item, beside its row in SQLite.
        notice: what differs from when the index was built, without a consequence; "" where nothing does.
    """

    def __init__(self, folder: Path, description: Description, number: int, setup: Setup) -> None:
        self.folder, self._description, self._setup = folder, description, setup
        self.number = number
        self.facts: MethodFacts = description.methods[number]
        self.name, self.text, self.family = self.facts.name, self.facts.text, self.facts.family
        self.distance: Distance = self.facts.distance
        self.comparable = self.facts.incomparable
        self._sides: Sides | None = None
        self.learns = self.facts.learned_from is not None
        self.bytes_per_item = sum(array.row_bytes for array in self.facts.arrays)
        self.notice = ""
        self._pipeline: Pipeline | None = None
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"IndexedMethod({self.name!r})"

    @property
    def pipeline(self) -> Pipeline:
        """The method, ready to describe and to search. It is built at the first call, which loads what it needs.

        Raises:
            BenchError: It would describe pictures in another way than when the index was built.
        """
        with self._lock:
            if self._pipeline is None:
                self._pipeline = self._built()
            return self._pipeline

    def use(self, pipeline: Pipeline) -> None:
        """Take a pipeline that has just learned, in place of building it; for who builds the index."""
        with self._lock:
            self._pipeline = pipeline

    @property
    def sides(self) -> Sides:
        if self._sides is None:
            self._sides = parse_method(self.text).sides
        return self._sides

    def lacking(self, *, picture: bool, text: bool) -> str:
        """Why a query that has a picture, or a text, cannot be described; "" where it can.

        One that lacks its text alone is answered by its picture, where the method reads both.
        """
        pipeline = self.pipeline
        for part, side in zip(pipeline.parts, sides_of(pipeline, gallery=False), strict=True):
            if side == IMAGE and not picture:
                return f"{part.name} reads a picture, and the query has none"
        if not text and (self.sides.query == TEXT or not picture):
            return f"{self.name} reads a text, and the query has none"
        return ""

    def describe(self, pictures: Sequence[np.ndarray | None], texts: Sequence[str] | None = None) -> Rows:
        """Describe queries as a run describes them.

        Libraries keep the number of threads that they have; who describes many pictures from several threads pins them
        to one (`system.timing.pinned`).

        Args:
            pictures: of each query, at least one: (h, w, 3) uint8 RGB, upright. None: it has none.
            texts: of each query, "" where it has none. None: no query has one.

        Returns:
            What `Snapshot.search` takes: a row for each query.

        Raises:
            BenchError: As for `pipeline`, or a query lacks what the method reads.
        """
        return self.rows(self.features(pictures, texts))

    def features(
        self, pictures: Sequence[np.ndarray | None], texts: Sequence[str] | None = None, *, gallery: bool = False
    ) -> list[np.ndarray]:
        """What each part makes of queries, or of items of the gallery, as in `MethodFacts.arrays`; else as `describe`.

        Of an item its text may be missing, whatever the method reads.
        """
        pipeline = self.pipeline
        told = [""] * len(pictures) if texts is None else texts
        for picture, text in zip(pictures, told, strict=True):
            if why := self.lacking(picture=picture is not None, text=gallery or bool(text.strip())):
                raise BenchError(why)
        sides = sides_of(pipeline, gallery=gallery)
        return [part_rows(part, side, pictures, told) for part, side in zip(pipeline.parts, sides, strict=True)]

    def rows(self, features: Sequence[np.ndarray]) -> Rows:
        """What is searched for, or in, from the features of each part."""
        return self.pipeline.rows(features)

    def _built(self) -> Pipeline:
        try:
            method = parse_method(self.text)
            pipeline = Pipeline(method, self._setup, "exact")
        except BenchError as error:
            raise BenchError(f"{printable(self.folder)}: {self.text} cannot be built here: {error}") from None
        restore(pipeline, self.folder, self._description, self.number)
        decoder = Decoding(wanted=self._description.wanted).key
        now = [plain(recipe_of(part, self._setup, decoder)) for part in pipeline.parts]
        self._refuse_another_recipe(pipeline, now)
        self.notice = self._compared_by_probes(pipeline, now)
        if self.notice:
            log.warning("%s", self.notice)
        return pipeline

    def _refuse_another_recipe(self, pipeline: Pipeline, now: Sequence[Mapping[str, Any]]) -> None:
        before = self.facts.recipes
        if len(now) != len(before):
            raise self._refused(f"has {len(now)} parts now and had {len(before)}")
        for part, own, theirs in zip(pipeline.parts, now, before, strict=True):
            for field in MUST_BE_EQUAL:
                if own.get(field) != theirs.get(field):
                    said = f"{_short(theirs.get(field))} then and {_short(own.get(field))} now"
                    raise self._refused(f"describes pictures by another {field} of {part.name}: {said}")
            if _weights(own) != _weights(theirs):
                said = f"sha256 {_weights(theirs)[:12]} then and {_weights(own)[:12]} now"
                raise self._refused(
                    f"has other weights of {part.name}: {said}; name the folder of the former --weights"
                )

    def _compared_by_probes(self, pipeline: Pipeline, now: Sequence[Mapping[str, Any]]) -> str:
        """A sentence where code, libraries or device are others and the features the same; "" where nothing is."""
        changed = [
            field
            for field in MAY_DIFFER
            if any(own.get(field) != theirs.get(field) for own, theirs in zip(now, self.facts.recipes, strict=True))
        ]
        if joining_code() != self.facts.joining and "code" not in changed:
            changed.append("code")
        if not changed:
            return ""
        what = _enumerated(changed, now, self.facts.recipes)
        arrays = read_file(self.folder, PROBES_FILE, self._description.files[PROBES_FILE])
        if "decoder" in changed and not decodes_alike(arrays, self._description.wanted):
            raise self._refused(f"gets other pixels from the same files: {what} changed since")
        pictures = probe_pictures(arrays)
        again = probe_features(pipeline, pictures, arrays.get("texts", np.full(len(pictures), "")).tolist())
        on_gpu = any(one.get("device") != "cpu" for one in (*now, *self.facts.recipes))
        room = TOLERANCE_ON_GPU if on_gpu and parse_method(self.text).deep else TOLERANCE
        largest = 0.0
        for name, array in again.items():
            before = arrays.get(f"{self.number}/{name}")
            away = _deviation(array, before)
            if not away <= (room if array.dtype.kind == "f" else 0.0):
                how = f"by up to {away:.3g} of the largest number" if np.isfinite(away) else "in shape or kind"
                raise self._refused(f"describes pictures otherwise, {how} ({name}): {what} changed since")
            largest = max(largest, away)
        same = f"features within {largest:.2g} of the largest number" if largest else "the same features"
        return (
            f"{self.name}: {what} changed since {printable(self.folder)} was built; {len(pictures)} pictures "
            f"that are described again have {same}"
        )

    def _refused(self, why: str) -> BenchError:
        return BenchError(
            f"{printable(self.folder)}: {self.name} {why}, so distances would mean nothing; build the index again"
        )


def restore(pipeline: Pipeline, folder: Path, description: Description, number: int) -> None:
    """Give a pipeline back what it learned when the index was built."""
    name = learned_path(number)
    arrays = read_file(folder, name, description.files[name]) if name in description.files else {}
    try:
        for place, part in enumerate(pipeline.parts):
            learned = getattr(part.extractor, "learned", ())
            if not learned:
                part.extractor.fit(_EMPTY)
            for attribute in learned:
                setattr(part.extractor, attribute, arrays[f"{place}/{attribute}"])
        if pipeline.join_learns:
            assert isinstance(pipeline.join, StoredJoin)
            own = {key.removeprefix("join/"): array for key, array in arrays.items() if key.startswith("join/")}
            pipeline.join.restore([part.name for part in pipeline.members], own)
    except KeyError as error:
        raise BenchError(
            f"{printable(folder / name)}: it does not hold {error}, which {pipeline.name} learns; build the index again"
        ) from None


def learned(pipeline: Pipeline) -> dict[str, np.ndarray]:
    """All that a pipeline has learned, by name; `restore` gives it back. Nothing where it learns nothing."""
    arrays = {
        f"{place}/{attribute}": np.asarray(getattr(part.extractor, attribute))
        for place, part in enumerate(pipeline.parts)
        for attribute in getattr(part.extractor, "learned", ())
    }
    if pipeline.join_learns:
        if not isinstance(pipeline.join, StoredJoin):
            raise BenchError(f"{pipeline.name}: what its join learns cannot be kept in a file; join by +scores or +rrf")
        arrays |= {f"join/{name}": array for name, array in pipeline.join.learned_arrays().items()}
    return arrays


def refuse_what_describes_nothing(pipeline: Pipeline) -> None:
    """BenchError for a method that cannot describe a picture which it has never seen."""
    if pipeline.steps_learn:
        learned = next(str(spec) for spec, step in pipeline.steps if isinstance(step, LearningStep))
        raise BenchError(f"{pipeline.name}: an index cannot keep what {learned} learns from train; leave {learned} out")
    for part in pipeline.parts:
        extractor = part.extractor
        why = ""
        if part.spec.entry.family == "control" or hasattr(extractor, "transform_split"):
            why = "is a control, which finds nothing by looking at a picture"
        elif getattr(extractor, "ranks_only", False):
            why = "knows a ranking and nothing else"
        elif hasattr(extractor, "describe_split"):
            why = "has its features from a file, so it cannot describe a new picture"
        if why:
            raise BenchError(
                f"{pipeline.name}: {part.name} {why}; an index needs methods that look at pictures, or read texts"
            )


def probe_pictures(arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The pictures of probes.npz."""
    return [arrays[name] for name in sorted(arrays) if name.startswith("picture/")]


def probe_files(picture: np.ndarray, wanted: int) -> dict[str, np.ndarray]:
    """The same picture as files of the usual formats, and the pixels that are decoded from them, for probes.npz.

    picture: (h, w, 3) uint8. wanted: of `Decoding`.
    """
    found = {}
    for form in PROBE_FORMATS:
        file = io.BytesIO()
        Image.fromarray(picture).save(file, form)
        found[f"file/{form}"] = np.frombuffer(file.getvalue(), np.uint8)
        found[f"decoded/{form}"] = decode(file.getvalue(), Decoding(wanted=wanted))
    return found


def decodes_alike(arrays: Mapping[str, np.ndarray], wanted: int) -> bool:
    """Whether the files in probes.npz are decoded to the pixels of then, to the last bit."""
    try:
        return all(
            np.array_equal(decode(arrays[f"file/{form}"].tobytes(), Decoding(wanted=wanted)), arrays[f"decoded/{form}"])
            for form in PROBE_FORMATS
        )
    except (KeyError, BadImage):
        return False


def probe_features(pipeline: Pipeline, pictures: Sequence[np.ndarray], texts: Sequence[str]) -> dict[str, np.ndarray]:
    """What each part makes of these items, and what is compared where parts are joined, by name."""
    found: dict[str, np.ndarray] = {}
    asked = sides_of(pipeline, gallery=False)
    features = []
    for place, (part, side) in enumerate(zip(pipeline.parts, sides_of(pipeline, gallery=True), strict=True)):
        features.append(part_rows(part, side, pictures, texts))
        found[f"part {place}"] = storable(features[-1])
        if asked[place] != side:
            found[f"part {place} of a query"] = storable(part_rows(part, asked[place], pictures, texts))
    rows = pipeline.rows(features)
    if pipeline.join_learns and isinstance(rows, Bundle) and VECTOR in rows.arrays:
        found["joined"] = rows.arrays[VECTOR]
    return found


def joining_code() -> str:
    """sha256 of the code by which the features of parts become what is compared."""
    return code_version(*(_HOME / name for name in _JOINING))


def setup_of(description: Description, setup: Setup | None, threads: int) -> Setup:
    """How the methods of an index are built: as it was, with the weights, device and threads that are asked for."""
    if setup is None:
        device = description.device if description.device == "cpu" or gpu_is_there() else "cpu"
        return Setup(description.seed, description.weights, device, threads)
    return replace(setup, seed=description.seed)


_EMPTY = Split((), np.empty(0, np.int64), ImageBytes([]))


def _weights(recipe: Mapping[str, Any]) -> str:
    """What identifies the weights, whatever file they came from; "" where there are none."""
    weights = recipe.get("weights")
    if not weights:
        return ""
    return str(weights.get("sha256") or json.dumps(weights, sort_keys=True))


def _short(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _enumerated(changed: Sequence[str], now: Sequence[Mapping[str, Any]], before: Sequence[Mapping[str, Any]]) -> str:
    """What changed, libraries with their versions."""
    said = []
    for field in changed:
        if field == "libraries":
            own, theirs = (recipes[0].get(field) or {} for recipes in (now, before))
            names = sorted(name for name in {*own, *theirs} if own.get(name) != theirs.get(name))
            said += [f"{name} ({theirs.get(name, 'none')} then, {own.get(name, 'none')} now)" for name in names]
        else:
            said.append(f"the {field}")
    return " and ".join([", ".join(said[:-1]), said[-1]] if len(said) > 1 else said)


def _deviation(again: np.ndarray, before: np.ndarray | None) -> float:
    """The largest difference, in parts of the largest number; infinite where the arrays cannot be compared."""
    if before is None or again.shape != before.shape or again.dtype != before.dtype:
        return float("inf")
    away = float(np.abs(again.astype(np.float64) - before.astype(np.float64)).max(initial=0.0))
    if again.dtype.kind != "f":
        return away
    largest = float(np.abs(before).max(initial=0))
    return away / largest if largest else away
