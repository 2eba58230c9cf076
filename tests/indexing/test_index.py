"""An index finds what a run finds, whatever was added to it and taken from it."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from retrieval_bench.core import BenchError, Dataset, Ranking, Split
from retrieval_bench.experiment.prepare import Plan, load, prepare
from retrieval_bench.experiment.quality import quality
from retrieval_bench.images.reading import ImageBytes, encode_png
from retrieval_bench.indexing.build import build
from retrieval_bench.indexing.index import TAKEN, NewItem, StoredIndex
from retrieval_bench.indexing.items import ITEMS_FILE
from retrieval_bench.methods.parse import parse_method
from retrieval_bench.methods.pipeline import Pipeline
from retrieval_bench.registry import DATASETS, fill, parse
from retrieval_bench.system.progress import silent
from retrieval_bench.system.timing import pinned
from retrieval_bench.training.pairs import run_pairs
from tests.support.command import call
from tests.support.indexes import EACH, LABELS, METHODS, built_at
from tests.support.pair_tasks import pair_task, shop_with_texts
from tests.support.paths import ROOT
from tests.support.runs import plan
from tests.support.shop import picture, shop

fill()
pytestmark = pytest.mark.slow(reason="an index of five methods, one of them verified")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One index that tests copy before they change it."""
    return built_at(tmp_path_factory.mktemp("index") / "shop")


@pytest.fixture
def index(built: Path, tmp_path: Path) -> Iterator[StoredIndex]:
    """A copy of one's own, open for writing."""
    shutil.copytree(built, tmp_path / "own")
    with StoredIndex.open(tmp_path / "own", writable=True, check_recipe=False) as opened:
        yield opened


def run_over(dataset: Dataset, method: str) -> Ranking:
    """What the queries of a dataset find in a run."""
    one = plan(dataset, method)
    trial = prepare(one)
    return quality(Pipeline(parse_method(method), one.setup, "exact"), trial, one.setup, one.cache, silent).ranking


def asked(index: StoredIndex, dataset: Dataset, method: str, k: int) -> Ranking:
    """What they find in the index, as rows of the items that are there."""
    queries = [dataset.query.images[row] for row in range(len(dataset.query))]
    snapshot = index.snapshot()
    with pinned(1):  # as a run describes them
        described = index.method(method).describe(queries)
    found = snapshot.search(method, described, k)
    rows = np.append(np.searchsorted(snapshot.numbers, found.indices.ravel()), 0)[:-1].reshape(found.indices.shape)
    return Ranking(np.where(found.indices >= 0, rows, -1), found.distances)


def with_gallery(dataset: Dataset, kept: list[int], more: list[tuple[str, int, np.ndarray]]) -> Dataset:
    """The dataset with some rows of its gallery, and pictures behind them."""
    gallery = dataset.gallery.take(kept)
    images = ImageBytes(
        [*(gallery.images.read(row) for row in range(len(gallery))), *(encode_png(pixels) for _, _, pixels in more)]
    )
    labels = np.array([*gallery.labels, *(label for _, label, _ in more)], np.int64)
    ids = (*gallery.ids, *(name for name, _, _ in more))
    return replace(dataset, gallery=Split(ids, labels, images))


def same(one: Ranking, other: Ranking) -> bool:
    k = min(one.indices.shape[1], other.indices.shape[1])
    return np.array_equal(one.indices[:, :k], other.indices[:, :k]) and (
        one.distances[:, :k].tobytes() == other.distances[:, :k].tobytes()
    )


