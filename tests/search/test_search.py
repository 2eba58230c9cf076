"""Exact search against its NumPy twin, FAISS and scikit-learn, on inputs full of ties, zeros and edges."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import retrieval_bench
from retrieval_bench.core import DISTANCES, BenchError, Ranking
from retrieval_bench.registry import BACKENDS
from retrieval_bench.search import certified, emit, index, kernels, packed, scans, second_look, settling
from retrieval_bench.search import threads as search_threads
from retrieval_bench.search.checks import check_radius, room_for
from retrieval_bench.search.index import ExactIndex, topk, warm_up
from retrieval_bench.search.reference import NumpyIndex
from retrieval_bench.search.scans import Within
from retrieval_bench.search.strip_scan import strips_for
from tests.support.searches import assert_equal, tied_searches

VECTOR_DISTANCES = ("cosine", "euclidean", "inner_product")


def assert_nearest(found: Ranking, all_distances: np.ndarray, tolerance: float) -> None:
    """Right up to float32 rounding: all_distances is (q, n) float64; rows nearer than rounding may change places."""
    k = found.indices.shape[1]
    for indices, distances, truth in zip(found.indices, found.distances, all_distances, strict=True):
        assert len(np.unique(indices)) == k
        np.testing.assert_allclose(distances, truth[indices], atol=tolerance)
        np.testing.assert_allclose(distances, np.sort(truth)[:k], atol=tolerance)
        assert (np.diff(distances) >= 0).all()


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(tied_searches())
def test_ties_everywhere_equal_the_twin_exactly(search):
    distance, queries, gallery, k, exclude = search
    expected = NumpyIndex(gallery, distance)(queries, k, exclude)
    assert_equal(topk(queries, gallery, k, distance, exclude), expected)


@pytest.mark.parametrize("distance", VECTOR_DISTANCES)
@pytest.mark.parametrize(("q", "n", "dim", "k"), [(7, 900, 130, 20), (3, 300, 1, 300), (20, 600, 257, 599)])
def test_real_values_equal_the_twin(distance, q, n, dim, k):
    rng = np.random.default_rng(3)
    gallery, queries = rng.standard_normal((n, dim)), rng.standard_normal((q, dim))
    gallery[n // 2] = 0
    assert_equal(topk(queries, gallery, k, distance), NumpyIndex(gallery, distance)(queries, k))


def test_agrees_with_faiss():
    faiss = pytest.importorskip("faiss", reason='needs pip install "retrieval-bench[ann]"')
    rng = np.random.default_rng(0)
    gallery, queries = rng.standard_normal((1500, 48), np.float32), rng.standard_normal((40, 48), np.float32)
    for flat, distance in ((faiss.IndexFlatIP(48), "inner_product"), (faiss.IndexFlatL2(48), "euclidean")):
        flat.add(gallery)
        theirs, indices = flat.search(queries, 1500)
        theirs = -theirs if distance == "inner_product" else np.sqrt(theirs)
        truth = np.empty((40, 1500))
        np.put_along_axis(truth, indices, theirs.astype(np.float64), axis=1)
        assert_nearest(topk(queries, gallery, 10, distance), truth, tolerance=2e-5)
    codes, asked = rng.integers(0, 256, (1500, 8), dtype=np.uint8), rng.integers(0, 256, (40, 8), dtype=np.uint8)
    binary = faiss.IndexBinaryFlat(64)
    binary.add(codes)
    theirs, indices = binary.search(asked, 1500)
    truth = np.empty((40, 1500))
    np.put_along_axis(truth, indices, theirs.astype(np.float64), axis=1)
    assert_nearest(topk(asked, codes, 25, "hamming"), truth, tolerance=0)


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_agrees_with_scikit_learn(distance):
    from sklearn import metrics

    rng = np.random.default_rng(1)
    gallery, queries = rng.standard_normal((700, 33)), rng.standard_normal((21, 33))
    gallery[5] = 0
    truth = metrics.pairwise_distances(queries, gallery, metric=distance)
    assert_nearest(topk(queries, gallery, 50, distance), truth, tolerance=2e-6)


@pytest.mark.slow(reason="a wide grid of threads and batches")
@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("k", [1, 10, 900])
def test_same_bits_for_every_thread_count_and_batch(monkeypatch, distance, k):
    rng = np.random.default_rng(5)
    gallery, queries = rng.standard_normal((2000, 37), np.float32), rng.standard_normal((35, 37), np.float32)
    gallery[900:1800] = gallery[:900]
    if distance == "hamming":
        gallery, queries = (np.packbits(array > 0, axis=1) for array in (gallery, queries))
    exclude = rng.integers(-1, 2000, (35, 2))
    searcher = ExactIndex(gallery, distance)
    expected = searcher.search(queries, k, exclude)  # in one call, but for the longest lists
    monkeypatch.setattr(index, "_SMALL", 0)
    monkeypatch.setattr(packed, "_WORK_PER_THREAD", 1)
    for threads in (1, 2, 3, 7, 64):
        monkeypatch.setattr(numba, "get_num_threads", lambda threads=threads: threads)
        assert_equal(searcher.search(queries, k, exclude), expected)
    for size in (1, 2, 17):
        parts = [searcher.search(queries[i : i + size], k, exclude[i : i + size]) for i in range(0, 35, size)]
        together = Ranking(*(np.concatenate([getattr(p, f) for p in parts]) for f in ("indices", "distances")))
        assert_equal(together, expected)
    monkeypatch.setattr(packed, "_SCRATCH_BYTES", 1)  # one query after the other
    assert_equal(searcher.search(queries, k, exclude), expected)
    monkeypatch.setattr(packed, "_ROWS_AT_ONCE", kernels.PANEL)  # the gallery panel by panel
    assert_equal(ExactIndex(gallery, distance).search(queries, k, exclude), expected)


def test_numba_thread_count_is_respected_and_left_alone(monkeypatch):
    monkeypatch.setattr(packed, "_WORK_PER_THREAD", 1)
    monkeypatch.setattr(index, "_SMALL", 0)
    started = []
    pool = search_threads._pool

    def watched(process, workers):
        started.append(workers)
        return pool(process, workers)

    monkeypatch.setattr(search_threads, "_pool", watched)
    gallery = np.random.default_rng(0).standard_normal((2000, 8), np.float32)
    before = numba.get_num_threads()
    try:
        for threads in {1, numba.config.NUMBA_NUM_THREADS}:
            numba.set_num_threads(threads)
            started.clear()
            topk(gallery[:2], gallery, 3)
            assert started == ([threads - 1] if threads > 1 else [])
            assert numba.get_num_threads() == threads
    finally:
        numba.set_num_threads(before)


def test_two_python_threads_may_search_one_index(monkeypatch):
    monkeypatch.setattr(index, "_SMALL", 0)
    monkeypatch.setattr(packed, "_WORK_PER_THREAD", 1)
    rng = np.random.default_rng(0)
    searcher = ExactIndex(rng.standard_normal((3000, 16), np.float32))
    queries = rng.standard_normal((8, 50, 16), np.float32)
    expected = [searcher.search(part, 9) for part in queries]
    with ThreadPoolExecutor(4) as pool:
        for found, right in zip(pool.map(lambda part: searcher.search(part, 9), queries), expected, strict=True):
            assert_equal(found, right)


def test_order_of_arrival_does_not_matter():
    """Nearest last: each newcomer beats the limit, so the room for candidates is cleared out again and again."""
    gallery = np.arange(5000, 0, -1, dtype=np.float32)[:, None]
    for k in (1, 7, 1000, 5000):
        for rows in (gallery, gallery[::-1]):
            found = topk(np.zeros((1, 1)), rows, k, "euclidean")
            assert_array_equal(found.distances[0], np.arange(1, k + 1, dtype=np.float32))
            assert_array_equal(rows[found.indices[0], 0], found.distances[0])


def test_all_equal_gallery_ranks_by_row():
    for distance in DISTANCES:
        gallery = np.full((1000, 5), 7, np.uint8 if distance == "hamming" else np.float32)
        found = topk(gallery[:3], gallery, 300, distance)
        assert_array_equal(found.indices, np.tile(np.arange(300), (3, 1)))


def test_zero_vectors_have_cosine_distance_one():
    vectors = np.array([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    found = topk(vectors, vectors, 3, "cosine")
    assert_array_equal(found.indices, [[0, 1, 2], [1, 0, 2], [2, 0, 1]])
    assert_array_equal(found.distances, [[1, 1, 1], [0, 1, 2], [0, 1, 2]])


def test_cosine_of_itself_is_zero():
    vectors = np.random.default_rng(0).standard_normal((500, 67))
    found = topk(vectors, vectors, 1)
    assert_array_equal(found.indices[:, 0], np.arange(500))
    assert_array_equal(found.distances, np.zeros((500, 1)))


def test_cosine_of_huge_and_tiny_lengths():
    vectors = np.array([[3e38, 3e38], [1e-40, 0.0], [0.0, 2e-42]], np.float32)
    found = topk(vectors, vectors, 3, "cosine")
    assert_array_equal(found.indices[:, 0], [0, 1, 2])
    np.testing.assert_allclose(found.distances[1], [0, 1 - np.sqrt(0.5), 1], atol=1e-6)


def test_inner_product_of_zero_ties_with_zero():
    """-0.0 and +0.0 are one distance: the lower row comes first whatever the signs."""
    found = topk([[1.0, -1.0]], [[0.0, 0.0], [1.0, 1.0], [-0.0, 0.0], [-1.0, -1.0]], 4, "inner_product")
    assert_array_equal(found.indices, [[0, 1, 2, 3]])
    assert not np.signbit(found.distances).any()


def test_near_duplicates_of_large_norm_keep_their_order():
    """|q|^2 + |x|^2 - 2qx in float32 would return noise here."""
    rng = np.random.default_rng(0)
    query = rng.standard_normal((1, 256)) * 1000
    order = rng.permutation(400)
    gallery = query + rng.standard_normal((1, 256)) * 0.1 * (1 + order[:, None])
    found = topk(query, gallery, 400, "euclidean")
    assert_array_equal(order[found.indices[0]], np.arange(400))


def test_excluded_rows_are_never_found():
    gallery = np.random.default_rng(0).standard_normal((300, 8), np.float32)
    everyone = topk(gallery, gallery, 300)
    others = topk(gallery, gallery, 300, exclude=np.arange(300))
    assert_array_equal(others.indices[:, -1], np.full(300, -1))
    assert np.isinf(others.distances[:, -1]).all()
    for query in range(300):
        left = everyone.indices[query][everyone.indices[query] != query]
        assert_array_equal(others.indices[query, :-1], left)


def test_excluding_all_rows_leaves_padding():
    found = topk(np.ones((2, 3)), np.ones((4, 3)), 2, exclude=np.tile(np.arange(4), (2, 1)))
    assert_array_equal(found.indices, np.full((2, 2), -1))


@pytest.mark.parametrize("scan", ["float32", "int8"])
@pytest.mark.parametrize("distance", DISTANCES)
def test_every_place_of_a_result_is_written(monkeypatch, distance, scan):
    """A search is given places that hold anything, and may leave none of them as it is."""

    def junk(q, k, n, *, unset=0):
        ranking = room_for(q, k, n)
        ranking.indices[:, :unset], ranking.distances[:, :unset] = 7_777, np.nan
        return ranking

    for module in (index, certified):
        monkeypatch.setattr(module, "room_for", junk)
    rng = np.random.default_rng(5)
    rows = rng.integers(0, 3, (60, 8)).astype(np.uint8)
    gallery = rows if distance == "hamming" else rows.astype(np.float32)
    for n in (0, 1, 60):
        engine = ExactIndex(gallery[:n], distance, scan="float32" if distance == "hamming" else scan)
        for q in (0, 1, 5, 60):
            hidden = np.tile(np.arange(2, max(n, 2)), (q, 1)) if n else None
            for k in (1, 7, 80):
                for exclude in (None, hidden):
                    expected = NumpyIndex(gallery[:n], distance)(gallery[:q], k, exclude)
                    assert_equal(engine.search(gallery[:q], k, exclude), expected)


@pytest.mark.parametrize("backend", [entry.name for entry in BACKENDS.own() if entry.facts.get("exact")])
def test_empty_sides(backend):
    for distance in DISTANCES:
        rows = np.ones((3, 4), np.uint8)
        search = BACKENDS[backend].build(rows, distance)
        assert search(rows[:0], 2).indices.shape == (0, 2)
        found = BACKENDS[backend].build(rows[:0], distance)(rows, 2)
        assert_array_equal(found.indices, np.full((3, 2), -1))
        assert_array_equal(found.distances, np.full((3, 2), np.inf))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8, np.uint8, np.int64])
def test_dense_dtypes(dtype):
    rows = np.random.default_rng(0).integers(0, 5, (40, 6)).astype(dtype)
    for distance in VECTOR_DISTANCES:
        assert_equal(topk(rows, rows, 7, distance), topk(rows.astype(np.float32), rows.astype(np.float32), 7, distance))


def test_arguments_of_any_layout_are_read_and_not_written(tmp_path):
    rng = np.random.default_rng(0)
    plain = rng.standard_normal((600, 20), np.float32)
    expected = topk(plain[:5], plain, 4)
    strided = np.zeros((1200, 40), np.float32)[::2, ::2]
    strided[:] = plain
    np.save(tmp_path / "gallery.npy", plain)
    shifted = np.frombuffer(b"\0" + plain.tobytes(), np.float32, offset=1).reshape(plain.shape)
    on_disk = np.load(tmp_path / "gallery.npy", "r")
    for gallery in (strided, np.asfortranarray(plain), plain.astype(">f4"), on_disk, shifted):
        before = gallery.copy()
        gallery.flags.writeable = False
        assert_equal(topk(gallery[:5], gallery, 4), expected)
        assert_array_equal(gallery, before)


def test_a_gallery_that_can_be_written_to_may_change_later():
    rng = np.random.default_rng(11)
    for distance in DISTANCES:
        rows = rng.integers(0, 256, (500, 16), dtype=np.uint8)
        gallery = rows.copy() if distance == "hamming" else rows.astype(np.float32)
        searcher, queries = ExactIndex(gallery, distance), gallery[:20].copy()
        expected = searcher.search(queries, 7)
        gallery[:] = 1
        assert_equal(searcher.search(queries, 7), expected)


@pytest.mark.parametrize("backend", [entry.name for entry in BACKENDS.own() if entry.facts.get("exact")])
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"gallery": np.ones(3)}, r"gallery has shape \(3,\).*gallery\[None\]"),
        ({"queries": [[1, 2, 3], [1]]}, "queries has rows of different lengths"),
        ({"gallery": [[1, 2, 3], [1]]}, "gallery has rows of different lengths"),
        ({"k": 10**12}, "nearest of each of 2 queries do not fit into memory; the gallery has 5 rows"),
        ({"k": 10**19}, "do not fit into memory"),
        ({"gallery": np.ones((2, 3, 4))}, r"gallery has shape \(2, 3, 4\)"),
        ({"queries": np.ones((2, 4))}, "queries has 4 columns but the gallery has 3"),
        ({"gallery": np.ones((2, 0)), "queries": np.ones((2, 0))}, "at least one column"),
        ({"gallery": np.ones((2, 3), complex)}, "gallery is complex128"),
        ({"gallery": np.ones((2, 3), bool)}, "gallery is bool"),
        ({"queries": np.full((2, 3), "x")}, "queries is <U1"),
        ({"gallery": np.ones((2, 3)), "distance": "hamming"}, "gallery is float64; hamming takes packed uint8"),
        ({"distance": "cosin"}, "did you mean 'cosine'"),
        ({"k": 0}, "k is 0"),
        ({"k": 2.0}, r"k is 2\.0"),
        ({"k": True}, "k is True"),
        ({"gallery": np.array([[0, 0, 0], [0, np.nan, 0]])}, "gallery row 1 holds NaN"),
        ({"queries": np.array([[0, 0, 0], [0, -np.inf, 0]])}, "queries row 1 holds NaN, inf"),
        ({"queries": np.full((1, 3), 1e300)}, "queries row 0 .*float32 cannot hold"),
        ({"distance": None}, "unknown distance None; known are cosine, euclidean, hamming, inner_product"),
        ({"distance": ["cosine"]}, r"unknown distance \['cosine'\]; known are"),
        ({"exclude": [[1], [2, 3]]}, "exclude has rows of different lengths; pad the short ones with -1"),
        ({"exclude": [[], [], []]}, r"exclude has shape \(3, 0\)"),
        ({"exclude": np.zeros(2)}, "exclude is float64"),
        ({"exclude": np.zeros(1, int)}, r"exclude has shape \(1,\)"),
        ({"exclude": np.array([0, 5])}, "exclude names row 5 for query 1; the gallery has 5 rows"),
        ({"exclude": np.array([[0], [-2]])}, "exclude names row -2 for query 1"),
        ({"distance": "euclidean", "queries": np.full((2, 3), 1e19)}, "overflow float32 under euclidean"),
        ({"distance": "inner_product", "gallery": np.full((5, 3), 3e38)}, "overflow float32 under inner_product"),
    ],
)
def test_refused_at_the_door(backend, change, sentence):
    given = {"queries": np.ones((2, 3)), "gallery": np.ones((5, 3)), "k": 1, "distance": "cosine", "exclude": None}
    given |= change
    with pytest.raises(BenchError, match=sentence):
        BACKENDS[backend].build(given["gallery"], given["distance"])(given["queries"], given["k"], given["exclude"])


@pytest.mark.parametrize("backend", [entry.name for entry in BACKENDS.own() if entry.facts.get("exact")])
def test_arrays_of_torch_that_numpy_cannot_read_are_refused(backend):
    rows, build = np.ones((3, 4), np.float32), BACKENDS[backend].build
    for odd, why in ((torch.ones(3, 4, dtype=torch.bfloat16), "BFloat16"), (torch.ones(3, 4).requires_grad_(), "grad")):
        with pytest.raises(BenchError, match=f"queries is a Tensor that NumPy cannot read .*{why}.*; give an array"):
            build(rows)(odd, 2)
        with pytest.raises(BenchError, match="gallery is a Tensor that NumPy cannot read"):
            build(odd)
    with pytest.raises(BenchError, match="gallery is a masked array, whose hidden values would be read"):
        build(np.ma.masked_array(rows, rows > 2))
    assert_equal(build(rows)(torch.ones(3, 4), 2), build(rows)(rows, 2))


@pytest.mark.parametrize("backend", [entry.name for entry in BACKENDS.own() if entry.facts.get("exact")])
def test_empty_lists_are_no_queries_and_nothing_excluded(backend):
    for distance in DISTANCES:
        rows = np.ones((3, 4), np.uint8)
        search = BACKENDS[backend].build(rows, distance)
        for queries in ([], rows[:0]):
            assert search(queries, 2, []).indices.shape == (0, 2)
        assert_equal(search(rows, 2, [[], [], []]), search(rows, 2))


@pytest.mark.parametrize("backend", [entry.name for entry in BACKENDS.own() if entry.facts.get("exact")])
@pytest.mark.parametrize("distance", VECTOR_DISTANCES)
def test_values_beyond_float32_are_refused_without_a_warning(backend, distance):
    """Here every warning is an error."""
    rows = np.random.default_rng(0).random((9, 4))
    for value in (np.inf, -np.inf, np.nan, 1e308, 1e200, 4e38):
        odd = rows.copy()
        odd[3, 2] = value
        for wrong in (odd,) if np.isfinite(value) else (odd, odd.astype(np.float32)):
            with pytest.raises(BenchError, match="gallery row 3 holds NaN, inf or a value that float32 cannot hold"):
                BACKENDS[backend].build(wrong, distance)(rows, 1)
            with pytest.raises(BenchError, match="queries row 3 holds NaN, inf or a value that float32 cannot hold"):
                BACKENDS[backend].build(rows, distance)(wrong, 1)


@pytest.mark.parametrize("backend", [entry.name for entry in BACKENDS.own() if entry.facts.get("exact")])
@pytest.mark.parametrize("distance", DISTANCES)
def test_a_single_query_may_have_one_dimension(backend, distance):
    rows = np.random.default_rng(0).integers(0, 256, (30, 4), dtype=np.uint8)
    rows = rows if distance == "hamming" else rows.astype(np.float32)
    search = BACKENDS[backend].build(rows, distance)
    assert_equal(search(rows[3], 5), search(rows[3:4], 5))
    searcher = ExactIndex(rows, distance)
    for one, other in zip(searcher.search_radius(rows[3], 3.0), searcher.search_radius(rows[3:4], 3.0), strict=True):
        assert_array_equal(one, other)


@pytest.mark.parametrize("scan", ["float32", "int8"])
def test_an_index_can_be_copied_and_sent_to_another_process(scan):
    rows = np.random.default_rng(0).standard_normal((300, 12), np.float32)
    searcher = ExactIndex(rows, scan=scan)
    expected = searcher.search(rows[:20], 4)
    for other in (copy.copy(searcher), copy.deepcopy(searcher), pickle.loads(pickle.dumps(searcher))):
        assert_equal(other.search(rows[:20], 4), expected)
        assert_equal(other.search(rows[:20].astype(float), 4), expected)


@pytest.mark.parametrize("threads", [0, -1, True, 1.5, "two"])
def test_threads_refused_at_the_door(threads):
    searcher = ExactIndex(np.ones((2, 2)))
    for search in (
        lambda: searcher.search(np.ones((1, 2)), 1, threads=threads),
        lambda: searcher.search_radius(np.ones((1, 2)), 1.0, threads=threads),
        lambda: topk(np.ones((1, 2)), np.ones((1, 2)), 1, threads=threads),
        lambda: ExactIndex(np.ones((2, 2)), scan="int8").search(np.ones((1, 2)), 1, threads=threads),
    ):
        with pytest.raises(BenchError, match="threads is"):
            search()


@pytest.mark.parametrize("scan", ["float32", "int8"])
def test_no_more_threads_than_asked_for(monkeypatch, scan):
    monkeypatch.setattr(packed, "_WORK_PER_THREAD", 1)
    monkeypatch.setattr(index, "_SMALL", 0)
    monkeypatch.setattr(certified, "_WORK_PER_THREAD", 1)
    monkeypatch.setattr(settling, "_WORK_PER_THREAD", 1)
    monkeypatch.setattr(numba, "get_num_threads", lambda: 3)
    asked, pool = [], search_threads._pool

    monkeypatch.setattr(
        search_threads, "_pool", lambda process, workers: asked.append(workers + 1) or pool(process, workers)
    )
    rows = np.random.default_rng(0).standard_normal((3000, 8), np.float32)
    searcher = ExactIndex(rows, scan=scan)
    expected = searcher.search(rows[:300], 4)
    assert max(asked) == 3
    for threads in (1, 2):
        asked.clear()
        assert_equal(searcher.search(rows[:300], 4, threads=threads), expected)
        searcher.search(rows[:2], 4, threads=threads)
        searcher.search_radius(rows[:3], 0.1, threads=threads)
        assert max(asked, default=1) <= threads


def test_bad_row_is_named_beyond_the_first_block(monkeypatch):
    monkeypatch.setattr(packed, "_ROWS_AT_ONCE", kernels.PANEL)
    gallery = np.ones((1000, 2))
    gallery[777, 1] = np.nan
    with pytest.raises(BenchError, match="gallery row 777 "):
        ExactIndex(gallery)


def test_sizes_of_an_index():
    searcher = ExactIndex(np.ones((257, 10)))
    assert (len(searcher), searcher.dim) == (257, 10)
    panels = 9 * kernels.PANEL * (10 + 1) * 4  # nine panels, and what the sum of each row starts from, float32
    assert searcher.bytes == panels + 257 * (10 + 2) * 8  # and the rows, with two figures each for cosine
    single = np.ones((257, 10), np.float32)
    assert ExactIndex(single, "euclidean").bytes == panels + 257 * 10 * 4
    assert ExactIndex(np.ones((257, 9), np.uint8), "hamming").bytes == 9 * kernels.PANEL * 2 * 8
    assert searcher.build_seconds > 0


def test_public_names_and_warm_up():
    assert retrieval_bench.topk is topk
    assert retrieval_bench.ExactIndex is ExactIndex
    for distance in DISTANCES:
        warm_up(distance)


def test_every_batch_shape_shares_out_the_same_answer(monkeypatch):
    """Few queries share out the gallery, many are shared out themselves."""
    rng = np.random.default_rng(6)
    gallery, queries = rng.integers(-3, 4, (3000, 6)).astype(np.float32), rng.integers(-3, 4, (400, 6))
    monkeypatch.setattr(index, "_SMALL", 0)
    monkeypatch.setattr(packed, "_WORK_PER_THREAD", 1)
    for distance in VECTOR_DISTANCES:
        searcher = ExactIndex(gallery, distance)
        monkeypatch.setattr(numba, "get_num_threads", lambda: 1)
        expected = searcher.search(queries, 11)
        monkeypatch.setattr(numba, "get_num_threads", lambda: 3)
        for least in (1, 10_000):
            monkeypatch.setattr(packed, "_BLOCKS_PER_THREAD", least)
            assert_equal(searcher.search(queries, 11), expected)


@pytest.mark.parametrize(("q", "k"), [(7, 40), (8, 5), (10, 5), (17, 120), (290, 12)])
def test_long_rows_that_are_compared_strip_by_strip(monkeypatch, tmp_path, q, k):
    """16 rows, 200 dimensions at a time; of 290 queries, not all visit them before the next are fetched."""
    rng = np.random.default_rng(q)
    gallery, queries = rng.standard_normal((2100, 600), np.float32), rng.standard_normal((q, 600), np.float32)
    gallery[200:300] = gallery[:100]
    nearest = np.argsort(-queries @ gallery.T, axis=1)
    exclude = np.where(np.arange(60) < q // 5, nearest[:, :60], -1)
    expected = NumpyIndex(gallery, "inner_product")(queries, k, exclude)
    searcher = ExactIndex(gallery, "inner_product", kernel="avx2")
    assert strips_for(emit.KERNELS["avx2"], q, k + 10, *gallery.shape)
    assert_equal(searcher.search(queries, k, exclude), expected)
    monkeypatch.setattr(index, "_SMALL", 0)
    monkeypatch.setattr(packed, "_WORK_PER_THREAD", 1)
    for least in (1, 10_000):  # threads share out queries, or rows
        monkeypatch.setattr(packed, "_BLOCKS_PER_THREAD", least)
        assert_equal(searcher.search(queries, k, exclude, threads=3), expected)
    monkeypatch.setattr(packed, "_ROWS_AT_ONCE", 96)
    monkeypatch.setattr(packed, "_FILE_BYTES", 1)  # 22 pieces
    np.save(tmp_path / "gallery.npy", gallery)
    on_disk = ExactIndex.from_npy(tmp_path / "gallery.npy", "inner_product", kernel="avx2")
    assert_equal(on_disk.search(queries, k, exclude, threads=2), expected)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_gallery_on_disk_gives_the_bits_of_one_in_memory(monkeypatch, tmp_path, distance, dtype):
    rng = np.random.default_rng(7)
    gallery, queries = rng.standard_normal((1000, 21)).astype(dtype), rng.standard_normal((37, 21))
    gallery[600:] = gallery[:400]
    if distance == "hamming":
        gallery, queries = (np.packbits(rows > 0, axis=1) for rows in (gallery, queries))
    exclude = rng.integers(-1, 1000, (37, 2))
    monkeypatch.setattr(packed, "_ROWS_AT_ONCE", 64)
    monkeypatch.setattr(packed, "_FILE_BYTES", 1)  # sixteen pieces
    monkeypatch.setattr(index, "_SMALL", 0)
    monkeypatch.setattr(packed, "_WORK_PER_THREAD", 1)
    for order in "CF":
        np.save(tmp_path / "gallery.npy", np.asarray(gallery, order=order))
        on_disk = ExactIndex.from_npy(tmp_path / "gallery.npy", distance)
        assert (len(on_disk), on_disk.bytes) == (1000, 0)
        in_memory = ExactIndex(gallery, distance)
        for k in (1, 10, 1000, 1005):
            assert_equal(on_disk.search(queries, k, exclude), in_memory.search(queries, k, exclude))
        radius = float(np.median(in_memory.search(queries, 20).distances))
        for found, expected in zip(
            on_disk.search_radius(queries, radius, exclude),
            in_memory.search_radius(queries, radius, exclude),
            strict=True,
        ):
            assert_array_equal(found, expected)


def test_files_that_are_no_gallery(tmp_path):
    (tmp_path / "text.npy").write_text("hello")
    np.savez(tmp_path / "several.npz", a=np.ones(3))
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    bad = np.ones((300, 2))
    bad[123, 1] = np.nan
    np.save(tmp_path / "nan.npy", bad)
    for name in ("none.npy", "text.npy", "several.npz", "objects.npy"):
        with pytest.raises(BenchError, match=name):
            ExactIndex.from_npy(tmp_path / name)
    for no_path in (None, 3, np.ones((3, 2), np.float32)):
        with pytest.raises(BenchError, match="from_npy takes the path"):
            ExactIndex.from_npy(no_path)
    searcher = ExactIndex.from_npy(tmp_path / "nan.npy")
    with pytest.raises(BenchError, match="gallery row 123 holds NaN"):
        searcher.search(np.ones((1, 2)), 1)


def test_few_rows_in_question_of_one_query_promise_nothing_of_the_next(monkeypatch):
    """Two heaps far from their centre: of one, float32 tells most rows apart, of the other none. The second look begins
    with two queries at the first heap, as so many fit even where half of the rows are in question, and takes all others
    together."""
    rng = np.random.default_rng(5)
    away = np.zeros(8)
    away[0] = 5e6
    wide, narrow = rng.standard_normal((1500, 8)) * 1e4, rng.standard_normal((1500, 8))
    wide[:40] = rng.standard_normal((40, 8))
    gallery = np.concatenate([away + wide, narrow - away]).astype(np.float32)
    queries = np.concatenate([np.stack([away, away + 1]), rng.standard_normal((9, 8)) - away]).astype(np.float32)
    monkeypatch.setattr(second_look, "_PAIRS_AT_ONCE", 3000)
    monkeypatch.setattr(second_look, "_MOST_IN_DOUBT", 2)
    looks, look = [], packed.PackedGallery.in_question

    def noted(*words):
        looks.append((len(words[1]), look(*words)))
        return looks[-1][1]

    monkeypatch.setattr(packed.PackedGallery, "in_question", noted)
    found = ExactIndex(gallery, "euclidean").search(queries, 5)
    assert_equal(found, NumpyIndex(gallery, "euclidean")(queries, 5))
    sizes = [(count, result is None) for count, result in looks]
    assert sizes == [(2, False), (9, True), (2, False), *[(1, False)] * 7]


def test_threads_stop_when_all_together_have_found_too_many(monkeypatch):
    """Else each would hold as many pairs as all of them may."""
    rows = np.ones((3000, 8), np.float32)
    queries, nothing, scans, scan = rows[:2400], np.empty((2400, 0), np.int64), [], Within.scan
    monkeypatch.setattr(packed, "_WORK_PER_THREAD", 1)
    monkeypatch.setattr(Within, "scan", lambda self, *words: (scans.append(self), scan(self, *words)))
    searcher = ExactIndex(rows, "euclidean")
    assert searcher._packed.in_question(queries, np.ones(2400), nothing, 3, 9000) is None
    assert len(scans) == 6, "three of them wait"
    assert sum(len(one.found()[0]) for one in scans) <= 9000 + 3 * 9000


def test_a_longer_list_is_kept_where_many_of_a_batch_were_in_doubt(monkeypatch):
    """However many batches there are."""
    rng = np.random.default_rng(2)
    gallery = rng.standard_normal((2000, 8))
    gallery[:50] = gallery[0] + 1e-9 * rng.standard_normal((50, 8))
    queries = rng.standard_normal((400, 8))
    queries[::20] = gallery[0]
    monkeypatch.setattr(index, "_SMALL", 0)
    monkeypatch.setattr(index, "_FEW_DISTANCES", 0)
    monkeypatch.setattr(packed, "_SCRATCH_BYTES", 40_000)
    searcher = ExactIndex(gallery, "euclidean")
    assert_equal(searcher.search(queries, 5), NumpyIndex(gallery, "euclidean")(queries, 5))
    assert searcher.last.doubtful > 0
    assert searcher._more > 0


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(tied_searches(), st.sampled_from([-np.inf, -1, 0, 0.5, 1, 2, 3.7, 1e30, np.inf]), st.sampled_from([1, 1000]))
def test_radius_finds_all_that_a_full_ranking_finds(search, radius, room):
    distance, queries, gallery, _, exclude = search
    everything = NumpyIndex(gallery, distance)(queries, max(len(gallery), 1), exclude)
    before = scans.FOUND_AT_ONCE
    scans.FOUND_AT_ONCE = room
    try:
        found = ExactIndex(gallery, distance).search_radius(queries, radius, exclude)
    finally:
        scans.FOUND_AT_ONCE = before
    assert found.offsets.shape == (len(queries) + 1,)
    assert (found.offsets[0], found.offsets[-1]) == (0, len(found.indices))
    for query, (rows, distances) in enumerate(zip(everything.indices, everything.distances, strict=True)):
        near = (distances <= radius) & (rows >= 0)
        part = slice(found.offsets[query], found.offsets[query + 1])
        assert_array_equal(found.indices[part], rows[near])
        assert_array_equal(found.distances[part], distances[near])


@pytest.mark.parametrize("distance", VECTOR_DISTANCES)
def test_radius_agrees_with_search_to_the_bit(monkeypatch, distance):
    rng = np.random.default_rng(8)
    gallery, queries = rng.standard_normal((3000, 33), np.float32), rng.standard_normal((130, 33), np.float32)
    searcher = ExactIndex(gallery, distance)
    ranked = searcher.search(queries, 100)
    radius = float(ranked.distances[3, 50])  # met exactly by one row
    monkeypatch.setattr(index, "_SMALL", 0)
    monkeypatch.setattr(packed, "_WORK_PER_THREAD", 1)
    monkeypatch.setattr(packed, "_SCRATCH_BYTES", 20_000)
    found = searcher.search_radius(queries, radius)
    part = slice(found.offsets[3], found.offsets[4])
    assert_array_equal(found.indices[part], ranked.indices[3, :51])
    assert_array_equal(found.distances[part], ranked.distances[3, :51])
    for query in range(130):
        few = (ranked.distances[query] <= radius).sum()
        size = found.offsets[query + 1] - found.offsets[query]
        assert size == few or few == 100 <= size


@pytest.mark.parametrize("radius", [float("nan"), "near", None, True])
def test_radius_refused_at_the_door(radius):
    with pytest.raises(BenchError, match="radius is"):
        ExactIndex(np.ones((2, 2))).search_radius(np.ones((1, 2)), radius)


def test_radius_between_two_float32_values_is_not_rounded_up():
    assert check_radius(np.float64(np.float32(0.1)) - 1e-12) < np.float32(0.1)
    assert check_radius(1e300) == np.inf or check_radius(1e300) == np.finfo(np.float32).max


@pytest.mark.parametrize("distance", VECTOR_DISTANCES)
def test_a_radius_beyond_all_numbers_holds_all_rows_or_none(distance):
    index, queries = ExactIndex(np.eye(5), distance), np.ones((2, 5))
    for radius in (1e38, 3.5e38, 10**400, np.inf):
        assert_array_equal(index.search_radius(queries, radius, [[0], [1]]).offsets, [0, 4, 8])
        assert_array_equal(index.search_radius(queries, -radius).offsets, [0, 0, 0])
    with pytest.raises(BenchError, match="exclude has rows of different lengths"):
        index.search_radius(queries, 1.0, [[0], [1, 2]])


@pytest.mark.parametrize("backend", [entry.name for entry in BACKENDS.own() if entry.facts.get("exact")])
def test_where_float64_ends(backend):
    """As docs/library.md says: what float64 cannot tell apart is equal, and what float32 cannot sum is refused."""

    def found(query, rows, distance):
        return BACKENDS[backend].build(np.array(rows), distance)(np.array(query), 2).indices[0].tolist()

    assert found([[0]], [[2**53 + 1], [2**53]], "euclidean") == [0, 1]
    assert found([[0]], [[2**53 + 2], [2**53]], "euclidean") == [1, 0]
    assert found([[0.0]], [[1e-170], [1e-171]], "euclidean") == [0, 1]
    assert found([[0.0]], [[1e-150], [1e-151]], "euclidean") == [1, 0]
    for distance, longest in (("euclidean", 6.5e18), ("inner_product", 1.3e19)):
        assert found([[longest, 0]], [[longest, 0], [-1, 0]], distance) == [0, 1]
        with pytest.raises(BenchError, match=f"overflow float32 under {distance}"):
            found([[longest * 1.01, 0]], [[longest * 1.01, 0], [-1, 0]], distance)


def test_scan_of_codes_finds_the_same():
    rng = np.random.default_rng(9)
    gallery, queries = rng.standard_normal((2000, 40), np.float32), rng.standard_normal((9, 40), np.float32)
    for distance in VECTOR_DISTANCES:
        expected = ExactIndex(gallery, distance)
        for scan in ("int8", "auto"):
            codes = ExactIndex(gallery, distance, scan=scan)
            assert_equal(codes.search(queries, 12), expected.search(queries, 12))
            for ours, theirs in zip(
                codes.search_radius(queries, 1.0), expected.search_radius(queries, 1.0), strict=True
            ):
                assert_array_equal(ours, theirs)
    with pytest.raises(BenchError, match="hamming"):
        ExactIndex(np.ones((2, 2), np.uint8), "hamming", scan="int8")
    with pytest.raises(BenchError, match="scan"):
        ExactIndex(np.ones((2, 2)), scan="int4")


@pytest.mark.parametrize("kernel", ["avx512", "avx2", "neon", "plain"])
def test_near_duplicates_at_a_ten_thousandth_keep_their_order_at_every_width(kernel):
    rng = np.random.default_rng(10)
    query = rng.standard_normal((1, 128)).astype(np.float32) * 1e4
    order = rng.permutation(500)
    direction = rng.standard_normal((1, 128))
    gallery = query * (1 + 1e-4 * (1 + order[:, None] / 50) * direction)
    found = ExactIndex(gallery, "euclidean", kernel=kernel).search(np.repeat(query, 13, axis=0), 20)
    assert_array_equal(order[found.indices], np.tile(np.arange(20), (13, 1)))
