"""Anybody's images: one folder per label, split by content, or folders that are split already."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from retrieval_bench.core import DISTRACTOR, SPLITS, BenchError, Dataset, Images, Split, printable
from retrieval_bench.datasets.remote_files import RemoteFile, RemoteFiles
from retrieval_bench.datasets.split_names import BOTH, LOOK_LIKE_SPLITS, offered, our_splits, parse_mapping
from retrieval_bench.datasets.splits import (
    LEAVE_ONE_OUT,
    content_splits,
    divide,
    numbers,
    observations,
    parse_shares,
    some,
)
from retrieval_bench.images.formats import SUFFIXES
from retrieval_bench.images.listing import PassedOver, image_files, is_image_by_name, names_in
from retrieval_bench.images.reading import ImageFiles
from retrieval_bench.registry import DATASETS
from retrieval_bench.remote.trees import lies_elsewhere, tree_of

LAYOUT = "expected is <root>/<label>/*.jpg, or <root>/{train,gallery,query}/<label>/*.jpg with train optional"


@DATASETS(
    "folder",
    about="your own images: <root>/<label>/*, or split already: <root>/{train,gallery,query}/<label>/*",
    colons=("splits",),
)
def folder(
    root: Path | None, *, split: str = "70/15/15", splits: str = "", label: Literal["top", "leaf"] = "top"
) -> Dataset:
    """Read a folder of images; the folders' names are the labels.

    Without folders called gallery and query, the sha256 of each file's content decides its split (`split` gives the
    percent for train/gallery/query). What that promises:

    - a label of two images or more has at least one gallery and one query image; where contents alone do not give it
      one, it is given an image of train, or else one that its gallery or query can spare;
    - adding, removing or renaming images moves no image of another label (copies aside), and none of a label whose
      contents alone give it both; of a label with few images at most two others move: those that were given one, and
      those that are given one in their place;
    - copies of one file share a split;
    - every label is divided in the same proportions, up to chance: of n images about 15 % +- 36 %/sqrt(n) are queries.
      Exact quotas per label are not promised, since an image would have to move whenever its label grows.

    Files are taken from subfolders of a label too; where most images lie there, a notice says so. Links are followed. A
    name with an image's suffix that is no image (an empty directory, a dangling link, HTML) becomes a bad image, which
    screening reports. A file without a suffix is
    an image where its first bytes say so. Hidden files and other suffixes are counted by kind in a notice, and so are
    images of a format whose codec is not installed (HEIF, JPEG XL, ...).

    Args:
        root: the folder; or a zip or tar file, or a folder of a store as s3://BUCKET/FOLDER. Of files that lie so
            their suffix alone says what they are.
        split: percent of the images for train/gallery/query, where the folder is not split already; or
            `leave-one-out`: every image is a query, and searched for among all others.
        splits: what the folders below the root are, as `train:train,val:gallery,test:query`. Ours are train, gallery,
            query, both (gallery and query: leave-one-out) and none; `train:train+gallery` puts images into two.
        label: which folder is the label of <root>/brand/sku/*.jpg: `top` takes brand; `leaf` takes brand/sku, the
            folder that holds the image, and the folder above it becomes the category.
    """
    shares = parse_shares(split)
    mapping = parse_mapping("folder", splits)
    if root is None:
        raise BenchError(f"dataset folder needs --data-root; {LAYOUT}")
    tree = tree_of(root) if lies_elsewhere(root) else None
    if tree is None and not root.is_dir():
        raise BenchError(f"dataset folder: {printable(root)} is not a directory; {LAYOUT}")
    names = None if tree is None else tree.names()
    folders = _Folders(root, names)
    held = _split_folders(folders, mapping)
    if held and shares is None:
        raise BenchError(
            f"dataset folder: {printable(root)} is split already, into {some(held)}, so that split={LEAVE_ONE_OUT} has "
            f"nothing to divide; name the folder that is to be gallery and query, for example splits={min(held)}:{BOTH}"
        )
    files, notices = _scan(folders, held or {"": ""})
    if not files:
        raise BenchError(f"dataset folder: no {'/'.join(SUFFIXES)} in a label's folder of {printable(root)}; {LAYOUT}")
    labels = [file.leaf if label == "leaf" else file.top for file in files]
    if DISTRACTOR in labels:
        raise BenchError(f"dataset folder: the label {DISTRACTOR} is ours, for images without one; rename its folder")
    if label == "top":
        notices += _deeper(files, root)

    images: Images
    if tree is None:
        images = ImageFiles([root / file.path for file in files], within=root)
    else:
        images = RemoteFiles([RemoteFile(tree, file.path) for file in files]).with_digests()
    if held:
        assigned = [file.split for file in files]
    elif shares is None:
        assigned = [BOTH] * len(files)
    else:
        assigned = content_splits([images.digest(row) for row in range(len(files))], labels, shares)
        for name in ("gallery", "query"):
            if name not in assigned:
                raise BenchError(
                    f"dataset folder: none of the {len(files)} images in {printable(root)} ended up in {name} with "
                    f"split={split}: no label has two images; add images, or divide them yourself into "
                    "<root>/{train,gallery,query}/<label>/, where one gallery image a label is enough"
                )
    above = [_above(own) for own in labels] if label == "leaf" else []
    if all(category == own for category, own in zip(above, labels, strict=False)):
        above = []  # no folder lies deeper than another: there is nothing coarser than a label
    label_names, category_names = sorted(set(labels)), sorted(set(above))
    whole = Split(
        ids=tuple(printable(file.path) for file in files),
        labels=numbers(labels, label_names),
        images=images,
        categories=numbers(above, category_names) if above else None,
    )
    divided = divide(whole, assigned)
    dataset = Dataset(
        name="folder",
        train=divided["train"],
        gallery=divided["gallery"],
        query=divided["query"],
        label_names=tuple(label_names),
        category_names=tuple(category_names),
        leave_one_out=any({"gallery", "query"} <= set(our_splits(name)) for name in set(assigned)),
        notices=tuple(notices),
    )
    return dataset.with_splits({}, observations(dataset))


class _File(NamedTuple):
    """path: below the root, with slashes. top, leaf: the label as the first folder, and as the path of the folder that
    holds the image. split: "" where the content decides."""

    path: str
    top: str
    leaf: str
    split: str


class _Folders:
    """The folders and images below a root, on disk or in a listing.

    root: as it is shown. listing: the names of all files, where they lie elsewhere.
    """

    def __init__(self, root: Path, listing: Sequence[str] | None) -> None:
        self.root, self._listed = root, listing is not None
        self._files: dict[str, list[str]] = {}  # folder -> names of the files in it
        self._below: dict[str, dict[str, None]] = {}  # folder -> names of the folders in it
        for path in listing or ():
            folder, _, name = path.rpartition("/")
            self._files.setdefault(folder, []).append(name)
            while folder:
                above, _, inner = folder.rpartition("/")
                self._below.setdefault(above, {})[inner] = None
                folder = above

    def names(self, folder: str = "") -> list[str]:
        """Folders in a folder, but no hidden ones."""
        if self._listed:
            return [name for name in sorted(self._below.get(folder, ())) if not name.startswith(".")]
        return _subfolders(self.root / folder)

    def loose(self, folder: str) -> list[str]:
        """Files in a folder, not in one below it."""
        if self._listed:
            return sorted(self._files.get(folder, ()))
        return [name for name in names_in(self.root / folder) if not os.path.isdir(self.root / folder / name)]

    def images(self, folder: str, passed_over: PassedOver) -> list[str]:
        """Paths below the root of all images below a folder; all else is counted."""
        if not self._listed:
            real = (os.path.realpath(self.root),)
            paths = image_files(self.root / folder, passed_over, above=real)
            return [path.relative_to(self.root).as_posix() for path in paths]
        own = [*self._files.get(folder, ()), *self._below.get(folder, ())]
        found = []
        for name in sorted(own):
            if name.startswith("."):
                passed_over.ignored["hidden"] += 1
            elif name in self._below.get(folder, ()):
                found += self.images(f"{folder}/{name}", passed_over)
            elif is_image_by_name(name, passed_over):
                found.append(f"{folder}/{name}")
        return found


def _split_folders(folders: _Folders, mapping: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """Folder -> our name of its split, of the folders that hold splits; empty where the folders are labels."""
    names, root = folders.names(), folders.root
    if mapping:
        absent = [theirs for theirs in mapping if theirs not in names]
        if absent:
            raise BenchError(
                f"dataset folder: splits= maps {some(absent)}, and {printable(root)} has no such folder; it has "
                f"{some(names, 6) or 'none'}"
            )
        held = {theirs: "+".join(ours) for theirs, ours in mapping.items() if ours}
        if not held:
            raise BenchError(
                f"dataset folder: splits= leaves out all that it names, {some(list(mapping))}; map a folder to gallery "
                "and one to query as well"
            )
        return held
    folded = {name.casefold(): name for name in reversed(names)}
    if {"gallery", "query"} <= set(folded):
        return {folded[name]: name for name in SPLITS if name in folded}
    like = [name for name in names if name.casefold() in LOOK_LIKE_SPLITS]
    if like and (set(like) == set(names) or {"gallery", "query"} & set(folded) or _share_labels(folders, like)):
        raise BenchError(
            f"dataset folder: the folders {some(like, 6)} in {printable(root)} look like splits, not labels, "
            f"but both gallery and query are needed; {offered('folder', like)}"
        )
    return {}


def _share_labels(folders: _Folders, names: Sequence[str]) -> bool:
    """Whether folders of one name lie in two of these folders: no labels have that, splits do."""
    counts = Counter(below for name in names for below in folders.names(name))
    return any(count > 1 for count in counts.values())


def _scan(folders: _Folders, tops: Mapping[str, str]) -> tuple[list[_File], list[str]]:
    """The images of all labels below root/top, for each top, and notices of what was passed over.

    tops: folder -> our name of its split.
    """
    files: list[_File] = []
    empty: list[str] = []
    passed_over = PassedOver()
    for top, split in tops.items():
        within = f"{top}/" if top else ""
        loose = folders.loose(top)
        passed_over.ignored.update("hidden" if name.startswith(".") else "outside a label's folder" for name in loose)
        for name in folders.names(top):
            paths = folders.images(f"{within}{name}", passed_over)
            label = printable(name)
            shown: dict[str, str] = {}  # a text that many images share is held once
            for path in paths:
                leaf = path.rpartition("/")[0].removeprefix(within)
                files.append(_File(path, label, shown.setdefault(leaf, printable(leaf)), split))
            if not paths:
                empty.append(printable(f"{within}{name}"))
    notices = []
    if empty:
        notices.append(f"{len(empty)} label folders hold no image: {some(empty)}")
    if "" not in tops and (beside := set(folders.names()) - set(tops)):
        notices.append(f"folders beside {', '.join(tops)} are ignored: {some(beside)}")
    return files, notices + passed_over.notices()


def _deeper(files: Sequence[_File], root: Path) -> list[str]:
    """A notice where most images lie below the folders of the labels, and the folders below would be other labels."""
    below = sum(file.leaf != file.top for file in files)
    tops, leaves = {file.top for file in files}, {file.leaf for file in files}
    if 2 * below <= len(files) or len(leaves) == len(tops):
        return []
    if len(tops) == 1:
        raise BenchError(
            f"dataset folder: every image lies below {some(tops)}, the only folder in {printable(root)}, so there is "
            f"one label; folder:label=leaf takes the {len(leaves)} folders that hold images ({some(leaves)}) as labels"
        )
    how_many = "all images lie" if below == len(files) else f"{below} of {len(files)} images lie"
    said = f"{how_many} in subfolders of the labels: labels are the {len(tops)} folders {some(tops)}"
    return [f"{said}; folder:label=leaf takes the {len(leaves)} below, as {some(leaves, 1)}"]


def _above(leaf: str) -> str:
    """The folder above a label's folder; of one that has none, itself."""
    parent = PurePosixPath(leaf).parent.as_posix()
    return leaf if parent == "." else parent


def _subfolders(directory: Path) -> list[str]:
    return [name for name in names_in(directory) if not name.startswith(".") and os.path.isdir(directory / name)]
