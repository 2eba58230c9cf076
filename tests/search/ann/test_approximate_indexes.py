"""Approximate indexes against the exact twin: what they find, what they say of it, and what they refuse."""

from __future__ import annotations

import importlib
import importlib.util
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from benchmark.cli import app  # noqa: F401  (registers everything)
from retrieval_bench.core import DISTANCES, BenchError, Distance, Ranking
from retrieval_bench.registry import BACKENDS, parse
from retrieval_bench.search.ann.found_rows import building_shown
from retrieval_bench.search.reference import NumpyIndex
from retrieval_bench.system.timing import pinned

for library in ("faiss", "usearch"):
    pytest.importorskip(library, reason='needs pip install "retrieval-bench[ann,scann]"')
BACKENDS.fill()

VECTOR_DISTANCES: tuple[Distance, ...] = ("cosine", "euclidean", "inner_product")
OF_VECTORS: tuple[str, ...] = (
    *("faiss:flat", "faiss:hnsw:ef=300", "faiss:ivf:lists=10:probes=10", "faiss:sq8", "faiss:sq8:refine=3"),
    *("faiss:ivfpq:lists=2:probes=2:bytes=8:refine=16", "usearch:ef=300", "usearch:dtype=f16:ef=300"),
)
if importlib.util.find_spec("scann"):
    OF_VECTORS = (*OF_VECTORS, "scann:lists=10:probes=10:refine=10")
OF_BITS = ("faiss:flat", "faiss:hnsw:ef=300", "faiss:ivf:lists=10:probes=10", "usearch:ef=300")
EVERYWHERE = [
    *((backend, distance) for backend in OF_VECTORS for distance in VECTOR_DISTANCES),
    *((backend, "hamming") for backend in OF_BITS),
    ("usearch:dtype=i8:ef=300", "cosine"),
]
LOOSE = {"sq8": 0.02, "f16": 0.002, "i8": 0.02}
"""Kind of code -> by how much, of the spread of the data, its distances are off."""


def build(text: str, gallery: np.ndarray, distance: Distance = "cosine") -> Any:
    return parse(BACKENDS, text).build(gallery, distance)


def rows(n: int, distance: Distance, dim: int = 32, seed: int = 0) -> np.ndarray:
    """Rows, a zero row and two equal ones among them.

    None of zeros for euclidean: it is nearer to each row than the others are, all graphs link to it alone, and of 600
    rows 20 to 90 are then not reached at all, however wide the search.
    """
    gallery = np.random.default_rng(seed).standard_normal((n, dim), np.float32)
    if distance != "euclidean":
        gallery[3:4] = 0
    gallery[7:8] = gallery[5:6]
    return np.packbits(gallery > 0, axis=1) if distance == "hamming" else gallery


def recall(found: Ranking, expected: Ranking, tolerance: float = 1e-5) -> float:
    """A row as near as the last that is expected counts."""
    return float((found.distances <= expected.distances[:, -1:] + tolerance).mean())


@pytest.mark.parametrize(("backend", "distance"), EVERYWHERE)
def test_finds_what_the_twin_finds(backend: str, distance: Distance) -> None:
    """With all lists, and many candidates: what is missed then is the codes' own loss, and refining makes up for it."""
    gallery, queries = rows(600, distance), rows(40, distance, seed=1)
    exclude = np.random.default_rng(2).integers(-1, 600, (40, 2))
    index = build(backend, gallery, distance)
    expected, found = NumpyIndex(gallery, distance)(queries, 10, exclude), index(queries, 10, exclude)
    loose = next((off for kind, off in LOOSE.items() if kind in backend and "refine" not in backend), 0.0)
    loose *= 30 if distance != "cosine" else 1
    assert found.indices.dtype == np.int64
    assert found.distances.dtype == np.float32
    assert (np.diff(found.distances) >= 0).all()
    assert not (found.indices[:, :, None] == exclude[:, None, :]).any()
    true = NumpyIndex(gallery, distance)(queries, 600)
    every = np.empty((40, 600))
    np.put_along_axis(every, true.indices, true.distances.astype(float), axis=1)
    assert_allclose(found.distances, np.take_along_axis(every, found.indices, axis=1), atol=1e-4 + loose)
    assert recall(found, expected, 1e-4 + loose) >= (0.95 if "ivfpq" in backend else 0.99)
    assert index.bytes > 0
    assert index.approximate
    assert index.truncated
    assert index.build_seconds > 0
    assert len(index) == 600


