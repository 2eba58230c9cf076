"""A list of images, as CSV, TSV, JSONL or Parquet, that says itself what each image is and where it belongs."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from retrieval_bench.core import DISTRACTOR, BadImage, BenchError, Dataset, Images, Split, printable
from retrieval_bench.datasets.listed_files import ListedFiles, path_here
from retrieval_bench.datasets.remote_files import listed_elsewhere
from retrieval_bench.datasets.split_names import BOTH, LEFT_OUT, OURS, offered, offers, our_splits, parse_mapping
from retrieval_bench.datasets.splits import LEAVE_ONE_OUT, content_splits, divide, observations, parse_shares, some
from retrieval_bench.datasets.tables import IN_A_LIST, SUFFIXES_OF_TABLES, Table, at_line, called_line, read_table
from retrieval_bench.registry import DATASETS, unknown
from retrieval_bench.remote.place import RemotePlace, is_url
from retrieval_bench.remote.trees import Tree, lies_elsewhere, parted, tree_of

NAMES = tuple(f"manifest{suffix}" for suffix in SUFFIXES_OF_TABLES)
COLUMNS = (
    "it needs the columns path, label, split (train, gallery, query or both) and may have id, category, group, text"
)
OTHER_NAMES = {
    "path": ("file_name", "filename", "image", "image_path", "img_path", "file_path", "filepath", "file", "img"),
    "label": ("labels", "class", "product_id", "sku", "class_name", "product"),
    "split": ("subset", "partition"),
}
"""What other lists call these columns, the likeliest first."""

TEXT_COLUMNS = ("title", "text", "description")
"""Columns that say in words what an image shows, in the order in which they are read."""

SEPARATOR = "|"
"""Between the labels of a cell, in a column called labels."""


@dataclass(frozen=True)
class ManifestRow:
    """One image as the manifest has it. `line` is where its record starts; `more` holds all other columns.

    labels: no two the same; none for a distractor. categories: one for each label, or none. split: one of OURS, or
    several with a plus.
    """

    line: int
    path: str
    labels: tuple[str, ...]
    split: str
    id: str
    categories: tuple[str, ...]
    more: dict[str, str]

    @property
    def splits(self) -> tuple[str, ...]:
        """Which of the three splits hold it."""
        return our_splits(self.split)


@DATASETS(
    "manifest",
    about="a CSV, TSV, JSONL or Parquet list with path, label, split and optional id, category, group, text",
    colons=("splits",),
)
def manifest(
    root: Path | None,
    *,
    split: str = "70/15/15",
    splits: str = "",
    separator: str = "",
    path: str = "",
    label: str = "",
) -> Dataset:
    """Read a manifest: a table whose first line names the columns, or JSONL with one object a line.

    CSV may have commas, semicolons or tabs (the header tells), a line `sep=;`, a byte-order mark, and UTF-8 or UTF-16.
    Paths are relative to the file's folder; a file that is missing becomes a bad image, which screening reports with
    its cause.

    id defaults to the path. All rows have a category or none has, and one label has one category. Images that share a
    `group` (one physical object, one photo session) must share a split. One file may be listed in train and in gallery,
    but a query's file is listed nowhere else; the split `both` makes an image a query and searches for it among all
    other gallery images. Rows that give one image of a split several labels are one image. A gallery image with an
    empty label is a distractor. Further columns, group and text among them, become attributes, as text; title, text and
    description, one after the other, are also the text of an image. A row with an id, a text and no path is an item
    without a picture. Errors name the file and the line.

    Args:
        root: the file, or a folder that holds exactly one of manifest.csv, .tsv, .jsonl and .parquet; a URL or an
            archive, too.
        split: where no column says it: percent for train/gallery/query, by content as in `folder`; or leave-one-out.
        splits: what the split column's names mean here, as `train:train,val:gallery,test:query`. Ours are train,
            gallery, query, both (gallery and query) and none (left out); `train:train+gallery` puts images into two.
        separator: what divides several labels in one cell. By default a column `labels` is divided at |, and a column
            `label` is not divided.
        path: the column of the paths, where it is not called path.
        label: the column of the labels, where it is not called label.
    """
    if root is None:
        raise BenchError(f"dataset manifest needs --data-root with a .csv or .jsonl file; {COLUMNS}")
    mapping = parse_mapping("manifest", splits)
    shares = parse_shares(split)
    found = _find(root)
    file = found.file
    table = _table(found, path, label)
    if not table.rows:
        raise BenchError(f"{printable(file)} lists no image; {COLUMNS}")
    wanted = {"path": path, "label": label}
    names, notices = _columns(file, table, wanted)
    by_content = "split" not in names
    if by_content:
        notices.append(
            f"no column split among {', '.join(table.columns)}: contents decide, {split} for train/gallery/query"
            if shares is not None
            else "no column split: every image is a query, and searched for among all others"
        )
    if shares is None and not by_content:
        raise BenchError(
            f"{printable(file)} has a column {names['split']}, so that split={LEAVE_ONE_OUT} has nothing to divide; "
            f"map its names to {BOTH}, for example splits=test:{BOTH}"
        )
    told = separator or (SEPARATOR if names["label"].casefold() == "labels" else "")
    rows = [_row(file, line, cells, names, told) for line, cells in table.rows]
    notices += _separators(rows, separator, names["label"])
    if not by_content:
        rows, left_out = _mapped(file, rows, mapping)
        notices += left_out
    rows = _merged(file, rows)
    images = _images(found, rows)
    if by_content:
        _refuse_unreadable(file, rows, images)
        units = [_unit(images.digest(place), row.more.get("group", "")) for place, row in enumerate(rows)]
        first = [row.labels[:1] or ("",) for row in rows]
        assigned = [BOTH] * len(rows) if shares is None else content_splits(units, first, shares)
        rows = [replace(row, split=name if row.labels else "gallery") for row, name in zip(rows, assigned, strict=True)]
    _check(file, rows)

    whole, label_names, category_names = _whole(rows, images)
    divided = divide(whole, [row.split for row in rows])
    dataset = Dataset(
        name="manifest",
        train=divided["train"],
        gallery=divided["gallery"],
        query=divided["query"],
        label_names=label_names,
        category_names=category_names,
        leave_one_out=any({"gallery", "query"} <= set(row.splits) for row in rows),
        notices=tuple(notices),
    )
    return dataset.with_splits({}, observations(dataset))


@dataclass(frozen=True, eq=False)
class ListedImages:
    """The images of a manifest, whatever their split; an index of a label or category is one of its names."""

    split: Split
    label_names: tuple[str, ...]
    category_names: tuple[str, ...]
    notices: tuple[str, ...]


def read_list(root: Path, *, separator: str = "", path: str = "", label: str = "") -> ListedImages:
    """Read a manifest for its images alone: no column split is needed, and what is in it is not looked at.

    root, separator, path, label: as for `manifest`. Raises BenchError.
    """
    found = _find(root)
    file = found.file
    table = _table(found, path, label)
    if not table.rows:
        raise BenchError(f"{printable(file)} lists no image; it needs the columns path and label")
    names, notices = _columns(file, table, {"path": path, "label": label})
    told = separator or (SEPARATOR if names["label"].casefold() == "labels" else "")
    splits = {ours: name for ours, name in names.items() if ours != "split"}
    listed = [_row(file, line, cells, splits, told) for line, cells in table.rows]
    rows = _merged(file, [row for row in listed if row.path])
    if bare := sum(not row.path for row in listed):
        notices.append(f"{bare} of {len(listed)} items have no picture and are left out, as pictures are looked at")
    if not rows:
        raise BenchError(f"{printable(file)} lists no image: no row has a path")
    notices += _separators(rows, told, names["label"])
    split, label_names, category_names = _whole(rows, _images(found, rows))
    return ListedImages(split, label_names, category_names, tuple(notices))


class _Found(NamedTuple):
    """A manifest. tree, content: where it lies, and its bytes, if it lies elsewhere."""

    file: Path
    tree: Tree | None = None
    content: bytes | None = None


def _images(found: _Found, rows: Sequence[ManifestRow]) -> Images:
    paths, ids = [row.path for row in rows], [row.id for row in rows]
    if found.tree is not None:
        return listed_elsewhere(found.tree, paths, ids)
    return ListedFiles(found.file.parent, paths, ids)


def _whole(rows: Sequence[ManifestRow], images: Images) -> tuple[Split, tuple[str, ...], tuple[str, ...]]:
    """All images as one split, with the names of their labels and categories."""
    label_names, category_names = _sorted_names([row.labels for row in rows], [row.categories for row in rows])
    columns = dict.fromkeys(key for row in rows for key in row.more)
    labels, other_labels = _numbers([row.labels or (DISTRACTOR,) for row in rows], label_names)
    categories, other_categories = _numbers([row.categories or (DISTRACTOR,) for row in rows], category_names)
    whole = Split(
        ids=tuple(row.id for row in rows),
        labels=labels,
        images=images,
        categories=categories if category_names else None,
        attributes={key: np.array([row.more.get(key, "") for row in rows], dtype=object) for key in columns},
        other_labels=other_labels,
        other_categories=other_categories if category_names else None,
        texts=_texts(rows),
        pictured=None if all(row.path for row in rows) else np.array([bool(row.path) for row in rows]),
    )
    return whole, label_names, category_names


def _texts(rows: Sequence[ManifestRow]) -> tuple[str, ...] | None:
    """What the columns called like TEXT_COLUMNS say of each image, one after the other; None without such a column."""
    told = _text_columns(dict.fromkeys(column for row in rows for column in row.more))
    return tuple(_text(row.more, told) for row in rows) if told else None


def _text_columns(columns: Iterable[str]) -> list[str]:
    columns = list(columns)
    return [column for name in TEXT_COLUMNS for column in columns if column.strip().casefold() == name]


def _text(cells: Mapping[str, str], columns: Sequence[str]) -> str:
    return "\n".join(dict.fromkeys(part for column in columns if (part := cells.get(column, "").strip())))


def _find(root: Path) -> _Found:
    if lies_elsewhere(root):
        return _find_elsewhere(root)
    if root.is_dir():
        return _Found(root / _only(root, [name for name in NAMES if (root / name).is_file()]))
    if not root.is_file():
        raise BenchError(f"dataset manifest: there is no file {printable(root)}; {COLUMNS}")
    if root.suffix.lower() not in SUFFIXES_OF_TABLES:
        raise BenchError(
            f"dataset manifest: {printable(root)} is neither {' nor '.join(SUFFIXES_OF_TABLES)}; {COLUMNS}"
        )
    return _Found(root)


def _table(found: _Found, path: str, label: str) -> Table:
    """All lines of a manifest. path, label: names of columns that the caller gives, or ""."""
    known = {"id", "category", "group", "text", *OTHER_NAMES, *itertools.chain.from_iterable(OTHER_NAMES.values())}
    named = {column.casefold() for column in (path, label) if column}
    return read_table(found.file, known | named, {*known, *named} - {"text", "group"}, found.content)


def _find_elsewhere(root: Path) -> _Found:
    above, name = parted(root, SUFFIXES_OF_TABLES)
    tree = tree_of(above)
    if not name:
        held = set(tree.names())
        name = _only(root, [known for known in NAMES if known in held])
    try:
        content = tree.read(name)
    except BadImage as bad:
        raise BenchError(f"dataset manifest: {printable(root)} cannot be read: {bad.detail}") from None
    return _Found(root if above is not root else RemotePlace(f"{printable(root).rstrip('/')}/{name}"), tree, content)


def _only(root: Path, found: Sequence[str]) -> str:
    if len(found) != 1:
        held = f"both {' and '.join(found)}" if found else f"neither {' nor '.join(NAMES)}"
        raise BenchError(f"dataset manifest: {printable(root)} holds {held}; give the file itself as --data-root")
    return found[0]


def _columns(file: Path, table: Table, wanted: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Our name -> the file's, of the columns that have a meaning; and notices of those that are called otherwise.

    wanted: our name -> the file's where the user says it, "" where not.
    """
    notices = list(table.notices)
    names: dict[str, str] = {}
    there = {name.strip().casefold().replace(" ", "_").replace("-", "_"): name for name in reversed(table.columns)}
    for ours in ("path", "label", "split", "id", "category"):
        said = wanted.get(ours, "")
        if said:
            if said not in table.columns:
                raise _at(file, table, f"no column {said!r} among {', '.join(table.columns)}; {ours}= names a column")
            names[ours] = said
            continue
        found = [ours] if ours in table.columns else [there[ours]] if ours in there else []
        others = [there[name] for name in OTHER_NAMES.get(ours, ()) if name in there]
        rivals = [*found, *(name for name in others if not found or name == there.get("labels"))]
        if ours == "label" and len(rivals) > 1:
            either = " or ".join(map(repr, rivals))
            raise _at(file, table, f"the label may be in {either}; say which, for example manifest:label={rivals[0]}")
        if found or others:
            names[ours] = (found or others)[0]
            if names[ours] not in (ours, "labels"):
                notices.append(f"the column {names[ours]!r} is taken for {ours}")
        elif ours in ("path", "label"):
            here = ", ".join(table.columns)
            divided = ", separated by commas, semicolons or tabs" if table.header else ""
            raise _at(file, table, f"no column {ours!r} among {here}; {COLUMNS}{divided}")
    return names, notices


