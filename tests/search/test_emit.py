"""Every vector width gives the bits of the plain loops, at every edge of a block; and compiling leaves no surprise."""

from __future__ import annotations

import ast
import logging
import os
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numba
import numpy as np
import pytest
from numba import types
from numpy.testing import assert_array_equal

from retrieval_bench.core import DISTANCES, BenchError
from retrieval_bench.search import doctor, emit, jit, kernels
from retrieval_bench.search.index import ExactIndex, kernel_for, warm_up

WIDE = [name for name in emit.KERNELS if name != "plain"]
VECTORS = ("cosine", "euclidean", "inner_product")


def both(gallery: np.ndarray, queries: np.ndarray, k: int, distance: str, name: str) -> None:
    """Forced width against the plain loops: bits of the distances, and rows."""
    plain = ExactIndex(gallery, distance, kernel="plain").search(queries, k)
    found = ExactIndex(gallery, distance, kernel=name).search(queries, k)
    assert_array_equal(found.distances.view(np.uint32), plain.distances.view(np.uint32))
    assert_array_equal(found.indices, plain.indices)


@pytest.mark.long(reason="every dimension at every width")
@pytest.mark.parametrize("name", WIDE)
@pytest.mark.parametrize("distance", DISTANCES)
def test_every_dim(name, distance):
    rng = np.random.default_rng(0)
    for dim in [*range(1, 41), 511, 512, 513]:
        gallery, queries = rng.standard_normal((70, dim), np.float32), rng.standard_normal((13, dim), np.float32)
        if distance == "hamming":
            gallery, queries = gallery.view(np.uint8)[:, :dim].copy(), queries.view(np.uint8)[:, :dim].copy()
        both(gallery, queries, 9, distance, name)


@pytest.mark.slow(reason="every number of queries at every width")
@pytest.mark.parametrize("name", WIDE)
@pytest.mark.parametrize("distance", DISTANCES)
def test_every_number_of_queries_and_rows(name, distance):
    rng = np.random.default_rng(1)
    kind = np.uint8 if distance == "hamming" else np.float32
    queries = rng.integers(0, 50, (20, 9)).astype(kind)
    for n in (1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 97, 128, 129, 300):
        gallery = rng.integers(0, 50, (n, 9)).astype(kind)
        for q in range(1, 21):
            both(gallery, queries[:q], 5, distance, name)


@pytest.mark.parametrize("name", WIDE)
@pytest.mark.parametrize("distance", VECTORS)
@pytest.mark.parametrize("scale", [1e-44, 1e-38, 1e-30, 1e-19, 1e18])
def test_denormals_huge_and_tiny_norms(name, distance, scale):
    rng = np.random.default_rng(2)
    rows = (rng.standard_normal((100, 20)) * scale).astype(np.float32)
    rows[::7] = 0
    rows[3::7] *= np.float32(1e-3)
    both(rows, rows[:14] * np.float32(0.9), 100, distance, name)


@pytest.mark.parametrize("dim", [1, 7, 64, 513])
def test_the_scan_misses_no_row_that_the_differences_find(dim):
    """Offsets that swamp the differences: every rounding of the quick scan is larger than the gaps between rows."""
    rng = np.random.default_rng(dim)
    for offset in (0, 1, 100, 1e4, 1e7):
        gallery = (rng.standard_normal((3000, dim)) + offset).astype(np.float32)
        queries = (rng.standard_normal((13, dim)) + offset).astype(np.float32)
        found = ExactIndex(gallery, "euclidean").search(queries, 10)
        everything = ExactIndex(gallery, "euclidean").search(queries, 3000)  # no limit: all are rescored
        assert_array_equal(found.indices, everything.indices[:, :10])
        assert_array_equal(found.distances, everything.distances[:, :10])