@pytest.mark.parametrize("distance", DISTANCES)
def test_flat_equals_the_twin_but_for_rounding(distance: Distance) -> None:
    gallery, queries = rows(300, distance), rows(19, distance, seed=1)
    found, expected = build("faiss:flat", gallery, distance)(queries, 300), NumpyIndex(gallery, distance)(queries, 300)
    assert_allclose(found.distances, expected.distances, atol=2e-5)
    if distance == "hamming":
        assert_array_equal(found.indices, expected.indices)


def test_a_wide_search_of_a_graph_finds_nearly_all() -> None:
    gallery, queries = rows(2000, "cosine"), rows(50, "cosine", seed=1)
    expected = NumpyIndex(gallery, "cosine")(queries, 10)
    for backend in ("faiss:hnsw:ef=4:build_ef=60", "usearch:ef=4:build_ef=60"):
        index = build(backend, gallery)
        before = index(queries, 10)
        wide = index.with_search_options(ef=400)
        assert recall(wide(queries, 10), expected) >= 0.99
        assert recall(before, expected) < recall(wide(queries, 10), expected)
        assert_array_equal(index(queries, 10).indices, before.indices)  # the index itself stays as it was
        assert wide.bytes == index.bytes
        assert wide.search_options == {"ef": 400}


def test_more_lists_and_finer_ranking_find_more() -> None:
    gallery, queries = rows(1000, "euclidean"), rows(40, "euclidean", seed=1)
    expected = NumpyIndex(gallery, "euclidean")(queries, 5)
    index = build("faiss:ivfpq:lists=4:probes=1:bytes=4:refine=1", gallery, "euclidean")

    def found(**options: int) -> float:
        rows_found = index.with_search_options(**options)(queries, 5).indices
        return float((rows_found[:, :, None] == expected.indices[:, None, :]).any(axis=2).mean())

    assert found(probes=1) < found(probes=4) < found(probes=4, refine=20)
    assert found(refine=0) <= found(refine=1)


@pytest.mark.parametrize("backend", ["faiss:hnsw:build_threads=1", "faiss:ivf", "usearch:build_threads=1"])
@pytest.mark.parametrize("distance", ["cosine", "hamming"])
def test_the_same_answer_twice(backend: str, distance: Distance) -> None:
    gallery, queries = rows(400, distance), rows(30, distance, seed=1)
    once, again = (build(backend, gallery, distance)(queries, 7) for _ in range(2))
    assert_array_equal(once.indices, again.indices)
    assert_array_equal(once.distances, again.distances)


@pytest.mark.parametrize("n", [0, 1, 2, 50])
@pytest.mark.parametrize("distance", ["cosine", "hamming"])
def test_small_galleries_are_padded_or_refused(n: int, distance: Distance) -> None:
    gallery, queries = rows(50, distance)[:n], rows(3, distance, seed=1)
    compared_whole = ["pynndescent"] if importlib.util.find_spec("pynndescent") else []
    for backend in ("faiss:flat", "faiss:hnsw", "faiss:ivf:probes=64", "usearch", *compared_whole):
        index = build(backend, gallery, distance)
        found = index(queries, n + 4, np.zeros(3, np.int64) if n else None)
        there = max(0, n - 1)
        assert (np.sort(found.indices, axis=1)[:, -there or n + 4 :] >= 0).all()
        assert (found.indices[:, there:] == -1).all()
        assert np.isinf(found.distances[:, there:]).all()
        assert index(queries[:0], 3).indices.shape == (0, 3)
        assert index(queries[0], 1).indices.shape == (1, 1)
        assert index.bytes == 0 if not n else index.bytes > 0
    if distance == "cosine":
        for backend in ("faiss:sq8", "faiss:sq8:refine=2"):
            assert (build(backend, gallery)(queries, n + 1).indices[:, n:] == -1).all()
        if n:
            with pytest.raises(BenchError, match=f"learns 256 codewords from the gallery, which has {n} rows"):
                build("faiss:ivfpq", gallery)
        else:
            assert (build("faiss:ivfpq", gallery)(queries, 2).indices == -1).all()