@pytest.mark.slow(reason="four runs a method")
@pytest.mark.parametrize("method", METHODS)
def test_it_finds_what_a_run_finds_to_the_last_bit(index: StoredIndex, method: str) -> None:
    data = shop(LABELS, EACH)
    first = run_over(data, method)
    assert same(asked(index, data, method, 16), first)
    judged = index.judged(method)
    assert judged is not None
    assert same(Ranking(judged.numbers - 1, judged.distances), first)
    assert np.array_equal(judged.right, np.array(data.gallery.labels)[first.indices] == data.query.labels[:, None])
    more = [("new/a", 2, picture(2, 5000)), ("new/b", 0, picture(0, 5001)), ("new/c", 2, picture(2, 5000))]
    added = index.add([NewItem(name, pixels, label=f"product-{label}") for name, label, pixels in more])
    assert (added.numbers, added.refused) == ((17, 18, 19), {})
    assert same(asked(index, data, method, 19), run_over(with_gallery(data, list(range(16)), more), method))
    removed = index.remove([data.gallery.ids[0], data.gallery.ids[9], "new/b"])
    kept = [row for row in range(16) if row not in (0, 9)]
    fewer = with_gallery(data, kept, [more[0], more[2]])
    assert same(asked(index, data, method, 16), run_over(fewer, method))
    if method == "color":
        index.compact()
        assert same(asked(index, data, method, 16), run_over(fewer, method))
        return
    index.undo(removed)
    index.undo(added.operation or 0)
    assert same(asked(index, data, method, 16), run_over(data, method))


@pytest.mark.long(reason="drawn products, and a run of each kind of method")
def test_it_finds_what_a_run_finds_among_products(tmp_path: Path) -> None:
    methods = ("phash", "color", "sift+color", "phash+color+rrf", "sift+verify=20", "sift+color+qe=5")
    data = load(Plan((), parse(DATASETS, "products"), limit=40))
    with build(plan(data, *methods), tmp_path / "own") as index:
        for method in methods:
            assert same(asked(index, data, method, 40), run_over(data, method)), method


def test_an_index_may_be_emptied_and_filled_again(index: StoredIndex) -> None:
    everything = [item.id for item in index.snapshot().items(index.snapshot().numbers)]
    index.remove(everything)
    for _ in range(2):
        snapshot = index.snapshot()
        assert (len(snapshot), snapshot.numbers.tolist(), snapshot.facets(), snapshot.where().tolist()) == (
            0,
            [],
            {},
            [],
        )
        for method in index.methods:
            found = snapshot.search(method.text, method.describe([picture(0, 1)]), 2)
            assert found.indices.tolist() == [[-1, -1]]
        index.compact()
    assert index.add([NewItem("new", picture(0, 1))]).numbers == (17,)
    for method in index.methods:
        found = index.snapshot().search(method.text, method.describe([picture(0, 1)]), 2)
        assert found.indices.tolist() == [[17, -1]], method
    assert not index.verify().problems


