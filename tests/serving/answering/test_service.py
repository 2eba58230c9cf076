"""What the service finds is what a run finds; examples, filters, thresholds, and pictures that are broken."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from retrieval_bench.core import BadImage, BenchError
from retrieval_bench.experiment import runner
from retrieval_bench.images.decoding import decode
from retrieval_bench.images.reading import encode_png
from retrieval_bench.methods.parse import parse_method
from retrieval_bench.records.files import load, load_rankings
from retrieval_bench.registry import DATASETS, parse
from retrieval_bench.serving.answering.relevance_feedback import NO_MEAN
from retrieval_bench.serving.answering.service import Capacity, Query, SearchService
from retrieval_bench.serving.client.answers import Filters, Question
from retrieval_bench.serving.decoding.pool import DecodingPool
from retrieval_bench.serving.requests.errors import NoSuchThing, QueueFull
from tests.support.nasty import huge_png, truncated_jpeg
from tests.support.served import METHODS, TEXT_METHODS, plan_of, service_over
from tests.support.shop import picture

pytestmark = pytest.mark.slow(reason="builds an index and starts processes that decode")


def test_results_are_those_of_a_run_to_the_last_bit(service: SearchService, shelf: Path, tmp_path: Path) -> None:
    plan = replace(plan_of(shelf), methods=(*map(parse_method, METHODS), parse_method("phash+color+rrf:depth=100")))
    record = runner.run(plan, tmp_path / "out")
    assert not record.violations
    arrays = load_rankings(tmp_path / "out", load(tmp_path / "out"))
    gallery = arrays["gallery_ids"].tolist()
    encoded = [(shelf / name).read_bytes() for name in arrays["query_ids"].tolist()]
    for row in range(0, len(encoded), 7):
        answer = service.search(Query(encoded=encoded[row]), Question(columns=METHODS))
        two = service.search(Query(known=(0, row)), Question(columns=("phash", "color"))).joined
        assert two is not None
        for name, column in [*((one.key, one) for one in answer.columns), ("phash+color+rrf:depth=100", two)]:
            assert [hit.id for hit in column.hits] == [gallery[i] for i in arrays[f"{name}/indices"][row, :10]]
            distances = np.float32([hit.distance for hit in column.hits])
            np.testing.assert_array_equal(distances, arrays[f"{name}/distances"][row, :10])
        assert answer.columns[0].milliseconds.keys() == {"waited", "extract", "search"}
        assert answer.columns[0].bytes_per_item == 8


def test_many_at_once_get_what_each_gets_alone(service: SearchService, shelf: Path) -> None:
    names = service.index(0).queries.ids[::3]
    encoded = [(shelf / name).read_bytes() for name in names]
    alone = [service.search(Query(encoded=one)).columns for one in encoded]
    together: dict[int, object] = {}

    def ask(place: int) -> None:
        together[place] = service.search(Query(encoded=encoded[place])).columns

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(len(encoded))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for place, columns in enumerate(alone):
        assert [one.hits for one in columns] == [one.hits for one in together[place]]  # type: ignore[attr-defined]


def test_filters_leave_k_where_k_exist(service: SearchService, shelf: Path) -> None:
    query = Query(encoded=(shelf / service.index(0).queries.ids[0]).read_bytes())
    question = Question(k=12, filters=Filters(labels=("product-4",)))
    for column in service.search(query, question).columns:
        assert {hit.label for hit in column.hits} == {"product-4"}
        assert len(column.hits) == 12
    found = service.search(query, Question(k=3)).columns[0].hits
    again = service.search(query, Question(k=2, exclude=(found[0].id,))).columns[0].hits
    assert [hit.id for hit in again] == [hit.id for hit in found[1:]]


def test_a_threshold_drops_what_is_farther(service: SearchService, shelf: Path) -> None:
    query = Query(encoded=(shelf / service.index(0).queries.ids[0]).read_bytes())
    hits = service.search(query, Question(columns=("color",))).columns[0].hits
    (column,) = service.search(query, Question(columns=("color",), thresholds={"color": hits[3].distance})).columns
    assert column.hits[:4] == hits[:4]
    assert all(hit.distance <= hits[3].distance for hit in column.hits)
    assert column.beyond == 10 - len(column.hits)
    (column,) = service.search(query, Question(columns=("color",), thresholds={"color": -1.0})).columns
    assert (column.hits, column.beyond, column.refused) == ((), 10, "")


def test_an_item_finds_itself_and_examples_move_a_query(service: SearchService, shelf: Path) -> None:
    ids = service.index(0).dataset.gallery.ids
    answer = service.search(Query(item=ids[7]), Question(k=3))
    assert answer.size is None
    assert all(column.hits[0].distance <= 1e-6 for column in answer.columns[:2])
    other = next(name for name in ids if "product-3" in name)
    sent = Query(encoded=(shelf / service.index(0).queries.ids[0]).read_bytes())
    plain = service.search(sent, Question(columns=("color",), k=60))
    moved = service.search(sent, Question(columns=("color",), k=60, more=(other,), less=(ids[0],)))
    rank = [[hit.id for hit in one.columns[0].hits].index(other) for one in (plain, moved)]
    assert rank[1] < rank[0]
    assert ids[0] not in [hit.id for hit in moved.columns[0].hits]
    assert moved.columns[0].note == ""
    only = service.search(Query(), Question(more=(other,), k=60))
    assert [column.hits[0].id for column in only.columns[1:2]] == [other]
    assert (only.columns[0].note, only.columns[1].note) == (NO_MEAN, "")


def test_what_is_not_there_is_said(service: SearchService) -> None:
    for query, question in (
        (Query(item="nobody"), Question()),
        (Query(recent="gone"), Question()),
        (Query(known=(0, 9999)), Question()),
        (Query(known=(7, 0)), Question()),
        (Query(item="x"), Question(columns=("sift",))),
    ):
        with pytest.raises(NoSuchThing):
            service.search(query, question)
    with pytest.raises(BenchError, match="nothing is searched for"):
        service.search(Query())
    assert service.search(Query(), Question(more=("nobody",))).columns[0].refused


def test_a_word_finds_the_picture_again(service: SearchService, shelf: Path) -> None:
    first = service.search(Query(encoded=(shelf / service.index(0).queries.ids[4]).read_bytes()))
    again = service.search(Query(recent=first.query))
    assert [one.hits for one in again.columns] == [one.hits for one in first.columns]
    part = service.search(Query(recent=first.query), Question(crop=(0.0, 0.0, 0.5, 1.0), turn=90))
    assert part.size == (24, 48)


def test_two_indexes_are_joined_by_id(index_folder: Path, shelf: Path) -> None:
    both = service_over(index_folder, index_folder, writable=False)
    try:
        query = Query(encoded=(shelf / both.index(0).queries.ids[0]).read_bytes())
        answer = both.search(query, Question(k=5))
        assert len(answer.columns) == 2 * len(METHODS)
        assert answer.joined is not None
        one = both.search(query, Question(k=5, columns=tuple(both.columns)[: len(METHODS)])).joined
        assert one is not None
        assert {hit.id for hit in answer.joined.hits} == {hit.id for hit in one.hits}
        assert len({hit.id for hit in answer.joined.hits}) == 5
    finally:
        both.close()


def test_more_requests_than_the_bound_are_told_to_come_again(index_folder: Path) -> None:
    small = service_over(index_folder, capacity=Capacity(requests=1), writable=False)
    try:
        with small.admitted(), pytest.raises(QueueFull), small.admitted():
            raise AssertionError
        with small.admitted():
            assert small.under_way == 1
        small.capacity = Capacity(requests=9, adding=1)
        with small.admitted(adding=True), small.admitted(), pytest.raises(QueueFull), small.admitted(adding=True):
            raise AssertionError
        with small.admitted(adding=True):
            assert small.under_way == 1
    finally:
        small.close()


@pytest.fixture(params=["shared memory", "pipes"])
def pool(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[DecodingPool]:
    if request.param == "pipes":  # as on systems without shared memory that has no name
        monkeypatch.setattr("retrieval_bench.serving.decoding.pool.shared_memory", lambda: None)
    made = DecodingPool(1, seconds=30, max_pixels=1_000_000)
    yield made
    made.close()


def test_children_decode_as_this_process_does(pool: DecodingPool, tmp_path: Path) -> None:
    encoded = encode_png(picture(1, 2))
    np.testing.assert_array_equal(pool.decode(encoded).pixels, decode(encoded))
    kept = pool.keep(encoded)
    np.testing.assert_array_equal(decode(kept.encoded), kept.pixels)
    assert (kept.suffix, kept.encoded[1:4]) == (".png", b"PNG")
    assert decode(pool.show(encode_png(picture(1, 2, 300)), 96)).shape == (96, 96, 3)
    for data in (b"", b"GIF89a=1;alert(1)//", truncated_jpeg(tmp_path).read_bytes(), huge_png(tmp_path).read_bytes()):
        with pytest.raises(BadImage):
            pool.decode(data)
    assert pool.replaced == 0


def test_a_child_that_hangs_or_dies_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sent the picture hears of it, and the next one is decoded."""
    dying = "import sys, os; from retrieval_bench.serving.decoding import child;"
    hang = "child._decode = lambda data, **how: __import__('time').sleep(60) if len(data) == 3 else os._exit(3);"
    monkeypatch.setattr("retrieval_bench.serving.decoding.pool._CODE", f"{dying}{hang} child.main()")
    pool = DecodingPool(1, seconds=1.0)
    try:
        pool.keep(encode_png(picture(0, 0)))  # it has started by then
        began = time.monotonic()
        with pytest.raises(BadImage, match="took more than"):
            pool.decode(b"abc")
        assert time.monotonic() - began < 5
        with pytest.raises(BadImage, match="crashed"):
            pool.decode(b"abcd")
        monkeypatch.undo()
        deadline = time.monotonic() + 10
        while pool.replaced < 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert pool.keep(encode_png(picture(0, 0))).suffix == ".png"
    finally:
        pool.close()