def test_kernel_follows_the_variable_and_the_argument(monkeypatch):
    monkeypatch.delenv(emit.KERNEL_VARIABLE, raising=False)
    assert kernel_for() == emit.choose()[0]
    monkeypatch.setenv(emit.KERNEL_VARIABLE, "avx2")
    assert kernel_for().name == "avx2"
    assert ExactIndex(np.ones((2, 2)), kernel="neon").kernel == "neon"
    with pytest.raises(BenchError, match="avx512"):
        ExactIndex(np.ones((2, 2)), kernel="avx1024")
    monkeypatch.setenv(emit.KERNEL_VARIABLE, "sse")
    with pytest.raises(BenchError, match=emit.KERNEL_VARIABLE):
        kernel_for()


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ({"avx2", "fma", "avx512f", "avx512bw", "avx512vl", "avx512dq"}, "avx512"),
        ({"avx2", "fma", "avx512f"}, "avx2"),
        ({"neon"}, "neon"),
        ({"sse2"}, "plain"),
        (set(), "plain"),
    ],
)
def test_kernel_follows_the_processor(monkeypatch, features, expected):
    monkeypatch.delenv(emit.KERNEL_VARIABLE, raising=False)
    monkeypatch.setattr(emit, "cpu_features", lambda: frozenset(features))
    kernel, why = emit.choose()
    assert kernel.name == expected
    assert why


def test_widths_fill_panels():
    for kernel in emit.KERNELS.values():
        assert kernel.lanes == 1 or kernels.PANEL % (kernel.lanes * kernel.vectors) == 0
        assert list(kernel.blocks) == sorted(kernel.blocks)


def run(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **variables}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)


SEARCH = """
import logging, sys
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
from retrieval_bench.search import index, jit
jit.NOTICE_AFTER = {notice}
import numpy as np
index.warm_up("hamming", "plain")
print(index.topk(np.ones((1, 8), np.uint8), np.ones((2, 8), np.uint8), 2, "hamming").indices.tolist())
from retrieval_bench.search import emit, kernels
engine = kernels.engine(emit.KERNELS["plain"], "hamming")
print(sum(sum(f.stats.cache_hits.values()) for f in engine[1:]), "from the cache")
print(jit.directory())
"""


@pytest.mark.long(reason="compiles kernels from nothing, in processes of their own")
def test_cache_is_used_and_announced_and_stays_out_of_the_package(tmp_path):
    home = Path(kernels.__file__).parent
    before = set(home.rglob("*.nb[ic]"))
    variables = {"RETRIEVAL_BENCH_CACHE": str(tmp_path), "RETRIEVAL_BENCH_KERNEL": "plain"}
    cold = run(SEARCH.format(notice=0.0), **variables).stdout.splitlines()
    assert cold[0] == "compiling the search kernels (once per machine)"
    assert cold[1:3] == ["[[0, 1]]", "0 from the cache"]
    assert Path(cold[3]).parent == tmp_path / "kernels"
    warm = run(SEARCH.format(notice=600.0), **variables).stdout.splitlines()
    assert warm == ["[[0, 1]]", "5 from the cache", cold[3]]
    for file in tmp_path.rglob("*.nbc"):
        file.write_bytes(file.read_bytes()[:100])  # broken files are compiled anew
    told, *broken = run(SEARCH.format(notice=600.0), **variables).stdout.splitlines()
    assert "it is removed, and the kernel is compiled again" in told
    assert broken[:2] == ["[[0, 1]]", "0 from the cache"]
    assert set(home.rglob("*.nb[ic]")) == before


@pytest.mark.long(reason="compiles kernels from nothing, in processes of their own")
def test_works_where_nothing_can_be_cached(tmp_path):
    (tmp_path / "file").write_text("a file where the directory should be")
    variables = {"RETRIEVAL_BENCH_CACHE": str(tmp_path / "file"), "RETRIEVAL_BENCH_KERNEL": "plain"}
    told, *out = run(SEARCH.format(notice=600.0), **variables).stdout.splitlines()
    assert "is not kept (Not a directory); continuing without" in told
    assert out[:2] == ["[[0, 1]]", "0 from the cache"]


