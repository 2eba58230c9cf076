"""Files and folders that a user names, as one split of images that have no label, or all the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from retrieval_bench.core import BadImage, BenchError, Split, printable
from retrieval_bench.images.fence import Fence, outside_is_allowed
from retrieval_bench.images.listing import PassedOver, image_files
from retrieval_bench.images.reading import OUTSIDE, ImageFiles


class NamedFiles(ImageFiles):
    """Files of several folders. Implements `core.Images`.

    Args:
        paths: the files.
        homes: of each the folder that no link may lead out of; None for a file that was named itself.
    """

    def __init__(self, paths: Sequence[Path], homes: Sequence[Path | None]) -> None:
        super().__init__(paths)
        fences = {home: Fence(home) for home in homes if home is not None and not outside_is_allowed()}
        self._fence_of = [None if home is None else fences.get(home) for home in homes]

    def read(self, row: int) -> bytes:
        """As `ImageFiles.read`."""
        fence = self._fence_of[row]
        if fence is not None and not fence.holds(self.place(row)):
            raise BadImage(OUTSIDE, "a link leads out of the folder; --allow-outside reads it")
        return super().read(row)


def images_of(sources: Sequence[Path]) -> tuple[Split, list[str]]:
    """All images that are named, and all below folders that are named.

    Args:
        sources: files and folders.

    Returns:
        A split whose ids are the names of the files, below their folder where one was named, and whose labels are all
        0; and sentences about files that were passed over.

    Raises:
        BenchError: A folder holds no image, or nothing is there.
    """
    ids: list[str] = []
    paths: list[Path] = []
    homes: list[Path | None] = []
    passed_over = PassedOver()
    for source in sources:
        if source.is_dir():
            found = list(image_files(source, passed_over))
            if not found:
                raise BenchError("; ".join([f"{printable(source)} holds no image", *passed_over.notices()]))
            ids += [printable(file.relative_to(source).as_posix()) for file in found]
            paths += found
            homes += [source] * len(found)
        elif source.exists() or source.is_symlink():
            ids.append(printable(source.name))
            paths.append(source)
            homes.append(None)
        else:
            raise BenchError(f"{printable(source)}: no file or folder has this name")
    split = Split(
        tuple(ids), np.zeros(len(ids), np.int64), NamedFiles(paths, homes), categories=np.zeros(len(ids), np.int64)
    )
    return split, passed_over.notices()
