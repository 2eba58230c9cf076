"""Threads of OpenMP that have nothing to do sleep: spinning, they take the cores from each other and from others.

By default a thread that waits for the next piece of work asks for it in a loop. On cores that something else uses, too,
the loop runs in place of the work: a single query of a network took 950 ms in place of 63.
"""

from __future__ import annotations

import os

_WANTED = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}  # of GNU's and LLVM's libraries


def wait_passively() -> None:
    """Ask the libraries for it, unless the user has asked for something else. Before any of them is loaded."""
    if not any(name in os.environ for name in (*_WANTED, "GOMP_SPINCOUNT")):
        os.environ.update(_WANTED)


def waiting() -> str:
    """How idle threads wait, for the record: "passive", or what the user's variables say."""
    given = {name: os.environ[name] for name in (*_WANTED, "GOMP_SPINCOUNT") if name in os.environ}
    if given == _WANTED:
        return "passive"
    return ", ".join(f"{name}={value}" for name, value in given.items()) or "as the libraries do by default"