def test_the_example_of_the_page_runs(
    index: StoredIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    index.close()
    index.folder.rename(tmp_path / "my_index")
    (tmp_path / "photo.jpg").write_bytes(encode_png(picture(1, 9)))
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "indexing.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, re.S)
    exec(compile(example, "indexing.md", "exec"), {})
    assert capsys.readouterr().out.count("['mine']") == len(METHODS)


def test_ids_are_given_once(index: StoredIndex) -> None:
    taken = index.snapshot().item(3).id
    added = index.add([NewItem(taken, picture(0, 1)), NewItem("x", picture(0, 1)), NewItem("x", picture(0, 2))])
    assert (added.numbers, added.refused) == ((17,), {TAKEN: (taken, "x")})
    with pytest.raises(BenchError, match="has no item 'nobody'; nothing was removed"):
        index.remove(["x", "nobody"])
    assert index.snapshot().by_id("x") is not None
    with pytest.raises(BenchError, match="name at least one item"):
        index.remove([])
    with pytest.raises(BenchError, match="must be text that UTF-8 can hold"):
        index.add([NewItem("y\udc80", picture(0, 1))])
    assert index.snapshot().version == 2


def test_filters_find_k_where_there_are_k(index: StoredIndex) -> None:
    data = shop(LABELS, EACH)
    index.add([NewItem("NEW/x", picture(3, 8), attributes={"view": 3, "lit": True, "text": 'a "b"'})])
    snapshot = index.snapshot()
    for method in METHODS:
        query = index.method(method).describe([data.query.images[0]])
        among = snapshot.where(not_labels=["product-0"])
        found = snapshot.search(method, query, 13, among=among)
        assert np.array_equal(np.sort(found.indices[0]), among)
        one = snapshot.search(method, query, 3, among=among[-1:], exclude=np.array([among[0]]))
        assert one.indices.tolist() == [[17, -1, -1]]
        assert snapshot.search(method, query, 2, among=np.array([], np.int64)).indices.tolist() == [[-1, -1]]
        assert snapshot.search(method, query, 16, exclude=np.array([[17, 1]])).indices.min() == -1
    assert snapshot.where(labels=["product-1"]).tolist() == [5, 6, 7, 8]
    assert snapshot.where(categories=["even"], labels=["product-1"]).tolist() == []
    assert snapshot.where(not_categories=["even", "odd"]).tolist() == [17]
    assert snapshot.where(text_in_id="new/").tolist() == [17]
    assert snapshot.where(attributes={"view": ["3", "4"], "lit": ["true"], "text": ['a "b"']}).tolist() == [17]
    assert snapshot.where(attributes={"view": ["4"]}).tolist() == []
    assert snapshot.where().tolist() == list(range(1, 18))
    assert snapshot.facets() == {
        "category": {"even": 8, "odd": 8},
        "view": {"3": 1},
        "lit": {"true": 1},
        "text": {'a "b"': 1},
    }
    with pytest.raises(BenchError, match="unknown method of the index 'hog'"):
        snapshot.search("hog", query, 1)
    with pytest.raises(BenchError, match="k is 0"):
        snapshot.search("phash", query, 0)


def test_an_undo_can_be_undone(index: StoredIndex) -> None:
    ids = [item.id for item in index.snapshot().items([1, 2, 3])]
    added = index.add([NewItem("a", picture(0, 1)), NewItem("b", picture(0, 2))]).operation
    assert added is not None
    removed = index.remove(["a", *ids])
    undone = index.undo(added)  # b alone is left of it
    assert index.snapshot().numbers.tolist() == list(range(4, 17))
    assert index.undo(removed) == 5
    assert index.snapshot().numbers.tolist() == list(range(1, 18))
    with pytest.raises(BenchError, match="operation 2 was undone by operation 4; undo that one"):
        index.undo(added)
    index.undo(undone)
    assert index.snapshot().numbers.tolist() == list(range(1, 19))
    with pytest.raises(BenchError, match="operation 1 is a build, which cannot be undone"):
        index.undo(1)
    with pytest.raises(BenchError, match="has no operation 99"):
        index.undo(99)
    gone = index.remove(["a"])
    index.add([NewItem("a", picture(1, 9))])
    with pytest.raises(BenchError, match="'a', which it removed, was added again since"):
        index.undo(gone)
    index.compact()
    with pytest.raises(BenchError, match="nothing of operation 7 is left to undo"):
        index.undo(gone)
    assert [one.what for one in index.operations(3)] == ["remove", "add", "compact"]
    assert not index.verify().problems


def test_bytes_that_are_added_are_kept_until_nobody_needs_them(index: StoredIndex) -> None:
    encoded = encode_png(picture(0, 3))
    added = index.add([NewItem("upload", encoded=encoded, label="x"), NewItem("torn", encoded=encoded[:90])])
    assert added.refused == {"damaged": ("torn",)}
    item = index.snapshot().item(added.numbers[0])
    assert index.read(item) == encoded
    assert sorted(file.name for file in (index.folder / "pictures").iterdir()) == [item.picture]
    index.remove(["upload"])
    index.compact()
    assert list((index.folder / "pictures").iterdir()) == []
    with pytest.raises(BenchError, match="no item of number 17 any more"):
        index.snapshot().item(17)
    with pytest.raises(BenchError, match="keeps pictures as JPEG or PNG alone"):
        index.add([NewItem("gif", encoded=b"GIF89a")])


def test_features_that_are_known_are_added_without_a_picture(index: StoredIndex) -> None:
    pictures = [picture(2, 50), picture(3, 51)]
    features = [method.features(pictures) for method in index.methods]
    new = [NewItem("one", digest="1" * 64), NewItem("two", digest="2" * 64)]
    assert index.add_features(new, features).numbers == (17, 18)
    snapshot = index.snapshot()
    for method in index.methods:
        found = snapshot.search(method.text, method.describe(pictures), 18, among=np.array([17, 18]))
        assert found.indices[:, 0].tolist() == [17, 18], method
    assert not index.verify().problems


TEXTS = ("bm25", "hsv+tfidf", "hsv+bm25", "hsv+tfidf+early")


def asked_with_texts(index: StoredIndex, dataset: Dataset, method: str) -> Ranking:
    """As `asked`, with the texts of the queries where the method reads them."""
    queries = [dataset.query.images[row] for row in range(len(dataset.query))]
    with pinned(1):
        rows = index.method(method).describe(queries, dataset.query.texts)
    snapshot = index.snapshot()
    found = snapshot.search(method, rows, len(snapshot))
    places = np.append(np.searchsorted(snapshot.numbers, found.indices.ravel()), 0)[:-1].reshape(found.indices.shape)
    return Ranking(np.where(found.indices >= 0, places, -1), found.distances)


def test_methods_of_texts_find_what_a_run_finds_to_the_last_bit(tmp_path: Path) -> None:
    """Also of items without a text, and after items with texts were added, removed, brought back and compacted."""
    pytest.importorskip("bm25s", reason='needs pip install "retrieval-bench[text]"')
    data = shop_with_texts(LABELS, EACH)
    lacking = tuple("" if row in (1, 6) else text for row, text in enumerate(data.gallery.texts or ()))
    data = data.with_splits({"gallery": replace(data.gallery, texts=lacking)})
    build(plan(data, *TEXTS), tmp_path / "own").close()
    new = [("new/a", 2, "azure carton"), ("new/b", 0, ""), ("new/c", 1, "emerald red bottle bottle")]
    more = [(name, label, picture(label, 5000 + row)) for row, (name, label, _) in enumerate(new)]
    larger = with_gallery(data, list(range(16)), more)
    larger = larger.with_splits({"gallery": replace(larger.gallery, texts=(*lacking, *(text for *_, text in new)))})
    kept = [row for row in range(19) if row not in (0, 17)]
    fewer = larger.with_splits({"gallery": larger.gallery.take(kept)})
    with StoredIndex.open(tmp_path / "own", writable=True) as index:
        for method in TEXTS:
            first = run_over(data, method)
            assert same(asked_with_texts(index, data, method), first), method
            judged = index.judged(method)
            assert judged is not None
            assert same(Ranking(judged.numbers - 1, judged.distances), first), method
        items = index.snapshot().items(index.snapshot().numbers)
        assert [item.text for item in items] == list(lacking)
        index.add([NewItem(name, picture(label, 5000 + row), text=text) for row, (name, label, text) in enumerate(new)])
        for method in TEXTS[1:3]:
            assert same(asked_with_texts(index, larger, method), run_over(larger, method)), method
        index.remove([data.gallery.ids[0], "new/b"])
        index.compact()
        found = {method: asked_with_texts(index, fewer, method) for method in TEXTS}
        for method in TEXTS[1:3]:
            assert same(found[method], run_over(fewer, method)), method
        assert not index.verify().problems
    with StoredIndex.open(tmp_path / "own") as again:  # methods are built anew, with what they learned
        for method in TEXTS:
            assert again.method(method).notice == ""
            assert same(asked_with_texts(again, fewer, method), found[method]), method
    (tmp_path / "photo.png").write_bytes(encode_png(picture(3, 9)))
    done = call("index", "add", tmp_path / "own", tmp_path / "photo.png")
    assert "1 of 1 has no text, which bm25, hsv+tfidf, hsv+bm25 and hsv+tfidf+early read" in done.stdout
    call("index", "undo", tmp_path / "own", 5)
    ask = ("index", "query", tmp_path / "own", "--k", 2, "--json", "--method")
    done = call(*ask, "bm25", "--text", "mustard tee")
    (answer,) = json.loads(done.stdout)["answers"]
    assert (answer["image"], answer["text"], answer["found"][0]["label"]) == (None, "mustard tee", "product-3")
    done = call(*ask, "hsv+bm25,bm25", tmp_path / "photo.png", "--text", "mustard tee")
    assert [one["found"][0]["label"] for one in json.loads(done.stdout)["answers"]] == ["product-3"] * 2
    for given, sentence in (
        (("hsv+bm25", "--text", "x"), "hsv reads a picture, and the query has none; name an image"),
        (("bm25", tmp_path / "photo.png"), "bm25 reads a text, and the query has none; give one with --text"),
        (("bm25", "--text", " "), "nothing is searched for; name images, or words with --text"),
    ):
        done = call(*ask, *given)
        assert (done.exit_code, sentence in done.stderr) == (2, True), done.stderr


def test_an_index_of_before_there_were_texts_goes_on(built: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(built, tmp_path / "former"))
    with contextlib.closing(sqlite3.connect(folder / ITEMS_FILE)) as items:
        items.execute("ALTER TABLE items DROP COLUMN text")
    with StoredIndex.open(folder, check_recipe=False) as reader:
        assert reader.snapshot().item(1).text == ""
        assert not reader.verify().problems
        with StoredIndex.open(folder, writable=True, check_recipe=False) as index:
            index.add([NewItem("new", picture(0, 1), text="a mug")])
            assert not index.verify().problems
        assert reader.snapshot().item(17).text == "a mug"
    with contextlib.closing(sqlite3.connect(folder / ITEMS_FILE)) as items, items:
        items.execute("UPDATE items SET text = NULL WHERE number = 17")
    with StoredIndex.open(folder, check_recipe=False) as index:
        assert "item 17 is not as it was written" in index.verify().problems[0]


def test_a_list_of_images_brings_its_texts(index: StoredIndex, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encode_png(picture(0, 77)))
    (tmp_path / "list.csv").write_text(
        "path,label,title,description\na.png,mug,Red mug,Made of clay\n", encoding="utf-8"
    )
    index.close()
    done = call("index", "add", index.folder, "--manifest", tmp_path / "list.csv")
    assert done.exit_code == 0, done.stderr
    with StoredIndex.open(index.folder, check_recipe=False) as again:
        assert again.snapshot().item(17).text == "Red mug\nMade of clay"


def test_words_find_pictures_where_both_lie_in_one_space(tmp_path: Path) -> None:
    run_pairs(pair_task(epochs=1), tmp_path / "own.safetensors")
    data = shop_with_texts(LABELS, EACH)
    one = f"pairs:{tmp_path / 'own.safetensors'}"
    methods = tuple(f"{one}[{sides}]" for sides in ("text-to-image", "image-to-text", "image+text"))
    with build(plan(data, *methods), tmp_path / "own") as index:
        for method in methods:
            assert same(asked_with_texts(index, data, method), run_over(data, method)), method
        words, joint = index.method(methods[0]), index.method(methods[2])
        assert words.lacking(picture=True, text=False).endswith("reads a text, and the query has none")
        assert (
            index.method(methods[1])
            .lacking(picture=False, text=True)
            .endswith("reads a picture, and the query has none")
        )
        pixels = data.query.images[0]
        for given in ((None, "red mug"), (pixels, "")):  # the one that is there stands for both
            assert joint.lacking(picture=given[0] is not None, text=bool(given[1])) == ""
            together = joint.features([pixels, given[0]], ["red mug", given[1]])[0]
            np.testing.assert_array_equal(together[1:], joint.features([given[0]], [given[1]])[0])
        with pytest.raises(BenchError, match="reads a text, and the query has none"):
            words.describe([pixels])
