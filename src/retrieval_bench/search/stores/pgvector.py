"""The backend `pgvector`: a gallery in a table of PostgreSQL, searched by SQL."""

from __future__ import annotations

import contextlib
import copy
import math
import operator
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np

from retrieval_bench.core import BenchError, Distance
from retrieval_bench.registry import BACKENDS, Range
from retrieval_bench.search.stores import postgres_server
from retrieval_bench.search.stores.postgres_client import (
    VARIABLE,
    connect,
    has_password,
    psycopg_loaded,
    said,
    without_password,
)
from retrieval_bench.search.stores.postgres_wire import Kind, copied, value_of, vectors_of
from retrieval_bench.search.stores.store import (
    Attributes,
    Nearby,
    StoreSearcher,
    Where,
    ZeroRows,
    build_searcher,
    check_columns,
    check_meaning,
    check_search_options,
    lowest_first,
    scaled_for,
)

IndexKind = Literal["exact", "hnsw", "ivfflat"]
Stored = Literal["auto", "vector", "halfvec", "bit"]
Iterative = Literal["off", "strict_order", "relaxed_order"]

NO_PASSWORD = (
    f"pgvector: dsn holds a password, which would stand in every record; put the address into {VARIABLE}, or the "
    "password into PGPASSWORD or ~/.pgpass"
)
AT_SEARCH = ("ef", "probes", "iterative", "rerank")
MOST_INDEXED: Mapping[str, int] = {"vector": 2_000, "halfvec": 4_000, "bit": 64_000}
"""Dimensions that an index of pgvector 0.8 takes."""
MOST_STORED = 16_000
_OPERATORS = {"cosine": "<=>", "euclidean": "<->", "inner_product": "<#>", "hamming": "<~>"}
_CLASSES = {"cosine": "cosine_ops", "euclidean": "l2_ops", "inner_product": "ip_ops", "hamming": "hamming_ops"}
_MEANS: Mapping[str, tuple[str, ...]] = {
    "exact": (),
    "hnsw": ("m", "build_ef", "ef", "iterative"),
    "ivfflat": ("lists", "probes", "iterative"),
}
_PREFIX = "retrieval_bench_"
_LOCKS = 0x52B  # the first half of the keys of our advisory locks
_PLAIN_BYTES = 7_900  # of a row that fits a page; a larger one lies apart, and reading it costs more than comparing it
_IDS_AT_ONCE = 10_000  # that a statement names
_PIPELINED = 64  # queries that are sent without waiting for the answers


