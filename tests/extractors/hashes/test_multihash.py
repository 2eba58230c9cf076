"""Against imagehash's ImageMultiHash, pair by pair."""

from __future__ import annotations

import numpy as np
import pytest
from imagehash import ImageHash, ImageMultiHash

from retrieval_bench.core import BenchError, Ranking, Setup
from retrieval_bench.extractors.hashes import multihash
from retrieval_bench.extractors.hashes.crop_resistant import crop_resistant
from retrieval_bench.extractors.hashes.multihash import SegmentIndex, row_bytes
from tests.support.pictures import photos


def random_rows(n: int, bits: int, places: int, seed: int, least: int = 0) -> np.ndarray:
    """Rows whose hashes lie near a few prototypes, so that many pairs match, at many distances, and many tie."""
    rng = np.random.default_rng(seed)
    prototypes = np.random.default_rng(99).random((6, bits)) < 0.5
    rows = np.zeros((n, row_bytes(places, bits)), np.uint8)
    for row in rows:
        count = rng.integers(least, places + 1)
        flips = rng.random((count, bits)) < rng.choice([0, 0.05, 0.15, 0.25], (count, 1))
        codes = np.packbits(prototypes[rng.integers(0, 6, count)] ^ flips, axis=1)
        row[0], row[1 : 1 + codes.size] = count, codes.ravel()
    return rows


