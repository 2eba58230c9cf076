"""A node that runs out of memory: Ray's own monitor kills the workers, and a sentence says so."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from retrieval_bench.core import BenchError
from retrieval_bench.distributed.engine import open_engine
from tests.support.ray_clusters import with_token

pytestmark = [
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray, of the extra distributed, is not installed"),
    pytest.mark.long(reason="starts a cluster of its own and waits until its memory monitor has killed a worker"),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


def test_workers_that_memory_does_not_suffice_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with_token(monkeypatch)
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.01")  # any machine has more than that in use
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "100")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 3, "include_dashboard": False})
    try:
        with pytest.raises(BenchError, match=r"running low on memory.*give each enough memory$"):
            open_engine(f"ray://{cluster.address}?workers=2")
    finally:
        cluster.shutdown()
