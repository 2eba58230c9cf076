from __future__ import annotations

import logging
import os
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from retrieval_bench.system.cache import FeatureCache, cache_root, code_version, recipe_key

KEY = recipe_key({"method": "test"})
RECIPE = {"method": "sift", "options": {"words": 3}, "learned_from": "these images"}
ROWS = {f"{number:064x}": np.arange(number, number + 5, dtype=np.float32) for number in range(1200)}


def shelf_of(root: Path) -> Path:
    (path,) = root.glob("features/*/*.sqlite")
    return path


def test_what_is_put_comes_back_to_the_bit(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    assert cache.get(KEY, ROWS) == {}
    cache.put(KEY, ROWS)
    found = FeatureCache(tmp_path).get(KEY, ROWS)
    assert found.keys() == ROWS.keys()
    for digest, value in found.items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, ROWS[digest])


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32"])
def test_dtypes_are_kept(tmp_path: Path, dtype: str) -> None:
    cache = FeatureCache(tmp_path)
    cache.put(KEY, {"a": np.array([1, 2, 255], dtype)})
    assert cache.get(KEY, ["a"])["a"].dtype == dtype


def test_other_arrays_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="1-D arrays"):
        FeatureCache(tmp_path).put(KEY, {"a": np.zeros((2, 2), np.float32)})
    with pytest.raises(ValueError, match="1-D arrays"):
        FeatureCache(tmp_path).put(KEY, {"a": np.zeros(2, np.float64)})


def test_recipes_do_not_see_each_other(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    cache.put(KEY, ROWS)
    assert cache.get(recipe_key({"method": "other"}), ROWS) == {}


def test_recipe_key_follows_every_part_and_no_order() -> None:
    assert recipe_key({"a": 1, "b": 2}) == recipe_key({"b": 2, "a": 1})
    assert recipe_key({"a": 1, "b": 2}) != recipe_key({"a": 1, "b": 3})


def test_code_version_follows_the_source(tmp_path: Path) -> None:
    file = tmp_path / "x.py"
    file.write_text("a = 1")
    before = code_version(file)
    file.write_text("a = 2")
    assert code_version(file) != before


def test_a_flipped_bit_is_a_miss(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    cache.put(KEY, {"a": np.arange(5, dtype=np.float32), "b": np.arange(5, dtype=np.float32)})
    with sqlite3.connect(shelf_of(tmp_path)) as shelf:
        (blob,) = shelf.execute("SELECT blob FROM features WHERE digest = 'a'").fetchone()
        damaged = blob[:-1] + bytes([blob[-1] ^ 1])
        shelf.execute("UPDATE features SET blob = ? WHERE digest = 'a'", (damaged,))
    shelf.close()
    assert set(cache.get(KEY, ["a", "b"])) == {"b"}


def test_rows_of_other_types_are_misses(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    cache.put(KEY, {"a": np.arange(5, dtype=np.float32), "b": np.arange(5, dtype=np.float32)})
    with sqlite3.connect(shelf_of(tmp_path)) as shelf:
        shelf.execute("UPDATE features SET blob = 7 WHERE digest = 'a'")
    shelf.close()
    assert set(cache.get(KEY, ["a", "b"])) == {"b"}


def test_no_flipped_bit_crashes_or_gives_another_value(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    value = {"words_": np.arange(12, dtype=np.float32).reshape(3, 4)}
    cache.put(KEY, {"a": np.arange(5, dtype=np.float32)})
    cache.put_fit(KEY, RECIPE, value)
    (fit,) = tmp_path.glob("fits/*/*.npz")
    shelf = shelf_of(tmp_path)
    rng = np.random.default_rng(0)
    for path in (fit, shelf):
        whole = path.read_bytes()
        for place in rng.integers(0, len(whole), 150):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << rng.integers(8))]) + whole[place + 1 :])
            other = FeatureCache(tmp_path)
            learned = other.get_fit(KEY, RECIPE)
            if learned is not None and "words_" in learned:
                np.testing.assert_array_equal(learned["words_"], value["words_"])
            for stored in other.get(KEY, ["a"]).values():
                np.testing.assert_array_equal(stored, np.arange(5))
        path.write_bytes(whole)