@pytest.mark.skipif("sys.platform != 'linux'", reason="only Linux limits the memory of a process so")
def test_a_picture_gets_no_more_memory_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "from retrieval_bench.serving.decoding import child; import numpy as np;"
    code += "child._decode = lambda data, **how: ({}, [np.ones(2**30, np.uint8)]); child.main()"
    monkeypatch.setattr("retrieval_bench.serving.decoding.pool._CODE", code)
    pool = DecodingPool(1, max_pixels=1_000_000)
    try:
        with pytest.raises(BadImage, match="more memory than it may"):
            pool.decode(b"abc")
        assert pool.replaced == 0
    finally:
        pool.close()


def test_words_and_both_find_what_a_run_finds_to_the_last_bit(told: SearchService, told_folder: Path) -> None:
    shelf = told_folder.parent / "shelf"
    plan = replace(plan_of(shelf), methods=tuple(map(parse_method, TEXT_METHODS)), dataset=parse(DATASETS, "manifest"))
    runner.run(plan, told_folder.parent / "out")
    arrays = load_rankings(told_folder.parent / "out", load(told_folder.parent / "out"))
    gallery = arrays["gallery_ids"].tolist()
    texts = told.index(0).queries.texts or ()
    for row in (0, 7, 13):
        encoded = told.known_query(0, row)
        for query in (Query(encoded=encoded, text=texts[row]), Query(known=(0, row))):
            answer = told.search(query)
            assert (answer.text, [column.key for column in answer.columns]) == (texts[row], list(TEXT_METHODS))
            for column in answer.columns:
                assert [hit.id for hit in column.hits] == [
                    gallery[i] for i in arrays[f"{column.key}/indices"][row, :10]
                ]
                distances = np.float32([hit.distance for hit in column.hits])
                np.testing.assert_array_equal(distances, arrays[f"{column.key}/distances"][row, :10])


