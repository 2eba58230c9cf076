"""The features of an index in a vector store: a table a method, in the index's folder or on a server of the user's.

An item's row has the item's number as its id. What SQLite does not know counts as not there.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from retrieval_bench.core import BenchError, printable
from retrieval_bench.indexing.description import Description, MethodFacts, StoredDtype, StoreFacts
from retrieval_bench.indexing.items import ItemsState
from retrieval_bench.indexing.store_rows import ZERO, IndexStore, StoredRows, StoreTable, missing
from retrieval_bench.methods.pipeline import Pipeline
from retrieval_bench.registry import BACKENDS, Spec, parse, unknown
from retrieval_bench.search.stores import lance, pgvector
from retrieval_bench.search.stores.lance import LanceStore
from retrieval_bench.search.stores.pgvector import PgvectorStore
from retrieval_bench.search.stores.postgres_client import VARIABLE, connect, said, without_password, without_secrets
from retrieval_bench.search.stores.postgres_server import PostgresServer
from retrieval_bench.system.progress import Progress

log = logging.getLogger("retrieval_bench")

STORE_FOLDER = "store"
"""In the folder of the index: the data of a PostgreSQL of its own, or the tables of LanceDB."""
STORES = ("pgvector", "lancedb")
_TABLE = "retrieval_bench_index_{id}_{method}"
_LAST = 2**62
_AT_ONCE = 4 << 20
"""Bytes that wait to be inserted together."""


def parse_store(text: str) -> Spec:
    """The store that `--store` names. BenchError for what is none, or an address with a password in it."""
    name = text.partition(":")[0].strip()
    if name not in STORES:
        raise BenchError(unknown("store", name, STORES))
    return parse(BACKENDS, text)


def store_facts(spec: Spec, methods: int) -> StoreFacts:
    """What index.json says of the store that a new index will lie in."""
    index = secrets.token_hex(6)
    backend = str(Spec(spec.entry, {name: value for name, value in spec.options.items() if name != "dsn"}))
    if spec.entry.name == "lancedb":
        return StoreFacts(backend=backend, dsn=None, tables=tuple(map(str, range(methods))))
    dsn = spec.resolved["dsn"] or os.environ.get(VARIABLE, "")
    tables = tuple(_TABLE.format(id=index, method=number) for number in range(methods))
    return StoreFacts(backend=backend, dsn=without_secrets(dsn) if dsn else None, tables=tables)


def refuse_what_is_no_vector(pipeline: Pipeline) -> None:
    """BenchError for a method by which what is near is not told by one vector, or code, of each item."""
    why = ""
    if pipeline.steps:
        why = "its rankings are re-ranked"
    elif len(pipeline.parts) > 1:
        why = "it joins several parts"
    elif hasattr(pipeline.parts[0].extractor, "searcher"):
        why = "it has a search of its own"
    if why:
        raise BenchError(
            f"{pipeline.name}: {why}, and a store holds one vector of each item; leave the method out, or --store"
        )


def refuse_what_store_cannot_hold(spec: Spec, methods: Sequence[MethodFacts], dtype: StoredDtype) -> None:
    """BenchError for vectors that are too long for a store, or numbers that it does not keep."""
    name = spec.entry.name
    if dtype == "int8" or (dtype == "float16" and name == "lancedb"):
        instead = "float16" if name == "pgvector" else "float32"
        raise BenchError(f"--dtype {dtype}: {name} keeps no such numbers; use --dtype {instead}, or leave --store out")
    if spec.resolved.get("type") == "halfvec" and dtype == "float32":
        raise BenchError("--store pgvector with type=halfvec keeps half floats; say so with --dtype float16, too")
    for method in methods:
        facts = method.arrays[0]
        if name == "pgvector":
            options = dict(spec.resolved)
            options.pop("dsn")
            kind = _type_of(options.pop("type"), method)
            chosen = pgvector.checked(pgvector.PgvectorOptions(type=kind, **options))
            pgvector.check_limits(facts.width, method.distance, chosen)
        else:
            lance.check_kind(method.distance, lance.LanceOptions(**spec.resolved))


def _type_of(asked: str, method: MethodFacts) -> Any:
    """How pgvector stores the vectors of a method."""
    if asked != "auto":
        return asked
    if method.distance == "hamming":
        return "bit"
    return "halfvec" if method.arrays[0].kept == "float16" else "vector"


class StoreFeatures:
    """Features in a store. Implements `FeaturePlace`.

    Args:
        folder: of the index.
        facts: where the store is.
        methods: of the index.
        new: the tables are made, and are there for good only after `finish`.
    """

    def __init__(self, folder: Path, facts: StoreFacts, methods: Sequence[MethodFacts], *, new: bool = False) -> None:
        self._folder, self._facts = folder, facts
        self._spec = parse(BACKENDS, self._facts.backend)
        self._new = new
        self._server: PostgresServer | None = None
        self._lock = threading.RLock()
        exact = self._spec.resolved["kind"] == "exact"
        self._tables = [
            StoreTable(
                lambda number=number, method=method: self._opened(number, method),  # type: ignore[misc]
                method.arrays[0],
                method.distance,
                f"{self.place}, table {self._facts.tables[number]}",
                exact=exact,
                new=new,
            )
            for number, method in enumerate(methods)
        ]

    @property
    def place(self) -> str:
        """Where it is, to be shown."""
        if self._facts.dsn is not None:
            return f"{self._spec.entry.name} on {without_password(self._facts.dsn)}"
        return f"{self._spec.entry.name} in {printable(self._folder / STORE_FOLDER)}"

    def _opened(self, number: int, method: MethodFacts) -> IndexStore:
        """The table of a method, open; BenchError where it is not there, or holds other vectors."""
        facts, table = method.arrays[0], self._facts.tables[number]
        options = dict(self._spec.resolved)
        attributes = (ZERO,) if method.distance == "cosine" else ()
        home = self._folder / STORE_FOLDER
        if self._spec.entry.name == "lancedb":
            return LanceStore(
                facts.width,
                method.distance,
                lance.LanceOptions(**options),
                attributes,
                str(home),
                table,
                new=self._new,
            )
        options.pop("dsn")
        chosen = pgvector.PgvectorOptions(type=_type_of(options.pop("type"), method), **options)
        named = "" if self._new else table
        if self._facts.dsn is not None:
            dsn = completed(self._facts.dsn)
            return PgvectorStore(facts.width, method.distance, chosen, dsn, attributes, table=named)
        server = self._running()
        return PgvectorStore(
            facts.width,
            method.distance,
            chosen,
            server.dsn,
            attributes,
            table=named,
            log=server.folder / "server.log",
            place=f"over {printable(home)}",
        )

    def _running(self) -> PostgresServer:
        """The server over the data in the folder; started again where it has ended."""
        with self._lock:
            if self._server is None:
                home = self._folder / STORE_FOLDER
                if not self._new and not (home / "data" / "PG_VERSION").is_file():
                    raise BenchError(f"{printable(home)}: its data are missing; the index is damaged: build it again")
                home.mkdir(exist_ok=True)
                self._server = PostgresServer(home)
            else:
                self._server.start()  # which says where it is, where it runs
            return self._server

    def reach(self) -> None:
        """BenchError where there is no library, no server, or none that takes us."""
        if self._facts.dsn is not None:
            connect(completed(self._facts.dsn), bound=not self._new).close()
        elif self._spec.entry.name == "lancedb":
            lance.lancedb_loaded()
        else:
            self._running()

    def arrays(self, state: ItemsState) -> list[list[Any]]:
        return [[StoredRows(table, state.numbers)] for table in self._tables]

    def names(self, state: ItemsState) -> list[str]:
        return [table.name for table in self._tables]

    def as_kept(self, rows: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [
            table.opened().as_stored(_values(row[None])).astype(table.facts.kept, copy=False)[0]
            for table, row in zip(self._tables, rows, strict=True)
        ]

    def appending(self, state: ItemsState, first: int) -> InsertedRows:
        self._repair(state)
        return InsertedRows(self._tables, first)

    def finish(self) -> None:
        """Make the indexes of new tables."""
        for table in self._tables:
            table.opened().build_index()

    def keep(self) -> None:
        """Let new tables stay, under their names."""
        for table, name in zip(self._tables, self._facts.tables, strict=True):
            store = table.opened()
            if isinstance(store, PgvectorStore):
                store.keep(name)
            else:
                store.sync()

    def rewrite(self, state: ItemsState, chosen: np.ndarray, progress: Progress) -> None:
        self.reach()  # rows are deleted when SQLite has forgotten them

    def clear(self, state: ItemsState, *, compacted: bool) -> None:
        if compacted and self._repair(state):
            for table in self._tables:
                table.opened().compact()

    def _repair(self, state: ItemsState) -> bool:
        """Delete rows that no item has -> whether there were any. BenchError where items have none."""
        known = state.numbers
        last = int(known[-1]) if len(known) else 0
        found = False
        for table in self._tables:
            if table.ask(lambda store: (store.count({"id": (0, last)}), store.count())) == (len(known), len(known)):
                continue
            there = table.ask(lambda store: store.ids())
            if len(np.setdiff1d(known, there, assume_unique=True)):
                raise missing(table.name)
            table.opened().delete(np.setdiff1d(there, known, assume_unique=True))
            found = True
        return found

    def close(self) -> None:
        for table in self._tables:
            table.close()
        with self._lock:
            if self._server is not None:
                self._server.close()
                self._server = None


class InsertedRows:
    """Rows of new items on their way into the store. Implements `AppendingRows`."""

    def __init__(self, tables: Sequence[StoreTable], first: int) -> None:
        self._tables, self._first, self._next = tables, first, first
        self._waiting: list[list[np.ndarray]] = [[] for _ in tables]
        self._bytes = 0

    def append(self, arrays: Sequence[np.ndarray]) -> None:
        for waiting, array in zip(self._waiting, arrays, strict=True):
            waiting.append(array)
            self._bytes += array.nbytes
        if self._bytes > _AT_ONCE:
            self._insert()

    def _insert(self) -> None:
        count = sum(map(len, self._waiting[0]))
        numbers = np.arange(self._next, self._next + count)
        self._next += count
        for table, waiting in zip(self._tables, self._waiting, strict=True):
            if count:
                rows = _values(np.concatenate(waiting))
                zero = {ZERO: np.logical_not(rows.any(axis=1))} if table.distance == "cosine" else None
                table.opened().insert(numbers, rows, zero)
            waiting.clear()
        self._bytes = 0

    def sync(self) -> None:
        self._insert()
        for table in self._tables:
            store = table.opened()
            if isinstance(store, LanceStore):
                store.sync()  # PostgreSQL has done so by itself

    def take_back(self) -> None:
        for table in self._tables:
            with contextlib.suppress(BenchError):  # the next writer does the same
                store = table.opened()
                if store.count({"id": (self._first, _LAST)}):
                    store.delete(store.ids({"id": (self._first, _LAST)}))

    def close(self) -> None:
        """Nothing: the tables stay open."""


def completed(dsn: str) -> str:
    """The address that an index remembers, with the password that RETRIEVAL_BENCH_DSN has for the same one."""
    given = os.environ.get(VARIABLE, "")
    return given if given and without_secrets(given) == dsn else dsn


def forget(description: Description) -> None:
    """Drop what an index that is no more has on a server of the user's; a warning where that fails."""
    facts = description.store
    if facts is None or facts.dsn is None:
        return
    place = without_password(facts.dsn)
    try:
        with connect(completed(facts.dsn), bound=True) as connection, said(place):
            for table in facts.tables:
                connection.execute(f"DROP TABLE IF EXISTS {table}")
    except BenchError as error:
        log.warning("the tables %s stay on %s: %s", ", ".join(facts.tables), place, error)


def _values(rows: np.ndarray) -> np.ndarray:
    """Rows as a store takes them."""
    return rows if rows.dtype == np.uint8 else np.ascontiguousarray(rows, np.float32)
