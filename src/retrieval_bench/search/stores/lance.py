"""The backend `lancedb`: a gallery in a table of LanceDB, which is a library over files and has no server."""

from __future__ import annotations

import contextlib
import copy
import math
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np

from retrieval_bench.core import BenchError, Distance
from retrieval_bench.registry import BACKENDS, Range
from retrieval_bench.search.stores.keeper import KeptFolder
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
from retrieval_bench.system.files import on_the_disk, sync_folder

IndexKind = Literal["exact", "ivf_flat", "ivf_sq", "ivf_pq", "ivf_hnsw_flat", "ivf_hnsw_sq", "ivf_hnsw_pq"]
AT_SEARCH = ("ef", "probes", "refine")
TABLE = "gallery"
_METRICS = {"cosine": "cosine", "euclidean": "l2", "inner_product": "dot", "hamming": "hamming"}
_LEAST_ROWS = 256  # of which product quantisation learns its 256 centres
_IDS_AT_ONCE = 5_000  # that a condition names
_AT_ONCE = timedelta(milliseconds=1)  # of what is older no version is kept


@dataclass(frozen=True)
class LanceOptions:
    """What `lancedb` says under Args."""

    kind: IndexKind
    lists: int
    probes: int
    m: int
    build_ef: int
    ef: int
    refine: int

    def lists_of(self, rows: int) -> int:
        """As LanceDB advises: lists of 4,096 rows, or, around graphs, of a million."""
        if self.lists:
            return self.lists
        return max(1, rows // (1_048_576 if "hnsw" in self.kind else 4_096))

    def probes_of(self, rows: int) -> int:
        return self.probes or max(1, math.ceil(math.sqrt(self.lists_of(rows))))


class LanceStore:
    """A table in a folder. Arguments and errors of its methods as in `Store`.

    Args:
        dim: columns of the vectors; of codes, bytes.
        distance: what is computed.
        options: how rows are indexed and searched.
        attributes: names of what is known of each row.
        folder: where the table lies already; "" for a new one in a folder of its own.
        table: its name there.
        new: make it in that folder.

    Raises:
        BenchError: The extra is not installed, the folder cannot be used, or its table holds other vectors.
    """

    def __init__(
        self,
        dim: int,
        distance: Distance,
        options: LanceOptions,
        attributes: tuple[str, ...] = (),
        folder: str = "",
        table: str = TABLE,
        *,
        new: bool = False,
    ) -> None:
        check_kind(distance, options)
        lancedb = lancedb_loaded()
        self.dim, self.distance, self.options, self.attributes = dim, distance, options, attributes
        self._kept = None if folder else KeptFolder("retrieval-bench-lancedb")
        self.folder = Path(folder) if self._kept is None else self._kept.path
        self._zeros = ZeroRows(distance)
        self._closed = threading.Event()
        self._rows_at_build = 0
        self._synced: set[Path] = set()
        try:
            with said(self.folder):
                database = lancedb.connect(str(self.folder))
                if folder and not new:
                    self.table = self._opened(database, table)
                    self._rows_at_build = self.count()
                else:
                    self.table = database.create_table(table, schema=self._schema())
        except BaseException:
            self.close()
            raise

    def _opened(self, database: Any, name: str) -> Any:
        try:
            table = database.open_table(name)
        except ValueError:
            raise BenchError(f"lancedb: there is no table {name} in {self.folder}; build the index again") from None
        found = table.schema.field("e").type
        if found != self._schema().field("e").type:
            raise BenchError(
                f"lancedb: the table {name} in {self.folder} holds {found}, and not vectors of {self.dim}; build "
                "the index again"
            )
        return table

    @property
    def _dtype(self) -> type[np.generic]:
        return np.uint8 if self.distance == "hamming" else np.float32

    def _schema(self) -> Any:
        import pyarrow

        numbers = pyarrow.from_numpy_dtype(self._dtype)
        fields = [(name, pyarrow.int64()) for name in ("id", *self.attributes)]
        return pyarrow.schema([*fields, ("e", pyarrow.list_(numbers, self.dim))])

    def insert(self, ids: np.ndarray, vectors: np.ndarray, attributes: Attributes | None = None) -> None:
        import pyarrow

        check_columns(vectors, self.dim)
        rows, known = scaled_for(self.distance, vectors), dict(attributes or {})
        columns = [pyarrow.array(np.asarray(known[name], np.int64)) for name in self.attributes]
        lists = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(np.ascontiguousarray(rows).ravel()), self.dim)
        with said(self.folder):
            self.table.add(pyarrow.Table.from_arrays([pyarrow.array(ids), *columns, lists], schema=self._schema()))
        self._zeros.add(ids, rows, known)

    def as_stored(self, vectors: np.ndarray) -> np.ndarray:
        return scaled_for(self.distance, vectors)

    def sync(self) -> None:
        """Wait until all files are on the disk: LanceDB leaves that to the system, which a power cut ends, too."""
        new = {file for file in self.folder.rglob("*") if file.is_file()} - self._synced
        for file in new:
            on_the_disk(file)
        for folder in {file.parent for file in new}:
            sync_folder(folder)
        self._synced |= new

    def build_index(self) -> float:
        started = time.perf_counter()
        options, rows = self.options, self.count()
        self._rows_at_build = rows
        if options.kind != "exact" and rows:
            if "pq" in options.kind and rows < _LEAST_ROWS:
                raise BenchError(
                    f"lancedb: {options.kind} learns from at least {_LEAST_ROWS} rows, and the gallery has {rows}; use "
                    "lancedb:exact"
                )
            named = {"distance_type": _METRICS[self.distance], "num_partitions": options.lists_of(rows)}
            if "hnsw" in options.kind:
                named |= {"m": options.m, "ef_construction": options.build_ef}
            with said(self.folder):
                self.table.create_index("e", config=_config_class(options.kind)(**named))
        return time.perf_counter() - started

    def delete(self, ids: np.ndarray) -> None:
        rows = np.asarray(ids).tolist()
        with said(self.folder):
            for first in range(0, len(rows), _IDS_AT_ONCE):
                self.table.delete(f"id IN ({', '.join(map(str, rows[first : first + _IDS_AT_ONCE]))})")
        self._zeros.remove(ids)

    def search(self, queries: np.ndarray, k: int, where: Where | None = None) -> Nearby:
        rows = scaled_for(self.distance, queries)
        wide = k + len(self._zeros)  # which may be found where they do not belong
        found = Nearby(np.full((len(rows), wide), -1, np.int64), np.full((len(rows), wide), np.inf, np.float32))
        limits = limits_of(where)
        zero = self._zeros.are_zero(rows)
        with said(self.folder):
            for row, query in enumerate(rows):
                if zero[row]:
                    self._fill_for_zero_query(found, row, limits)
                    continue
                answer = self._ask(query, wide, limits)
                near = answer["id"].to_numpy(), _our(self.distance, answer["_distance"].to_numpy())
                found.ids[row, : len(near[0])], found.distances[row, : len(near[0])] = near
        found = lowest_first(found)
        if len(self._zeros) and not zero.all():
            some = Nearby(found.ids[~zero], found.distances[~zero])
            self._zeros.merge_into(some, where)
            found.ids[~zero], found.distances[~zero] = some
        return Nearby(found.ids[:, :k], found.distances[:, :k])

    def _ask(self, query: np.ndarray, k: int, limits: str) -> Any:
        options = self.options
        asked = self.table.search(query, vector_column_name="e").distance_type(_METRICS[self.distance])
        asked = asked.limit(k).select(["id", "_distance"])
        if limits:
            asked = asked.where(limits, prefilter=True)
        if options.kind != "exact":
            asked = asked.nprobes(options.probes_of(self._rows_at_build))
            asked = asked.refine_factor(options.refine)  # else distances are those of codes, some of them doubled
            if "hnsw" in options.kind:
                asked = asked.ef(max(options.ef, k))
        return asked.to_arrow()

    def _fill_for_zero_query(self, found: Nearby, row: int, limits: str) -> None:
        ids = self._ids(limits)[: found.ids.shape[1]]
        found.ids[row, : len(ids)], found.distances[row, : len(ids)] = ids, 1.0

    def _ids(self, limits: str) -> np.ndarray:
        asked = self.table.search().select(["id"]).limit(self.table.count_rows() or 1)
        return np.sort((asked.where(limits) if limits else asked).to_arrow()["id"].to_numpy())

    def ids(self, where: Where | None = None) -> np.ndarray:
        with said(self.folder):
            return self._ids(limits_of(where))

    def vectors(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        wanted = np.unique(np.asarray(ids, np.int64))
        found, rows = [np.empty(0, np.int64)], [np.empty((0, self.dim), self._dtype)]
        for first in range(0, len(wanted), _IDS_AT_ONCE):
            some = wanted[first : first + _IDS_AT_ONCE]
            dense = some[-1] - some[0] < 2 * len(some)  # a range is found faster than a list
            limits = limits_of({"id": (int(some[0]), int(some[-1]))} if dense else None)
            limits = limits or f"id IN ({', '.join(map(str, some.tolist()))})"
            with said(self.folder):
                asked = self.table.search().where(limits).select(["id", "e"]).limit(2 * len(some))
                answer = asked.to_arrow().combine_chunks()
            own = answer["id"].to_numpy()
            values = answer["e"].combine_chunks().flatten().to_numpy().reshape(len(own), self.dim)
            order = np.argsort(own)
            order = order[np.isin(own[order], some)]
            found.append(own[order])
            rows.append(values[order])
        return np.concatenate(found), np.concatenate(rows)

    def compact(self) -> None:
        with said(self.folder):
            self.table.optimize(cleanup_older_than=_AT_ONCE, delete_unverified=True)
        self._synced = {file for file in self._synced if file.exists()}
        self.sync()

    def refresh(self) -> None:
        """See what others have written."""
        with said(self.folder):
            self.table.checkout_latest()

    def count(self, where: Where | None = None) -> int:
        with said(self.folder):
            return int(self.table.count_rows(limits_of(where) or None))

    def disk_bytes(self) -> int:
        return sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file())

    def with_search_options(self, **options: Any) -> Self:
        check_search_options("lancedb", options, AT_SEARCH)
        other = copy.copy(self)
        other.options = replace(self.options, **options)
        return other

    def reconnected(self) -> Self:
        """The same table, opened anew: for another thread."""
        other = copy.copy(self)
        with said(self.folder):
            other.table = lancedb_loaded().connect(str(self.folder)).open_table(TABLE)
        return other

    def disconnect(self) -> None:
        """Nothing: a table that is open holds no connection."""

    def close(self) -> None:
        if self._closed.is_set():
            return
        self._closed.set()
        if self._kept is not None:
            self._kept.close()


