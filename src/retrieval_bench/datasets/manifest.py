"""A list of images, CSV or JSONL, that says itself what each image is and where it belongs."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from retrieval_bench.core import SPLITS, BenchError, Dataset, Split, printable
from retrieval_bench.datasets.splits import divide, observations
from retrieval_bench.images.reading import ImageFiles
from retrieval_bench.registry import DATASETS, unknown

REQUIRED = ("path", "label", "split")
NAMES = ("manifest.csv", "manifest.jsonl")
COLUMNS = "it needs the columns path, label, split (train, gallery or query) and may have id, category, group, text"


@dataclass(frozen=True)
class ManifestRow:
    """One image as the manifest has it. `line` is where its record starts; `more` holds all other columns."""

    line: int
    path: str
    label: str
    split: str
    id: str
    category: str
    more: dict[str, str]


@DATASETS("manifest", about="a CSV or JSONL list with path, label, split and optional id, category, group, text")
def manifest(root: Path | None) -> Dataset:
    """Read a manifest: a .csv (first line: column names) or .jsonl file (one object a line), UTF-8.

    root: the file, or a folder that holds exactly one of manifest.csv and manifest.jsonl. Paths are relative to the
    file's folder; a file that is missing becomes a bad image, which screening reports.
    id defaults to the path. All rows have a category or none has, and one label has one category. Images that share a
    `group` (one physical object, one photo session) must share a split. One file may be listed in train and in gallery,
    but a query's file is listed nowhere else. Further columns, group and text among them, become attributes, as text.
    Errors name the file and the line.
    """
    if root is None:
        raise BenchError(f"dataset manifest needs --data-root with a .csv or .jsonl file; {COLUMNS}")
    file = _find(root)
    read = _csv_rows if file.suffix.lower() == ".csv" else _jsonl_rows
    rows = [_row(file, line, cells) for line, cells in read(file)]
    if not rows:
        raise BenchError(f"{printable(file)} lists no image; {COLUMNS}")
    _check(file, rows)

    label_names = sorted({row.label for row in rows})
    category_names = sorted({row.category for row in rows} - {""})
    columns = dict.fromkeys(key for row in rows for key in row.more)
    whole = Split(
        ids=tuple(row.id for row in rows),
        labels=_numbers([row.label for row in rows], label_names),
        images=ImageFiles([file.parent / row.path for row in rows]),
        categories=_numbers([row.category for row in rows], category_names) if category_names else None,
        attributes={key: np.array([row.more.get(key, "") for row in rows], dtype=object) for key in columns},
    )
    splits = divide(whole, [row.split for row in rows])
    dataset = Dataset(
        name="manifest",
        train=splits["train"],
        gallery=splits["gallery"],
        query=splits["query"],
        label_names=tuple(label_names),
        category_names=tuple(category_names),
    )
    return dataset.with_splits({}, observations(dataset))


def _find(root: Path) -> Path:
    if root.is_dir():
        found = [root / name for name in NAMES if (root / name).is_file()]
        if len(found) != 1:
            held = f"both {' and '.join(NAMES)}" if found else f"neither {' nor '.join(NAMES)}"
            raise BenchError(f"dataset manifest: {printable(root)} holds {held}; give the file itself as --data-root")
        return found[0]
    if not root.is_file():
        raise BenchError(f"dataset manifest: there is no file {printable(root)}; {COLUMNS}")
    if root.suffix.lower() not in (".csv", ".jsonl"):
        raise BenchError(f"dataset manifest: {printable(root)} is neither .csv nor .jsonl; {COLUMNS}")
    return root


def _at(file: Path, line: int, problem: str) -> BenchError:
    return BenchError(f"{printable(file)}, line {line}: {problem}")


def _text(file: Path) -> str:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise BenchError(f"dataset manifest: {printable(file)} cannot be read: {error.strerror}") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _at(file, line, f"byte {data[error.start]:#04x} is not UTF-8; save the file as UTF-8") from None


def _csv_rows(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    reader = csv.reader(io.StringIO(_text(file), newline=""), skipinitialspace=True, strict=True)
    header: list[str] | None = None
    before = 0
    try:
        for cells in reader:
            line, before = before + 1, reader.line_num  # a quoted cell may span lines: name the first one
            cells = [cell.strip() for cell in cells]
            if not any(cells):
                continue
            if header is None:
                header = _header(file, line, cells)
            elif len(cells) != len(header):
                raise _at(file, line, f"{len(cells)} cells for {len(header)} columns; quote cells that hold commas")
            else:
                yield line, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise _at(file, before + 1, f"not valid CSV: {error}") from None


def _header(file: Path, line: int, cells: list[str]) -> list[str]:
    if len(set(cells)) < len(cells) or "" in cells:
        raise _at(file, line, f"the columns {', '.join(cells)} are not named uniquely")
    for name in REQUIRED:
        if name not in cells:
            raise _at(file, line, f"no column {name!r} among {', '.join(cells)}; {COLUMNS}, separated by commas")
    return cells


def _jsonl_rows(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    for line, text in enumerate(_text(file).split("\n"), 1):  # not splitlines(): U+2028 may stand in a JSON string
        if not text.strip():
            continue
        try:
            record = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise _at(file, line, f"not valid JSON: {error}") from None
        if not isinstance(record, dict):
            raise _at(file, line, f"a JSON {type(record).__name__}, not an object; {COLUMNS}")
        yield line, {key: _cell(file, line, key, value) for key, value in record.items() if value is not None}


def _cell(file: Path, line: int, key: str, value: Any) -> str:
    if isinstance(value, str):
        if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
            raise _at(file, line, f"{key} {value!r} is not text: half a surrogate pair")
        return value.strip()
    if isinstance(value, (dict, list)) or (isinstance(value, (bool, float)) and key in (*REQUIRED, "id", "category")):
        raise _at(file, line, f"{key} is {json.dumps(value)[:40]}; it must be text or a whole number")
    return str(value)


def _row(file: Path, line: int, cells: dict[str, str]) -> ManifestRow:
    for name in REQUIRED:
        if not cells.get(name):
            raise _at(file, line, f"{name} is missing; {COLUMNS}")
    path, split = cells["path"], cells["split"]
    if split not in SPLITS:
        raise _at(file, line, unknown("split", split, SPLITS))
    if "\0" in path:
        raise _at(file, line, f"path {path!r} cannot be the name of a file")
    more = {key: value for key, value in cells.items() if key not in (*REQUIRED, "id", "category")}
    item = cells.get("id") or Path(path).as_posix()
    return ManifestRow(line, path, cells["label"], split, item, cells.get("category", ""), more)


def _check(file: Path, rows: list[ManifestRow]) -> None:
    """What must hold between rows; the later of two rows is the one that is named first."""
    seen: dict[tuple[str, ...], ManifestRow] = {}
    for row in rows:
        first = seen.setdefault(("label", row.label), row)
        if first.category != row.category:
            told = f"{first.category!r} in line {first.line} and {row.category!r} here"
            raise _at(file, row.line, f"label {row.label!r} has two categories, {told}; a label has one")
        if bool(row.category) != bool(rows[0].category):
            has, lacks = (row, rows[0]) if row.category else (rows[0], row)
            told = f"line {has.line} has one, line {lacks.line} has none"
            raise _at(file, row.line, f"give every row a category or none: {told}")
        first = seen.setdefault(("in split", row.split, row.id), row)
        if first is not row:
            raise _at(file, row.line, f"id {row.id!r} is in {row.split} already, by line {first.line}; ids are unique")
        for kind, name in (("id", row.id), ("file", os.path.normpath(row.path)), ("group", row.more.get("group"))):
            first = seen.setdefault((kind, name), row) if name else row
            # train and gallery may share images, but a group is all in one
            if first.split != row.split and (kind == "group" or "query" in (first.split, row.split)):
                told = f"{first.split} in line {first.line} and {row.split} here"
                rule = "a group stays in one split" if kind == "group" else "a query must be unseen"
                raise _at(file, row.line, f"{kind} {name!r} is in two splits, {told}; {rule}")


def _numbers(names: list[str], known: list[str]) -> np.ndarray:
    """(n,) int64: where each name stands in `known`."""
    index = {name: number for number, name in enumerate(known)}
    return np.array([index[name] for name in names], np.int64)
