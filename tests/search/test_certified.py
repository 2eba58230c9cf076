"""The int8 scan finds what the engine finds, bit for bit; its bound holds; and what defeats it falls back."""

import functools
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from retrieval_bench.core import BenchError, Ranking
from retrieval_bench.search import bounds, certified, code_loops, emit, quantise, tile_loops, widened_loops
from retrieval_bench.search.certified import CertifiedIndex, choose, inner_loop, rescore_budget
from retrieval_bench.search.index import ExactIndex
from retrieval_bench.search.kernels import KINDS
from retrieval_bench.search.points import find_centre, points
from retrieval_bench.search.rescore import distances_to_all
from tests.support import tiles_in_words
from tests.support.searches import random

DISTANCES = ("cosine", "inner_product", "euclidean")
KERNELS = ("avx512", "avx2", "plain")
FINE = "fine"  # in place of a kernel: the plain loop for one query with codes of 16 bits


def kernels_here() -> list[str]:
    """One float32 kernel for each way of scanning codes that this processor has."""
    ways = {inner_loop(kernel): kernel for kernel in KERNELS[::-1]}
    return list(ways.values())


def assert_identical(found: Ranking, expected: Ranking) -> None:
    assert found.indices.dtype == np.int64
    assert found.distances.dtype == np.float32
    assert_array_equal(found.indices, expected.indices)
    assert_array_equal(found.distances.view(np.uint32), expected.distances.view(np.uint32))


def compare(queries, gallery, k, distance, exclude=None, kernel=None) -> CertifiedIndex:
    index = CertifiedIndex(gallery, distance, kernel=kernel)
    assert_identical(index.search(queries, k, exclude), ExactIndex(gallery, distance).search(queries, k, exclude))
    return index


# --- data: each maker is (rng, rows, dim) -> float32 ------------------------------------------------------------------


def clustered(rng, n, dim):
    """Many near-duplicates of a few centres, relative distance 1e-4."""
    centres = rng.standard_normal((3, dim))
    return (centres[rng.integers(0, 3, n)] + 1e-4 * rng.standard_normal((n, dim))).astype(np.float32)


def tied(rng, n, dim):
    return rng.integers(-1, 2, (n, dim)).astype(np.float32)


