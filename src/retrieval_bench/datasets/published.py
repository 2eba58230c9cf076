"""What readers of published datasets share: finding the folder, reading its lists, making splits of what they name."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from retrieval_bench.core import BenchError, Split, printable
from retrieval_bench.datasets.listed_files import ListedFiles
from retrieval_bench.datasets.splits import numbers
from retrieval_bench.remote.place import RemotePlace


def home_of(dataset: str, root: Path | None, needed: str, source: str, inside: Sequence[str] = ()) -> Path:
    """The folder that holds `needed`, a file or folder of the published layout.

    Args:
        dataset: its name, for the sentence.
        root: what the user named.
        needed: what must lie there.
        source: who gives the data away, as the end of a sentence.
        inside: folders of the root in which it may lie, too, as archives unpack to.

    Raises:
        BenchError: There is no root, it is a URL, or it has no such thing.
    """
    root = _root_of(dataset, root, needed, source)
    for home in (root, *(root / name for name in inside)):
        if (home / needed).exists():
            return home
    also = f", nor has its folder {' or '.join(f'{name}/' for name in inside)}" if inside else ""
    raise BenchError(f"dataset {dataset}: {printable(root)} has no {needed}{also}; {source}")


def folder_of(dataset: str, root: Path | None, name: str, source: str) -> Path:
    """The folder of this name, which is the root or lies in it; the arguments and errors of `home_of`."""
    root = _root_of(dataset, root, name, source)
    return root / name if (root / name).is_dir() else root


def refuse_url(dataset: str, root: Path) -> None:
    """Raise BenchError where the root is no folder of this machine."""
    if isinstance(root, RemotePlace):
        raise BenchError(
            f"dataset {dataset} is read from a folder of this machine; fetch {printable(root)}, unpack it, and name "
            "the folder with --data-root"
        )


def _root_of(dataset: str, root: Path | None, needed: str, source: str) -> Path:
    if root is None:
        raise BenchError(f"dataset {dataset} needs --data-root with the folder that holds {needed}; {source}")
    refuse_url(dataset, root)
    return root


def columns_of(file: Path, names: Sequence[str], skip: int = 0) -> list[list[str]]:
    """The lines of a list whose columns are divided by blanks; the last column takes the rest of its line.

    Args:
        file: the list.
        names: of its columns, for the sentence.
        skip: lines at its top that are no data.

    Raises:
        BenchError: It cannot be read, holds nothing, or a line has too few columns.
    """
    rows = []
    for number, line in enumerate(_text(file).splitlines(), start=1):
        if number <= skip or not line.strip():
            continue
        cells = line.split(maxsplit=len(names) - 1)
        if len(cells) != len(names):
            raise BenchError(f"{printable(file)}, line {number}: expected {' '.join(names)}, got {line.strip()!r}")
        rows.append([cell.strip() for cell in cells])
    if not rows:
        raise BenchError(f"{printable(file)} lists nothing; expected lines of {' '.join(names)}")
    return rows


def table_of(file: Path, names: Sequence[str]) -> list[dict[str, str]]:
    """The lines of a CSV file with a header, as dictionaries.

    Raises:
        BenchError: It cannot be read, holds nothing, or lacks a column or a cell.
    """
    reader = csv.DictReader(_text(file).splitlines())
    heads = reader.fieldnames or ()
    if absent := [name for name in names if name not in heads]:
        raise BenchError(f"{printable(file)} has no column {absent[0]}; expected {', '.join(names)}")
    rows = []
    try:
        for row in reader:
            if not all(row[name] for name in names):
                raise BenchError(f"{printable(file)}, line {reader.line_num}: expected {', '.join(names)}")
            rows.append({name: row[name].strip() for name in names})
    except csv.Error as error:
        raise BenchError(f"{printable(file)}, line {reader.reader.line_num}: {error}") from None
    if not rows:
        raise BenchError(f"{printable(file)} lists nothing; expected lines of {', '.join(names)}")
    return rows


def by_key(file: Path, names: Sequence[str]) -> dict[str, str]:
    """A list of two columns as key -> value."""
    return dict(columns_of(file, names))


def named_split(
    home: Path,
    paths: Sequence[str],
    labels: Sequence[str],
    label_names: Sequence[str],
    categories: Sequence[str] = (),
    category_names: Sequence[str] = (),
    attributes: Mapping[str, Sequence[str]] | None = None,
) -> Split:
    """A split of these files, by the names of their labels and, where there are any, categories."""
    return Split(
        ids=tuple(paths),
        labels=numbers(labels, label_names),
        images=ListedFiles(home, paths),
        categories=numbers(categories, category_names) if category_names else None,
        attributes={name: np.array(column, dtype=object) for name, column in (attributes or {}).items()},
    )


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Each once; numbers by their value, and before other names."""
    return tuple(
        sorted(set(names), key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name))
    )


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8-sig")
    except OSError as error:
        raise BenchError(f"{printable(file)}: cannot be read ({error.strerror}); the dataset needs it") from None
    except UnicodeDecodeError as error:
        raise BenchError(f"{printable(file)}: cannot be read (byte {error.start} is no UTF-8)") from None