def _at(file: Path, table: Table, problem: str) -> BenchError:
    """About the names of the columns."""
    return at_line(file, table.header, problem) if table.header else BenchError(f"{printable(file)}: {problem}")


def _row(file: Path, line: int, cells: dict[str, str], names: Mapping[str, str], separator: str) -> ManifestRow:
    """One row as it is written; what its split is called is looked at later."""
    path, split, item = (cells.get(names.get(ours, ""), "") for ours in ("path", "split", "id"))
    if not path and not (item and _text(cells, _text_columns(cells))):
        raise at_line(
            file,
            line,
            f"path is missing, which only an item with an id and a title, text or description may; {COLUMNS}",
        )
    if not split and "split" in names:
        raise at_line(file, line, f"split is missing; {COLUMNS}")
    if "\0" in path or IN_A_LIST in path:
        raise at_line(file, line, f"path {path!r} cannot be the name of a file")
    labels = _parts(cells.get(names["label"], ""), separator)
    if DISTRACTOR in labels:
        raise at_line(file, line, f"the label {DISTRACTOR} is ours: leave the cell empty for an image without a label")
    categories = _parts(cells.get(names.get("category", ""), ""), separator)
    if len(categories) == 1:
        categories *= len(labels)
    elif categories and len(categories) != len(labels):
        raise at_line(file, line, f"{len(categories)} categories for {len(labels)} labels; give one, or one for each")
    by_label = dict(zip(labels, categories, strict=False))
    own = set(names.values())
    return ManifestRow(
        line=line,
        path=path,
        labels=tuple(dict.fromkeys(labels)),
        split=split,
        id=item or (path if is_url(path) else Path(path).as_posix()),
        categories=tuple(by_label.values()) if categories else (),
        more={key: value.replace(IN_A_LIST, ", ") for key, value in cells.items() if key not in own},
    )