@dataclass(frozen=True)
class PgvectorOptions:
    """What `pgvector` says under Args, resolved: of each the value that counts."""

    kind: IndexKind
    type: Kind
    m: int
    build_ef: int
    ef: int
    lists: int
    probes: int
    iterative: Iterative
    rerank: int

    def settings(self, rows: int) -> dict[str, str]:
        """Settings of a session that searches, for a table of so many rows."""
        forced = "on" if self.kind == "exact" else "off"
        chosen = {"enable_seqscan": forced, "enable_sort": forced, "jit": "off"}
        chosen["plan_cache_mode"] = "force_generic_plan"  # planning anew takes as long as a search
        if self.kind == "hnsw":
            chosen |= {"hnsw.ef_search": str(self.ef), "hnsw.iterative_scan": self.iterative}
        if self.kind == "ivfflat":
            probes = self.probes or math.ceil(math.sqrt(self.lists_of(rows)))
            chosen |= {"ivfflat.probes": str(probes), "ivfflat.iterative_scan": self.iterative}
        return chosen

    def lists_of(self, rows: int) -> int:
        """As pgvector advises: a list for each 1,000 rows, at least 10."""
        return self.lists or max(10, min(32_768, rows // 1000 if rows < 1_000_000 else math.isqrt(rows)))


class PgvectorStore:
    """A table on a server, and a connection to it. Arguments and errors of its methods as in `Store`.

    Args:
        dim: columns of the vectors; of codes, bytes.
        distance: what is computed.
        options: how rows are stored, indexed and searched.
        dsn: the server; "" for one of our own, which is started if it does not run.
        attributes: names of what is known of each row.
        table: one that lies there already, and stays; "" for a new one, which is dropped by `close`.
        log: what the server writes of its troubles, where we can read it.
        place: where the server is, for sentences; "" for what the dsn says.

    Raises:
        BenchError: pgvector cannot do that with vectors of this length, there is no such server, or its table is
            missing or holds other vectors.
    """

    def __init__(
        self,
        dim: int,
        distance: Distance,
        options: PgvectorOptions,
        dsn: str = "",
        attributes: tuple[str, ...] = (),
        *,
        table: str = "",
        log: Path | None = None,
        place: str = "",
    ) -> None:
        check_limits(dim, distance, options)
        self.dim, self.distance, self.options = dim, distance, options
        self.attributes = attributes
        self.quantised = options.type == "bit" and distance != "hamming"
        self.stored: Kind = "vector" if self.quantised else options.type
        self.server = None if dsn else postgres_server.borrow()
        self.dsn = dsn or self.server.dsn  # type: ignore[union-attr]
        self._log = log if self.server is None else self.server.folder / "server.log"
        self.place = place or (without_password(dsn) if dsn else "of our own")
        self.table = table or f"{_PREFIX}{secrets.token_hex(6)}"
        self._lasting = bool(table)
        self._zeros = ZeroRows(distance)
        self._plain, _ = self.statement()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._rows_at_build = 0
        self._settings = options.settings(0)
        self._widest = 3 if options.type == "halfvec" else 30  # half floats keep all digits near 1 alone
        self.session: _Session | None = None
        try:
            self.session = _Session(self.dsn, self.place, self.stored, bound=bool(table))
            if table:
                self._find_table()
            else:
                self._make_table()
        except BaseException:
            self.close()
            raise

    def _column(self) -> str:
        """The type of the column of vectors, as SQL writes it."""
        return f"{self.stored}({8 * self.dim if self.stored == 'bit' else self.dim})"

    def _find_table(self) -> None:
        asked = "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attname = 'e' AND attrelid = "
        found = self._run(f"{asked}to_regclass('{self.table}')").fetchone()
        if found is None:
            raise BenchError(f"pgvector: the server {self.place} has no table {self.table}; build the index again")
        if found[0] != self._column():
            raise BenchError(
                f"pgvector: the table {self.table} of the server {self.place} holds {found[0]}, and not "
                f"{self._column()}; build the index again"
            )
        self._rows_at_build = self.count()
        self._settings = self.options.settings(self._rows_at_build)

    def keep(self, name: str) -> None:
        """Let the table stay under another name when this is closed. BenchError where that is taken."""
        if self._run(f"SELECT to_regclass('{name}')").fetchone()[0] is not None:
            raise BenchError(f"pgvector: the server {self.place} has a table {name} already; drop it first")
        self._run(f"ALTER TABLE {self.table} RENAME TO {name}")
        self.table, self._lasting = name, True
        self._plain, _ = self.statement()

    @property
    def lost(self) -> bool:
        """Whether the connection has broken."""
        return self.session is None or bool(self.session.connection.closed)

    def _make_table(self) -> None:
        size = {"vector": 4 * self.dim, "halfvec": 2 * self.dim, "bit": self.dim}[self.stored]
        named = "".join(f"{name} bigint NOT NULL, " for name in self.attributes)
        storage = "PLAIN" if size < _PLAIN_BYTES else "EXTERNAL"  # never compressed: floats do not get smaller
        self._run(f"CREATE TABLE {self.table} (id bigint PRIMARY KEY, {named}e {self._column()} NOT NULL)")
        self._run(f"ALTER TABLE {self.table} ALTER COLUMN e SET STORAGE {storage}")
        self._run(f"SELECT pg_advisory_lock({_LOCKS}, '{self.table}'::regclass::oid::bigint::int)")
        self._drop_what_others_left()

    def _drop_what_others_left(self) -> None:
        """Drop tables of ours whose process is gone: who uses one holds its lock."""
        key = f"{_LOCKS}, oid::bigint::int"
        find = f"SELECT oid, relname FROM pg_class WHERE relkind = 'r' AND relname ~ '^{_PREFIX}[0-9a-f]{{12}}$'"
        find += " AND relowner = (SELECT oid FROM pg_roles WHERE rolname = current_user) AND relname <> "
        for oid, name in self._run(f"{find}'{self.table}'").fetchall():
            free = f"SELECT pg_try_advisory_lock({key}) FROM pg_class WHERE oid = {oid}"
            if (row := self._run(free).fetchone()) and row[0]:
                self._run(f"DROP TABLE IF EXISTS {name}")
                self._run(f"SELECT pg_advisory_unlock({_LOCKS}, {oid}::bigint::int)")

    def _run(self, statement: str, parameters: Mapping[str, Any] | None = None) -> Any:
        assert self.session is not None
        with said(self.place, self._log):
            return self.session.connection.execute(statement, parameters)

    def insert(self, ids: np.ndarray, vectors: np.ndarray, attributes: Attributes | None = None) -> None:
        check_columns(vectors, self.dim)
        assert self.session is not None
        rows, known = scaled_for(self.distance, vectors, self._widest), dict(attributes or {})
        check_halves("vector", rows, self.stored)
        columns = [np.asarray(known[name], np.int64) for name in self.attributes]
        names = ", ".join(("id", *self.attributes, "e"))
        copying = f"COPY {self.table} ({names}) FROM STDIN (FORMAT binary)"
        with (
            self._lock,
            said(self.place, self._log),
            self.session.connection.cursor() as cursor,
            cursor.copy(copying) as stream,
        ):
            for some in copied(np.asarray(ids, np.int64), columns, self.stored, rows):
                stream.write(some)
        self._zeros.add(ids, rows, known)

    def as_stored(self, vectors: np.ndarray) -> np.ndarray:
        rows = scaled_for(self.distance, vectors, self._widest)
        check_halves("vector", rows, self.stored)
        return rows.astype(np.float16).astype(np.float32) if self.stored == "halfvec" else rows

    def build_index(self) -> float:
        started = time.perf_counter()
        options, rows = self.options, self.count()
        self._rows_at_build = rows
        self._settings = options.settings(rows)
        if options.kind != "exact":
            kind = "bit" if self.quantised else self.stored
            column = f"(binary_quantize(e)::bit({self.dim}))" if self.quantised else "e"
            measure = "hamming_ops" if self.quantised else _CLASSES[self.distance]
            given = f"m = {options.m}, ef_construction = {options.build_ef}"
            given = given if options.kind == "hnsw" else f"lists = {options.lists_of(rows)}"
            self._run(f"CREATE INDEX ON {self.table} USING {options.kind} ({column} {kind}_{measure}) WITH ({given})")
        self._run(f"VACUUM (ANALYZE) {self.table}")  # else the first queries do that work
        return time.perf_counter() - started

    def delete(self, ids: np.ndarray) -> None:
        with self._lock:
            self._run(f"DELETE FROM {self.table} WHERE id = ANY(%(ids)s)", {"ids": np.asarray(ids).tolist()})
        self._zeros.remove(ids)

    def search(self, queries: np.ndarray, k: int, where: Where | None = None) -> Nearby:
        if len(queries) == 1 and not where and (quick := self._one(queries[0], k)) is not None:
            return quick
        assert self.session is not None
        rows = scaled_for(self.distance, queries, self._widest)
        check_halves("query", rows, self.stored)
        found = Nearby(np.full((len(rows), k), -1, np.int64), np.full((len(rows), k), np.inf, np.float32))
        statement, given = self.statement(where)
        given |= {"k": k, "shortlist": k * self.options.rerank}
        with self._lock, said(self.place, self._log):
            self.session.use(self._settings)
            for first in range(0, len(rows), _PIPELINED):
                block = [{**given, "v": _Value(value_of(self.stored, row))} for row in rows[first : first + _PIPELINED]]
                for row, answer in enumerate(self.session.ask(statement, block), first):
                    if answer:
                        pairs = np.array(answer)  # float64 holds whole numbers up to 2 ** 53
                        found.ids[row, : len(pairs)], found.distances[row, : len(pairs)] = pairs.T
        found = lowest_first(found)
        if len(self._zeros):
            self._zeros.merge_into(found, where)
        for row in np.flatnonzero(self._zeros.are_zero(rows)).tolist():
            self._fill_for_zero_query(found, row, where)
        return found

    def _one(self, query: np.ndarray, k: int) -> Nearby | None:
        """One query with as few steps as can be, each of which costs more than its work; None where more is needed."""
        if len(self._zeros) or self.options.type == "halfvec" or self.session is None:
            return None
        if self.distance == "cosine" and not 1e-18 < float(query @ query) < 1e18:  # zero, or to be scaled
            return None
        value = _Value(value_of(self.stored, query))
        with self._lock, said(self.place, self._log):
            self.session.use(self._settings)
            given = {"v": value, "k": k, "shortlist": k * self.options.rerank}
            (answer,) = self.session.ask(self._plain, [given])
        if len(answer) != k:
            return None
        ids, distances = zip(*answer, strict=True)
        if not all(map(operator.lt, distances, distances[1:])):  # also where one is no number
            return None
        if k == 1 and distances[0] != distances[0]:
            return None
        return Nearby(np.array([ids], np.int64), np.array([distances], np.float32))

    def statement(self, where: Where | None = None) -> tuple[str, dict[str, int]]:
        """The SQL of a search, and the numbers that it compares with."""
        allowed, given = _limits(where)
        distance, source = f"e {_OPERATORS[self.distance]} %(v)b", f"{self.table}{allowed}"
        if self.quantised and self.options.kind != "exact":
            bits = f"::bit({self.dim})"
            near = f"binary_quantize(e){bits} <~> binary_quantize(%(v)b){bits}"
            source = f"(SELECT id, e FROM {source} ORDER BY {near} LIMIT %(shortlist)b) AS near"
        last = ", id" if self.options.kind == "exact" else ""  # the lower row first; an index would not be used
        return f"SELECT id, {distance} AS d FROM {source} ORDER BY {distance}{last} LIMIT %(k)b", given

    def _fill_for_zero_query(self, found: Nearby, row: int, where: Where | None) -> None:
        allowed, given = _limits(where)
        k = found.ids.shape[1]
        ask = f"SELECT id FROM {self.table}{allowed} ORDER BY id LIMIT %(k)b"
        with self._lock:
            ids = [line[0] for line in self._run(ask, {**given, "k": k}).fetchall()]
        found.ids[row], found.distances[row] = -1, np.inf
        found.ids[row, : len(ids)], found.distances[row, : len(ids)] = ids, 1.0

    def ids(self, where: Where | None = None) -> np.ndarray:
        allowed, given = _limits(where)
        with self._lock:
            found = self._run(f"SELECT id FROM {self.table}{allowed} ORDER BY id", given).fetchall()
        return np.array([row[0] for row in found], np.int64)

    def vectors(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        wanted, found = np.unique(np.asarray(ids, np.int64)), []
        assert self.session is not None
        asked = f"SELECT id, e FROM {self.table} WHERE id = ANY(%(ids)s) ORDER BY id"
        with self._lock, said(self.place, self._log):
            for first in range(0, len(wanted), _IDS_AT_ONCE):
                some = wanted[first : first + _IDS_AT_ONCE].tolist()
                found += self.session.connection.execute(asked, {"ids": some}, binary=True).fetchall()
        own = np.array([row[0] for row in found], np.int64)
        return own, vectors_of(self.stored, [row[1] for row in found], self.dim)

    def compact(self) -> None:
        self._run(f"VACUUM (FULL, ANALYZE) {self.table}")

    def count(self, where: Where | None = None) -> int:
        allowed, given = _limits(where)
        with self._lock:
            return int(self._run(f"SELECT count(*) FROM {self.table}{allowed}", given).fetchone()[0])

    def disk_bytes(self) -> int:
        return int(self._run(f"SELECT pg_total_relation_size('{self.table}')").fetchone()[0])

    def with_search_options(self, **options: Any) -> Self:
        check_search_options("pgvector", options, AT_SEARCH)
        other = copy.copy(self)
        chosen = checked(replace(self.options, **options))
        other.__dict__ |= {"options": chosen, "_settings": chosen.settings(self._rows_at_build)}
        return other

    def reconnected(self) -> Self:
        """The same table over a connection of its own: for another thread, or after the server was killed."""
        other = copy.copy(self)
        other.__dict__ |= {"_lock": threading.Lock(), "session": _Session(self.dsn, self.place, self.stored)}
        return other

    def disconnect(self) -> None:
        """Close the connection alone."""
        if self.session is not None:
            self.session.connection.close()

    def break_connection(self) -> None:
        """Cut the connection off in the middle of whatever it does; another thread may be using it."""
        assert self.session is not None
        wire = socket.socket(fileno=os.dup(self.session.connection.fileno()))
        with wire, contextlib.suppress(OSError):
            wire.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        if self._closed.is_set():
            return
        self._closed.set()
        try:
            if self.session is not None:
                with contextlib.suppress(BenchError, psycopg_loaded().Error):  # with a dead server goes its table
                    if not self._lasting:
                        self.session.connection.execute(f"DROP TABLE IF EXISTS {self.table}")
                self.session.connection.close()
        finally:
            if self.server is not None:
                postgres_server.give_back()


def _limits(where: Where | None) -> tuple[str, dict[str, int]]:
    """The condition in SQL, "" for none, and the numbers that it compares with."""
    limits: list[str] = []
    given: dict[str, int] = {}
    for name, (least, most) in (where or {}).items():
        limits.append(f"{name} BETWEEN %(least_{name})b AND %(most_{name})b")
        given |= {f"least_{name}": least, f"most_{name}": most}
    return f" WHERE {' AND '.join(limits)}" if limits else "", given


class _Value(bytes):
    """A vector in the binary format of its type."""


class _Session:
    """A connection, and what was last set on it."""

    def __init__(self, dsn: str, place: str, stored: Kind, *, bound: bool = False) -> None:
        psycopg = psycopg_loaded()
        self.connection = connect(dsn, bound=bound)
        self._set: dict[str, str] = {}
        self._used: Mapping[str, str] = {}
        with said(place):
            (found,) = self.connection.execute("SELECT %s::regtype::oid::bigint", (stored,)).fetchone()

        class Dumper(psycopg.adapt.Dumper):  # type: ignore[misc,name-defined]
            format = psycopg.pq.Format.BINARY
            oid = found

            def dump(self, obj: _Value) -> bytes:
                return obj

        self.connection.adapters.register_dumper(_Value, Dumper)
        self.connection.prepare_threshold = 0
        self._cursor = self.connection.cursor(binary=True)  # knows what is registered by now

    def use(self, settings: Mapping[str, str]) -> None:
        if settings is self._used:
            return
        self._used = settings
        for name, value in settings.items():
            if self._set.get(name) != value:
                self.connection.execute(f"SET {name} = {value}")
                self._set[name] = value

    def ask(self, statement: str, block: list[dict[str, Any]]) -> list[list[tuple[int, float]]]:
        """The rows that answer each of these queries, which are sent one behind the other."""
        if len(block) == 1:
            return [self._cursor.execute(statement, block[0]).fetchall()]
        with contextlib.ExitStack() as opened:
            opened.enter_context(self.connection.pipeline())
            cursors = [opened.enter_context(self.connection.cursor(binary=True)) for _ in block]
            for cursor, given in zip(cursors, block, strict=True):
                cursor.execute(statement, given)
            return [cursor.fetchall() for cursor in cursors]


def check_limits(dim: int, distance: Distance, options: PgvectorOptions) -> None:
    """BenchError where pgvector takes no vectors of this length, or not for this distance."""
    kind = options.type
    if (distance == "hamming") and kind != "bit":
        raise BenchError(f"pgvector: type={kind} holds no codes; hamming takes type=bit (or leave the type out)")
    if kind != "bit" and dim > MOST_STORED:
        raise BenchError(
            f"pgvector: vectors have {dim:,} dimensions; it stores up to {MOST_STORED:,}: reduce them (concat:dims=)"
        )
    width = 8 * dim if distance == "hamming" else dim
    if options.kind != "exact" and width > MOST_INDEXED[kind]:
        others = [f"type={name} (up to {most:,})" for name, most in MOST_INDEXED.items() if most >= width]
        others = [] if distance == "hamming" else others
        raise BenchError(
            f"pgvector: an index of type {kind} takes up to {MOST_INDEXED[kind]:,} dimensions, and these have "
            f"{width:,}; use {' or '.join([*others, 'pgvector:exact'])}"
        )


def check_halves(name: str, rows: np.ndarray, kind: Kind) -> None:
    """BenchError where half floats cannot hold a value."""
    if kind == "halfvec" and (wrong := np.flatnonzero((np.abs(rows) > 65_504).any(axis=1))).size:
        raise BenchError(
            f"pgvector: {name} row {wrong[0]} holds a value above 65,504, which type=halfvec cannot hold; use "
            "type=vector, or scale the vectors down"
        )


def checked(options: PgvectorOptions) -> PgvectorOptions:
    """The options, if they go together; else BenchError."""
    means = ("type", "kind", *_MEANS[options.kind], *(("rerank",) if options.type == "bit" else ()))
    check_meaning("pgvector", f"pgvector:{options.kind}", options, means)
    if options.kind == "ivfflat" and options.iterative == "strict_order":
        raise BenchError("pgvector: ivfflat knows no iterative=strict_order; use relaxed_order or off")
    if options.kind == "hnsw" and options.build_ef < 2 * options.m:
        raise BenchError(
            f"pgvector: build_ef={options.build_ef} must be at least 2 * m, which is {2 * options.m}; raise it or "
            "lower m"
        )
    return options


def check_address(dsn: str) -> None:
    """BenchError where an address that records will show holds a password."""
    if dsn and has_password(dsn):
        raise BenchError(NO_PASSWORD)


@contextlib.contextmanager
def raw_client(store: PgvectorStore, k: int) -> Iterator[Callable[[np.ndarray], list]]:
    """What a program of plain SQL would do: one prepared statement over psycopg, its vector in binary, rows as tuples.

    Args:
        store: whose table is searched, with the same settings.
        k: how many rows are asked for.

    Yields:
        (d,) float32 query, or (bytes,) uint8 -> rows (id, distance).
    """
    session = _Session(store.dsn, store.place, store.stored)
    try:
        session.use(store.options.settings(store.count()))
        statement, _ = store.statement()
        given = {"k": k, "shortlist": k * store.options.rerank}
        cursor = session.connection.cursor(binary=True)

        def ask(query: np.ndarray) -> list:
            return cursor.execute(statement, {**given, "v": _Value(value_of(store.stored, query))}).fetchall()

        yield ask
    finally:
        session.connection.close()


def open_store(
    dim: int,
    distance: Distance,
    attributes: tuple[str, ...] = (),
    *,
    kind: IndexKind = "hnsw",
    type: Stored = "auto",
    dsn: str = "",
    **numbers: Any,
) -> PgvectorStore:
    """An empty store with the options of the backend `pgvector`; `dsn` may hold a password here."""
    stored: Kind = ("bit" if distance == "hamming" else "vector") if type == "auto" else type
    options = checked(PgvectorOptions(kind, stored, **numbers))
    return PgvectorStore(dim, distance, options, dsn or os.environ.get(VARIABLE, ""), attributes)


@BACKENDS(
    "pgvector",
    about="PostgreSQL with pgvector, all rows compared or an index (hnsw, ivfflat); a server is started for it",
    exact=False,
    argument="kind",
    colons=("dsn",),
    at_search=AT_SEARCH,
    no_password=NO_PASSWORD,
)
def pgvector(
    gallery: np.ndarray,
    distance: Distance = "cosine",
    *,
    kind: IndexKind = "hnsw",
    type: Stored = "auto",
    m: Annotated[int, Range(2, 100)] = 16,
    build_ef: Annotated[int, Range(4, 1000)] = 64,
    ef: Annotated[int, Range(1, 1000)] = 100,
    lists: Annotated[int, Range(0, 32_768)] = 0,
    probes: Annotated[int, Range(0, 32_768)] = 0,
    iterative: Iterative = "relaxed_order",
    rerank: Annotated[int, Range(1, 100)] = 10,
    dsn: str = "",
) -> StoreSearcher:
    """Put a gallery into a table of PostgreSQL and search there.

    Args:
        gallery: as for `ExactIndex`; values are stored in float32, or less with `type`.
        distance: as for `ExactIndex`.
        kind: "exact" compares all rows; "hnsw" walks a graph of near rows; "ivfflat" reads the nearest of many lists.
        type: how vectors are stored: vector (float32), halfvec (half the bytes), bit (codes; of vectors, an index of
            their signs finds candidates for `rerank`). auto: vector, or bit for hamming.
        m: hnsw: edges of each row in a layer of the graph.
        build_ef: hnsw: candidates that are kept while the graph is built, at least 2 * m.
        ef: hnsw: candidates that are kept in a search; more find more and take longer.
        lists: ivfflat: into how many lists the rows are parted; 0: one for each 1,000 rows, at least 10.
        probes: ivfflat: how many lists a search reads; 0: the square root of `lists`.
        iterative: what an index does when a filter leaves too few rows: off gives up; relaxed_order and strict_order
            search on.
        rerank: type=bit of vectors: candidates by sign for each row that is asked for.
        dsn: address of a server without a password (default: RETRIEVAL_BENCH_DSN, or a server of our own).

    Returns:
        The search; `close` removes the table and stops the server.

    Raises:
        BenchError: The extra is not installed, there is no such server, or pgvector has no room for such vectors.
    """
    check_address(dsn)
    options: dict[str, Any] = {"kind": kind, "type": type, "dsn": dsn, "iterative": iterative}
    options |= {"m": m, "build_ef": build_ef, "ef": ef, "lists": lists, "probes": probes, "rerank": rerank}
    return build_searcher(
        gallery, distance, lambda dim: open_store(dim, distance, **options), approximate=kind != "exact"
    )
