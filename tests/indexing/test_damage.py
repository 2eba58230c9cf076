"""Damage in any file of an index is one sentence that names the file, and `verify` finds every byte that counts."""

from __future__ import annotations

import os
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from retrieval_bench.core import BenchError
from retrieval_bench.indexing.index import NewItem, StoredIndex
from retrieval_bench.indexing.items import ItemTable
from tests.support.command import call
from tests.support.faults import LONG, cut, flip, instead
from tests.support.indexes import built_at
from tests.support.shop import picture

FLIPS = 2000 if LONG else 60


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = built_at(tmp_path_factory.mktemp("index") / "shop", "phash", "sift:words=4")
    with StoredIndex.open(folder, writable=True, check_recipe=False) as index:
        index.add([NewItem("new/1", picture(0, 1), label="x", attributes={"view": 1})])
        index.remove(["gallery/0/1000.png"])
    return folder


@pytest.fixture
def own(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "own"))


def problems(folder: Path) -> tuple[str, ...]:
    with StoredIndex.open(folder, check_recipe=False) as index:
        return index.verify().problems


def content(folder: Path) -> list[object]:
    """All that an index says of its items."""
    table = ItemTable(folder / "items.sqlite", writable=False)
    try:
        state = table.state()
        return [*table.all_items(), *table.operations(), state.generation, state.version, state.live.tolist()]
    finally:
        table.close()


def test_what_is_whole_has_no_problem(own: Path) -> None:
    assert problems(own) == ()
    done = call("index", "verify", own)
    assert (done.exit_code, done.stdout.endswith("as it was written\n")) == (0, True)


def test_a_flipped_byte_of_the_features_is_found(own: Path) -> None:
    rng = random.Random(0)
    for file in sorted((own / "features" / "0").iterdir()):
        size = file.stat().st_size
        for place in (0, size - 1, *(rng.randrange(size) for _ in range(6))):
            bit = 1 << rng.randrange(8)
            flip(file, place, bit)
            row = place // (size // 17)
            assert problems(own) == (f"{file}: row {row}, of item {row + 1}, is not as it was written",)
            flip(file, place, bit)
    flip(file, 0)
    done = call("index", "verify", own)
    assert (done.exit_code, ": 1 of what was looked at is not as it was written" in done.stdout) == (1, True)


def test_a_flipped_byte_of_what_never_changes_is_found(own: Path) -> None:
    names = ["learned/1.npz", "probes.npz", "judged/0.npz", "judged/1.npz"]
    assert names == [name for name in names if (own / name).is_file()]
    for name in names:
        for place in (0, (own / name).stat().st_size // 2, -1):
            flip(own / name, place)
            assert problems(own) == (f"{own / name}: it is not as it was written, by its sha256",)
            flip(own / name, place)
    flip(own / "learned/1.npz", 200)
    with StoredIndex.open(own, check_recipe=False) as index, pytest.raises(BenchError, match=r"1\.npz is damaged"):
        index.method("sift:words=4").describe([picture(0, 1)])


def test_a_flipped_byte_of_the_description_is_refused(own: Path) -> None:
    file = own / "index.json"
    size = file.stat().st_size
    rng = random.Random(0)
    for place in (0, size - 1, *(rng.randrange(size) for _ in range(40))):
        bit = 1 << rng.randrange(8)
        flip(file, place, bit)
        with pytest.raises(BenchError, match=r"index\.json(: format \d+, and|.* is damaged)"):
            StoredIndex.open(own)
        flip(file, place, bit)
    StoredIndex.open(own, check_recipe=False).close()


@pytest.mark.slow(reason="an index is verified for each flip")
def test_a_flipped_byte_of_the_items_is_found_or_changes_nothing(own: Path) -> None:
    """What no row holds, such as the room that SQLite leaves free, has no checksum and is never read."""
    file = own / "items.sqlite"
    before, rng, found = content(own), random.Random(3), 0
    for _ in range(FLIPS):
        place, bit = rng.randrange(file.stat().st_size), 1 << rng.randrange(8)
        flip(file, place, bit)
        try:
            told = problems(own)
        except BenchError as error:
            told = (str(error),)
        assert all(str(file) in one for one in told), told
        if not told:
            assert content(own) == before
        found += bool(told)
        flip(file, place, bit)
    assert found > FLIPS // 10
    assert content(own) == before


@pytest.mark.parametrize(
    ("name", "damage", "sentence"),
    [
        ("items.sqlite", lambda file: file.write_bytes(b"no database" * 100), "is damaged"),
        ("items.sqlite", lambda file: cut(file, 5000), "is damaged"),
        ("items.sqlite", Path.unlink, "cannot be read"),
        ("items.sqlite", instead(os.mkdir), "is damaged: a folder"),
        ("index.json", lambda file: file.write_bytes(b"{}"), "is damaged"),
        ("index.json", lambda file: file.write_bytes(b"[" * 100_000), "is damaged"),
        ("index.json", instead(os.mkdir), "cannot be read"),
        ("features/0/1-0.bin", lambda file: cut(file, 100), "is damaged: 100 bytes, and 17 rows take"),
        ("features/0/1-0.bin", Path.unlink, "is missing"),
    ],
)
def test_what_is_cut_gone_or_something_else_is_one_sentence(
    own: Path, name: str, damage: Callable[[Path], object], sentence: str
) -> None:
    damage(own / name)
    for words in (("info", own), ("remove", own, "new/1")):
        done = call("index", *words)
        assert done.exit_code == 2, done.output
        assert f"error: {own / name}" in done.stderr
        assert sentence in done.stderr
        assert re.search("build (the index|it) again|cannot be read", done.stderr)
        assert len(done.stderr.splitlines()) == 1


def test_what_is_not_finite_is_told_with_its_file(own: Path) -> None:
    file = own / "features" / "0" / "1-0.bin"
    content = bytearray(file.read_bytes())
    content[4:8] = b"\xff\xff\xff\x7f"
    file.write_bytes(bytes(content))
    with StoredIndex.open(own, check_recipe=False) as index:
        method = index.method("sift:words=4")
        with pytest.raises(BenchError, match=r"1-0\.bin is damaged .*row 0 holds NaN"):
            index.snapshot().search("sift:words=4", method.describe([picture(0, 1)]), 1)


def test_a_flipped_bit_of_the_log_takes_nothing_along(own: Path, tmp_path: Path) -> None:
    """While a reader is there, SQLite keeps its log; what is in it lies in the file, too."""
    with StoredIndex.open(own, check_recipe=False):
        with StoredIndex.open(own, writable=True, check_recipe=False) as index:
            index.remove(["new/1"])
        before = content(own)
        copy = Path(shutil.copytree(own, tmp_path / "copy"))
    (copy / "items.sqlite-shm").unlink()
    size = (copy / "items.sqlite-wal").stat().st_size
    assert size > 0
    for place in (20, size // 2, size - 1):
        flip(copy / "items.sqlite-wal", place)
    assert content(copy) == before
