"""The items of an index and what was done to them: one SQLite file, in which every change is one transaction.

A row that is committed here is there; whatever lies in other files and is named by no row is not. Numbers of items are
given once. `check` holds checksums of all that never changes of an item, its features among it, and `state` one of
these and of what changes, so that a flipped bit is found by `verify`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
import stat
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from retrieval_bench.core import BenchError, printable

ITEMS_FILE = "items.sqlite"
CHECK_BYTES = 8
"""Of what is known of an item, and of its row of each array in turn."""
TEXT_OF_VALUE = "CASE type WHEN 'true' THEN 'true' WHEN 'false' THEN 'false' ELSE CAST(value AS TEXT) END"
"""SQL: an attribute as a person writes it."""
_AT_ONCE = 500
"""Values in one statement."""
_NOT_THE_FILES_FAULT = tuple(
    f"SQLITE_{word}" for word in ("BUSY", "LOCKED", "CANTOPEN", "READONLY", "FULL", "PERM", "IOERR")
)
_SCHEMA = """
CREATE TABLE meta(name TEXT PRIMARY KEY, value INTEGER NOT NULL, state BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE operations(number INTEGER PRIMARY KEY, at TEXT NOT NULL, what TEXT NOT NULL, count INTEGER NOT NULL,
    note TEXT NOT NULL, undoes INTEGER, undone_by INTEGER, state BLOB NOT NULL);
CREATE TABLE items(number INTEGER PRIMARY KEY, row INTEGER NOT NULL, id TEXT NOT NULL, label TEXT, category TEXT,
    others TEXT NOT NULL, attributes TEXT NOT NULL, digest TEXT NOT NULL, path BLOB, picture TEXT,
    "check" BLOB NOT NULL, added_by INTEGER NOT NULL, removed_by INTEGER, restored_by INTEGER,
    changed_by INTEGER NOT NULL, state BLOB NOT NULL, text TEXT);
"""
_INDEXES = """
CREATE INDEX ids ON items(id);
CREATE INDEX changes ON items(changed_by);
CREATE INDEX labels ON items(label);
CREATE INDEX categories ON items(category);
"""
_KEPT = 'number, row, id, label, category, others, attributes, digest, path, picture, "check"'
_WITH_TEXT, _WITHOUT_TEXT = f"{_KEPT}, text", f"{_KEPT}, NULL"
"""All that is kept of an item, of a file that knows texts, and of one that was written before there were any."""
_CHANGING = "added_by, removed_by, restored_by, changed_by"


@dataclass(frozen=True)
class Item:
    """One picture that an index knows. number: given once, from 1.

    label, category: None where it has none. other_labels, other_categories: what else it shows. digest: sha256 of the
    picture's bytes. path: of its file when it was added. picture: the name of its copy in the folder `pictures`; None
    where it was added without bytes. text: what it is called or described as; "" where nothing is known of that.
    """

    number: int
    id: str
    label: str | None = None
    category: str | None = None
    other_labels: tuple[str, ...] = ()
    other_categories: tuple[str, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    digest: str = ""
    path: Path | None = None
    picture: str | None = None
    text: str = ""


@dataclass(frozen=True)
class Operation:
    """One change of an index. what: "build", "add", "remove", "undo" or "compact". count: of items. at: when, UTC.

    undoes: the operation that this one undid. undone_by: the operation that undid this one.
    """

    number: int
    at: str
    what: str
    count: int
    note: str
    undoes: int | None
    undone_by: int | None


@dataclass(frozen=True, eq=False)
class ItemsState:
    """What is committed at one moment.

    generation: of the feature files. version: the last operation. numbers: (n,) int64, the item of each row of these
    files, ascending. live: (n,) bool.
    """

    generation: int
    version: int
    numbers: np.ndarray
    live: np.ndarray

    @property
    def rows(self) -> int:
        """Rows of the feature files that count."""
        return len(self.numbers)


NOTHING = ItemsState(0, 0, np.empty(0, np.int64), np.empty(0, bool))
"""Of an index that has no item yet."""


class ItemTable:
    """The SQLite file. Safe to use from several threads; one process at a time may write, which a lock sees to."""

    def __init__(self, file: Path, *, writable: bool) -> None:
        self._file, self._writable = file, writable
        self._lock = threading.RLock()
        self._seen: tuple[ItemsState, int] | None = None
        """What `state` gave last, and SQLite's number of what others had committed. None after our own write."""
        self._knows_texts = False
        with self._told():
            self._connection = _connect(file, writable)

    @classmethod
    def create(cls, file: Path) -> ItemTable:
        """A new file without items, which is on the disk for certain only after `finish`."""
        with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as connection:
            connection.executescript(_SCHEMA)
            connection.execute("BEGIN")
            for name, value in (("generation", 0), ("rows", 0), ("next_number", 1)):
                _set(connection, name, value, new=True)
            connection.execute("COMMIT")
        table = cls(file, writable=True)
        table._connection.execute("PRAGMA synchronous=OFF")  # the whole folder is new: it counts when it is renamed
        return table

    def finish(self) -> None:
        """Index what was filled in, and put it on the disk."""
        with self._told(), self._lock:
            self._connection.executescript(_INDEXES)
            self._connection.execute("PRAGMA synchronous=FULL")
            self._connection.execute("PRAGMA journal_mode=WAL")

    def allow_texts(self) -> None:
        """Make room for texts in a file that was written before items had any."""
        with self._writing() as connection:
            if not _has_texts(connection):
                connection.execute("ALTER TABLE items ADD COLUMN text TEXT")

    def close(self) -> None:
        """Let the file go."""
        with self._lock:
            self._connection.close()

    def state(self, known: ItemsState | None = None) -> ItemsState:
        """What is committed now.

        Args:
            known: what was read before. Only what changed since is read; where nothing did, it is returned.

        Returns:
            The state at one moment.

        Raises:
            BenchError: The file is damaged.
        """
        with self._lock, self._told():  # one statement in place of a transaction: every search begins with it
            if self._seen is not None and known is self._seen[0] and self._others_committed() == self._seen[1]:
                return known
        with self._reading() as connection:
            seen = self._others_committed()
            generation, rows = _meta(connection, "generation"), _meta(connection, "rows")
            (version,) = connection.execute("SELECT coalesce(max(number), 0) FROM operations").fetchone()
            if known is not None and (generation, version, rows) == (known.generation, known.version, known.rows):
                self._seen = known, seen
                return known
            if known is None or known.generation != generation:
                found = _columns(connection.execute("SELECT row, number, removed_by IS NULL FROM items ORDER BY row"))
                numbers, live = found[1].copy(), found[2].astype(bool)
                new = found
            else:
                some = "SELECT row, number, removed_by IS NULL FROM items WHERE changed_by > ? ORDER BY row"
                found = _columns(connection.execute(some, (known.version,)))
                new = found[:, found[0] >= known.rows]
                old = found[:, found[0] < known.rows]
                numbers = np.concatenate([known.numbers, new[1]])
                live = np.concatenate([known.live, new[2].astype(bool)])
                live[old[0]] = old[2].astype(bool)
            first = rows - new.shape[1]
            if (
                len(numbers) != rows
                or not np.array_equal(new[0], np.arange(first, rows))
                or (np.diff(numbers) <= 0).any()
            ):
                raise _Damaged("its items and the rows of the features do not belong together")
            state = ItemsState(generation, version, numbers, live)
            self._seen = state, seen
            return state

    def _others_committed(self) -> int:
        """A number that changes with each commit of another connection."""
        return int(self._connection.execute("PRAGMA data_version").fetchone()[0])

    def generation(self) -> int:
        """Of the feature files, as it is committed now; it changes where items are forgotten."""
        with self._reading() as connection:
            return _meta(connection, "generation")

    def next_number(self) -> int:
        """The number of the item that is added next."""
        with self._reading() as connection:
            return _meta(connection, "next_number")

    def item(self, number: int) -> Item | None:
        """The item of this number, removed or not; None where there is none."""
        return next(iter(self.items([number])), None)

    def items(self, numbers: Sequence[int]) -> list[Item]:
        """The items of these numbers, as far as they are there, in this order."""
        found: dict[int, Item] = {}
        with self._reading() as connection:
            for some in _parts(numbers):
                marks = ",".join("?" * len(some))
                asked = f"SELECT {self._kept(connection)} FROM items WHERE number IN ({marks})"
                for row in connection.execute(asked, some):
                    found[row[0]] = _item(row)
        return [found[number] for number in map(int, numbers) if number in found]

    def texts(self, numbers: Sequence[int]) -> list[str]:
        """The text of each of these items; "" of one that has none, or is forgotten."""
        found: dict[int, str] = {}
        with self._reading() as connection:
            if self._kept(connection) is _WITH_TEXT:
                for some in _parts(numbers):
                    marks = ",".join("?" * len(some))
                    asked = f"SELECT number, text FROM items WHERE text IS NOT NULL AND number IN ({marks})"
                    found |= dict(connection.execute(asked, some))
        if not all(isinstance(text, str) for text in found.values()):
            raise BenchError(f"{printable(self._file)} is damaged: a text is none; build the index again")
        return [found.get(int(number), "") for number in numbers]

    def all_items(self) -> Iterator[tuple[Item, int, bytes, bool]]:
        """Each item with its row, its checksum and whether its state has the right one, in the order of rows."""
        last = -1
        while True:
            with self._reading() as connection:
                kept = self._kept(connection)
                some = f"SELECT {kept}, {_CHANGING}, state FROM items WHERE row > ? ORDER BY row LIMIT 5000"
                rows = connection.execute(some, (last,)).fetchall()
            for row in rows:
                whole = row[-1] == _state_check("item", row[0], row[1], row[10], *row[-5:-1])
                yield _item(row[:12]), row[1], row[10], whole
            if not rows:
                return
            last = rows[-1][1]

    def numbers_of(self, name: str) -> list[int]:
        """All items that have or had this id."""
        with self._reading() as connection:
            return [row[0] for row in connection.execute("SELECT number FROM items WHERE id = ?", (name,))]

    def live_numbers(self, ids: Collection[str]) -> dict[str, int]:
        """Id -> number, for those of these ids that are not removed."""
        found: dict[str, int] = {}
        with self._reading() as connection:
            for some in _parts(list(ids)):
                marks = ",".join("?" * len(some))
                asked = f"SELECT id, number FROM items WHERE removed_by IS NULL AND id IN ({marks})"
                found |= dict(connection.execute(asked, some))
        return found

    def numbers_where(self, condition: str, values: Sequence[Any]) -> np.ndarray:
        """(n,) int64, ascending: the numbers of items, removed or not, for which an SQL condition holds."""
        with self._reading() as connection:
            found = connection.execute(f"SELECT number FROM items WHERE {condition} ORDER BY number", values)
            return np.fromiter((row[0] for row in found), np.int64)

    def attribute_values(self) -> Iterator[tuple[int, str, str]]:
        """(number, name, value as text) of each category and attribute of each item, removed or not.

        By a connection of its own: it may take a second, and others need not wait for it.
        """
        with self._told(), contextlib.closing(_connect(self._file, False)) as connection:
            yield from connection.execute("SELECT number, 'category', category FROM items WHERE category IS NOT NULL")
            yield from connection.execute(
                f"SELECT number, key, {TEXT_OF_VALUE} FROM items, json_each(attributes) WHERE value IS NOT NULL"
            )

    def attribute_names(self) -> frozenset[str]:
        """The names of the attributes of all items, removed or not."""
        with self._told(), contextlib.closing(_connect(self._file, False)) as connection:
            found = connection.execute("SELECT DISTINCT key FROM items, json_each(attributes)")
            return frozenset(name for (name,) in found)

    def operations(self, last: int = 100) -> list[Operation]:
        """The last operations, the oldest of them first."""
        asked = "SELECT number, at, what, count, note, undoes, undone_by FROM operations ORDER BY number DESC LIMIT ?"
        with self._reading() as connection:
            return [Operation(*row) for row in reversed(connection.execute(asked, (last,)).fetchall())]

    def problems(self) -> list[str]:
        """What SQLite and the checksums of operations say is wrong with the file."""
        with self._reading() as connection:
            told = [row[0] for row in connection.execute("PRAGMA integrity_check")]
            found = [str(line) for line in told if line != "ok"]
            for row in connection.execute(
                "SELECT number, at, what, count, note, undoes, undone_by, state FROM operations"
            ):
                if row[-1] != _state_check("operation", *row[:-1]):
                    found.append(f"operation {row[0]} is not as it was written")
            for name in ("generation", "rows", "next_number"):
                _meta(connection, name)
        return found

    def add(
        self,
        items: Iterable[tuple[Item, bytes]],
        what: str = "add",
        note: str = "",
    ) -> tuple[int, list[int]]:
        """Commit items whose features lie behind the last committed row, in this order.

        Args:
            items: each with the checksum of all that never changes of it; their numbers are given here.
            what: of the operation.
            note: of the operation.

        Returns:
            The number of the operation, and those of the items.
        """
        with self._writing() as connection:
            operation = _next_operation(connection)
            row = first_row = _meta(connection, "rows")
            number = first = _meta(connection, "next_number")

            def values() -> Iterator[tuple[Any, ...]]:
                nonlocal row, number
                for item, check in items:
                    kept = (number, row, *_values(item), check, item.text or None)
                    changing = (operation, None, None, operation)
                    yield (*kept, *changing, _state_check("item", number, row, check, *changing))
                    row, number = row + 1, number + 1

            connection.executemany(
                f"INSERT INTO items({_WITH_TEXT}, {_CHANGING}, state) VALUES ({','.join('?' * 17)})", values()
            )
            _set(connection, "rows", row)
            _set(connection, "next_number", number)
            _insert_operation(connection, operation, what, row - first_row, note)
        return operation, list(range(first, number))

    def remove(self, ids: Sequence[str], note: str = "") -> int:
        """Mark the items of these ids as removed; the number of the operation. BenchError for an unknown one."""
        if not ids:
            raise BenchError("name at least one item to remove")
        with self._writing() as connection:
            found = self.live_numbers(ids)
            if unknown := [one for one in dict.fromkeys(ids) if one not in found]:
                more = f", and {len(unknown) - 1:,} more" if len(unknown) > 1 else ""
                raise BenchError(
                    f"{printable(self._file.parent)} has no item {unknown[0]!r}{more}; nothing was removed"
                )
            operation = _next_operation(connection)
            _change(connection, operation, sorted(found.values()), live=False)
            _insert_operation(connection, operation, "remove", len(found), note)
        return operation

    def undo(self, number: int) -> int:
        """Undo an operation; the number of the operation that this is. BenchError where there is nothing to undo."""
        asked = "SELECT number, at, what, count, note, undoes, undone_by FROM operations WHERE number = ?"
        with self._writing() as connection:
            row = connection.execute(asked, (number,)).fetchone()
            if row is None:
                raise BenchError(f"{printable(self._file.parent)} has no operation {number}; `index log` lists them")
            undone = Operation(*row)
            if undone.what not in ("add", "remove", "undo"):
                raise BenchError(f"operation {number} is a {undone.what}, which cannot be undone")
            if undone.undone_by is not None:
                raise BenchError(f"operation {number} was undone by operation {undone.undone_by}; undo that one")
            column = "added_by" if undone.what == "add" else "restored_by"
            added = _numbers(connection, f"removed_by IS NULL AND {column} = ?", number)
            gone = _numbers(connection, "removed_by = ?", number)
            if not added and not gone:
                raise BenchError(
                    f"nothing of operation {number} is left to undo: later ones changed or dropped its items"
                )
            operation = _next_operation(connection)
            _change(connection, operation, added, live=False)
            for some in _parts(gone):
                marks = ",".join("?" * len(some))
                twice = (
                    "SELECT id FROM items WHERE removed_by IS NULL AND id IN "
                    f"(SELECT id FROM items WHERE number IN ({marks})) LIMIT 1"
                )
                if (row := connection.execute(twice, some).fetchone()) is not None:
                    raise BenchError(
                        f"operation {number} cannot be undone: {row[0]!r}, which it removed, was added again since; "
                        "remove that first"
                    )
            _change(connection, operation, gone, live=True)
            if undone.undoes is not None:
                _mark_undone(connection, undone.undoes, None)
            _insert_operation(connection, operation, "undo", len(added) + len(gone), f"of operation {number}", number)
            _mark_undone(connection, number, operation)
        return operation

    def compacted(self, generation: int, numbers: np.ndarray) -> int:
        """Commit a new generation of feature files, whose rows are those of these items; all others are forgotten."""
        with self._writing() as connection:
            operation = _next_operation(connection)
            before = _meta(connection, "rows")
            connection.execute("DELETE FROM items WHERE removed_by IS NOT NULL")
            kept = connection.execute(f'SELECT number, "check", {_CHANGING} FROM items ORDER BY number').fetchall()
            if [row[0] for row in kept] != numbers.tolist():
                raise BenchError(
                    f"{printable(self._file.parent)}: its items changed while it was compacted; do it again"
                )
            new = ((row, _state_check("item", one[0], row, *one[1:]), one[0]) for row, one in enumerate(kept))
            connection.executemany("UPDATE items SET row = ?, state = ? WHERE number = ?", new)
            _set(connection, "generation", generation)
            _set(connection, "rows", len(kept))
            _insert_operation(connection, operation, "compact", before - len(kept), "removed items dropped")
        return operation

    def pictures(self) -> set[str]:
        """The names of all pictures that an item has, removed or not."""
        with self._reading() as connection:
            return {row[0] for row in connection.execute("SELECT picture FROM items WHERE picture IS NOT NULL")}

    def _kept(self, connection: sqlite3.Connection) -> str:
        """The columns of an item; a writer may have made room for texts since the last call."""
        self._knows_texts = self._knows_texts or _has_texts(connection)
        return _WITH_TEXT if self._knows_texts else _WITHOUT_TEXT

    @contextlib.contextmanager
    def moment(self) -> Iterator[None]:
        """Everything that is read within is of one moment; no other thread reads by this object meanwhile."""
        with self._reading():
            yield

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """Everything that is read within is of one moment."""
        with self._lock, self._told():
            if self._connection.in_transaction:  # within a write, or a moment
                yield self._connection
                return
            self._connection.execute("BEGIN")
            try:
                yield self._connection
            finally:
                self._connection.execute("ROLLBACK")

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """All that is written within is committed at its end, or nothing."""
        with self._lock, self._told():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
                # Into the file itself, as far as no reader is in the way: what lies in the log alone, one flipped bit
                # there would take along.
                self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
            finally:
                self._seen = None

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """What goes wrong with the file, in one sentence."""
        try:
            yield
        except (_Damaged, UnicodeDecodeError) as error:  # SQLite may name a damaged name in a sentence
            raise BenchError(f"{printable(self._file)} is damaged: {error}; build the index again") from None
        except sqlite3.ProgrammingError:  # ours: it is closed
            raise
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorname", "").startswith(_NOT_THE_FILES_FAULT):
                kind = "written" if self._writable else "read"
                raise BenchError(f"{printable(self._file)}: cannot be {kind} ({error})") from None
            raise BenchError(f"{printable(self._file)} is damaged: {error}; build the index again") from None


class _Damaged(Exception):
    """What is in the file cannot be."""


def item_check(item: Item, rows: Sequence[np.ndarray]) -> bytes:
    """Checksums of all that never changes of an item: of what is known of it, and of its row of each array."""
    digest = hashlib.blake2b(digest_size=CHECK_BYTES)
    for value in (*_values(item), *((item.text,) if item.text else ())):  # without texts as before there were any
        text = b"-" if value is None else b"+" + (value if isinstance(value, bytes) else value.encode())
        digest.update(len(text).to_bytes(8, "little") + text)
    checks = [digest, *(hashlib.blake2b(np.ascontiguousarray(row).data, digest_size=CHECK_BYTES) for row in rows)]
    return b"".join(check.digest() for check in checks)


def _values(item: Item) -> tuple[Any, ...]:
    """What is kept of an item, from `id` to `picture`."""
    others = (
        json.dumps([item.other_labels, item.other_categories]) if item.other_labels or item.other_categories else ""
    )
    attributes = json.dumps(dict(item.attributes), allow_nan=False) if item.attributes else "{}"
    path = None if item.path is None else os.fsencode(item.path)
    return item.id, item.label, item.category, others, attributes, item.digest, path, item.picture


def _item(row: Sequence[Any]) -> Item:
    number, _, name, label, category, others, attributes, digest, path, picture, check, text = row
    if (
        not isinstance(check, bytes)
        or not isinstance(number, int)
        or not all(isinstance(one, str) for one in (name, others, attributes, digest))
    ):
        raise _Damaged(f"item {number} is not as it was written")
    if not all(one is None or isinstance(one, str) for one in (label, category, picture, text)):
        raise _Damaged(f"item {number} is not as it was written")
    if not (path is None or isinstance(path, bytes)) or (picture is not None and not _is_picture(picture)):
        raise _Damaged(f"item {number} is not as it was written")
    try:
        labels, categories = map(tuple, json.loads(others) if others else ((), ()))
        known = json.loads(attributes)
    except (ValueError, TypeError, RecursionError):
        raise _Damaged(f"item {number} is not as it was written") from None
    if not isinstance(known, dict):
        raise _Damaged(f"item {number} is not as it was written")
    place = None if path is None else Path(os.fsdecode(path))
    return Item(number, name, label, category, labels, categories, known, digest, place, picture, text or "")


def _is_picture(name: str) -> bool:
    """Whether a name is one that `pictures` holds: nothing that leads elsewhere."""
    stem, _, suffix = name.partition(".")
    return len(stem) == 64 and not set(stem) - set("0123456789abcdef") and suffix in ("jpg", "png")


def _connect(file: Path, writable: bool) -> sqlite3.Connection:
    for one in (file, *(file.with_name(file.name + more) for more in ("-journal", "-wal", "-shm"))):
        if os.path.lexists(one) and not stat.S_ISREG(os.lstat(one).st_mode):  # SQLite would wait for a pipe
            raise _Damaged("a folder, a link, a pipe or a device is there, and no file")
    address = file.absolute().as_uri()
    modes = ["rw"] if writable else ["ro", "ro&immutable=1"]
    for mode in modes:
        connection = sqlite3.connect(
            f"{address}?mode={mode}", uri=True, timeout=30, isolation_level=None, check_same_thread=False
        )
        try:
            for pragma in ("trusted_schema=OFF", "cell_size_check=ON", "synchronous=FULL", "mmap_size=0"):
                connection.execute(f"PRAGMA {pragma}")
            connection.execute("SELECT value FROM meta").fetchall()
            return connection
        except sqlite3.OperationalError as error:
            connection.close()
            # Of a folder that cannot be written, the file alone can be read, as long as nobody writes.
            blocked = getattr(error, "sqlite_errorname", "").startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY"))
            log = file.with_name(f"{file.name}-wal")
            if mode == modes[-1] or not blocked or os.access(file.parent, os.W_OK) or _size(log):
                raise
        except sqlite3.Error:
            connection.close()
            raise
    raise AssertionError("one of the modes returns or raises")


def _has_texts(connection: sqlite3.Connection) -> bool:
    """Whether items have a column for texts."""
    return any(row[1] == "text" for row in connection.execute("PRAGMA table_info(items)"))


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _columns(rows: Iterable[tuple[Any, ...]]) -> np.ndarray:
    """(3, n) int64."""
    try:
        found = np.array(list(rows), np.int64).reshape(-1, 3)
    except (ValueError, TypeError, OverflowError):
        raise _Damaged("numbers of its items are none") from None
    return np.ascontiguousarray(found.T)


def _meta(connection: sqlite3.Connection, name: str) -> int:
    row = connection.execute("SELECT value, state FROM meta WHERE name = ?", (name,)).fetchone()
    if row is None or row[1] != _state_check("meta", name, row[0]) or not isinstance(row[0], int):
        raise _Damaged(f"{name} is not as it was written")
    return row[0]


def _set(connection: sqlite3.Connection, name: str, value: int, *, new: bool = False) -> None:
    how = "INSERT" if new else "REPLACE"
    connection.execute(f"{how} INTO meta VALUES (?, ?, ?)", (name, value, _state_check("meta", name, value)))


def _state_check(*values: Any) -> bytes:
    return hashlib.blake2b(repr(values).encode("utf-8", "backslashreplace"), digest_size=8).digest()


def _next_operation(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT coalesce(max(number), 0) + 1 FROM operations").fetchone()[0])


def _insert_operation(
    connection: sqlite3.Connection, number: int, what: str, count: int, note: str, undoes: int | None = None
) -> None:
    facts = (number, datetime.now(UTC).isoformat(timespec="seconds"), what, count, note, undoes, None)
    connection.execute(
        "INSERT INTO operations VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (*facts, _state_check("operation", *facts))
    )


def _mark_undone(connection: sqlite3.Connection, number: int, by: int | None) -> None:
    asked = "SELECT number, at, what, count, note, undoes FROM operations WHERE number = ?"
    facts = (*connection.execute(asked, (number,)).fetchone(), by)
    connection.execute(
        "UPDATE operations SET undone_by = ?, state = ? WHERE number = ?",
        (by, _state_check("operation", *facts), number),
    )


def _change(connection: sqlite3.Connection, operation: int, numbers: Sequence[int], *, live: bool) -> None:
    """Mark items as removed by an operation, or as restored by it."""
    changed = []
    for some in _parts(numbers):
        marks = ",".join("?" * len(some))
        asked = f'SELECT number, row, "check", added_by, restored_by FROM items WHERE number IN ({marks})'
        for number, row, check, added_by, restored_by in connection.execute(asked, some):
            now = (added_by, None if live else operation, operation if live else restored_by, operation)
            changed.append((*now[1:], _state_check("item", number, row, check, *now), number))
    connection.executemany(
        "UPDATE items SET removed_by = ?, restored_by = ?, changed_by = ?, state = ? WHERE number = ?", changed
    )


def _numbers(connection: sqlite3.Connection, condition: str, value: int) -> list[int]:
    return [row[0] for row in connection.execute(f"SELECT number FROM items WHERE {condition}", (value,))]


def _parts(values: Sequence[Any]) -> Iterator[list[Any]]:
    """A few hundred at a time, as numbers that SQLite takes."""
    for start in range(0, len(values), _AT_ONCE):
        yield [one.item() if isinstance(one, np.generic) else one for one in values[start : start + _AT_ONCE]]
