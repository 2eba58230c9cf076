"""Time of exact search against its peers: `pytest --benchmark-only tests/test_kernel_benchmark.py`.

Skipped in a normal run (`--benchmark-skip` in pyproject.toml, which `--benchmark-only` overrides).
Every peer gets the same number of threads; results are checked before they are timed.
"""

import numba
import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from retrieval_bench.search.index import ExactIndex

VECTORS = [(1, 100_000, 512, 10), (16, 100_000, 512, 10), (1000, 50_000, 512, 10), (2485, 2_640, 512, 10)]
CODES = [(1, 1_000_000, 8, 10), (1000, 100_000, 8, 10)]


def name(shape: tuple[int, int, int, int]) -> str:
    return "{}x{}x{}-k{}".format(*shape)


@pytest.fixture(autouse=True)
def same_threads():
    import faiss
    import torch

    threads = numba.get_num_threads()
    before = torch.get_num_threads(), faiss.omp_get_max_threads()
    torch.set_num_threads(threads)
    faiss.omp_set_num_threads(threads)
    with threadpool_limits(threads, user_api="blas"):
        yield
    torch.set_num_threads(before[0])
    faiss.omp_set_num_threads(before[1])


def search_exact(gallery, k):
    index = ExactIndex(gallery, "inner_product")
    return lambda queries: index.search(queries, k).indices


def search_numpy(gallery, k):
    def search(queries):
        similarity = queries @ gallery.T
        nearest = np.argpartition(-similarity, k, axis=1)[:, :k]
        order = np.argsort(-np.take_along_axis(similarity, nearest, axis=1), axis=1)
        return np.take_along_axis(nearest, order, axis=1)

    return search


def search_torch(gallery, k):
    import torch

    ours = torch.from_numpy(gallery).T
    return lambda queries: torch.topk(torch.from_numpy(queries) @ ours, k).indices.numpy()


def search_faiss(gallery, k):
    import faiss

    index = faiss.IndexFlatIP(gallery.shape[1])
    index.add(gallery)
    return lambda queries: index.search(queries, k)[1]


@pytest.mark.parametrize("shape", VECTORS, ids=name)
@pytest.mark.parametrize("build", [search_exact, search_numpy, search_torch, search_faiss])
def test_vectors(benchmark, shape, build):
    q, n, dim, k = shape
    rng = np.random.default_rng(0)
    gallery, queries = rng.standard_normal((n, dim), np.float32), rng.standard_normal((q, dim), np.float32)
    benchmark.group = name(shape)
    search = build(gallery, k)
    few = queries[:50]
    assert (search(few) == np.argsort(-(few.astype(float) @ gallery.T), axis=1)[:, :k]).mean() > 0.99
    benchmark(search, queries)


@pytest.mark.parametrize("shape", CODES, ids=name)
@pytest.mark.parametrize("peer", ["exact", "faiss"])
def test_codes(benchmark, shape, peer):
    import faiss

    q, n, width, k = shape
    rng = np.random.default_rng(0)
    gallery, queries = rng.integers(0, 256, (n, width), np.uint8), rng.integers(0, 256, (q, width), np.uint8)
    benchmark.group = f"hamming {name(shape)}"
    index, flat = ExactIndex(gallery, "hamming"), faiss.IndexBinaryFlat(8 * width)
    flat.add(gallery)
    few = queries[:50]
    assert (index.search(few, k).distances == flat.search(few, k)[0]).all()
    benchmark((lambda: index.search(queries, k)) if peer == "exact" else (lambda: flat.search(queries, k)))