def test_a_column_that_cannot_read_what_is_given_says_so_and_the_others_answer(told: SearchService) -> None:
    words = told.search(Query(text="mustard tee"), Question(k=2))
    needs_picture = "hsv reads a picture, and the query has none"
    assert [column.refused for column in words.columns] == [needs_picture, "", "", needs_picture]
    assert [column.hits[0].label for column in words.columns[1:3]] == ["product-3"] * 2
    assert words.columns[1].hits[0].text == "mustard tee nordic"
    assert (words.size, words.query, words.text) == (None, "", "mustard tee")
    looked = told.search(Query(known=(0, 4), text=""), Question(k=2))
    assert [column.refused.partition(" reads ")[2][:6] for column in looked.columns] == ["", "a text", "a text", ""]
    assert looked.columns[3].note == "no words were given, so the picture decides alone"
    assert looked.columns[3].comparable
    both = told.search(Query(item=looked.columns[0].hits[0].id, text="plum sneaker"), Question(k=1))
    assert [column.hits[0].label for column in both.columns] == ["product-1", *["product-4"] * 3]
    with pytest.raises(NoSuchThing):
        told.search(Query(item="nobody", text="mug"))
    with pytest.raises(BenchError, match="send a picture or words"):
        told.search(Query(text="  "))
    liked = told.search(Query(text="mustard tee"), Question(k=1, more=(both.columns[1].hits[0].id,)))
    assert not any(column.refused for column in liked.columns), "examples have pictures and words"
