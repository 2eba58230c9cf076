"""Build an index of a dataset: learn from train, describe the gallery in one pass, ask the dataset's own queries."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import secrets
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import numpy as np
from PIL import Image

from retrieval_bench import __version__
from retrieval_bench.core import BadImage, BenchError, Dataset, Split, printable
from retrieval_bench.evaluation.relevance import count_relevant, relevant_among
from retrieval_bench.experiment.features import (
    PartFeatures,
    fit_part,
    fit_together,
    read_content,
    recipe_of,
    refuse_empty,
)
from retrieval_bench.experiment.prepare import FROM_GALLERY, Plan, learned_split, load, relevant_by
from retrieval_bench.experiment.reduced_decoding import reduced
from retrieval_bench.images.decoded_cache import DecodedOnce, PixelStore
from retrieval_bench.images.reading import DecodedBy, misnamed_notices
from retrieval_bench.images.screening import looked_at
from retrieval_bench.indexing.describing import Describer, cache_keys, of_images
from retrieval_bench.indexing.description import (
    DESCRIPTION_FILE,
    PROBES_FILE,
    ArrayFacts,
    Description,
    FileFacts,
    MethodFacts,
    StoredDtype,
    StoreFacts,
    content_of,
    judged_path,
    learned_path,
    plain,
    read_description,
)
from retrieval_bench.indexing.feature_place import FeaturePlace, FileFeatures
from retrieval_bench.indexing.index import LOCK_FILE, StoredIndex, items_of, refuse_where_changed, rows_kept
from retrieval_bench.indexing.items import ITEMS_FILE, NOTHING, Item, ItemTable, item_check
from retrieval_bench.indexing.methods import (
    joining_code,
    learned,
    probe_features,
    probe_files,
    refuse_what_describes_nothing,
)
from retrieval_bench.indexing.store_features import (
    STORE_FOLDER,
    StoreFeatures,
    forget,
    refuse_what_is_no_vector,
    refuse_what_store_cannot_hold,
    store_facts,
)
from retrieval_bench.methods.pipeline import Pipeline
from retrieval_bench.registry import Spec
from retrieval_bench.remote.place import whole_path
from retrieval_bench.system.checkpoint import refuse_own_images
from retrieval_bench.system.files import on_the_disk, sync_folder
from retrieval_bench.system.locks import Taken, held
from retrieval_bench.system.progress import Progress, silent
from retrieval_bench.system.timing import pinned

DTYPES: tuple[StoredDtype, ...] = get_args(StoredDtype)
_OURS = rf"features|learned|judged|lock|{STORE_FOLDER}|(index\.json|probes\.npz|items\.sqlite.*)"
PROBES, PROBE_SIDE = 3, 256
"""Pictures that are described again where code or libraries changed, and their longer side in pixels."""
JUDGED_K = 50
"""Items that are kept of what each query of the dataset finds."""


def build(
    plan: Plan,
    folder: Path,
    *,
    dtype: StoredDtype = "float32",
    store: Spec | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
) -> StoredIndex:
    """Build an index of the gallery of a dataset.

    The folder is written beside its place and renamed when it is whole. A picture that cannot be read is left out and
    counted in `Description.skipped`.

    Args:
        plan: dataset, methods, seed, weights, device, threads, limit, decoding, learn_from and cache; what a run needs
            besides is not looked at.
        folder: where the index is to lie.
        dtype: how numbers are kept. float32: as they are described. float16 rounds each. int8 keeps codes of a row,
            for methods that compare by cosine. Bits are kept as bits.
        store: a vector store that holds the features (`store_features.parse_store`); None: files of the index do.
        overwrite: an index that lies there is replaced; nothing else is.
        progress: called often.

    Returns:
        The index, open for reading.

    Raises:
        BenchError: The folder is there already, a method cannot describe new pictures, an option is wrong, no picture
            can be read, the store cannot hold what a method describes, or it cannot be written.
    """
    _refuse_place(folder, overwrite)
    plan, notices = reduced(plan)
    pipelines = _built(plan)
    facts = _kept_dtypes(pipelines, dtype)
    if store is not None:
        for pipeline in pipelines:
            refuse_what_is_no_vector(pipeline)
        refuse_what_store_cannot_hold(store, (), dtype)
    dataset = relevant_by(load(plan).with_pictures(), plan.relevance)
    _drop_unfinished(folder)
    beside = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    try:
        beside.mkdir(parents=True)
        with held(beside / LOCK_FILE):
            _fill(beside, plan, dataset, pipelines, dtype, facts, store, notices, progress)
        try:
            _put_in_place(beside, folder)
        except BaseException:
            forget(read_description(beside))
            raise
    except OSError as error:
        raise BenchError(
            f"{printable(folder)}: cannot be written ({error.strerror}); choose another place with --out"
        ) from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return StoredIndex.open(folder, plan.setup, check_recipe=False)


def _refuse_place(folder: Path, overwrite: bool) -> None:
    for outer in Path(os.path.abspath(folder)).parents:
        if (outer / DESCRIPTION_FILE).is_file() and (outer / ITEMS_FILE).is_file():
            raise BenchError(
                f"--out {printable(folder)}: lies in the index {printable(outer)}, whose --overwrite would remove it; "
                "name a folder beside that"
            )
    if not os.path.lexists(folder):
        return
    if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
        return
    if not overwrite:
        raise BenchError(
            f"--out {printable(folder)}: is there already; name another, or replace an index by --overwrite"
        )
    if folder.is_symlink() or not (folder / DESCRIPTION_FILE).is_file():
        raise BenchError(f"--out {printable(folder)}: is no index, so --overwrite does not replace it; name another")
    refuse_where_changed(folder)


def _drop_unfinished(folder: Path) -> None:
    """Remove what a build of the same name left that was killed; one that is still at work holds its lock."""
    for one in folder.parent.iterdir() if folder.parent.is_dir() else ():
        name = re.fullmatch(rf"\.{re.escape(folder.name)}\.[0-9a-f]{{8}}", one.name)
        if name is None or one.is_symlink() or not one.is_dir():
            continue
        if all(re.fullmatch(_OURS, inner.name) for inner in one.iterdir()):
            with contextlib.suppress(Taken, OSError), held(one / LOCK_FILE):
                shutil.rmtree(one, ignore_errors=True)


def _put_in_place(beside: Path, folder: Path) -> None:
    former = description = None
    if os.path.lexists(folder):
        refuse_where_changed(folder)
        description = read_description(folder) if (folder / DESCRIPTION_FILE).is_file() else None
        former = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
        os.rename(folder, former)
    try:
        os.rename(beside, folder)
    except OSError:
        if former is not None:
            os.rename(former, folder)
        raise
    sync_folder(folder.parent)
    if former is not None:
        if description is not None:
            forget(description)
        shutil.rmtree(former, ignore_errors=True)


def _built(plan: Plan) -> list[Pipeline]:
    """The methods, which share what two of them need."""
    pipelines = []
    for method in plan.methods:
        pipeline = Pipeline(method, plan.setup, "exact")
        refuse_what_describes_nothing(pipeline)
        pipelines.append(pipeline)
    shared = {part.name: part for pipeline in pipelines for part in pipeline.parts}
    for pipeline in pipelines:
        pipeline.members = [shared[part.name] for part in pipeline.members]
        pipeline.helpers = [shared[part.name] for part in pipeline.helpers]
    return pipelines


def _kept_dtypes(pipelines: Sequence[Pipeline], dtype: StoredDtype) -> dict[str, StoredDtype | None]:
    """Part -> the dtype that its numbers are kept in; None: as it describes them."""
    kept: dict[str, StoredDtype | None] = {}
    for pipeline in pipelines:
        for part in pipeline.helpers:
            kept[part.name] = None
        for part in pipeline.members:
            extractor = part.extractor
            if extractor.distance == "hamming" or hasattr(extractor, "searcher"):
                kept[part.name] = None
            elif dtype == "int8" and extractor.distance != "cosine":
                raise BenchError(
                    f"--dtype int8: {part.name} is compared by {extractor.distance.replace('_', ' ')}, to which the "
                    "lengths of vectors count, and int8 codes do not keep them; use --dtype float16"
                )
            else:
                kept.setdefault(part.name, dtype)
    return kept


def _fill(
    folder: Path,
    plan: Plan,
    dataset: Dataset,
    pipelines: list[Pipeline],
    dtype: StoredDtype,
    kept: dict[str, StoredDtype | None],
    spec: Spec | None,
    notices: Sequence[str],
    progress: Progress,
) -> None:
    with contextlib.ExitStack() as opened:
        place = None if spec is None else store_facts(spec, len(pipelines))
        if place is not None:  # before anything is described; the server that this starts serves what follows
            opened.enter_context(contextlib.closing(StoreFeatures(folder, place, (), new=True))).reach()
        description = _filled(folder, plan, dataset, pipelines, dtype, kept, spec, place, notices, progress, opened)
    (folder / DESCRIPTION_FILE).write_bytes(content_of(description))
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            on_the_disk(file)
        else:
            sync_folder(file)
    sync_folder(folder)


def _filled(
    folder: Path,
    plan: Plan,
    dataset: Dataset,
    pipelines: list[Pipeline],
    dtype: StoredDtype,
    kept: dict[str, StoredDtype | None],
    spec: Spec | None,
    place: StoreFacts | None,
    notices: Sequence[str],
    progress: Progress,
    opened: contextlib.ExitStack,
) -> Description:
    """Everything but index.json as it will be, which is returned; opened: closes what must be closed after that."""
    store = PixelStore()
    gallery = replace(dataset.gallery, images=DecodedBy(dataset.gallery.images, plan.decoding))
    learned_from, content = _learn(pipelines, plan, dataset, store, progress)
    if plan.learn_from == "gallery" and content is not None:  # what was decoded to learn is not decoded again
        gallery = replace(gallery, images=DecodedOnce(gallery.images, store))
    with pinned(1):
        pictures = _probes(gallery)
        texts = _probe_texts(gallery, len(pictures))
        probes = [probe_features(pipeline, pictures, texts) for pipeline in pipelines]
    methods = [_facts(pipeline, plan, own, kept, content) for pipeline, own in zip(pipelines, probes, strict=True)]
    if spec is not None:
        refuse_what_store_cannot_hold(spec, methods, dtype)
    files: dict[str, FileFacts] = {}
    for number, pipeline in enumerate(pipelines):
        if arrays := learned(pipeline):
            files[learned_path(number)] = _write_arrays(folder, learned_path(number), arrays)
    arrays = {f"picture/{place}": picture for place, picture in enumerate(pictures)}
    arrays["texts"] = np.array(texts)
    arrays |= probe_files(pictures[0], plan.decoding.wanted)
    for number, own in enumerate(probes):
        arrays |= {f"{number}/{name}": array for name, array in own.items()}
    files[PROBES_FILE] = _write_arrays(folder, PROBES_FILE, arrays)
    description = Description(
        format=1,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        version=__version__,
        dataset=str(plan.dataset),
        dataset_name=dataset.name,
        data_root=None if plan.root is None else whole_path(plan.root),
        limit=plan.limit,
        learn_from=plan.learn_from,
        seed=plan.seed,
        weights=plan.weights,
        device=plan.device,
        max_pixels=plan.decoding.max_pixels,
        wanted=plan.decoding.wanted,
        dtype=dtype,
        methods=tuple(methods),
        files=files,
        skipped={},
        notices=(),
        store=place,
    )
    features: FileFeatures | StoreFeatures = FileFeatures(folder, description)
    if place is not None:
        features = opened.enter_context(contextlib.closing(StoreFeatures(folder, place, methods, new=True)))
    keys = cache_keys(pipelines, plan.setup, plan.decoding, learned_from)
    describer = Describer(pipelines, plan.decoding, plan.threads, plan.cache, keys)
    filled = _Filled(features, description, describer)
    table = ItemTable.create(folder / ITEMS_FILE)
    try:
        table.add(filled.items(gallery, dataset, progress), "build", str(plan.dataset))
        table.finish()
    finally:
        table.close()
    if not filled.count:
        reason, count = filled.skipped.most_common(1)[0]
        raise BenchError(f"none of the {len(gallery):,} images of {dataset.name} can be used ({count:,} {reason})")
    (folder / DESCRIPTION_FILE).write_bytes(content_of(description))
    if isinstance(features, StoreFeatures):
        progress("making the store's index", 0, 0)
        features.finish()
    asking = Describer(pipelines, plan.decoding, plan.threads, plan.cache, keys, gallery=False)
    judged, told = _judged(folder, features, plan, dataset, pipelines, asking, filled.rows_of_gallery, progress)
    if isinstance(features, StoreFeatures):
        features.keep()
    noted = describer.notes + asking.notes
    notes = [f"{count:,} {'image' if count == 1 else 'images'} {note}" for note, count in sorted(noted.items())]
    return description.model_copy(
        update={
            "files": {**files, **judged},
            "skipped": dict(filled.skipped),
            "notices": (*dataset.notices, *notices, *notes, *misnamed_notices(dataset), *told),
        }
    )


def _learn(
    pipelines: Sequence[Pipeline], plan: Plan, dataset: Dataset, store: PixelStore, progress: Progress
) -> tuple[dict[str, str | None], str | None]:
    """Let every part and join learn from train, as a run does.

    Returns name of a part -> the content that it learned from, and what the others learned from; None for nothing.
    """
    learns = [pipeline for pipeline in pipelines if pipeline.learns]
    train = Split((), np.empty(0, np.int64), dataset.train.images.take([]))
    if learns:
        train = learned_split(dataset, plan.learn_from)
        train = replace(train, images=DecodedOnce(DecodedBy(train.images, plan.decoding), store))
        for pipeline in learns:
            refuse_empty(train, pipeline.name)
        train = _readable(train, plan, progress)
    learned_from: dict[str, str | None] = {}
    with pinned(1):
        for pipeline in pipelines:
            done = []
            for part in pipeline.parts:
                recipe = recipe_of(part, plan.setup, plan.decoding.key)
                name = part.name if pipeline.method.plain else f"{pipeline.name}: {part.name}"
                fitted, fit_s = fit_part(part, recipe, train, plan.cache, name, progress)
                content = train.content if fitted != "nothing to learn" else None
                learned_from[part.name] = None if content is None else read_content(part.spec, train)
                done.append(PartFeatures(fitted, fit_s, content, {}))
            if pipeline.join_learns:
                fit_together(pipeline, done, train, plan.setup, plan.decoding.key, plan.cache, progress)
    return learned_from, train.content if learns else None


def _readable(train: Split, plan: Plan, progress: Progress) -> Split:
    """Without the images that cannot be decoded, as a run has it."""

    def look(images: object, row: int) -> int:
        return train.images[row].size

    places = [(train.images, row) for row in range(len(train))]
    found = looked_at(places, look, plan.threads, lambda done, total: progress("checking train images", done, total))
    rows = [row for row, size in enumerate(found) if not isinstance(size, BadImage)]
    if not rows:
        raise BenchError("no train image can be read, so that nothing can be learned")
    return train if len(rows) == len(train) else train.take(rows)


def _probes(gallery: Split) -> list[np.ndarray]:
    """A few pictures of the gallery, spread over it, small."""
    n = len(gallery)
    wanted = list(dict.fromkeys(round(place * (n - 1) / (PROBES - 1)) for place in range(PROBES)))
    pictures: list[np.ndarray] = []
    for row in dict.fromkeys([*wanted, *range(min(n, 1000))]):
        if len(pictures) == PROBES:
            break
        try:
            picture = Image.fromarray(gallery.images[row])
        except BadImage:
            continue
        picture.thumbnail((PROBE_SIDE, PROBE_SIDE))
        pictures.append(np.array(picture))
    if not pictures:
        raise BenchError(f"none of the first images of the gallery, of {n:,}, can be read; repair them")
    return pictures


def _probe_texts(gallery: Split, count: int) -> list[str]:
    """As many texts, of items that have one; "" where there are no more."""
    there = [text for text in gallery.texts or () if text.strip()][:1000]
    spread = [there[round(place * (len(there) - 1) / max(count - 1, 1))] for place in range(count)] if there else []
    return spread or [""] * count


def _facts(
    pipeline: Pipeline,
    plan: Plan,
    probes: dict[str, np.ndarray],
    kept: dict[str, StoredDtype | None],
    content: str | None,
) -> MethodFacts:
    arrays = []
    for place, part in enumerate(pipeline.parts):
        described = probes[f"part {place}"]
        dtype = kept[part.name]
        own = described.dtype.name
        arrays.append(
            ArrayFacts(
                name=part.name,
                described=own,  # type: ignore[arg-type]
                kept=own if dtype in (None, "float32") or own == "int8" else dtype,  # type: ignore[arg-type]
                width=described.shape[1],
            )
        )
    whole = len(pipeline.parts) > 1 or bool(pipeline.steps)
    whole = whole or any(hasattr(part.extractor, "searcher") for part in pipeline.members)
    return MethodFacts(
        text=str(pipeline.method),
        name=pipeline.name + (FROM_GALLERY if plan.learn_from == "gallery" and pipeline.learns else ""),
        family=pipeline.method.family,
        distance=pipeline.distance,
        incomparable=pipeline.incomparable,
        whole=whole,
        learned_from=content if pipeline.learns else None,
        recipes=tuple(plain(recipe_of(part, plan.setup, plan.decoding.key)) for part in pipeline.parts),
        joining=joining_code(),
        arrays=tuple(arrays),
    )


class _Filled:
    """The gallery on its way into the files."""

    def __init__(self, features: FeaturePlace, description: Description, describer: Describer) -> None:
        self._description, self._describer, self._features = description, describer, features
        self._appending = features.appending(NOTHING, 1)
        self.skipped: Counter[str] = Counter()
        self.rows_of_gallery: list[int] = []

    @property
    def count(self) -> int:
        return len(self.rows_of_gallery)

    def items(self, gallery: Split, dataset: Dataset, progress: Progress) -> Iterator[tuple[Item, bytes]]:
        """Each item with its checksum, after its rows are written."""
        total = len(gallery)
        incoming = (
            of_images(gallery.images, row, item, item.text)
            for row, item in enumerate(items_of(gallery, dataset.label_names, dataset.category_names))
        )
        try:
            with pinned(1):
                for row, one in enumerate(self._describer(incoming)):
                    if one.bad is None:
                        rows = self._features.as_kept(rows_kept(one, self._description))
                        self._appending.append([array[None] for array in rows])
                        self.rows_of_gallery.append(row)
                        item = replace(one.incoming.facts, digest=one.digest)
                        yield item, item_check(item, rows)
                    else:
                        self.skipped[one.bad.reason] += 1
                    progress("describing the gallery", row + 1, total)
            self._appending.sync()
        finally:
            self._appending.close()


def _judged(
    folder: Path,
    features: FeaturePlace,
    plan: Plan,
    dataset: Dataset,
    pipelines: Sequence[Pipeline],
    describer: Describer,
    rows_of_gallery: Sequence[int],
    progress: Progress,
) -> tuple[dict[str, FileFacts], list[str]]:
    """What the dataset's own queries find; written, with notices about those that cannot be asked."""
    query = dataset.query
    images = DecodedBy(query.images, plan.decoding)
    texts = ("",) * len(query) if query.texts is None else query.texts
    incoming = (of_images(images, row, row, text) for row, text in enumerate(texts))
    with pinned(1):
        found = []
        for done, one in enumerate(describer(incoming), 1):
            progress("describing queries", done, len(query))
            if one.bad is None:
                found.append(one)
    told = []
    if len(found) < len(query):
        told.append(f"{len(query) - len(found):,} of {len(query):,} queries cannot be read and were not asked")
    if not found:
        return {}, told
    asked = np.array([one.incoming.facts for one in found])
    gallery_labels = dataset.gallery.label_sets[np.array(rows_of_gallery)]
    labels = query.label_sets[asked]
    exclude = None
    if dataset.leave_one_out:
        number_of = {dataset.gallery.ids[row]: place + 1 for place, row in enumerate(rows_of_gallery)}
        exclude = np.array([number_of.get(query.ids[row], -1) for row in asked], np.int64)
    lone = dataset.is_distractor(query)[asked]
    n_relevant = count_relevant(
        labels, gallery_labels, None if exclude is None else np.where(exclude > 0, exclude - 1, -1)
    )
    n_relevant[lone] = 0
    files = {}
    with (
        StoredIndex.open(folder, plan.setup, check_recipe=False, features=features) as index,
        pinned(plan.threads),
    ):
        snapshot = index.snapshot()
        place = 0
        for number, pipeline in enumerate(pipelines):
            progress("asking the queries", number, len(pipelines))
            own = slice(place, place + len(pipeline.parts))
            place = own.stop
            try:
                for part in pipeline.parts:
                    refuse_own_images(
                        getattr(part.extractor, "trained_on", None), (one.digest for one in found), part.name
                    )
            except BenchError as error:
                told.append(f"{error}; so its queries tell nothing, and were not asked")
                continue
            index.methods[number].use(pipeline)
            rows = pipeline.rows([np.stack(array) for array in zip(*(one.rows[own] for one in found), strict=True)])
            ranking = snapshot.search(str(pipeline.method), rows, min(JUDGED_K, len(snapshot)), exclude=exclude)
            right = relevant_among(np.where(ranking.indices > 0, ranking.indices - 1, -1), labels, gallery_labels)
            right[lone] = False
            arrays = {
                "ids": np.array([query.ids[row] for row in asked]),
                "numbers": ranking.indices,
                "distances": ranking.distances,
                "right": right,
                "n_relevant": n_relevant,
            }
            files[judged_path(number)] = _write_arrays(folder, judged_path(number), arrays)
    return files, told


def _write_arrays(folder: Path, name: str, arrays: dict[str, np.ndarray]) -> FileFacts:
    if any(array.dtype.hasobject for array in arrays.values()):
        raise BenchError(f"{name}: a method learns Python objects, which an index does not keep; leave it out")
    file = folder / name
    file.parent.mkdir(exist_ok=True)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    content = buffer.getvalue()
    file.write_bytes(content)
    return FileFacts(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
