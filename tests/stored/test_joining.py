"""Whose image an id of a file is: by id, by path, by file name, and never by guess."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from retrieval_bench.core import BenchError, Split
from retrieval_bench.images.reading import ImageFiles
from retrieval_bench.stored.joining import IdJoin


def split(*ids: str, root: str = "/data/shop") -> Split:
    return Split(ids, np.zeros(len(ids), np.int64), ImageFiles([f"{root}/{item}" for item in ids]))


def join(*ids: str) -> IdJoin:
    return IdJoin(ids, Path("v.npz"), "embeddings:v.npz")


def test_an_id_is_found_before_anything_alike() -> None:
    found = join("1.jpg", "a/1.jpg", "a/2.jpg").rows_of_all(split("a/2.jpg", "1.jpg", "a/1.jpg"))
    assert found.tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    "stored", ["/data/shop/a/1.jpg", "shop/a/1.jpg", "./a/1.jpg", "a\\1.jpg", "C:\\home\\a\\1.jpg", "/home/me/a/1.jpg"]
)
def test_a_path_is_found_however_it_begins(stored: str) -> None:
    joined = join("b/1.jpg", stored)
    assert joined.rows_of_all(split("a/1.jpg")).tolist() == [1]
    assert joined.by_name == 0


def test_a_file_name_is_found_where_one_has_it() -> None:
    assert join("2.jpg", "1.jpg").rows_of_all(split("a/1.jpg", "b/2.jpg")).tolist() == [1, 0]
    elsewhere = join("old/1.jpg")
    assert elsewhere.rows_of_all(split("new/1.jpg")).tolist() == [0]
    assert elsewhere.by_name == 1


def test_a_file_name_of_two_images_is_refused() -> None:
    joined = join("1.jpg")
    with pytest.raises(BenchError, match=r"'1\.jpg' in v\.npz may be 'a/1\.jpg' or 'b/1\.jpg'; write ids or longer"):
        joined.rows(split("a/1.jpg", "b/1.jpg"))
    joined = join("1.jpg")
    joined.rows(split("a/1.jpg"))
    with pytest.raises(BenchError, match=r"may be 'a/1\.jpg' or 'b/1\.jpg'"):
        joined.rows(split("b/1.jpg"))


def test_an_image_of_two_rows_is_refused() -> None:
    with pytest.raises(BenchError, match=r"'c/1\.jpg' may be 'x/1\.jpg' or 'y/1\.jpg' of v\.npz"):
        join("x/1.jpg", "y/1.jpg").rows(split("c/1.jpg"))


def test_a_row_of_an_id_is_not_given_to_what_is_alike() -> None:
    joined = join("train/1.jpg")
    joined.rows(split("train/1.jpg"))
    assert joined.rows(split("query/1.jpg")).tolist() == [-1]
    joined = join("train/1.jpg", "gallery/1.jpg")
    joined.rows(split("train/1.jpg", "gallery/1.jpg"))
    with pytest.raises(BenchError, match=r"nothing for 1 of 1 images: 'query/1\.jpg'"):
        joined.rows_of_all(split("query/1.jpg"))


def test_an_accented_letter_is_found_as_one_character_or_two() -> None:
    one, two = "caf\u00e9/1.jpg", "cafe\u0301/1.jpg"
    assert join("tea/1.jpg", two).rows_of_all(split(one)).tolist() == [1]
    assert join("tea/1.jpg", one).rows_of_all(split(two)).tolist() == [1]


def test_missing_ids_are_counted_and_three_named() -> None:
    with pytest.raises(
        BenchError, match=r"nothing for 4 of 5 images: 'b', 'c', 'd', \.\.\.; its ids must be the images'"
    ):
        join("a").rows_of_all(split("a", "b", "c", "d", "e"))


def test_the_same_image_in_two_splits_has_one_row() -> None:
    joined = join("1.jpg")
    assert joined.rows(split("a/1.jpg")).tolist() == joined.rows(split("a/1.jpg")).tolist() == [0]
    assert joined.left == 0


def test_of_several_paths_the_longest_that_fits_is_taken() -> None:
    assert join("a/1.jpg", "shop/a/1.jpg", "1.jpg").rows_of_all(split("x/shop/a/1.jpg")).tolist() == [1]


def test_many_images_of_one_file_name_are_found_at_once() -> None:
    ids = [f"{row}/1.jpg" for row in range(5_000)]
    started = time.process_time()
    joined = join(*(f"C:\\shop\\{item}" for item in ids))
    assert joined.rows_of_all(split(*ids)).tolist() == list(range(5_000))
    assert time.process_time() - started < 5
