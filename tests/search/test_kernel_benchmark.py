"""Every shape and every rival of the contest as a benchmark: run this file with `--benchmark-only`.

Skipped in a normal run (`--benchmark-skip` in pyproject.toml, which `--benchmark-only` overrides). One group a shape;
each rival at its fastest setting, all on the same number of threads, results checked before they are timed.
`python -m benchmark.kernel` measures the same with interleaved rounds: where ratios are wanted, take those.
"""

import functools

import pytest

from retrieval_bench.peer_benchmarks import competitors, measurement
from retrieval_bench.peer_benchmarks.shapes import ALL, Shape
from retrieval_bench.system.cores import usable_cores
from retrieval_bench.system.timing import pinned

RIVALS = competitors.rivals()
PAIRS = [pytest.param(shape, name, id=f"{shape.key}-{name}") for shape in ALL for name in RIVALS]


@pytest.fixture(scope="module", autouse=True)
def same_threads():
    tiny = Shape(1, 300, 64)
    for rival in RIVALS.values():  # a library must be loaded before its threads can be pinned
        rival(tiny, *tiny.data())
    with pinned(usable_cores()):
        yield
    searched.cache_clear()


@functools.lru_cache(maxsize=1)  # pairs come shape by shape; one gallery at a time is in memory
def searched(shape: Shape):
    queries, gallery = shape.data()
    return queries, gallery, RIVALS[measurement.REFERENCE](shape, queries, gallery)[""]()


@pytest.mark.parametrize(("shape", "name"), PAIRS)
def test_search(benchmark, shape, name):
    queries, gallery, reference = searched(shape)
    settings = RIVALS[name](shape, queries, gallery)
    if not settings:
        pytest.skip(f"{name} does not take part")
    times, why = measurement.try_out(name, settings, reference, queries, gallery)
    assert why is None
    fastest = min(times, key=times.get)
    benchmark.group = shape.key
    benchmark.extra_info["setting"] = fastest
    benchmark.pedantic(settings[fastest], setup=measurement.wait_until_quiet, rounds=5, warmup_rounds=1)
