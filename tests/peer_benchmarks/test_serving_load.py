"""What is said of a service under load; the loads themselves are in tests/serving/test_under_load.py."""

from __future__ import annotations

from retrieval_bench.peer_benchmarks import serving as under_load


def test_the_tables_say_what_was_measured() -> None:
    parallel = under_load.ParallelSearches(2, 10.0, [1.0, 2.0, 3.0], mib=[100.0, 101.0, 103.0])
    parallel.refused[503] = 2
    changes = under_load.ChangesUnderSearches(10, 10, 5, 1, [], 2.0)
    one = under_load.MethodUnderLoad("phash", 2.0, 9.0, 100.0, 50.0)
    figures = under_load.LoadFigures((one,), parallel, changes)
    text = "\n".join(under_load.sentences(figures))
    assert "2 answered 503" in text
    assert "1 torn" in text
    assert "phash: the service adds more than 5 ms" in text
    assert "phash: less than 0.9 of the bulk rate" in text
    assert under_load.is_wrong(figures)
    assert under_load.table(figures)[1][3] == "7.00"
    assert under_load.as_data(figures)["parallel"]["p50"] == 2.0