def check_kind(distance: Distance, options: LanceOptions) -> None:
    """BenchError where a kind of index cannot compare by this distance, or an option says nothing to it."""
    if distance == "hamming" and options.kind not in ("exact", "ivf_flat"):
        raise BenchError(f"lancedb: {options.kind} compares no codes; hamming takes lancedb:exact or lancedb:ivf_flat")
    check_meaning("lancedb", f"lancedb:{options.kind}", options, means_of(options.kind))


def means_of(kind: IndexKind) -> tuple[str, ...]:
    """The options that say something to a kind of index."""
    if kind == "exact":
        return ("kind",)
    return ("kind", "lists", "probes", "refine", *(("m", "build_ef", "ef") if "hnsw" in kind else ()))


def limits_of(where: Where | None) -> str:
    """The condition in LanceDB's SQL; "" for none."""
    return " AND ".join(f"{name} >= {least} AND {name} <= {most}" for name, (least, most) in (where or {}).items())


def lancedb_loaded() -> Any:
    """The library; BenchError where it is missing."""
    try:
        import lancedb
        import pyarrow  # noqa: F401
    except ImportError:
        raise BenchError(
            "lancedb: lancedb is not installed; install it by pip install 'retrieval-bench[lancedb]'"
        ) from None
    return lancedb


