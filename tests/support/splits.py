"""Splits whose images are hardly any: their names as bytes, or contents that count how often they are decoded."""

from __future__ import annotations

import numpy as np

from retrieval_bench.core import BadImage, Dataset, Split
from retrieval_bench.images.reading import ImageBytes


def a_split(prefix: str, labels: list[int], contents: list[bytes] | None = None) -> Split:
    ids = tuple(f"{prefix}/{row:03}" for row in range(len(labels)))
    return Split(ids, np.array(labels, np.int64), ImageBytes(contents or [item.encode() for item in ids]))


def a_dataset(train: list[int], gallery: list[int], query: list[int]) -> Dataset:
    splits = {name: a_split(name, rows) for name, rows in {"train": train, "gallery": gallery, "query": query}.items()}
    n = max(train + gallery + query) + 1
    return Dataset("test", **splits, label_names=tuple(f"label{i}" for i in range(n)))


class Counted:
    """Images that count how often each content is decoded; contents that start with "bad" are."""

    def __init__(self, contents: list[str], decoded: list[str]) -> None:
        self.contents = contents
        self.decoded = decoded

    def __len__(self) -> int:
        return len(self.contents)

    def __getitem__(self, row: int) -> np.ndarray:
        self.decoded.append(self.contents[row])
        if self.contents[row].startswith("bad"):
            raise BadImage("damaged", f"{self.contents[row]} is damaged")
        return np.zeros((3, 4, 3), np.uint8)

    def read(self, row: int) -> bytes:
        return self.contents[row].encode()

    def digest(self, row: int) -> str:
        return self.contents[row]

    def take(self, rows: list[int]) -> Counted:
        return Counted([self.contents[row] for row in rows], self.decoded)


def counted_dataset(decoded: list[str], **contents: list[str]) -> Dataset:
    """Contents end in the digit of their label; ids are split/row."""
    splits = {}
    for name in ("train", "gallery", "query"):
        held = contents[name]
        labels = np.array([int(content[-1]) for content in held], np.int64)
        splits[name] = Split(tuple(f"{name}/{row}" for row in range(len(held))), labels, Counted(held, decoded))
    return Dataset("test", **splits, label_names=("a", "b", "c"))
