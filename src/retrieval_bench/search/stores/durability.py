"""Kill -9 in the middle of inserts: is every row that the store acknowledged there afterwards?

A server that is not ours is not ours to kill: there the connection is broken in the middle of an insert.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from retrieval_bench.core import BenchError
from retrieval_bench.search.stores.lance import LanceStore
from retrieval_bench.search.stores.lance_writer import BATCH, batch_of
from retrieval_bench.search.stores.pgvector import PgvectorStore
from retrieval_bench.search.stores.store import Store

_ACKNOWLEDGED = 5  # batches, before anything is killed
_LONGEST_S = 60.0


@dataclass(frozen=True)
class Durability:
    """What was there after the kill.

    Attributes:
        acknowledged: rows whose insert had returned.
        lost: of these, those that were gone.
        torn: batches of which a part was there; each is whole or not there.
        before: rows lost of those that had been there before.
        killed: what was killed: "server", "writer", or a "connection" to a server that is not ours.
    """

    acknowledged: int
    lost: int
    torn: int
    before: int
    killed: str

    @property
    def kept(self) -> bool:
        """Whether nothing was lost and nothing was half there."""
        return not (self.lost or self.torn or self.before)


def durability(store: Store, first_id: int) -> Durability:
    """Insert batches into a store until something is killed, and look at what is there.

    Args:
        store: has rows already, all with ids below `first_id`. Another connection must open it afterwards.
        first_id: where the ids of the batches begin.

    Returns:
        What was there.

    Raises:
        BenchError: The store does not come back.
    """
    before = store.ids()
    if isinstance(store, LanceStore):
        acknowledged = _kill_writer(store, first_id)
        return _looked_at(store.reconnected().ids(), before, first_id, acknowledged, "writer")
    assert isinstance(store, PgvectorStore)
    if store.server is None:
        acknowledged = _break_off(store, first_id, PgvectorStore.break_connection)
        return _looked_at(store.ids(), before, first_id, acknowledged, "connection")
    server = store.server
    acknowledged = _break_off(store, first_id, lambda _: server.kill())
    server.start()
    again = store.reconnected()
    store.disconnect()
    store.session = again.session  # the old one is dead
    return _looked_at(again.ids(), before, first_id, acknowledged, "server")


def _looked_at(there: np.ndarray, before: np.ndarray, first_id: int, acknowledged: int, killed: str) -> Durability:
    promised = np.arange(first_id, first_id + acknowledged)
    more = there[there >= first_id] - first_id
    counts = np.bincount(more // BATCH) if len(more) else np.zeros(0, int)
    torn = int(((counts > 0) & (counts < BATCH)).sum())
    lost = int((~np.isin(promised, there)).sum())
    return Durability(acknowledged, lost, torn, int((~np.isin(before, there)).sum()), killed)


def _break_off(store: PgvectorStore, first_id: int, end: Callable[[PgvectorStore], None]) -> int:
    """End what a thread inserts by -> rows that were acknowledged."""
    done, ended = threading.Semaphore(0), threading.Event()
    acknowledged = 0
    writer = store.reconnected()

    def write() -> None:
        nonlocal acknowledged
        try:
            while not ended.is_set():
                writer.insert(*batch_of(first_id + acknowledged, store.dim, store.distance, store.attributes))
                acknowledged += BATCH
                done.release()
        except BenchError:
            return  # it is what we wait for: the server went away
        finally:
            ended.set()
            done.release()

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    for _ in range(_ACKNOWLEDGED):
        done.acquire(timeout=_LONGEST_S)
    time.sleep(0.002)
    end(writer)
    thread.join(_LONGEST_S)
    ended.set()
    writer.disconnect()
    return acknowledged


def _kill_writer(store: LanceStore, first_id: int) -> int:
    """Kill a process that inserts -> rows that it had said were in."""
    names = ",".join(store.attributes)
    words = [str(store.folder), str(store.dim), store.distance, str(first_id), names]
    command = [sys.executable, "-m", "retrieval_bench.search.stores.lance_writer", *words]
    acknowledged = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                acknowledged = int(line)
                if acknowledged >= _ACKNOWLEDGED * BATCH:
                    break
            time.sleep(0.002)
        finally:
            process.kill()
        said_since = process.stdout.read().split("\n")[:-1]  # what it said before it died; a torn line does not count
        acknowledged = max([acknowledged, *map(int, said_since)])
    if not acknowledged:
        raise BenchError("lancedb: the process that should insert did not start; run this again with a free machine")
    return acknowledged