def _parts(cell: str, separator: str) -> list[str]:
    """The values of a cell."""
    parts = cell.split(IN_A_LIST)
    if separator:
        parts = [piece for part in parts for piece in part.split(separator)]
    return [part.strip() for part in parts if part.strip()]


def _separators(rows: Sequence[ManifestRow], separator: str, column: str) -> list[str]:
    """A notice where labels look as if they were several, divided by something else."""
    if separator:
        return []  # somebody has thought of it
    marks = ";," if column.casefold() == "labels" else "|;"
    counts = Counter(mark for row in rows for label in row.labels for mark in marks if mark in label)
    return [
        f"{count} cells of {column} hold {mark!r} and are taken as one label each; "
        f"the dataset 'manifest:separator={mark}' takes them as several labels"
        for mark, count in counts.items()
    ]


def _mapped(
    file: Path, rows: Sequence[ManifestRow], mapping: Mapping[str, tuple[str, ...]]
) -> tuple[list[ManifestRow], list[str]]:
    """The rows with our names of their splits, without those that are left out; and a notice of these."""
    ours: dict[str, str] = {}
    folded = {theirs.casefold(): theirs for theirs in mapping}
    met: set[str] = set()
    for row in rows:
        if row.split in ours:
            continue
        if mapping:
            theirs = row.split if row.split in mapping else folded.get(row.split.casefold(), "")
            if not theirs:
                raise at_line(
                    file,
                    row.line,
                    f"split {row.split!r} is not among those that splits= maps ({', '.join(mapping)}); add it, or "
                    f"leave it out with {row.split}:{LEFT_OUT}",
                )
            met.add(theirs)
            ours[row.split] = "+".join(mapping[theirs])
        elif row.split.casefold() in OURS:
            ours[row.split] = row.split.casefold()
        else:
            there = {other.split for other in rows}
            hint = f"; {offered('manifest', there)}" if offers(there) else f"; known are {', '.join(OURS)}"
            raise at_line(file, row.line, unknown("split", row.split, OURS).partition("; known")[0] + hint)
    for theirs in mapping:
        if theirs not in met:
            raise BenchError(
                f"{printable(file)}: splits= maps {theirs!r}, and no row has it; its splits are "
                f"{', '.join(sorted({row.split for row in rows}))}"
            )
    kept = [replace(row, split=ours[row.split]) for row in rows if ours[row.split]]
    lost = sorted(theirs for theirs, name in ours.items() if not name)
    if not lost:
        return kept, []
    return kept, [f"{len(rows) - len(kept)} rows of the split {some(lost)} are left out, as splits= says"]


