"""A process that changes an index and is killed again and again, and others that read it meanwhile.

`python -m tests.support.killed INDEX ROUNDS SEED` prints what it saw, as JSON; it ends with a traceback where something
that was acknowledged is lost, or the index is not whole. Children are forked from a process without threads, so that a
round takes a fraction of a second.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from retrieval_bench.indexing.index import NewItem, StoredIndex
from retrieval_bench.registry import fill

ADDED = 3
"""Items that each `add` adds in one step."""


def work(folder: Path, seed: int, out: int) -> None:
    """Change the index for ever; say each change before it is made, and when it is acknowledged."""
    rng = random.Random(seed)

    def say(*words: object) -> None:
        os.write(out, (" ".join(map(str, words)) + "\n").encode())

    with StoredIndex.open(folder, writable=True, check_recipe=False) as index:
        say("ready")
        for step in range(100_000):
            ids = [item.id for item in index.snapshot().items(index.snapshot().numbers)]
            what = rng.choice(("add", "add", "remove", "undo", "compact") if len(ids) > 6 else ("add",))
            if what == "add":
                names = [f"{seed}-{step}-{number}" for number in range(ADDED)]
                say("begin", "add", *names)
                index.add([NewItem(name, drawn(rng)) for name in names])
            elif what == "remove":
                chosen = rng.sample(ids, 3)
                say("begin", "remove", *chosen)
                index.remove(chosen)
            elif what == "undo":
                last = index.operations(1)[0]
                if last.what != "add" or last.undone_by is not None:
                    continue
                gone = [item.id for item in index.snapshot().items(index.snapshot().numbers[-ADDED:])]
                say("begin", "remove", *gone)
                index.undo(last.number)
            else:
                say("begin", "nothing")
                index.compact()
            say("done")


def drawn(rng: random.Random) -> np.ndarray:
    """(24, 24, 3) uint8 of noise."""
    return np.frombuffer(rng.randbytes(24 * 24 * 3), np.uint8).reshape(24, 24, 3).copy()


def read(folder: Path, stop: Path, more: int) -> None:
    """Look at the index until a file is there; each look must be of one moment. more: items beside those of `ADDED`."""
    with StoredIndex.open(folder, check_recipe=False) as index:
        while not stop.exists():
            snapshot = index.snapshot()
            items = snapshot.items(snapshot.numbers)
            assert len(snapshot) % ADDED == more, f"{len(snapshot)} items: a part of a change"
            assert len(items) <= len(snapshot)
            assert not index.verify().problems
            for array in snapshot.features(index.methods[0].text):
                assert len(array) == snapshot.state.rows


def child(target: object, *arguments: object) -> int:
    """The number of a forked process that calls this and ends."""
    number = os.fork()
    if number == 0:
        code = 1
        try:
            target(*arguments)  # type: ignore[operator]
            code = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(code)
    return number


def killed(folder: Path, seed: int, rng: random.Random) -> tuple[list[list[str]], list[str] | None]:
    """Let a process work and kill it -> the changes that it acknowledged, and the one that it had begun."""
    here, there = os.pipe()
    number = child(work, folder, seed, there)
    os.close(there)
    done: list[list[str]] = []
    begun: list[str] | None = None
    wanted = rng.randrange(8)
    with os.fdopen(here, "rb") as lines:
        alive = True
        if rng.random() < 0.2:  # while it opens the index
            time.sleep(rng.random() * 0.05)
            os.kill(number, signal.SIGKILL)
            alive = False
        for line in lines:  # to what it had said when it was killed
            word, *rest = line.decode().split()
            if word == "begin":
                begun = rest
            elif word == "done" and begun is not None:
                done, begun = [*done, begun], None
            if alive and len(done) >= wanted and (begun is not None or wanted == 0):
                time.sleep(rng.random() * 0.02)
                os.kill(number, signal.SIGKILL)
                alive = False
    os.waitpid(number, 0)
    return done, begun


def after(ids: frozenset[str], change: list[str]) -> frozenset[str]:
    """The ids that are there after a change."""
    what, *names = change
    return ids | set(names) if what == "add" else ids - set(names)


def there(folder: Path) -> frozenset[str]:
    """The ids that are in the index, which must be whole."""
    with StoredIndex.open(folder, check_recipe=False) as index:
        problems = index.verify().problems
        assert not problems, problems
        snapshot = index.snapshot()
        return frozenset(item.id for item in snapshot.items(snapshot.numbers))


@contextlib.contextmanager
def readers(folder: Path, count: int, more: int) -> Iterator[None]:
    """Processes that read while the block runs, and must end well."""
    stop = folder.with_name("stop")
    numbers = [child(read, folder, stop, more) for _ in range(count)]
    try:
        yield
    finally:
        stop.touch()
        codes = [os.waitpid(number, 0)[1] for number in numbers]
    assert not any(codes), "a reader saw something that was not whole"


def main(folder: Path, rounds: int, seed: int) -> None:
    """Kill, look, and go on."""
    fill()
    rng = random.Random(seed)
    with StoredIndex.open(folder) as index:
        for method in index.methods:
            method.describe([drawn(rng)])  # so that no child needs to load libraries
    ids = there(folder)
    acknowledged = unacknowledged = 0
    with readers(folder, 2, len(ids) % ADDED):
        for number in range(rounds):
            done, begun = killed(folder, seed * 1000 + number, rng)
            for change in done:
                ids = after(ids, change)
            now = there(folder)
            possible = {ids} if begun is None else {ids, after(ids, begun)}
            assert now in possible, f"round {number}: {sorted(now ^ ids)} differ, {begun} was under way"
            acknowledged += len(done)
            unacknowledged += now != ids
            ids = now
    print(json.dumps({"acknowledged": acknowledged, "unacknowledged": unacknowledged, "items": len(ids)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