def test_rows_of_length_0_are_at_a_distance_of_1() -> None:
    gallery, queries = rows(50, "cosine"), np.zeros((2, 32), np.float32)
    queries[1] = gallery[0]
    for backend in ("faiss:flat", "faiss:hnsw", "usearch:ef=100", "usearch:dtype=i8:ef=100"):
        found = build(backend, gallery)(queries, 50)
        assert (found.distances[0] == 1).all(), backend
        assert found.distances[1][found.indices[1] == 3].tolist() == [1], backend


def test_galleries_on_disk_of_any_dtype_and_read_only(tmp_path: Path) -> None:
    gallery = rows(300, "euclidean", 8).round(1)
    np.save(tmp_path / "gallery.npy", gallery)
    mapped = np.load(tmp_path / "gallery.npy", mmap_mode="r")
    gallery.flags.writeable = False
    for backend in ("faiss:hnsw", "faiss:ivf", "usearch:build_threads=1"):
        first = build(backend, gallery, "euclidean")(gallery[:5], 3)
        for same in (mapped, gallery.astype(np.float64), np.asfortranarray(gallery)):
            found = build(backend, same, "euclidean")(same[:5], 3)
            assert_allclose(found.distances, first.distances, atol=1e-6)
    assert build("faiss:flat", (10 * gallery).astype(np.int16), "euclidean")(gallery[:1], 1).indices.shape == (1, 1)


@pytest.mark.parametrize("backend", ["faiss:hnsw", "faiss:sq8", "faiss:ivf", "usearch"])
def test_what_the_engine_refuses(backend: str) -> None:
    gallery = rows(300, "cosine")
    torn = gallery.copy()
    torn[17, 2] = np.nan
    with pytest.raises(BenchError, match="gallery row 17 holds NaN, inf"):
        build(backend, torn)
    index = build(backend, gallery)
    with pytest.raises(BenchError, match="queries row 17 holds NaN, inf"):
        index(torn, 2)
    for wrong, sentence in (
        ({"k": 0}, "k is 0"),
        ({"queries": gallery[:, :5]}, "queries has 5 columns but the gallery has 32"),
        ({"exclude": np.full(300, 300)}, "exclude names row 300"),
    ):
        with pytest.raises(BenchError, match=sentence):
            index(**{"queries": gallery, "k": 3, **wrong})
    with pytest.raises(BenchError, match="unknown distance 'cosin'"):
        build(backend, gallery, "cosin")  # type: ignore[arg-type]
    with pytest.raises(BenchError, match="overflow float32"):
        build("faiss:hnsw", gallery * np.float32(1e25), "euclidean")


REFUSED = {
    "faiss:ivf:ef=64": "faiss:ivf: ef means nothing here; its options are build_threads, kind, lists, probes",
    "faiss:hnsw:probes=16": "faiss:hnsw: probes means nothing here; its options are build_ef, build_threads, ef,",
    "faiss:hnsw:refine=0": "faiss:hnsw: refine means nothing here",
    "faiss:ivfpq:bytes=5": "faiss:ivfpq: bytes=5 must divide the 32 columns of the gallery; for example 1, 2,",
    "faiss:ivf:lists=301": "faiss:ivf: lists=301 is more than the gallery's 300 rows; give at most 300, or 0",
    "faiss:tree": "faiss: kind='tree' is not one of hnsw, ivf, ivfpq, sq8, flat",
    "faiss": "say which; write faiss:KIND",
    "usearch:dtype=b1": "usearch: dtype=b1 does not go with cosine; it takes dtype=f32, f16 or i8",
}


