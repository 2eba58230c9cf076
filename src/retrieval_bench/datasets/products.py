"""The embedded dataset: 100 products, 12 pictures each, drawn by our own code from a seed; no download.

Ten categories of ten products (`shop/look.py`), one catalogue and eleven phone shots of each (`shop/camera.py`). Views
1-4 are for training, the catalogue shot and views 5-7 make the gallery, views 8-11 are the queries, so that every query
has 4 relevant items. View parameters are drawn per view without regard to the split and kept as attributes.

Each item has a text beside its picture (`shop/wording.py`): a seller's listing in train and gallery, of queries what a
customer types, in three difficulties, the attribute text_difficulty. Pictures and texts are drawn independently.

With `queries=turned` each query is turned by any angle and cropped to 50 to 70 % of its area (`shop/turned.py`); train
and gallery stay as they are.

The pixels are the same on every machine: `shop/drawing.py` says how, a golden digest in the tests says that. Rendering
takes seconds; the result is cached on disk and belongs to the source code that drew it.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

import numpy as np

from retrieval_bench.core import BenchError, Dataset, Images, Split, printable
from retrieval_bench.datasets.shop.camera import Camera, Parameters
from retrieval_bench.datasets.shop.drawing import Dice
from retrieval_bench.datasets.shop.look import CATEGORIES, looks
from retrieval_bench.datasets.shop.turned import any_turn, turned
from retrieval_bench.datasets.shop.wording import written_texts
from retrieval_bench.images.reading import ImageBytes, encode_png
from retrieval_bench.registry import DATASETS, Range
from retrieval_bench.system.cache import cache_root
from retrieval_bench.system.files import open_regular
from retrieval_bench.system.npz import read_arrays

log = logging.getLogger("retrieval_bench")

VERSION = 1
"""Raise it when the pixels change on purpose; results before and after are not comparable."""

VIEWS = 12
PARTS: dict[str, tuple[int, ...]] = {"train": (1, 2, 3, 4), "gallery": (0, 5, 6, 7), "query": (8, 9, 10, 11)}
MOST_BYTES = 1 << 30
"""Of the file of pictures; those of 100 products take a twentieth."""


@dataclass(frozen=True, eq=False)
class RenderedImages:
    """All pictures, or all queries, product by product, view by view.

    encoded: lossless PNG bytes. digests: sha256 over shape and pixels, which no PNG library can change.
    attributes: name -> (n,) array of view parameters as rendered.
    """

    encoded: list[bytes]
    digests: list[str]
    attributes: dict[str, np.ndarray]


@DATASETS("products", about="embedded: 100 rendered products, catalogue and phone views, every view parameter known")
def products(
    root: Path | None, *, seed: Annotated[int, Range(0, 2**32 - 1)] = 0, queries: Literal["as-is", "turned"] = "as-is"
) -> Dataset:
    """The dataset of one seed.

    Args:
        root: must be None, as nothing is read.
        seed: of the rendering, 0 to 4294967295.
        queries: `turned` turns each query by any angle and crops it to 50 to 70 % of its area; the attributes
            turned_deg (clockwise, -180..180) and kept (share of the picture's area) say how. `as-is` leaves them.

    Raises:
        BenchError: for a bad seed, and for a root.
    """
    if root is not None:
        raise BenchError(
            f"products is rendered and reads nothing from {printable(root)}; leave --data-root out, "
            "or use --dataset folder (or manifest, grocery) to read it"
        )
    if not 0 <= seed < 2**32:
        raise BenchError(f"products: seed={seed} is outside 0..{2**32 - 1}; choose a seed in this range")
    pictures = _cached(f"products-{VERSION}-{seed}", lambda: _render_watched(seed))
    goods = looks(seed)
    splits = {}
    for part, views in PARTS.items():
        rows = [product * VIEWS + view for product in range(len(goods)) for view in views]
        owners = [goods[row // VIEWS] for row in rows]
        attributes = {name: column[rows] for name, column in pictures.attributes.items()}
        images = ImageBytes([pictures.encoded[row] for row in rows], [pictures.digests[row] for row in rows])
        if part == "query" and queries == "turned":
            keys = [(owners[n].name, row % VIEWS) for n, row in enumerate(rows)]
            again = _cached(f"products-{VERSION}-{seed}-turned", partial(turn_all, images, seed, keys))
            images = ImageBytes(again.encoded, again.digests)
            attributes |= again.attributes
        attributes["differs_by"] = np.array([look.differs_by for look in owners])
        texts, difficulties = written_texts(goods, seed, part, views)
        if part == "query":
            attributes["text_difficulty"] = np.array(difficulties)
        splits[part] = Split(
            ids=tuple(
                f"{part}/{look.category}/{look.name}/view-{row % VIEWS:02d}.png"
                for look, row in zip(owners, rows, strict=True)
            ),
            labels=np.array(rows, np.int64) // VIEWS,
            images=images,
            categories=np.array([CATEGORIES.index(look.category) for look in owners], np.int64),
            attributes=attributes,
            texts=tuple(texts),
        )
    return Dataset(
        name="products",
        train=splits["train"],
        gallery=splits["gallery"],
        query=splits["query"],
        label_names=tuple(look.name for look in goods),
        category_names=CATEGORIES,
    )


def render_all(seed: int, progress: Callable[[int, int], None] | None = None) -> RenderedImages:
    """Draw everything, on all cores that numpy's released lock can use; progress(done, total) after each product."""
    camera = Camera(seed)
    total = len(camera.looks) * VIEWS

    def shoot(product: int) -> list[tuple[bytes, str, Parameters]]:
        out = []
        for view in range(VIEWS):
            pixels, parameters = camera.photo(product, view)
            out.append((encode_png(pixels), pixel_digest(pixels), parameters))
        return out

    shots: list[tuple[bytes, str, Parameters]] = []
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for done in pool.map(shoot, range(len(camera.looks))):
            shots += done
            if progress is not None:
                progress(len(shots), total)
    return _collected(shots)


def turn_all(images: Images, seed: int, keys: Sequence[tuple[str, int]]) -> RenderedImages:
    """Every image turned and cropped by a draw of its own, which depends on (seed, product, view) alone."""

    def one(row: int) -> tuple[bytes, str, Parameters]:
        by = any_turn(Dice("turned", seed, *keys[row]))
        pixels = turned(images[row], by)
        return encode_png(pixels), pixel_digest(pixels), {"turned_deg": by.turned_deg, "kept": round(by.kept, 4)}

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        return _collected(list(pool.map(one, range(len(keys)))))


def pixel_digest(pixels: np.ndarray) -> str:
    """sha256 (hex) over the shape and the pixels of an (h, w, 3) uint8 picture."""
    return hashlib.sha256(repr(pixels.shape).encode() + np.ascontiguousarray(pixels).tobytes()).hexdigest()


def _collected(shots: list[tuple[bytes, str, Parameters]]) -> RenderedImages:
    return RenderedImages(
        encoded=[png for png, _, _ in shots],
        digests=[digest for _, digest, _ in shots],
        attributes={name: np.array([parameters[name] for _, _, parameters in shots]) for name in shots[0][2]},
    )


# --- the cache --------------------------------------------------------------------------------------------------------


def _cached(name: str, draw: Callable[[], RenderedImages]) -> RenderedImages:
    """name: says all that the pictures depend on besides the source code."""
    path = cache_root() / f"{name}.npz"
    pictures = _load(path, name)
    if pictures is None:
        pictures = draw()
        _save(pictures, path, name)
    return pictures


def _source() -> str:
    """sha256 over the renderer's own source, so that a cache never outlives the code that drew it."""
    here = Path(__file__)
    digest = hashlib.sha256()
    for file in (here, *sorted((here.parent / "shop").glob("*.py"))):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _seal(arrays: dict[str, np.ndarray], name: str) -> str:
    digest = hashlib.sha256(f"{_source()} {name} ".encode())
    for key in sorted(arrays):
        array = np.ascontiguousarray(arrays[key])
        digest.update(f"{key} {array.dtype.str} {array.shape} ".encode())
        digest.update(array.view(np.uint8).data if array.size else b"")
    return digest.hexdigest()


def _load(path: Path, name: str) -> RenderedImages | None:
    """What the file holds, or None where it is missing, damaged or of other code or name: then it is drawn again."""
    try:
        with open_regular(path, MOST_BYTES) as file:
            arrays = read_arrays(file)
        if str(arrays.pop("seal", None)) != _seal(arrays, name):
            return None
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        log.warning("cache: %s is damaged (%s); its pictures are drawn again", printable(path), why)
        return None
    ends = np.cumsum(arrays.pop("lengths")).tolist()
    everything = arrays.pop("encoded").data
    encoded = [bytes(everything[start:end]) for start, end in pairwise([0, *ends])]
    return RenderedImages(encoded, arrays.pop("digests").tolist(), arrays)


def _save(pictures: RenderedImages, path: Path, name: str) -> None:
    """Write all at once or not at all; where that cannot be, it is told, and they are drawn again next time."""
    arrays: dict[str, np.ndarray] = {
        "encoded": np.frombuffer(b"".join(pictures.encoded), np.uint8),
        "lengths": np.array([len(png) for png in pictures.encoded], np.int64),
        "digests": np.array(pictures.digests),
        **pictures.attributes,
    }
    seal = np.array(_seal(arrays, name))
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            np.savez(file, seal=seal, **arrays)  # type: ignore[arg-type]
        temporary.replace(path)
    except OSError as error:
        log.warning("cache: %s is not kept (%s); continuing without", printable(path), error.strerror)
    finally:
        with suppress(OSError):
            temporary.unlink()


def _render_watched(seed: int) -> RenderedImages:
    """`render_all`, with a bar on stderr where somebody is looking."""
    if not sys.stderr.isatty():
        return render_all(seed)
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("drawing products"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        return render_all(seed, lambda done, total: bar.update(task, completed=done, total=total))