def _refuse_unreadable(file: Path, rows: Sequence[ManifestRow], images: Images) -> None:
    """BenchError where no picture of the list can be read: contents, which decide the splits, are then all the same,
    and that a split is empty would say nothing of the cause."""
    first = None
    for place, row in enumerate(rows):
        if row.path:
            try:
                images.read(place)
                return
            except BadImage as bad:
                first = first or f"{row.path!r} ({bad.reason}: {bad.detail})"
    if first is not None:
        raise BenchError(f"{printable(file)}: no image of it can be read; the first is {first}")


def _unit(digest: str, group: str) -> str:
    """What decides the split of an image: its content, or the group that stays together."""
    return hashlib.sha256(f"group {group}".encode()).hexdigest() if group else digest


def _file_of(file: Path, row: ManifestRow) -> str:
    """The row's file, the same however its path is written: from the folder of the list; "" without a picture."""
    path = path_here(row.path)
    if os.path.isabs(path) and not lies_elsewhere(file):
        path = os.path.relpath(path, os.path.abspath(file.parent))
    return os.path.normpath(path) if path else ""


def _merged(file: Path, rows: Sequence[ManifestRow]) -> list[ManifestRow]:
    """Rows that give one image of a split different labels become one row with all of them, in place of the first."""
    together: dict[tuple[str, str], list[ManifestRow]] = {}
    number = called_line(file)
    for row in rows:
        what = _file_of(file, row) or f"no picture of {row.id}"
        together.setdefault((row.split, what), []).append(row)
    merged: dict[int, ManifestRow] = {}
    gone: set[int] = set()
    for same in together.values():
        if len({row.labels for row in same}) < 2:
            continue  # nothing new is said by any of them: two ids, or a mistake that is told later
        first = same[0]
        bare = next((row for row in same if not row.labels), None)
        if bare is not None:
            told = f"{bare.path!r} has a label in another {number} and none here; give it one row"
            raise at_line(file, bare.line, told)
        by_label: dict[str, str] = {}
        for row in same:
            for place, label in enumerate(row.labels):
                category = row.categories[place] if row.categories else ""
                if by_label.setdefault(label, category) != category:
                    raise at_line(file, row.line, f"label {label!r} has two categories; a label has one")
        if len({bool(category) for category in by_label.values()}) > 1:
            raise at_line(file, same[1].line, f"give every row of {first.path!r} a category or none")
        categories = tuple(category for category in by_label.values() if category)
        merged[first.line] = replace(first, labels=tuple(by_label), categories=categories)
        gone |= {row.line for row in same[1:]}
    return [merged.get(row.line, row) for row in rows if row.line not in gone]