def test_fingerprint_changes_with_the_sources_and_the_settings(tmp_path, monkeypatch):
    before = jit._fingerprint.__wrapped__()
    for file in Path(jit.__file__).parent.glob("*.py"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr(jit, "__file__", str(tmp_path / "jit.py"))
    assert jit._fingerprint.__wrapped__() == before
    monkeypatch.setenv("NUMBA_OPT", "1")
    assert jit._fingerprint.__wrapped__() != before
    monkeypatch.delenv("NUMBA_OPT")
    (tmp_path / "emit.py").write_bytes((tmp_path / "emit.py").read_bytes() + b"#")
    assert jit._fingerprint.__wrapped__() != before


def test_nothing_compiles_after_warm_up(monkeypatch):
    for distance in DISTANCES:
        warm_up(distance)

    def refuse(*arguments):
        raise AssertionError("compiled in passing")

    monkeypatch.setattr(numba.core.dispatcher.Dispatcher, "compile", refuse)
    for distance in DISTANCES:
        rows = np.ones((300, 3), np.uint8 if distance == "hamming" else np.float32)
        rows.flags.writeable = False
        index = ExactIndex(rows, distance)
        for q in range(1, 20):
            index.search(rows[:q], 5, exclude=np.zeros((q, 2), np.int32))
            index.search_radius(rows[:q], 1.0)


def test_two_threads_compile_one_engine():
    kernels._engines.clear()
    with ThreadPoolExecutor(4) as pool:
        engines = list(pool.map(lambda _: kernels.engine(emit.KERNELS["plain"], "hamming"), range(4)))
    assert all(engine is engines[0] for engine in engines)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.slow(reason="a process of its own")
def test_a_forked_child_finds_the_same():
    code = """
import os, warnings, numpy as np
from retrieval_bench.search import index, packed
packed._WORK_PER_THREAD = 1
rng = np.random.default_rng(0)
gallery, queries = rng.standard_normal((5000, 16), np.float32), rng.standard_normal((30, 16), np.float32)
searcher = index.ExactIndex(gallery)
expected = searcher.search(queries, 7)
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    child = os.fork()
if child == 0:
    found = searcher.search(queries, 7)
    again = index.topk(queries, gallery, 7, "euclidean")
    os._exit(0 if (found.indices == expected.indices).all() and again.indices.shape == (30, 7) else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert run(code).stdout.strip() == "0"


def test_doctor(monkeypatch, tmp_path):
    monkeypatch.delenv(emit.KERNEL_VARIABLE, raising=False)
    warm_up("cosine")
    report = doctor.report()
    assert report["kernel"] == emit.choose()[0].name
    assert len(doctor.lines()) == len(report)
    monkeypatch.setenv("RETRIEVAL_BENCH_CACHE", str(tmp_path / "empty"))
    monkeypatch.setenv(emit.KERNEL_VARIABLE, "plain")
    report = doctor.report()
    assert (report["cache"], report["compiled kernels in it"], report["kernel"]) == ("cold", 0, "plain")
    assert report["kernel chosen because"] == "RETRIEVAL_BENCH_KERNEL is plain"
    assert not (tmp_path / "empty").exists()


def test_notice_is_given_once_a_process(caplog, monkeypatch):
    caplog.set_level(logging.INFO, "retrieval_bench")
    monkeypatch.setattr(jit, "NOTICE_AFTER", 0.0)
    monkeypatch.setattr(jit, "_told", threading.Event())
    for _ in range(3):
        with jit.announced():
            assert jit._told.wait(10)
            time.sleep(0.05)
    assert [record.getMessage() for record in caplog.records] == ["compiling the search kernels (once per machine)"]


def test_notice_is_silent_when_quick(caplog):
    caplog.set_level(logging.INFO, "retrieval_bench")
    with jit.announced(), jit.announced():
        pass
    assert not caplog.records


def test_parts_of_variants_have_names_of_their_own():
    """Numba counts what it compiles anew in each process, and takes functions of one name and number for the same."""

    def make(variant):
        @jit.part(variant)
        def add(x):
            return x + len(variant)

        add.compile((types.int64,))
        (found,) = add.overloads.values()
        return re.sub(r"B\d+v\d+", "", found.fndesc.llvm_func_name)  # without the number and the count of its digits

    assert make("a") == make("a")
    assert make("a") != make("bb")


def test_parts_that_a_factory_makes_are_marked():
    """What is copied into its callers has no name, and what a module defines is one function."""
    for file in Path(jit.__file__).parent.glob("*.py"):
        for outer in [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.FunctionDef)]:
            for node in ast.walk(outer):
                if isinstance(node, ast.FunctionDef) and node is not outer and node.decorator_list:
                    marks = [ast.unparse(mark) for mark in node.decorator_list]
                    allowed = marks in (["_inlined"], ["intrinsic"]) or marks[0].startswith(("jit.part(", "functools."))
                    assert allowed, f"{file.name}: {node.name} is marked {marks}"
