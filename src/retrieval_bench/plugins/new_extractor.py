"""The files of a new plug-in with one extractor: a package that can be installed, a test and the entry point."""

from __future__ import annotations

import contextlib
import importlib.util
import keyword
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from retrieval_bench.core import BenchError, printable

PYPROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "NAME"
version = "0.1.0"
description = "The method NAME for retrieval-bench."
requires-python = ">=3.11"
dependencies = ["numpy", "retrieval-bench"]

[project.optional-dependencies]
dev = ["pytest"]

[project.entry-points."retrieval_bench.extractors"]
NAME = "PACKAGE.extractor"

[tool.hatch.build.targets.wheel]
packages = ["src/PACKAGE"]

[tool.pytest.ini_options]
testpaths = ["tests"]
"""

README = """\
# NAME

A method for retrieval_bench: `pip install -e ".[dev]"`, then `pytest`, then `retrieval-bench run --methods NAME,color`.
`src/PACKAGE/extractor.py` is the whole of it.
"""

INIT = '''\
"""The method NAME, a plug-in for retrieval_bench."""
'''

EXTRACTOR = '''\
"""NAME: the mean colour of each cell of a grid. A start that works; put your own in its place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np

from retrieval_bench import EXTRACTORS, BenchError, Extractor, Setup, Split
from retrieval_bench.core import Distance


@EXTRACTORS("NAME", family="color", about="mean colour of each cell of a grid")
def build(setup: Setup, *, cells: int = 4) -> Extractor:
    """The mean colour of each cell of a grid.

    Args:
        setup: what the run fixes for every method: seed, weights, device, threads.
        cells: along each side of the picture, from 1 to 64.

    Raises:
        BenchError: The number of cells is outside that range.
    """
    if not 1 <= cells <= 64:
        raise BenchError(f"NAME: cells={cells} must be from 1 to 64")
    return CLASS(cells)


class CLASS:
    """The mean colour of each cell: three numbers a cell, from 0 to 1.

    Args:
        cells: along each side.
    """

    distance: Distance = "euclidean"

    def __init__(self, cells: int) -> None:
        self.cells = cells

    def fit(self, train: Split) -> Self:
        """Nothing to learn. What a method learns are arrays, and it names them in a tuple `learned`."""
        return self

    def transform(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Describe images.

        Args:
            images: n arrays (h, w, 3) uint8 RGB, from 1 x 1 on.

        Returns:
            (n, 3 * cells * cells) float32.
        """
        rows = [self._described(image) for image in images]
        return np.array(rows, np.float32).reshape(len(rows), 3 * self.cells**2)

    def _described(self, image: np.ndarray) -> np.ndarray:
        down, across = (_starts(side, self.cells) for side in image.shape[:2])
        means = [image[top:bottom, left:right].mean((0, 1)) for top, bottom in down for left, right in across]
        return np.concatenate(means) / 255


def _starts(side: int, cells: int) -> list[tuple[int, int]]:
    """Where each cell begins and ends; each has a pixel, also where there are fewer pixels than cells."""
    starts = [cell * side // cells for cell in range(cells)]
    return [(start, max(start + 1, (cell + 1) * side // cells)) for cell, start in enumerate(starts)]
'''

TEST = '''\
"""NAME keeps the contract of a method, and is what it says."""

import numpy as np
import pytest

from retrieval_bench import EXTRACTORS, Setup
from retrieval_bench.contracts.extractor import check


@pytest.mark.parametrize("method", ["NAME", "NAME:cells=1"])
def test_it_keeps_the_contract(method: str) -> None:
    assert [f"{one.clause}: {one.detail}" for one in check(method) if one.verdict == "broken"] == []


def test_a_cell_holds_the_mean_colour() -> None:
    picture = np.zeros((4, 6, 3), np.uint8)
    picture[:, 3:] = (255, 0, 51)
    (row,) = EXTRACTORS["NAME"].build(Setup(), cells=2).transform([picture])
    np.testing.assert_allclose(row, [0, 0, 0, 1, 0, 0.2] * 2)
'''


def new_extractor(name: str, into: Path, taken: Iterable[str]) -> Path:
    """Write a project with an extractor that works, whole or not at all.

    Args:
        name: of the method and of the project: small letters, digits and hyphens.
        into: the folder in which the project's folder is made.
        taken: names that methods have already.

    Returns:
        The folder of the project.

    Raises:
        BenchError: The name cannot be used, or the folder exists or cannot be written.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise BenchError(f"new extractor {name!r}: write small letters, digits and hyphens, e.g. mean-color")
    package = name.replace("-", "_")
    if name in taken:
        raise BenchError(f"new extractor {name!r}: a method is called so already; choose another name")
    if keyword.iskeyword(package) or importlib.util.find_spec(package) is not None:
        raise BenchError(f"new extractor {name!r}: a module of Python is called {package} already; choose another name")
    folder = into / name
    if folder.exists() or folder.is_symlink():
        raise BenchError(f"{printable(folder)}: exists already; choose another name, or another folder with --into")
    files = {
        "pyproject.toml": PYPROJECT,
        "README.md": README,
        f"src/{package}/__init__.py": INIT,
        f"src/{package}/extractor.py": EXTRACTOR,
        f"tests/test_{package}.py": TEST,
    }
    words = {"NAME": name, "PACKAGE": package, "CLASS": "".join(map(str.capitalize, name.split("-")))}
    unfinished = into / f".{name}.{os.getpid()}"
    try:
        for path, text in files.items():
            file = unfinished / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(re.sub("NAME|PACKAGE|CLASS", lambda word: words[word[0]], text), encoding="utf-8")
        os.rename(unfinished, folder)
    except OSError as error:
        with contextlib.suppress(OSError):
            shutil.rmtree(unfinished)
        raise BenchError(
            f"{printable(folder)}: cannot be written ({error.strerror}); choose another folder with --into"
        ) from None
    return folder
