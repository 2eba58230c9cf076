"""Anybody's images: one folder per label, split by content, or three folders that are split already."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from retrieval_bench.core import SPLITS, BenchError, Dataset, Split, printable
from retrieval_bench.datasets.splits import content_split, divide, observations, parse_shares, some
from retrieval_bench.images.formats import SUFFIXES
from retrieval_bench.images.listing import PassedOver, image_files, names_in
from retrieval_bench.images.reading import ImageFiles
from retrieval_bench.registry import DATASETS

LAYOUT = "expected is <root>/<label>/*.jpg, or <root>/{train,gallery,query}/<label>/*.jpg with train optional"
OTHER_SPLIT_NAMES = {"train", "val", "valid", "validation", "dev", "test"}


@DATASETS("folder", about="your own images: <root>/<label>/*, or split already: <root>/{train,gallery,query}/<label>/*")
def folder(root: Path | None, *, split: str = "70/15/15") -> Dataset:
    """Read a folder of images; the folders' names are the labels.

    Without folders called gallery and query, each file's split follows from the sha256 of its content and nothing else
    (`split` gives the percent for train/gallery/query). What that promises:

    - adding, removing or renaming images moves no other image, and copies of one file share a split;
    - every label is divided in the same proportions, up to chance: of n images about 15 % +- 36 %/sqrt(n) are queries.
      Exact quotas per label are not promised, since an image would have to move whenever its label grows. A label with
      few images may thus lack gallery or queries; it stays, a notice says how many do, and split=0/50/50 or a layout of
      your own helps.

    Files are taken from subfolders of a label too. Links are followed. A name with an image's suffix that is no image
    (an empty directory, a dangling link, HTML) becomes a bad image, which screening reports. A file without a suffix is
    an image where its first bytes say so. Hidden files and other suffixes are counted by kind in a notice, and so are
    images of a format whose codec is not installed (HEIF, JPEG XL, ...).

    Args:
        root: the folder.
        split: percent of the images for train/gallery/query, where the folder is not split already.
    """
    shares = parse_shares(split)
    if root is None:
        raise BenchError(f"dataset folder needs --data-root; {LAYOUT}")
    if not root.is_dir():
        raise BenchError(f"dataset folder: {printable(root)} is not a directory; {LAYOUT}")
    ready = _is_split_already(root)
    files, notices = _scan(root, SPLITS if ready else ("",))
    if not files:
        raise BenchError(f"dataset folder: no {'/'.join(SUFFIXES)} in a label's folder of {printable(root)}; {LAYOUT}")

    images = ImageFiles([file.path for file in files])
    if ready:
        assigned = [file.split for file in files]
    else:
        assigned = [content_split(images.digest(row), shares) for row in range(len(images))]
        for name in ("gallery", "query"):
            if name not in assigned:
                raise BenchError(
                    f"dataset folder: none of the {len(files)} images in {printable(root)} ended up in {name} with "
                    f"split={split}; add images, give {name} a larger share (folder:split=0/50/50), or divide them "
                    "yourself into <root>/{train,gallery,query}/<label>/"
                )
    label_names = sorted({file.label for file in files})
    index = {label: number for number, label in enumerate(label_names)}
    whole = Split(
        ids=tuple(printable(file.path.relative_to(root).as_posix()) for file in files),
        labels=np.array([index[file.label] for file in files], np.int64),
        images=images,
    )
    splits = divide(whole, assigned)
    dataset = Dataset(
        name="folder",
        train=splits["train"],
        gallery=splits["gallery"],
        query=splits["query"],
        label_names=tuple(label_names),
        notices=tuple(notices),
    )
    return dataset.with_splits({}, observations(dataset))


class _File(NamedTuple):
    path: Path
    label: str
    split: str  # "" where the content decides


def _is_split_already(root: Path) -> bool:
    names = set(_subfolders(root))
    if {"gallery", "query"} <= names:
        return True
    if names & {"gallery", "query"} or (names and names <= OTHER_SPLIT_NAMES):
        raise BenchError(
            f"dataset folder: the folders {some(names)} in {printable(root)} look like splits, not labels, "
            f"but both gallery and query are needed; {LAYOUT}"
        )
    return False


def _scan(root: Path, tops: Sequence[str]) -> tuple[list[_File], list[str]]:
    """The images of all labels below root/top, for each top that is there, and notices of what was passed over."""
    files: list[_File] = []
    empty: list[str] = []
    passed_over = PassedOver()
    for top in tops:
        if not (root / top).is_dir():
            continue
        loose = (name for name in names_in(root / top) if not os.path.isdir(root / top / name))
        passed_over.ignored.update("hidden" if name.startswith(".") else "outside a label's folder" for name in loose)
        for name in _subfolders(root / top):
            paths = list(image_files(root / top / name, passed_over, above=(os.path.realpath(root),)))
            files += [_File(path, printable(name), top) for path in paths]
            if not paths:
                empty.append(printable(Path(top, name).as_posix()))
    notices = []
    if empty:
        notices.append(f"{len(empty)} label folders hold no image: {some(empty)}")
    if "" not in tops and (beside := set(_subfolders(root)) - set(tops)):
        notices.append(f"folders beside {', '.join(tops)} are ignored: {some(beside)}")
    return files, notices + passed_over.notices()


def _subfolders(directory: Path) -> list[str]:
    return [name for name in names_in(directory) if not name.startswith(".") and os.path.isdir(directory / name)]
