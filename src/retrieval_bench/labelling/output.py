"""What comes out: a list of the images with their labels, which dataset `manifest` reads."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from retrieval_bench.core import BenchError, Images
from retrieval_bench.data_audit.duplicates import Gathered
from retrieval_bench.datasets.listed_files import ListedFiles
from retrieval_bench.datasets.manifest import SEPARATOR
from retrieval_bench.images.formats import format_of
from retrieval_bench.images.reading import files_of
from retrieval_bench.labelling.session import LabellingSession
from retrieval_bench.remote.place import is_url, whole_path
from retrieval_bench.system.csv_text import csv_text
from retrieval_bench.system.files import write_whole

BY, SURE = "labelled_by", "confidence"
"""Columns: given, person or machine; and how sure the machine was."""
SUFFIXES = {
    "JPEG": ".jpg",
    "PNG": ".png",
    "WEBP": ".webp",
    "GIF": ".gif",
    "BMP": ".bmp",
    "TIFF": ".tif",
    "AVIF": ".avif",
}


@dataclass(frozen=True)
class WrittenList:
    """What was written. left_out: images without a decision, and those of a split that must have a label."""

    path: Path
    rows: int
    given: int
    person: int
    machine: int
    nothing: int
    left_out: int
    notices: tuple[str, ...]


def check_out(path: Path, source: Path | None = None) -> None:
    """BenchError where the list must not be written: it is no .csv file, or the list that is read, `source`, from which
    it would drop the images without a decision."""
    if path.suffix.lower() != ".csv":
        raise BenchError(f"--out {path.name}: the list is a .csv file; give it a name such as labelled.csv")
    if source is not None and os.path.realpath(path) == os.path.realpath(whole_path(source)):
        raise BenchError(
            f"--out {path.name}: is the list that is read, and would lose the images without a decision; name another"
        )


def write_list(session: LabellingSession, path: Path, keep_open: bool = False) -> WrittenList:
    """Write the list, whole or not at all.

    Args:
        session: whose labels.
        path: a .csv file.
        keep_open: list images without a label, too. To `manifest` these are distractors, which are relevant to no
            query, and that is wrong of an image that nobody has looked at; so they are left out by default.

    Returns:
        What was written.

    Raises:
        BenchError: It cannot be written, or is no .csv file.
    """
    check_out(path)
    pool = session.pool
    several = bool(pool.more_labels)
    label_column = "labels" if several else "label"
    named = {"path", "label", "labels", "id", "category", BY, SURE}
    kept = [name for name in pool.columns if name.casefold() not in named]
    split_of = next((name for name in kept if name.strip().casefold() == "split"), None)
    rows, by = [], list(session.by)
    used = {session.label_of(row) for row in range(len(pool)) if by[row]} - {""}
    lacking = sorted(label for label in used if label not in pool.category_of)
    categories = bool(pool.category_of) and not lacking
    notices = []
    if pool.category_of and lacking:
        notices.append(f"no column category is written: label {lacking[0]!r} is new and has none")
    counts = {"given": 0, "person": 0, "machine": 0, "nothing": 0}
    outside = 0
    for row, item in enumerate(pool.ids):
        label = session.label_of(row)
        must = split_of is not None and pool.columns[split_of][row].strip().casefold() not in (
            "gallery",
            "query",
            "both",
        )
        if not label and (must or (by[row] != "nothing" and not keep_open)):
            continue
        if by[row]:
            counts[by[row]] += 1
        labels = [label, *(one for one in pool.more_labels.get(row, ()) if one != label)] if label else []
        if several and any(SEPARATOR in one for one in labels):
            raise BenchError(f"label {label!r} holds {SEPARATOR}, which divides labels in this list; rename it first")
        written = _path(session, row, path)
        outside += written.startswith("..") or os.path.isabs(written)
        before = pool.columns[BY][row] if BY in pool.columns else ""
        who = (before or "given") if by[row] == "given" else "person" if by[row] == "nothing" else by[row]
        cells = [written, SEPARATOR.join(labels), item]
        if categories:
            cells.append(SEPARATOR.join(pool.category_of[one] for one in labels))
        sure = f"{session.sure[row]:.4f}" if by[row] == "machine" else ""
        rows.append([*cells, who, sure, *(pool.columns[name][row] for name in kept)])
    if not rows:
        raise BenchError("no image has a label by now, so that there is no list to write; label some with --serve")
    if outside:
        notices.append(f"{outside:,} images lie outside the folder of {path.name}: read it with --allow-outside")
    head = ["path", label_column, "id", *(["category"] if categories else []), BY, SURE, *kept]
    write_whole(path, csv_text([head, *rows]).encode("utf-8", errors="surrogateescape"))
    return WrittenList(path, len(rows), **counts, left_out=len(pool) - len(rows), notices=tuple(notices))


def _path(session: LabellingSession, row: int, out: Path) -> str:
    """Where the image lies, from the list; one that lies in no file is written beside it."""
    images, place = _origin(session.pool.images, row)
    files = files_of(images)
    if isinstance(files, ListedFiles) and is_url(files.written[place]):
        return files.written[place]
    home = Path(os.path.abspath(out)).parent
    if files is not None:
        there = os.path.abspath(files.place(place))
        try:
            return Path(os.path.relpath(there, home)).as_posix()
        except ValueError:  # another drive
            return Path(there).as_posix()
    content = images.read(place)
    name = hashlib.sha256(content).hexdigest()[:32] + SUFFIXES.get(format_of(content[:64]) or "", ".png")
    file = home / f"{out.stem}_pictures" / name
    if not file.exists():
        write_whole(file, content)
    return file.relative_to(home).as_posix()


def _origin(images: Images, row: int) -> tuple[Images, int]:
    """The collection that an image is of, and its row there, whatever wraps it."""
    inner: Images | None = images
    while inner is not None:
        if isinstance(inner, Gathered):
            return inner.origin(row)
        inner = getattr(inner, "images", None)
    return images, row
