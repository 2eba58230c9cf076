"""The folder of a dataset, which no path of a list and no link leads out of, unless the user allows it."""

from __future__ import annotations

import os
from pathlib import Path

ALLOWED = "RETRIEVAL_BENCH_ALLOW_OUTSIDE"
"""What --allow-outside sets, so that the processes that this one starts know it, too."""
_AT_START = os.environ.get(ALLOWED, "")


def allow_outside(allowed: bool) -> None:
    """Allow it from here on; or leave it to what the variable said when this process began."""
    os.environ[ALLOWED] = "1" if allowed else _AT_START


def outside_is_allowed() -> bool:
    """Whether images may lie anywhere."""
    return os.environ.get(ALLOWED, "") not in ("", "0")


class Fence:
    """Which files lie in a folder, once all links are followed.

    Args:
        root: the folder; it may be a link itself.
    """

    def __init__(self, root: Path) -> None:
        self._root = os.path.realpath(root)
        self._folders: dict[str, bool] = {}

    def holds(self, path: Path) -> bool:
        """Whether a file lies in the folder. It need not exist, and is not opened."""
        folder = os.fspath(path.parent)
        inside = self._folders.get(folder)
        if inside is None:  # asked for every image, and most of them share a few folders
            inside = self._folders[folder] = self._within(folder)
        if path.name == ".." or os.path.islink(path):
            return self._within(path)
        return inside

    def _within(self, path: str | Path) -> bool:
        real, root = os.path.normcase(os.path.realpath(path)), os.path.normcase(self._root)
        return real == root or real.startswith(os.path.join(root, ""))
