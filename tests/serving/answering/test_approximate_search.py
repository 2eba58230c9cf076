"""Exact against approximate, for one query: what the index finds, while it is built, and after items have changed."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from retrieval_bench.registry import BACKENDS, parse
from retrieval_bench.serving.answering.approximate_search import ApproximateColumns, FoundApproximately, in_words
from retrieval_bench.serving.answering.service import Query, SearchService
from retrieval_bench.serving.client.answers import Answer, Filters, Question
from tests.support.command import call
from tests.support.served import index_at, service_over, shelf_at

pytest.importorskip("faiss", reason='needs pip install "retrieval-bench[ann]"')
pytest.importorskip("fastapi", reason='needs pip install "retrieval-bench[serve]"')


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    folder = tmp_path_factory.mktemp("approximate")
    index = index_at(folder / "index", shelf_at(folder / "shelf"))
    BACKENDS.fill_with_own()
    service = service_over(index, approximate=ApproximateColumns(parse(BACKENDS, "faiss:ivf:lists=4:probes=1")))
    yield service
    service.close()


def answered(service: SearchService, question: Question | None = None) -> Answer:
    """The answer, once the indexes are built."""
    query = Query(known=(0, 0))
    end = time.monotonic() + 20
    while time.monotonic() < end:
        answer = service.search(query, question or Question(k=10))
        if not any("being built" in column.approximate for column in answer.columns):
            return answer
        time.sleep(0.05)
    raise AssertionError("the indexes were not built in 20 s")


def test_each_column_says_what_the_index_finds(service: SearchService) -> None:
    answer = answered(service)
    told = {column.key: column.approximate for column in answer.columns}
    assert set(told) == {"phash", "color", "phash+color+rrf"}
    for key in ("phash", "color"):
        assert told[key].startswith("faiss:ivf:lists=4:probes=1 finds ")
        assert told[key].endswith("ms)")
    assert told["phash+color+rrf"].endswith("the method keeps no single vector of an item")
    assert answer.joined is not None
    assert answer.joined.approximate == ""


def test_what_it_finds_is_what_the_backend_finds(service: SearchService) -> None:
    column = next(column for column in answered(service).columns if column.key == "color")
    snapshot = service.indexes[0].stored.snapshot()
    numbers, rows = snapshot.compared_rows("color")
    assert numbers.tolist() == snapshot.numbers.tolist()
    method = service.columns["color"].method
    search = parse(BACKENDS, "faiss:ivf:lists=4:probes=1").build(rows, method.distance)
    picture = service.known_query(0, 0)
    pixels, _ = service.pool.decode(picture)
    found = search(method.describe([pixels], [""]), 10).indices[0]
    near = set(numbers[found[found >= 0]].tolist())
    hits = [hit.number for hit in column.hits]
    missed = [place for place, number in enumerate(hits, 1) if number not in near]
    assert all(f"no. {place}" in column.approximate for place in missed)
    assert f"finds {len(hits) - len(missed)} of these" in column.approximate or not missed


@pytest.mark.parametrize("question", [Question(filters=Filters(labels=("product-1",))), Question(exclude=("x",))])
def test_an_index_answers_no_filters(service: SearchService, question: Question) -> None:
    assert {column.approximate for column in service.search(Query(known=(0, 0)), question).columns} == {""}


def test_it_is_built_again_after_items_have_changed(service: SearchService) -> None:
    answered(service)
    stored = service.indexes[0].stored
    nearest = answered(service).columns[0].hits[0].id
    removed = stored.remove([nearest])
    assert "being built" in service.search(Query(known=(0, 0)), Question()).columns[0].approximate
    answer = answered(service)
    assert nearest not in {hit.id for hit in answer.columns[0].hits}
    assert "finds" in answer.columns[0].approximate
    stored.undo(removed)


def test_words_say_what_is_missing() -> None:
    found = FoundApproximately("x", (1, 3, 9), 0.5)
    assert in_words(found, (1, 2, 3, 4), 1.0, 3) == "x finds 2 of these 3; it misses no. 2, in 0.50 ms (exact: 1.00 ms)"
    assert in_words(found, (1, 3), 1.0, 2) == "x finds all 2, in 0.50 ms (exact: 1.00 ms)"
    assert in_words(FoundApproximately("x"), tuple(range(20)), 1.0, 20).count("no. ") == 8
    assert in_words(FoundApproximately("x", waiting="why"), (1,), 1.0, 1) == "x: why"


def test_an_exact_backend_is_nothing_to_compare_with(tmp_path: Path) -> None:
    told = call("serve", "--backend", "int8")
    assert told.exit_code == 2
    assert "it is exact" in told.output