def duplicates(rng, n, dim):
    rows = random(rng, n, dim)
    rows[: n // 2] = rows[n - n // 2 :]
    return rows


def zeros(rng, n, dim):
    rows = random(rng, n, dim)
    rows[::2] = 0
    return rows


def constant(rng, n, dim):
    return np.repeat(random(rng, n, 1), dim, axis=1)


def all_equal(rng, n, dim):
    return np.ones((n, dim), np.float32)


def huge_coordinate(rng, n, dim):
    rows = random(rng, n, dim)
    rows[:, 0] = 1e6
    return rows


def many_lengths(rng, n, dim):
    """Lengths from 1e-12 to 1e12 side by side."""
    return random(rng, n, dim) * (10.0 ** rng.integers(-12, 13, (n, 1))).astype(np.float32)


def tiny(rng, n, dim):
    return random(rng, n, dim) * np.float32(1e-22)


def denormal(rng, n, dim):
    return rng.integers(-900, 900, (n, dim)).astype(np.float32) * np.float32(1e-45)


def huge(rng, n, dim):
    return random(rng, n, dim) * np.float32(1e17)


DATA = (
    *(random, clustered, tied, duplicates, zeros, constant, all_equal, huge_coordinate, many_lengths),
    *(tiny, denormal, huge),
)


@st.composite
def searches(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.sampled_from([0, 1, 2, 31, 32, 33, 64, 100, 300]))
    q = draw(st.sampled_from([0, 1, 3, 4, 8, 9, 17]))
    dim = draw(st.integers(1, 70))
    k = draw(st.sampled_from([1, 2, 10, max(n - 1, 1), max(n, 1), n + 3]))
    maker, other = draw(st.sampled_from(DATA)), draw(st.sampled_from(DATA))
    gallery = maker(rng, n, dim)
    queries = gallery[rng.integers(0, n, q)] if n and draw(st.booleans()) else other(rng, q, dim)
    exclude = None
    if draw(st.booleans()):
        shape = draw(st.sampled_from([(q,), (q, 1), (q, 3)]))
        exclude = rng.integers(-1, n, shape) if n else np.full(shape, -1)
    return draw(st.sampled_from(DISTANCES)), draw(st.sampled_from(kernels_here())), queries, gallery, k, exclude


@pytest.mark.slow(reason="every shape by two scans")
@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(searches())
def test_identical_to_the_engine(search):
    distance, kernel, queries, gallery, k, exclude = search
    compare(queries, gallery, k, distance, exclude, kernel)


@pytest.mark.slow(reason="a wide grid of data and ways to scan")
@pytest.mark.parametrize("kernel", kernels_here())
@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("maker", DATA, ids=lambda maker: maker.__name__)
def test_identical_on_more_rows_than_a_chunk(maker, distance, kernel):
    rng = np.random.default_rng(1)
    gallery = maker(rng, 3000, 40)
    queries = np.concatenate([gallery[:3], maker(rng, 6, 40)])
    index = compare(queries, gallery, 7, distance, np.arange(9), kernel)
    assert_identical(index.search(queries[:1], 7), ExactIndex(gallery, distance).search(queries[:1], 7))


@pytest.mark.parametrize("distance", DISTANCES)
def test_identical_at_every_dimension(distance):
    for dim in range(1, 71):
        rng = np.random.default_rng(dim)
        gallery = random(rng, 200, dim)
        compare(random(rng, 5, dim), gallery, 4, distance)
        compare(random(rng, 1, dim), gallery, 4, distance)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("k", [1, 100, 1999, 2000, 2500])
def test_identical_for_every_k(k, distance):
    rng = np.random.default_rng(k)
    compare(random(rng, 5, 24), random(rng, 2000, 24), k, distance)


@pytest.mark.parametrize("distance", DISTANCES)
def test_excluding_every_row_leaves_padding(distance):
    rng = np.random.default_rng(4)
    gallery = random(rng, 40, 6)
    everything = np.tile(np.arange(40), (3, 1))
    found = CertifiedIndex(gallery, distance).search(gallery[:3], 5, everything)
    assert (found.indices == -1).all()
    assert np.isinf(found.distances).all()
    all_but_one = np.tile(np.arange(40)[::-1], (5, 1))
    all_but_one[:, 7] = -1
    compare(gallery[:5], gallery, 3, distance, all_but_one)


@pytest.mark.parametrize("distance", DISTANCES)
def test_threads_and_batches_change_nothing(distance, monkeypatch):
    monkeypatch.setattr(certified, "_WORK_PER_THREAD", 1)  # so that small searches are shared out too
    rng = np.random.default_rng(5)
    gallery, queries = random(rng, 2500, 48), random(rng, 70, 48)
    gallery[1000:1500] = gallery[:500]
    index = CertifiedIndex(gallery, distance)
    before = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        whole = ExactIndex(gallery, distance).search(queries, 12)
        for threads in range(1, before + 1):
            numba.set_num_threads(threads)
            for size in (1, 2, 3, 9, 64, 70):
                parts = [index.search(queries[start : start + size], 12) for start in range(0, 70, size)]
                together = Ranking(*(np.concatenate(each) for each in zip(*map(tuple_of, parts), strict=True)))
                assert_identical(together, whole)
    finally:
        numba.set_num_threads(before)


def tuple_of(ranking: Ranking) -> tuple[np.ndarray, np.ndarray]:
    return ranking.indices, ranking.distances


def test_small_batches_of_queries_change_nothing(monkeypatch):
    rng = np.random.default_rng(6)
    gallery, queries = random(rng, 500, 20), random(rng, 50, 20)
    whole = CertifiedIndex(gallery).search(queries, 5)
    monkeypatch.setattr(certified, "_SCRATCH_BYTES", 1)
    assert_identical(CertifiedIndex(gallery).search(queries, 5), whole)


@pytest.mark.parametrize("distance", DISTANCES)
def test_many_candidates_are_rescored_on_the_way(distance, monkeypatch):
    monkeypatch.setattr(certified, "CAPACITY", 40)
    rng = np.random.default_rng(7)
    gallery = clustered(rng, 4000, 16)
    compare(gallery[:12], gallery, 10, distance)
    monkeypatch.setattr(certified, "rescore_budget", lambda n, k: n)
    index = compare(gallery[:12], gallery, 10, distance)
    assert index.last.doubtful == 0
    assert index.last.rescored > 40 * 12


# --- what defeats the bound ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("maker", [all_equal, huge_coordinate, denormal, clustered])
def test_what_defeats_the_bound_falls_back_and_is_right(maker, distance):
    rng = np.random.default_rng(8)
    gallery = maker(rng, 20_000, 8)
    index = CertifiedIndex(gallery, distance)
    small = index.bytes
    found = index.search(gallery[:9], 5)
    assert_identical(found, ExactIndex(gallery, distance).search(gallery[:9], 5))
    if maker in (clustered, huge_coordinate) or (distance == "cosine" and maker is denormal):
        return  # moved to the centre, or of unit length, by the time it is scanned: little is wrong with it
    assert index.last.doubtful > 0
    assert index.bytes > small  # the float32 panels
    assert index.last.queries == 9


@pytest.mark.parametrize("q", [3, 40])
def test_after_codes_told_too_little_some_searches_leave_them_out(q, monkeypatch):
    rng = np.random.default_rng(13)
    gallery = denormal(rng, 20_000, 8)
    index, asked = CertifiedIndex(gallery, "euclidean"), gallery[:q]
    expected = ExactIndex(gallery, "euclidean").search(asked, 5)
    monkeypatch.setattr(certified, "_LEFT_OUT", 3)
    scans = []
    for name in ("_scanned", "_in_two_calls"):
        scan = getattr(CertifiedIndex, name)
        monkeypatch.setattr(CertifiedIndex, name, lambda *words, scan=scan: (scans.append(1), scan(*words))[1])
    for number, tried in enumerate([1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4], 1):
        assert_identical(index.search(asked, 5), expected)
        assert index.last.queries == q
        assert len(scans) == (number if q == 3 else tried)


def test_a_single_odd_search_leaves_codes_out_of_one_search_only():
    rng = np.random.default_rng(14)
    gallery, odd = random(rng, 20_000, 8), np.zeros((12, 8), np.float32)
    index, float32 = CertifiedIndex(gallery), ExactIndex(gallery)
    for _ in range(3):
        assert_identical(index.search(odd, 5), float32.search(odd, 5))
        left_out = []
        for _ in range(3):
            left_out.append(index._left_out)
            assert_identical(index.search(gallery[:9], 5), float32.search(gallery[:9], 5))
        assert left_out == [1, 0, 0]


def test_a_zero_query_ties_with_everyone_and_falls_back():
    rng = np.random.default_rng(9)
    gallery, queries = random(rng, 20_000, 8), np.zeros((1, 8), np.float32)
    index = compare(queries, gallery, 5, "cosine")
    assert index.last.doubtful == 1
    assert index.search(queries, 5).indices.tolist() == [[0, 1, 2, 3, 4]]


def test_only_the_queries_in_need_fall_back():
    rng = np.random.default_rng(10)
    gallery, queries = random(rng, 30_000, 32), random(rng, 20, 32)
    queries[7] = 0
    index = compare(queries, gallery, 5, "inner_product")
    assert index.last.doubtful == 1
    assert index.last.rescored < 20 * rescore_budget(30_000, 5)


def test_random_vectors_need_few_rows():
    rng = np.random.default_rng(11)
    index = compare(random(rng, 16, 128), random(rng, 10_000, 128), 10, "cosine")
    assert index.last.doubtful == 0
    assert index.last.rescored < 16 * 100


# --- the bound -------------------------------------------------------------------------------------------------------


def product(query, row):
    return sum((Fraction(float(a)) * Fraction(float(b)) for a, b in zip(query, row, strict=True)), Fraction(0))


@functools.cache
def all_tiles(how, together):
    loop = widened_loops.fine_plain if how == FINE else code_loops.tile_of(how, together)
    in_tiles = how == "tiles" and together > 1
    prepare, give_back = (
        (tile_loops.shape_tiles, tile_loops.release_tiles) if in_tiles else (tile_loops.nothing, tile_loops.nothing)
    )

    @numba.njit
    def run(coded, starts, terms, codes, facts, bounds, bits):  # type: ignore[no-untyped-def]
        prepare()
        for block in range(len(coded)):
            for p in range(len(codes)):
                found = loop(coded, starts, terms, codes, facts, block, p, p + 1, bounds[block, p], bits[block, p])
                if found == p + 1:  # no candidate: neither is written
                    bounds[block, p] = np.nan
                    bits[block, p] = 0
        give_back()

    return run


def twin(how, layers):
    """The kernel of the plain loop that this way of scanning equals."""
    return FINE if how == "widened" and layers == 2 else "plain"


def tiles(queries, gallery, kernel, layers, shifts=None):
    """U of all queries and rows, in both layouts of queries: (q, n) float32, and the terms and facts used."""
    quantise_rows, _ = quantise.quantiser()
    how = FINE if kernel == FINE else inner_loop(kernel)
    panels, steps = -(-len(gallery) // quantise.ROWS), code_loops.steps_of(how, gallery.shape[1])
    codes = np.empty((panels, steps, quantise.ROWS, quantise.FOUR), np.uint8)
    facts = np.empty((panels, 4, quantise.ROWS), np.float32)
    quantise_rows(gallery, np.zeros(len(gallery), np.float32) if shifts is None else shifts, codes, facts)
    together = 1 if layers == 2 else code_loops.queries_together(how)
    coded, starts, terms = code_loops.coded_queries("widened" if how == FINE else how, queries, together, layers, steps)
    bounds = np.empty((len(coded), panels, together, quantise.ROWS), np.float32)
    bits = np.empty((len(coded), panels, together), np.uint32)
    all_tiles(how, together)(coded, starts, terms, codes, facts, bounds, bits)
    flat = bounds.transpose(0, 2, 1, 3).reshape(len(coded) * together, panels * quantise.ROWS)
    return flat[: len(queries), : len(gallery)], bits, terms, facts


@pytest.mark.parametrize(("together", "layers", "side_by_side"), [(1, 2, 1), (12, 1, 1), (32, 1, 16)])
def test_codes_begin_at_a_cache_line(together, layers, side_by_side):
    """Tiles are loaded by lines of 64 bytes."""
    rows = np.random.default_rng(0).standard_normal((40, 70), np.float32)
    _, quantise_queries = quantise.quantiser()
    codes, _, _ = quantise_queries(rows, together, layers, 32, side_by_side)
    assert codes.ctypes.data % 64 == 0
    index = CertifiedIndex(rows)
    assert (index._codes.ctypes.data % 64, index._facts.ctypes.data % 64) == (0, 0)


@pytest.mark.slow(reason="exact fractions")
@pytest.mark.parametrize(("kernel", "layers"), [("plain", 1), ("plain", 2), (FINE, 2)])
@pytest.mark.parametrize("maker", DATA, ids=lambda maker: maker.__name__)
def test_the_bound_holds(maker, kernel, layers):
    rng = np.random.default_rng(12)
    for dim in (1, 3, 17, 64):
        gallery, queries = maker(rng, 20, dim), np.concatenate([maker(rng, 3, dim), random(rng, 2, dim)])
        queries[0] = gallery[0]
        if dim > 3:  # all errors of one sign: every value half a step above its code
            gallery[1] = (np.arange(dim) % 100 + 0.5) * np.float32(0.01)
            gallery[1, 0] = 1.27
            queries[1] = gallery[1]
        upper, _, terms, *_ = tiles(queries, gallery, kernel, layers)
        limits = terms[:, quantise.LIMIT].ravel()[: len(queries)]
        for query, line, limit in zip(queries, upper, limits, strict=True):
            if limit == np.inf:
                continue  # not to be scanned
            for row, bound in zip(gallery, line, strict=True):
                if np.isfinite(bound):
                    # What the threshold allows for underflow, (dim + 64) 2^-149, is part of the bound.
                    slack = (dim + 64) * Fraction(2) ** -149
                    assert product(query, row) <= Fraction(float(bound)) + slack


@pytest.mark.parametrize(("kernel", "layers"), [("plain", 1), ("plain", 2), (FINE, 2)])
@pytest.mark.slow(reason="wide arrays")
def test_errors_of_one_sign_come_up_to_the_bound(kernel, layers):
    """The query's codes have no error; each value of the row lies 0.49 of a step from its code, where it hurts most."""
    rng = np.random.default_rng(20)
    signs = rng.choice([-1.0, 1.0], 64)
    codes = rng.integers(-100, 100, 64)
    codes[0], signs[0] = 127, 1.0  # the largest value: its code has no error
    step = np.where(np.arange(64) > 0, 0.49, 0.0)
    query = signs.astype(np.float32)[None]
    row = ((codes + step * signs) / 127).astype(np.float32)[None]
    bound = float(tiles(query, row, kernel, layers)[0][0, 0])
    exact = float(product(query[0], row[0]))
    by_codes = float((codes * signs).sum()) / 127
    assert exact <= bound
    assert exact - by_codes > 0.98 * (bound - by_codes)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.slow(reason="wide arrays")
def test_the_bound_is_not_much_wider_than_it_must_be(distance):
    rng = np.random.default_rng(13)
    gallery, queries = random(rng, 64, 256), random(rng, 8, 256)
    gallery /= np.linalg.norm(gallery, axis=1, keepdims=True)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    exact = queries.astype(np.float64) @ gallery.T.astype(np.float64)
    ways = ("plain", 1), ("plain", 2), (FINE, 2)
    one, two, fine = (tiles(queries, gallery, kernel, layers)[0] - exact for kernel, layers in ways)
    assert 0 < one.min() < one.max() < 0.03
    assert two.max() < 0.6 * one.max()
    assert fine.max() < 1.001 * two.max()


@pytest.mark.slow(reason="exact fractions of a wide grid of shapes and distances")
@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("maker", DATA, ids=lambda maker: maker.__name__)
def test_no_distance_exceeds_what_a_lower_bound_says_and_no_row_below_a_limit_reaches_it(maker, distance):
    rng, dim = np.random.default_rng(14), 19
    gallery, queries = maker(rng, 60, dim), maker(rng, 8, dim)
    queries[0] = gallery[0]
    kind, centre = KINDS[distance], find_centre(distance, gallery)
    length = float(np.sqrt((centre**2).sum()))
    some, given, _, facts = points(distance, gallery, centre, queries=False)
    asked, squares, _, about = points(distance, queries, centre, queries=True)
    shifts = np.empty(len(some), np.float32)
    bounds.compiled_shifts()(kind, facts, given, dim, length, shifts)
    upper, _, terms, panel_facts = tiles(asked, some, "plain", 1, shifts)
    for i, query in enumerate(queries.astype(float)):
        if distance != "euclidean" and squares[i] == 0:
            continue
        exact = distances_to_all(query, gallery.astype(float), distance)
        for row in range(len(gallery)):
            fact = panel_facts[row // 32, :, row % 32].astype(np.float64)
            term = terms[0, :, i].astype(np.float64)
            if not (np.isfinite(upper[i, row]) and np.isfinite(fact).all() and term[quantise.LIMIT] < 0):
                continue
            margin = term[quantise.PER_LENGTH] * fact[quantise.LENGTH] + term[quantise.PER_ERROR] * fact[quantise.ERROR]
            low = quantise.lower_bound.py_func(upper[i, row], margin, np.float32(fact[quantise.SHIFT]), dim)
            if distance == "inner_product":
                low -= 2 * fact[quantise.SHIFT]
            assert exact[row] <= bounds.distance_limit.py_func(kind, low, about[i], dim, length)
            for reached in exact[::7]:
                if upper[i, row] < bounds.score_limit.py_func(kind, reached, about[i], dim, length, 0.0):
                    assert exact[row] > reached


# --- the inner loops -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", [kernel for kernel in kernels_here() if inner_loop(kernel) != "plain"])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("dim", [1, 3, 4, 5, 8, 63, 64, 65, 300])
@pytest.mark.slow(reason="compiles every block size")
def test_emitted_loops_equal_the_plain_one(dim, layers, kernel):
    rng = np.random.default_rng(15)
    gallery, queries = random(rng, 70, dim), random(rng, 11, dim)
    gallery[3:9] = [[0.0], [1e-40], [1e30], [1.0], [-1.0], [127.0]]
    queries[2:4] = [[0.0], [1.0]]
    emitted, bits, *_ = tiles(queries, gallery, kernel, layers)
    plain, plain_bits, *_ = tiles(queries, gallery, twin(inner_loop(kernel), layers), layers)
    assert_array_equal(emitted.view(np.uint32), plain.view(np.uint32))
    assert_array_equal(by_query(bits, len(queries)), by_query(plain_bits, len(queries)))


@pytest.mark.parametrize("dim", [1, 63, 64, 65, 300])
@pytest.mark.slow(reason="compiles a loop that few processors can run")
def test_the_loop_in_tiles_equals_the_plain_one_wherever_it_is_tested(dim, monkeypatch):
    """Functions that do what the manual says of each instruction stand in its place, so that every processor can."""
    rng = np.random.default_rng(16)
    gallery, queries = random(rng, 70, dim), random(rng, 41, dim)
    gallery[3:9] = [[0.0], [1e-40], [1e30], [1.0], [-1.0], [127.0]]
    plain, plain_bits, *_ = tiles(queries, gallery, "plain", 1)
    monkeypatch.setattr(tile_loops, "_do", tiles_in_words.do)
    monkeypatch.setitem(globals(), "inner_loop", lambda kernel: "tiles")
    monkeypatch.setitem(globals(), "all_tiles", all_tiles.__wrapped__)
    tiles_in_words.TILES[:] = 0
    emitted, bits, *_ = tiles(queries, gallery, "avx512", 1)
    assert tiles_in_words.TILES.any()
    assert_array_equal(emitted.view(np.uint32), plain.view(np.uint32))
    assert_array_equal(by_query(bits, len(queries)), by_query(plain_bits, len(queries)))


@pytest.mark.skipif("avx2" not in emit.cpu_features(), reason="a processor without AVX2 has no such instructions")
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("dim", [1, 3, 4, 5, 64, 65, 300])
@pytest.mark.slow(reason="compiles a loop that processors with VNNI do not choose")
def test_the_loop_for_avx2_equals_the_plain_one_also_where_another_is_chosen(dim, layers, monkeypatch):
    rng = np.random.default_rng(17)
    gallery, queries = random(rng, 70, dim), random(rng, 11, dim)
    gallery[3:9] = [[0.0], [1e-40], [1e30], [1.0], [-1.0], [127.0]]
    queries[2:4] = [[0.0], [1.0]]
    plain, plain_bits, *_ = tiles(queries, gallery, twin("widened", layers), layers)
    monkeypatch.setitem(globals(), "inner_loop", lambda kernel: "widened")
    emitted, bits, *_ = tiles(queries, gallery, "avx2", layers)
    assert_array_equal(emitted.view(np.uint32), plain.view(np.uint32))
    assert_array_equal(by_query(bits, len(queries)), by_query(plain_bits, len(queries)))


def test_tiles_can_be_declined(monkeypatch):
    monkeypatch.setattr(tile_loops, "_given", lambda: True)
    monkeypatch.setattr(certified.emit, "cpu_features", lambda: frozenset(("avx512vnni", "amx-int8", "amx-tile")))
    assert inner_loop("avx512") == "tiles"
    monkeypatch.setenv("RETRIEVAL_BENCH_TILES", "off")
    assert inner_loop("avx512") == "vnni512"
    monkeypatch.delenv("RETRIEVAL_BENCH_TILES")
    monkeypatch.setattr(tile_loops, "_given", lambda: False)  # the system refuses
    assert inner_loop("avx512") == "vnni512"


def by_query(bits, q):
    """(blocks, panels, together) -> (panels, q); blocks of different loops differ in their size."""
    return bits.transpose(1, 0, 2).reshape(bits.shape[1], -1)[:, :q]


def test_the_plain_loop_can_be_forced(monkeypatch):
    rng = np.random.default_rng(21)
    gallery = random(rng, 300, 33)
    by_default = CertifiedIndex(gallery)
    monkeypatch.setenv("RETRIEVAL_BENCH_KERNEL", "plain")
    forced = CertifiedIndex(gallery)
    assert forced.inner_loop == "plain"
    assert_identical(forced.search(gallery[:9], 4), by_default.search(gallery[:9], 4))


@pytest.mark.slow(reason="wide arrays")
def test_integer_sums_do_not_overflow_at_the_largest_dimension():
    dim = quantise.MOST_DIM
    gallery = np.ones((2, dim), np.float32)
    gallery[1] = -1
    for layers in (1, 2):
        upper, *_ = tiles(gallery[:1], gallery, kernels_here()[-1], layers)
        assert upper[0, 0] == pytest.approx(dim, rel=0.1)
        assert upper[0, 1] == pytest.approx(-dim, rel=0.1)
    compare(gallery[:1], gallery, 2, "cosine")


# --- the door --------------------------------------------------------------------------------------------------------


def test_arguments_are_checked_as_by_exact_index():
    rows = np.ones((3, 4), np.float32)
    with pytest.raises(BenchError, match="hamming"):
        CertifiedIndex(np.zeros((2, 4), np.uint8), "hamming")
    with pytest.raises(BenchError, match="columns"):
        CertifiedIndex(np.empty((0, quantise.MOST_DIM + 1), np.float32))
    with pytest.raises(BenchError, match="gallery row 1 holds NaN"):
        CertifiedIndex(np.array([[0.0], [np.nan]]))
    with pytest.raises(BenchError, match="columns"):
        CertifiedIndex(rows).search(np.ones((1, 3), np.float32), 1)
    with pytest.raises(BenchError, match="k is 0"):
        CertifiedIndex(rows).search(rows, 0)
    with pytest.raises(BenchError, match="exclude"):
        CertifiedIndex(rows).search(rows, 1, np.array([3, 3, 3]))
    with pytest.raises(BenchError, match="overflow"):
        CertifiedIndex(rows * 1e25, "inner_product").search(rows * 1e25, 1)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int32, ">f4"])
def test_every_dtype_and_layout(dtype, distance):
    rng = np.random.default_rng(16)
    wide = (rng.standard_normal((300, 40)) * 50).astype(dtype)
    gallery = wide[::-1, ::2]
    gallery.flags.writeable = False
    before = gallery.copy()
    compare(gallery[:4], gallery, 5, distance)
    assert_array_equal(gallery, before)


@pytest.mark.parametrize("distance", DISTANCES)
def test_read_only_maps_are_not_copied(tmp_path, distance):
    rng = np.random.default_rng(17)
    rows = random(rng, 500, 30)
    np.save(tmp_path / "rows.npy", rows)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    index = compare(rows[:5], mapped, 6, distance)
    assert np.shares_memory(index._rows.values, mapped)


def test_later_writes_to_the_gallery_change_nothing():
    rng = np.random.default_rng(18)
    gallery = random(rng, 400, 12)
    index = CertifiedIndex(gallery, "inner_product")
    expected = index.search(gallery[:3], 5)
    queries = gallery[:3].copy()
    gallery[:] = 0
    assert_identical(index.search(queries, 5), expected)


def test_length_dimension_and_bytes():
    index = CertifiedIndex(np.ones((33, 5), np.float32), "inner_product")
    assert (len(index), index.dim) == (33, 5)
    steps = code_loops.steps_of(index.inner_loop, 5)
    assert index.bytes == 2 * (steps * 32 * 4) + 2 * (4 * 32 * 4) + 33 * 5 * 4
    assert set(DISTANCES) <= set(KINDS)


def test_codes_are_chosen_where_the_gallery_is_large_compared_with_k():
    for q, n, dim in (
        (1, 100_000, 512),
        (1, 20_000, 2048),
        (1, 1_000_000, 128),
        (1000, 50_000, 512),
        (2485, 2640, 512),
    ):
        assert choose(q, n, dim, 10, "vnni512") == "int8"
        assert choose(q, n, dim, 10, "widened") == ("float32" if n < 20_000 else "int8")
        assert choose(q, n, dim, 10, "plain") == "float32"
    for way in ("tiles", "vnni256", "widened", "plain"):
        for q, n, dim, k in ((200, 1000, 128, 100), (200, 20_000, 64, 1000), (5, 100, 10, 1)):
            assert choose(q, n, dim, k, way) == "float32"
        assert choose(1, 10**6, quantise.MOST_DIM + 1, 1, way) == "float32"


def test_scratch_is_kept_and_never_shared():
    rng = np.random.default_rng(19)
    gallery, queries = random(rng, 3000, 32), random(rng, 40, 32)
    index = CertifiedIndex(gallery)
    expected = [index.search(queries, k) for k in (3, 50, 3)]
    assert len(index._idle) <= numba.get_num_threads() + 1
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda k: index.search(queries, k), [3, 50, 3] * 8))
    for ranking, other in zip(found, expected * 8, strict=True):
        assert_identical(ranking, other)
