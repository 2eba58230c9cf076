"""WebDataset: tar shards in which files with one stem are one item, as 000.jpg, 000.cls, 000.json and 000.txt."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from retrieval_bench.core import BadImage, BenchError, Dataset, Split, printable
from retrieval_bench.datasets.remote_files import RemoteFile, RemoteFiles
from retrieval_bench.datasets.split_names import BOTH, our_splits, parse_mapping
from retrieval_bench.datasets.splits import content_splits, divide, observations, parse_shares, some
from retrieval_bench.images.formats import SUFFIXES
from retrieval_bench.images.listing import names_in
from retrieval_bench.registry import DATASETS
from retrieval_bench.remote.place import RemotePlace
from retrieval_bench.remote.trees import Tree, tree_of

MOST_SHARDS = 100_000
LAYOUT = "expected are tar files, as --data-root 'shards/{00..03}.tar' or a folder of them, with 000.jpg beside 000.cls"
_TEXTS = ("caption", "text", "title")
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


class _Item(NamedTuple):
    """One image of a shard, with what lies beside it. split: of its shard, "" where contents decide."""

    tree: Tree
    picture: str
    id: str
    label: str
    text: str
    split: str


@DATASETS(
    "webdataset",
    about="tar shards in which 000.jpg, 000.cls, 000.json and 000.txt are one item; here or at a URL",
    colons=("splits",),
)
def webdataset(root: Path | None, *, split: str = "70/15/15", splits: str = "", label: str = "") -> Dataset:
    """Read tar shards in the layout of WebDataset. Files that share all before the first dot of their name are an item.

    The label is what stands in the item's .cls, or in its .json under label, cls or class. The text is what stands in
    its .txt, or in its .json under caption, text or title. The id is its name in the shard; the shard's name is put
    before where two shards have one name. Contents decide the split as in `folder`, unless `splits` says it by shard.

    Args:
        root: a folder of .tar files, one such file, or a pattern as shards/{00..03}.tar; here, or as a URL.
        split: percent of the images for train/gallery/query, or leave-one-out, as in `folder`.
        splits: what the shards are, by the beginning of their names, as `train:train,val:gallery,test:query`.
        label: the key of the .json that holds the label.
    """
    if root is None:
        raise BenchError(f"dataset webdataset needs --data-root; {LAYOUT}")
    mapping, shares = parse_mapping("webdataset", splits), parse_shares(split)
    items: list[_Item] = []
    bare = beside = 0
    for shard in _shards(root):
        told = _split_of(shard.name, mapping) if mapping else ""
        if told is None:
            continue
        tree = tree_of(shard)
        for stem, parts in _together(tree):
            pictures = [parts[kind] for kind in parts if f".{kind.rpartition('.')[2]}" in SUFFIXES]
            if not pictures:
                bare += 1
                continue
            beside += len(pictures) > 1
            items.append(_Item(tree, pictures[0], stem, *_said(tree, shard, stem, parts, label), told))
    if not items:
        raise BenchError(f"dataset webdataset: no image in {printable(root)}; {LAYOUT}")
    images = RemoteFiles([RemoteFile(item.tree, item.picture) for item in items]).with_digests()
    labels = [item.label for item in items]
    if mapping:
        assigned = [item.split for item in items]
    elif shares is None:
        assigned = [BOTH] * len(items)
    else:
        assigned = content_splits([images.digest(row) for row in range(len(items))], labels, shares)
    names = sorted(set(labels))
    numbers = {name: number for number, name in enumerate(names)}
    texts = tuple(item.text for item in items)
    ids = _unique(items)
    whole = Split(
        ids, np.array([numbers[one] for one in labels], np.int64), images, texts=texts if any(texts) else None
    )
    divided = divide(whole, assigned)
    dataset = Dataset(
        name="webdataset",
        train=divided["train"],
        gallery=divided["gallery"],
        query=divided["query"],
        label_names=tuple(names),
        category_names=(),
        leave_one_out=any({"gallery", "query"} <= set(our_splits(name)) for name in set(assigned)),
        notices=tuple(
            notice
            for count, notice in (
                (bare, f"items without an image, which are left out: {bare:,}"),
                (beside, f"items with several images, of which the first is taken: {beside:,}"),
            )
            if count
        ),
    )
    return dataset.with_splits({}, observations(dataset))


def _shards(root: Path) -> list[Path]:
    """The tar files that a root names, in order."""
    text = str(root)
    if _RANGE.search(text):
        return [RemotePlace(one) if isinstance(root, RemotePlace) else Path(one) for one in _expanded(text)]
    if isinstance(root, RemotePlace) and not text.partition("?")[0].lower().endswith(".tar"):
        names = [name for name in tree_of(root).names() if name.endswith(".tar") and "/" not in name]
        found: list[Path] = [RemotePlace(f"{text.rstrip('/')}/{name}") for name in names]
    elif root.is_dir():
        found = [root / name for name in names_in(root) if name.lower().endswith(".tar")]
    else:
        found = [root]
    if not found or not (isinstance(found[0], RemotePlace) or found[0].suffix.lower() == ".tar"):
        raise BenchError(f"dataset webdataset: {printable(root)} is no tar file and holds none; {LAYOUT}")
    return found


def _expanded(text: str) -> Iterator[str]:
    found = _RANGE.search(text)
    if found is None:
        yield text
        return
    first, last = int(found[1]), int(found[2])
    if not 0 <= last - first < MOST_SHARDS:
        raise BenchError(f"{found[0]} in --data-root counts from {first} to {last}; write {{00..03}} for four shards")
    for number in range(first, last + 1):
        yield from _expanded(f"{text[: found.start()]}{number:0{len(found[1])}}{text[found.end() :]}")


def _split_of(shard: str, mapping: Any) -> str | None:
    """Our name of a shard's split, None where it is left out."""
    known = [name for name in sorted(mapping, key=len, reverse=True) if shard.startswith(name)]
    if not known:
        raise BenchError(
            f"dataset webdataset: the shard {shard!r} begins with none of the names that splits= maps "
            f"({some(list(mapping))}); add it, or leave it out with {shard.partition('.')[0]}:none"
        )
    return "+".join(mapping[known[0]]) or None


