"""A cluster of two nodes on this machine: the bytes of one process, also where a worker is killed in the middle."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrieval_bench.core import DISTANCES, BenchError, Setup, Split
from retrieval_bench.distributed.engine import open_engine
from retrieval_bench.distributed.ray_engine import RayEngine
from retrieval_bench.experiment import in_process
from retrieval_bench.experiment.describer import MethodDescriber
from retrieval_bench.experiment.extraction import extract
from retrieval_bench.experiment.runner import run
from retrieval_bench.images.decoded_cache import DecodedOnce, PixelStore
from retrieval_bench.images.decoding import Decoding
from retrieval_bench.images.reading import DecodedBy, ImageBytes, encode_png
from retrieval_bench.registry import EXTRACTORS, parse
from retrieval_bench.search.index import ExactIndex
from retrieval_bench.system.cache import FeatureCache
from retrieval_bench.system.timing import pinned
from tests.support.pictures import photo_of
from tests.support.ray_clusters import with_token
from tests.support.runs import plan
from tests.support.shop import shop

pytestmark = [
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray, of the extra distributed, is not installed"),
    pytest.mark.long(reason="starts a cluster of two nodes, and each worker loads this package"),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster of two nodes of three CPUs each. Ray is loaded here and no earlier: it then reads, once,
    whether there is a token."""
    with pytest.MonkeyPatch.context() as patch:
        with_token(patch)
        from ray.cluster_utils import Cluster

        both = Cluster(initialize_head=True, head_node_args={"num_cpus": 3, "include_dashboard": False})
        try:
            both.add_node(num_cpus=3)
            yield both.address
        finally:
            both.shutdown()


@pytest.fixture(scope="module")
def engine(cluster: str) -> Iterator[RayEngine]:
    """Four workers."""
    opened = open_engine(f"ray://{cluster}?workers=4")
    assert isinstance(opened, RayEngine)
    yield opened
    opened.close()


def vectors(distance: str, n: int) -> np.ndarray:
    rng = np.random.default_rng(n)
    if distance == "hamming":
        return rng.integers(0, 8, (n, 4), np.uint8)
    return rng.integers(-3, 4, (n, 16)).astype(np.float32)


@contextlib.contextmanager
def killed_meanwhile(process: int) -> Iterator[None]:
    """kill -9 a worker a moment after the block began."""
    timer = threading.Timer(0.05, os.kill, (process, signal.SIGKILL))
    timer.start()
    yield
    timer.join()


def test_one_cpu_stays_free(cluster: str) -> None:
    with pytest.raises(BenchError, match="the cluster has 6 CPUs, room for 5 workers of 1 threads, as one CPU must"):
        open_engine(f"ray://{cluster}?workers=6")


class TestRayEngine:
    @pytest.mark.parametrize("distance", DISTANCES)
    @pytest.mark.parametrize("workers", [2, 4])
    def test_search_gives_the_bytes_of_one_process(self, engine: RayEngine, distance: Any, workers: int) -> None:
        gallery, queries = vectors(distance, 3001), vectors(distance, 90)
        exclude = np.arange(90)
        expected = ExactIndex(gallery, distance).search(queries, 30, exclude)
        found = engine.sharded(gallery, distance, workers)(queries, 30, exclude)
        assert found.indices.tobytes() == expected.indices.tobytes()
        assert found.distances.tobytes() == expected.distances.tobytes()

    def test_a_worker_killed_while_it_searches(self, engine: RayEngine) -> None:
        rng = np.random.default_rng(0)
        gallery, queries = rng.standard_normal((20_000, 96), np.float32), rng.standard_normal((3000, 96), np.float32)
        expected = ExactIndex(gallery).search(queries, 10)
        index, before = engine.sharded(gallery), engine.crew.processes
        with killed_meanwhile(before[1]):
            found = index(queries, 10)
        while engine.crew.processes == before:  # it was so quick that the worker died after its answer
            time.sleep(0.05)
        assert found.indices.tobytes() == expected.indices.tobytes()
        assert found.distances.tobytes() == expected.distances.tobytes()
        assert index(queries, 10).distances.tobytes() == expected.distances.tobytes()

    def test_a_mistake_in_the_gallery_is_told_as_here(self, engine: RayEngine) -> None:
        gallery = np.ones((5, 2), np.float32)
        gallery[4, 1] = np.nan
        with pytest.raises(BenchError, match="gallery row 4 holds NaN"):
            engine.sharded(gallery)

    def test_a_worker_killed_while_it_describes(self, engine: RayEngine, tmp_path: Path) -> None:
        pictures = [encode_png(np.asarray(photo_of(40, 30, seed))) for seed in range(25)]
        images = ImageBytes([encode_png(np.full((3, 3, 3), shade, np.uint8)) for shade in range(225)])
        images = ImageBytes([*pictures, *images.encoded])
        split = Split(
            tuple(map(str, range(250))),
            np.zeros(250, np.int64),
            DecodedOnce(DecodedBy(images, Decoding()), PixelStore()),
        )
        EXTRACTORS.fill()
        extractor = parse(EXTRACTORS, "lbp").build(Setup())
        extractor.fit(split)
        victim = engine.crew.processes[0]
        by = engine.chunks(MethodDescriber("lbp", Setup()), "ab" * 32, tmp_path)
        assert by is not None

        def described(chunks: Any) -> np.ndarray:
            how: Any = {"threads": 1, "cache": FeatureCache(None), "key": "", "progress": lambda done, total: None}
            with pinned(1):
                return extract(extractor, split, chunks=chunks, **how).features

        with killed_meanwhile(victim):
            features = described(by)
        assert features.tobytes() == described(None).tobytes()
        assert len(list(tmp_path.rglob("*.npz"))) == 4
        assert features.tobytes() == described(by).tobytes()

    def test_a_run_gives_the_record_of_one_process(
        self, engine: RayEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        here = run(plan(shop(), "color", "phash"), tmp_path / "here")
        monkeypatch.setattr(in_process, "open_engine", lambda address: engine)
        monkeypatch.setattr(engine, "close", lambda: None, raising=False)
        there = run(plan(shop(), "color", "phash", engine=engine.address), tmp_path / "there")
        assert there.settings.engine == engine.address
        assert "engine" not in here.settings.model_dump()
        assert [row.scores for row in there.rows] == [row.scores for row in here.rows]
        one, other = ((tmp_path / name / "rankings.npz").read_bytes() for name in ("here", "there"))
        assert one == other