def _config_class(kind: str) -> Any:
    from lancedb import index

    return getattr(index, "".join(part.capitalize() for part in kind.split("_")))


def _our(distance: Distance, theirs: np.ndarray) -> np.ndarray:
    """LanceDB squares the euclidean distance, and takes the inner product from 1."""
    if distance == "euclidean":
        return np.sqrt(np.maximum(theirs, 0))
    return theirs - np.float32(1) if distance == "inner_product" else theirs


@contextlib.contextmanager
def said(folder: Path) -> Iterator[None]:
    """Turn what the library says of files in trouble into one sentence; anything else stays a bug."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        text = " ".join(str(error).split())
        if re.search(r"No space left|StorageFull|os error 28", text):
            raise BenchError(
                f"lancedb: the disk of {folder} is full; make room there, or set TMPDIR to a place with room"
            ) from None
        if isinstance(error, OSError) or re.search(r"os error|IO error|Not found|NotFound", text):
            raise BenchError(f"lancedb: the table in {folder} cannot be used ({text[:200]}); make a new one") from None
        raise


def open_store(dim: int, distance: Distance, attributes: tuple[str, ...] = (), **options: Any) -> LanceStore:
    """An empty store with the options of the backend `lancedb`."""
    return LanceStore(dim, distance, LanceOptions(**options), attributes)


@BACKENDS(
    "lancedb",
    about="LanceDB, all rows compared or an index (ivf_pq, ivf_hnsw_sq, ...); files in a folder, no server",
    exact=False,
    argument="kind",
    at_search=AT_SEARCH,
)
def lance(
    gallery: np.ndarray,
    distance: Distance = "cosine",
    *,
    kind: IndexKind = "ivf_hnsw_sq",
    lists: Annotated[int, Range(0, 65_536)] = 0,
    probes: Annotated[int, Range(0, 65_536)] = 0,
    m: Annotated[int, Range(4, 256)] = 20,
    build_ef: Annotated[int, Range(8, 2000)] = 300,
    ef: Annotated[int, Range(1, 10_000)] = 100,
    refine: Annotated[int, Range(1, 1000)] = 1,
) -> StoreSearcher:
    """Put a gallery into a table of LanceDB and search there.

    Args:
        gallery: as for `ExactIndex`; values are stored in float32.
        distance: as for `ExactIndex`; codes take exact and ivf_flat alone.
        kind: exact compares all rows; ivf_... reads the nearest of many lists; ..._hnsw_... walks a graph in each;
            ..._sq and ..._pq compare rows in a quarter of their bytes and less.
        lists: into how many lists the rows are parted; 0: one for each 4,096 rows, or, with graphs, each million.
        probes: how many lists a search reads; 0: the square root of `lists`.
        m: ..._hnsw_...: edges of each row in a graph.
        build_ef: ..._hnsw_...: candidates that are kept while a graph is built.
        ef: ..._hnsw_...: candidates that are kept in a search; more find more and take longer.
        refine: candidates for each row that is asked for, whose vectors themselves are compared; more find more.

    Returns:
        The search; `close` removes the folder.

    Raises:
        BenchError: The extra is not installed, or LanceDB cannot keep such rows.
    """
    options = LanceOptions(kind, lists, probes, m, build_ef, ef, refine)
    return build_searcher(
        gallery, distance, lambda dim: LanceStore(dim, distance, options), approximate=kind != "exact"
    )