def _together(tree: Tree) -> Iterator[tuple[str, dict[str, str]]]:
    """Each stem, in order, with suffix (lower case, without the dot) -> name of the file."""
    items: dict[str, dict[str, str]] = {}
    for name in tree.names():
        folder, slash, file = name.rpartition("/")
        stem, dot, suffix = file.partition(".")
        if dot and stem and not stem.startswith("._"):
            items.setdefault(f"{folder}{slash}{stem}", {})[suffix.lower()] = name
    yield from items.items()


def _said(tree: Tree, shard: Path, stem: str, parts: dict[str, str], key: str) -> tuple[str, str]:
    """(label, text) of an item. BenchError where it has no label."""
    facts = _json(tree, shard, parts["json"]) if "json" in parts else {}
    label = "" if key or "cls" not in parts else _text(tree, shard, parts["cls"], "strict")
    known = next((name for name in ([key] if key else ("label", "cls", "class")) if name in facts), None)
    if not label and known is not None:
        label = _label(facts[known], f"{printable(shard)}: {known} in {parts['json']!r}")
    if not label.strip():
        where = f"a key {key!r} in its .json" if key else "a .cls, or a .json with label, cls or class"
        raise BenchError(
            f"{printable(shard)}: {stem!r} has no label; it needs {where}, or say the key with webdataset:label=KEY"
        )
    text = _text(tree, shard, parts["txt"]) if "txt" in parts else ""
    return label.strip(), text or next((str(facts[name]) for name in _TEXTS if facts.get(name)), "").strip()


def _label(value: Any, where: str) -> str:
    """Of a .json, as in a manifest: text or a whole number, "" where there is null. BenchError where it is neither."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        told = json.dumps(value)
        raise BenchError(
            f"{where} is {told if len(told) <= 40 else told[:37] + '...'}; it must be text or a whole number"
        )
    return str(value)


def _text(tree: Tree, shard: Path, name: str, errors: str = "replace") -> str:
    try:
        return tree.read(name).decode("utf-8-sig", errors).strip()
    except BadImage as bad:
        raise BenchError(f"{printable(shard)}: {name!r} cannot be read: {bad.detail}") from None
    except UnicodeDecodeError:  # two labels could become one
        raise BenchError(f"{printable(shard)}: {name!r} is not UTF-8; write it anew in UTF-8") from None


def _json(tree: Tree, shard: Path, name: str) -> dict[str, Any]:
    try:
        found = json.loads(_text(tree, shard, name))
    except (ValueError, RecursionError) as error:
        raise BenchError(f"{printable(shard)}: {name!r} is not valid JSON: {error}") from None
    if not isinstance(found, dict):
        raise BenchError(f"{printable(shard)}: {name!r} is a JSON {type(found).__name__}, not an object")
    return found


def _unique(items: Sequence[_Item]) -> tuple[str, ...]:
    """The items' names; with the shard before, where two shards use one."""
    ids = [printable(item.id) for item in items]
    if len(set(ids)) == len(ids):
        return tuple(ids)
    return tuple(f"{Path(item.tree.shown).name}/{own}" for item, own in zip(items, ids, strict=True))
