"""Stanford Mobile Visual Search: covers, cards, paintings, prints and landmarks, photographed by phones.

Chandrasekhar et al.: "The Stanford Mobile Visual Search Data Set", ACM Multimedia Systems 2011.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from retrieval_bench.core import BenchError, Dataset, Split, printable
from retrieval_bench.datasets.published import home_of, named_split
from retrieval_bench.images.formats import SUFFIXES
from retrieval_bench.images.listing import names_in
from retrieval_bench.registry import DATASETS

SOURCE = "its authors give it away as an archive with a folder for each category"
REFERENCE = "Reference"


@DATASETS("smvs", about="Stanford Mobile Visual Search (Chandrasekhar et al., 2011): phone photos, from your copy")
def smvs(root: Path | None, *, category: str = "", camera: str = "") -> Dataset:
    """Read CATEGORY/Reference/001.jpg, the gallery, and CATEGORY/CAMERA/001.jpg, the queries of the same number.

    The published results are of each category by itself, with its own references as gallery, as category=NAME gives
    them. The rate of right first hits is our accuracy. There is no train image. Attribute "camera" is the folder of the
    query.

    Args:
        root: the folder that holds those of the categories.
        category: one of its folders, as book_covers. Default: all of them, in one gallery.
        camera: queries of this camera alone, as Droid. Default: of all.
    """
    home = home_of("smvs", root, ".", SOURCE)
    there = [name for name in names_in(home) if (home / name / REFERENCE).is_dir()]
    if not there:
        raise BenchError(f"dataset smvs: {printable(home)} has no folder with a folder {REFERENCE} in it; {SOURCE}")
    if category and category not in there:
        raise BenchError(f"dataset smvs: category={category} is none of {', '.join(there)}")
    chosen = [category] if category else there
    cameras = sorted({name for one in chosen for name in names_in(home / one) if (home / one / name).is_dir()})
    cameras = [name for name in cameras if name != REFERENCE]
    if camera and camera not in cameras:
        raise BenchError(f"dataset smvs: camera={camera} is none of {', '.join(cameras)}")
    references = _images(home, chosen, [REFERENCE])
    queries = _images(home, chosen, [camera] if camera else cameras)
    labels = tuple(sorted({_label(path) for path in [*references, *queries]}))

    def split(paths: list[str]) -> Split:
        kinds = [PurePosixPath(path).parts[0] for path in paths]
        taken = [PurePosixPath(path).parts[1] for path in paths]
        return named_split(home, paths, list(map(_label, paths)), labels, kinds, chosen, {"camera": taken})

    return Dataset("smvs", split([]), split(references), split(queries), labels, tuple(chosen))


def _images(home: Path, categories: list[str], folders: list[str]) -> list[str]:
    return [
        f"{category}/{folder}/{name}"
        for category in categories
        for folder in folders
        if (home / category / folder).is_dir()
        for name in names_in(home / category / folder)
        if PurePosixPath(name).suffix.casefold() in SUFFIXES
    ]


def _label(path: str) -> str:
    """book_covers/Droid/001.jpg: book_covers/001."""
    parts = PurePosixPath(path)
    return f"{parts.parts[0]}/{parts.stem}"