def test_a_value_filed_under_another_image_is_a_miss(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    cache.put(KEY, {"a": np.arange(5, dtype=np.float32)})
    with sqlite3.connect(shelf_of(tmp_path)) as shelf:
        shelf.execute("UPDATE features SET digest = 'b'")
    shelf.close()
    assert cache.get(KEY, ["b"]) == {}


@pytest.mark.parametrize("content", [b"", b"not a database at all" * 100, None])
def test_a_damaged_shelf_is_a_miss_and_heals(tmp_path: Path, content: bytes | None) -> None:
    cache = FeatureCache(tmp_path)
    cache.put(KEY, ROWS)
    path = shelf_of(tmp_path)
    path.write_bytes(path.read_bytes()[:5000] if content is None else content)
    assert FeatureCache(tmp_path).get(KEY, ROWS).keys() != ROWS.keys()
    FeatureCache(tmp_path).put(KEY, ROWS)
    FeatureCache(tmp_path).put(KEY, ROWS)
    assert FeatureCache(tmp_path).get(KEY, ROWS).keys() == ROWS.keys()


def test_fits_come_back_and_damage_is_a_miss(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    assert cache.get_fit(KEY, RECIPE) is None
    cache.put_fit(KEY, RECIPE, {"words_": np.eye(3, dtype=np.float32)})
    stored = cache.get_fit(KEY, RECIPE)
    assert stored is not None
    np.testing.assert_array_equal(stored["words_"], np.eye(3))
    (path,) = tmp_path.glob("fits/*/*.npz")
    whole = path.read_bytes()
    for damaged in (b"", whole[:50], whole[:-30], whole.replace(b"\x80\x3f", b"\x81\x3f")):
        path.write_bytes(damaged)
        assert FeatureCache(tmp_path).get_fit(KEY, RECIPE) is None


def test_a_fit_of_another_recipe_is_a_miss_and_says_what_differs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = FeatureCache(tmp_path)
    cache.put_fit(KEY, RECIPE, {"words_": np.eye(3)})
    with caplog.at_level(logging.WARNING):
        assert cache.get_fit(KEY, RECIPE | {"learned_from": "other images"}) is None
    assert "was learned with another learned_from" in caplog.text
    (path,) = tmp_path.glob("fits/*/*.npz")
    np.savez(path, words_=np.eye(3))  # as earlier versions stored it: nothing says what it was learned from
    assert cache.get_fit(KEY, RECIPE) is None


def test_without_a_root_nothing_is_kept() -> None:
    cache = FeatureCache(None)
    cache.put(KEY, ROWS)
    cache.put_fit(KEY, RECIPE, {"a": np.zeros(1)})
    assert cache.get(KEY, ROWS) == {}
    assert cache.get_fit(KEY, RECIPE) is None


def test_an_unwritable_place_says_so_once_and_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("a file where the folder should be")
    cache = FeatureCache(tmp_path / "file")
    with caplog.at_level(logging.WARNING):
        cache.put(KEY, ROWS)
        cache.put(KEY, ROWS)
        cache.put_fit(KEY, RECIPE, {"a": np.zeros(1)})
    assert cache.get(KEY, ROWS) == {}
    assert len(caplog.records) == 1
    assert "cannot be written" in caplog.text


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_store_serves_what_it_has(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    cache.put(KEY, {"a": ROWS[f"{1:064x}"]})
    folder = shelf_of(tmp_path).parent
    folder.chmod(0o500)
    shelf_of(tmp_path).chmod(0o400)
    try:
        cache.put(KEY, {"b": ROWS[f"{2:064x}"]})
        assert set(cache.get(KEY, ["a", "b"])) == {"a"}
    finally:
        folder.chmod(0o700)


def test_the_root_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RETRIEVAL_BENCH_CACHE", str(tmp_path))
    assert cache_root() == tmp_path