def _check(file: Path, rows: list[ManifestRow]) -> None:
    """What must hold between rows; the later of two rows is the one that is named first."""
    seen: dict[tuple[str, ...], tuple[ManifestRow, str]] = {}
    labelled = next((row for row in rows if row.labels), None)
    number = called_line(file)
    for row in rows:
        if not row.labels and row.split not in ("gallery", "query"):
            raise at_line(
                file, row.line, f"label is missing; only an image of gallery or query may have none; {COLUMNS}"
            )
        for place, label in enumerate(row.labels):
            category = row.categories[place] if row.categories else ""
            first, known = seen.setdefault(("label", label), (row, category))
            if known != category:
                told = f"{known!r} in {number} {first.line} and {category!r} here"
                raise at_line(file, row.line, f"label {label!r} has two categories, {told}; a label has one")
        if row.labels and labelled is not None and bool(row.categories) != bool(labelled.categories):
            has, lacks = (row, labelled) if row.categories else (labelled, row)
            told = f"{number} {has.line} has one, {number} {lacks.line} has none"
            raise at_line(file, row.line, f"give every row a category or none: {told}")
        for split in row.splits:
            first, _ = seen.setdefault(("in split", split, row.id), (row, ""))
            if first is not row:
                raise at_line(
                    file, row.line, f"id {row.id!r} is in {split} already, by {number} {first.line}; ids are unique"
                )
        group = row.more.get("group") if row.labels else None  # without a label, an image answers no other of its group
        for kind, name in (("id", row.id), ("file", _file_of(file, row)), ("group", group)):
            first, _ = seen.setdefault((kind, name), (row, "")) if name else (row, "")
            # train and gallery may share images, but a group is all in one
            if first.split != row.split and (kind == "group" or "query" in (*first.splits, *row.splits)):
                told = f"{first.split} in {number} {first.line} and {row.split} here"
                rule = "a group stays in one split" if kind == "group" else "a query must be unseen"
                raise at_line(file, row.line, f"{kind} {name!r} is in two splits, {told}; {rule}")


def _sorted_names(
    labels: Sequence[tuple[str, ...]], categories: Sequence[tuple[str, ...]]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of labels and of categories, the one of distractors behind them where there is any."""
    lone = [DISTRACTOR] if any(not own for own in labels) else []
    of_labels, of_categories = (sorted({name for own in names for name in own}) for names in (labels, categories))
    return (*of_labels, *lone), (*of_categories, *(lone if of_categories else []))


def _numbers(names: Sequence[tuple[str, ...]], known: Sequence[str]) -> tuple[np.ndarray, np.ndarray | None]:
    """Where each name stands in `known`: the first of each row, (n,) int64, and the others, padded with -1, if any."""
    index = {name: number for number, name in enumerate(known)}
    most = max(map(len, names))
    table = np.full((len(names), most), -1, np.int64)
    for row, own in enumerate(names):
        table[row, : len(own)] = [index.get(name, -1) for name in own]
    return table[:, 0].copy(), table[:, 1:] if most > 1 else None