@pytest.mark.parametrize("text", REFUSED)
def test_options_that_mean_nothing_are_one_sentence(text: str) -> None:
    with pytest.raises(BenchError, match=re.escape(REFUSED[text])) as error:
        build(text, rows(300, "cosine"))
    assert "\n" not in str(error.value)


def test_distances_that_a_kind_does_not_know_are_one_sentence() -> None:
    for kind in ("sq8", "ivfpq"):
        with pytest.raises(BenchError, match=f"^faiss:{kind} has no form for bits; for hamming take faiss:hnsw"):
            build(f"faiss:{kind}", rows(300, "hamming"), "hamming")
    with pytest.raises(BenchError, match=r"^usearch: dtype=f16 does not go with hamming; it takes dtype=b1$"):
        build("usearch:dtype=f16", rows(30, "hamming"), "hamming")
    with pytest.raises(BenchError, match=r"^usearch: dtype=i8 keeps directions alone"):
        build("usearch:dtype=i8", rows(30, "euclidean"), "euclidean")
    large = rows(30, "euclidean") * np.float32(1e5)
    with pytest.raises(BenchError, match=r"^usearch: gallery row 0 holds a value beyond 65504"):
        build("usearch:dtype=f16", large, "euclidean")


def test_search_options_are_checked() -> None:
    graph, codes = build("faiss:hnsw", rows(30, "cosine")), build("faiss:sq8", rows(30, "cosine"))
    for index, options, sentence in (
        (graph, {"ef": 0}, "faiss:hnsw: ef=0 is not between 1 and 1000000"),
        (graph, {"ef": True}, "faiss:hnsw: ef=True is not a whole number"),
        (graph, {"ef": 1.5}, "faiss:hnsw: ef=1.5 is not a whole number"),
        (graph, {"m": 8}, "faiss:hnsw: m means nothing here; its options are ef"),
        (graph, {"eff": 8}, "unknown option of faiss:hnsw 'eff'; did you mean 'ef'?"),
        (
            codes,
            {"refine": 2},
            "refine=2 needs the float vectors, which this index does not hold; build it with refine=1",
        ),
    ):
        with pytest.raises(BenchError, match=re.escape(sentence)):
            index.with_search_options(**options)
    with pytest.raises(
        BenchError, match=r"^usearch: m=1 is not between 2 and 512$"
    ):  # of Python code, which parses nothing
        BACKENDS["usearch"].build(rows(30, "cosine"), m=1)
    with pytest.raises(BenchError, match="is not one of hnsw"):
        BACKENDS["faiss"].build(rows(30, "cosine"), kind="tree")


@pytest.mark.parametrize(
    ("backend", "package"), [("faiss:ivf", "faiss-cpu"), ("usearch", "usearch"), ("pynndescent", "pynndescent")]
)
def test_a_missing_library_is_one_sentence(monkeypatch: pytest.MonkeyPatch, backend: str, package: str) -> None:
    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BenchError) as error:
        BACKENDS[backend.partition(":")[0]].build(rows(30, "cosine"), **({"kind": "ivf"} if ":" in backend else {}))
    assert str(error.value) == (
        f"{backend} needs {package}, which is not installed; install it by pip install 'retrieval-bench[ann]'"
    )


def test_threads_are_those_that_are_set_and_stay_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import faiss

    index = build("faiss:hnsw", rows(300, "cosine"))
    before, set_to = faiss.omp_get_max_threads(), []
    setting = faiss.omp_set_num_threads

    def seen(threads: int) -> None:
        set_to.append(threads)
        setting(threads)

    monkeypatch.setattr(faiss, "omp_set_num_threads", seen)
    numba_before = numba.get_num_threads()
    with pinned(1):
        index(rows(9, "cosine"), 3)
    assert set_to == [1, 1]
    assert (faiss.omp_get_max_threads(), numba.get_num_threads()) == (before, numba_before)
    index(rows(1, "cosine"), 3)
    assert set_to[2:] == [1, before]  # one query is the work of one thread
    with ThreadPoolExecutor(3) as pool:
        wanted = index(rows(9, "cosine"), 3).indices
        for found in pool.map(lambda _: index(rows(9, "cosine"), 3), range(6)):
            assert_array_equal(found.indices, wanted)