def multi(row: np.ndarray, bits: int) -> ImageMultiHash:
    width = -(-bits // 8)
    codes = row[1 : 1 + int(row[0]) * width].reshape(-1, width)
    return ImageMultiHash([ImageHash(np.unpackbits(code, count=bits).astype(bool)) for code in codes])


def slow_distance(query: np.ndarray, gallery: np.ndarray, bits: int, errors: float) -> np.float32:
    if not query[0]:
        return np.float32(1)
    if not gallery[0]:
        return np.float32(query[0])
    return np.float32(multi(query, bits).__sub__(multi(gallery, bits), bit_error_rate=errors))


def slow_search(
    gallery: np.ndarray, queries: np.ndarray, k: int, bits: int, errors: float, exclude: np.ndarray | None = None
) -> Ranking:
    ranking = Ranking(np.full((len(queries), k), -1), np.full((len(queries), k), np.inf, np.float32))
    for query, codes in enumerate(queries):
        hidden = set() if exclude is None else set(np.atleast_1d(exclude[query]).tolist())
        found = [(slow_distance(codes, row, bits, errors), i) for i, row in enumerate(gallery) if i not in hidden]
        for rank, (distance, row) in enumerate(sorted(found)[:k]):
            ranking.indices[query, rank], ranking.distances[query, rank] = row, distance
    return ranking


def assert_same(ranking: Ranking, wanted: Ranking) -> None:
    assert ranking.indices.dtype == np.int64
    assert ranking.distances.dtype == np.float32
    np.testing.assert_array_equal(ranking.distances, wanted.distances)
    np.testing.assert_array_equal(ranking.indices, wanted.indices)


@pytest.mark.parametrize(("bits", "places"), [(64, 8), (64, 1), (256, 4), (9, 5)])
@pytest.mark.parametrize("errors", [0.25, 0.1, 0.0])
def test_the_ranking_is_that_of_imagehash(bits: int, places: int, errors: float) -> None:
    gallery, queries = random_rows(60, bits, places, 1), random_rows(25, bits, places, 2)
    index = SegmentIndex(gallery, bits, errors)
    for k in (1, 7, 60, 75):
        assert_same(index(queries, k), slow_search(gallery, queries, k, bits, errors))


def test_ties_matches_and_misses_all_occur() -> None:
    """What the test above is worth."""
    distances = slow_search(random_rows(60, 64, 8, 1), random_rows(25, 64, 8, 2), 60, 64, 0.1).distances
    matched = distances < distances[:, -1:]
    assert 0.05 < matched.mean() < 0.95
    assert ((distances[:, 1:] == distances[:, :-1]) & matched[:, 1:]).any()


def test_excluded_rows_are_not_found() -> None:
    gallery, queries = random_rows(40, 64, 6, 3), random_rows(12, 64, 6, 4)
    index = SegmentIndex(gallery, 64, 0.25)
    rng = np.random.default_rng(0)
    for exclude in (rng.integers(-1, 40, 12), rng.integers(-1, 40, (12, 30)), np.full(12, -1), np.empty((12, 0), int)):
        for k in (3, 40, 50):
            assert_same(index(queries, k, exclude), slow_search(gallery, queries, k, 64, 0.25, exclude))
    everything = np.tile(np.arange(40), (12, 1))
    assert (index(queries, 5, everything).indices == -1).all()


@pytest.mark.parametrize("pairs", [1, 1000])
def test_queries_may_be_worked_on_in_any_portions(pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery, queries = random_rows(50, 64, 8, 5), random_rows(20, 64, 8, 6)
    index = SegmentIndex(gallery, 64, 0.25)
    wanted = index(queries, 50)
    monkeypatch.setattr(multihash, "_PAIRS_AT_ONCE", pairs)
    assert_same(index(queries, 50), wanted)
    assert_same(index(queries[3:4], 50), Ranking(wanted.indices[3:4], wanted.distances[3:4]))


def test_rows_without_hashes() -> None:
    some, none = random_rows(5, 64, 4, 7, least=1), np.zeros((3, 33), np.uint8)
    mixed = np.concatenate([none[:1], some[:2], none[:1], some[2:], none[:1]])
    index = SegmentIndex(mixed, 64, 0.25)
    ranking = index(none, 8)
    np.testing.assert_array_equal(ranking.indices, np.tile(np.arange(8), (3, 1)))
    assert (ranking.distances == 1).all()
    ranking = index(some, 8)
    assert (ranking.distances[:, 0] == 0).all()
    zeros = np.isin(ranking.indices, [0, 3, 7])
    np.testing.assert_array_equal(ranking.distances[zeros].reshape(5, 3), np.repeat(some[:, :1], 3, axis=1))
    ranking = SegmentIndex(none, 64, 0.25)(some, 3)
    np.testing.assert_array_equal(ranking.indices, np.tile(np.arange(3), (5, 1)))
    np.testing.assert_array_equal(ranking.distances, np.repeat(some[:, :1], 3, axis=1).astype(np.float32))


def test_a_gallery_or_a_set_of_queries_may_be_empty() -> None:
    rows = random_rows(4, 64, 4, 8)
    ranking = SegmentIndex(rows[:0], 64, 0.25)(rows, 2)
    assert (ranking.indices == -1).all()
    assert np.isinf(ranking.distances).all()
    assert SegmentIndex(rows, 64, 0.25)(rows[:0], 2).indices.shape == (0, 2)


def test_a_row_finds_itself_first() -> None:
    rows = random_rows(30, 64, 8, 9, least=1)
    rows[20] = rows[10]
    ranking = SegmentIndex(rows, 64, 0.25)(rows, 2)
    assert (ranking.distances[:, 0] == 0).all()
    assert ranking.indices[20].tolist() == [10, 20]


@pytest.mark.slow(reason="imagehash's own segments of large photographs")
def test_photos_rank_as_by_imagehash() -> None:
    extractor = crop_resistant(Setup())
    rows = extractor.transform(photos(60))
    assert_same(extractor.searcher(rows)(rows, 60), slow_search(rows, rows, 60, 64, 0.25))


def test_arguments_are_left_as_they_were() -> None:
    gallery, queries = random_rows(10, 64, 4, 10), random_rows(6, 64, 4, 11)
    exclude = np.arange(6)
    copies = gallery.copy(), queries.copy(), exclude.copy()
    for array in (gallery, queries, exclude):
        array.setflags(write=False)
    SegmentIndex(gallery, 64, 0.25)(queries, 5, exclude)
    for array, copy in zip((gallery, queries, exclude), copies, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_bytes_grow_with_the_hashes() -> None:
    small, large = (SegmentIndex(random_rows(n, 64, 8, 0, least=8), 64, 0.25) for n in (100, 1000))
    assert large.bytes >= 1000 * 8 * 8
    assert small.bytes < large.bytes / 5


def test_bad_rows_are_refused() -> None:
    rows = random_rows(4, 64, 4, 12)
    with pytest.raises(BenchError, match="gallery has 32 columns; rows of 64-bit hashes have one byte"):
        SegmentIndex(rows[:, :-1], 64, 0.25)
    with pytest.raises(BenchError, match="gallery has 1 columns; rows"):
        SegmentIndex(rows[:, :1], 64, 0.25)
    wrong = rows.copy()
    wrong[2, 0] = 5
    with pytest.raises(BenchError, match="queries row 2 counts 5 hashes; there is place for 4"):
        SegmentIndex(rows, 64, 0.25)(wrong, 1)
    with pytest.raises(BenchError, match="queries has 41 columns but the gallery has 33"):
        SegmentIndex(rows, 64, 0.25)(random_rows(4, 64, 5, 0), 1)
    with pytest.raises(BenchError, match="k is 0"):
        SegmentIndex(rows, 64, 0.25)(rows, 0)
    with pytest.raises(BenchError, match="exclude names row 4 "):
        SegmentIndex(rows, 64, 0.25)(rows, 1, np.array([0, 1, 2, 4]))