def test_building_tells_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrieval_bench.search.ann.found_rows.ROWS_AT_ONCE", 100)
    told: list[tuple[int, int]] = []
    with building_shown(lambda done, total: told.append((done, total))):
        build("faiss:flat", rows(250, "cosine"))
    assert told == [(0, 250), (100, 250), (200, 250)]


def test_specifications_and_facts() -> None:
    spec = parse(BACKENDS, "faiss:ivfpq:probes=8:refine=4")
    assert str(spec) == "faiss:ivfpq:probes=8:refine=4"
    for entry in BACKENDS.own():
        if entry.build.__module__.startswith("retrieval_bench.search.ann"):
            assert entry.facts["exact"] is False
            assert set(entry.facts["at_search"]) <= set(entry.options)


def test_scann() -> None:
    """Beside what all have in common: small galleries, and what is refused. It draws by no seed: two indexes differ."""
    pytest.importorskip("scann", reason='needs pip install "retrieval-bench[scann]"')
    gallery, queries = rows(400, "cosine"), rows(30, "cosine", seed=1)
    index = build("scann:probes=1:refine=1", gallery)
    expected = NumpyIndex(gallery, "cosine")(queries, 5)
    assert recall(index(queries, 5), expected) < recall(
        index.with_search_options(probes=20, refine=20)(queries, 5), expected
    )
    assert (index(queries, 400).indices[:, -1] == -1).all()
    several = index(queries, 5)
    with pinned(1):
        assert_array_equal(index(queries, 5).indices, several.indices)
    for n in (0, 1, 2, 50):
        small = build("scann", gallery[:n])(queries, 60)
        assert_array_equal(np.sort(small.indices, axis=1)[:, 60 - n :], np.tile(np.arange(n), (30, 1)))
        assert (build("scann", gallery[:n]).bytes > 0) == (n > 0)
    for text, distance, sentence in (
        ("scann:lists=401", "cosine", "lists=401 is more than the gallery's 400 rows"),
        ("scann", "hamming", "scann has no form for bits"),
    ):
        with pytest.raises(BenchError, match=sentence):
            build(text, rows(400, distance), distance)  # type: ignore[arg-type]


@pytest.mark.long(reason="PyNNDescent compiles itself for four minutes")
def test_pynndescent() -> None:
    pytest.importorskip("pynndescent", reason='needs pip install "retrieval-bench[ann]"')
    for distance in DISTANCES:
        gallery, queries = rows(600, distance), rows(40, distance, seed=1)
        exclude = np.random.default_rng(2).integers(-1, 600, (40, 2))
        expected = NumpyIndex(gallery, distance)(queries, 10, exclude)
        index = build("pynndescent:neighbours=20", gallery, distance)
        found = index(queries, 10, exclude)
        assert not (found.indices[:, :, None] == exclude[:, None, :]).any()
        assert recall(index.with_search_options(epsilon=0.4)(queries, 10, exclude), expected) >= 0.97, distance
        assert index(queries, 700).indices.shape == (40, 700)
        for n in (0, 1, 2, 50):
            small = build("pynndescent", gallery[:n], distance)(queries, 60)
            assert_array_equal(np.sort(small.indices, axis=1)[:, 60 - n :], np.tile(np.arange(n), (40, 1)))


def test_another_library_may_change_how_faiss_is_called() -> None:
    """pytorch-metric-learning imports faiss.contrib.torch_utils, which replaces `search` in the whole process."""
    pytest.importorskip("faiss", reason='needs pip install "retrieval-bench[ann]"')
    importlib.import_module("faiss.contrib.torch_utils")
    rows = np.random.default_rng(0).standard_normal((50, 8)).astype(np.float32)
    for kind in ("hnsw", "ivf"):
        found = BACKENDS["faiss"].build(rows, "cosine", kind=kind)(rows, 1)
        np.testing.assert_array_equal(found.indices[:, 0], np.arange(50))
