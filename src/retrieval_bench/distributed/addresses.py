"""What `--engine` names: where the workers are, how many there are, and how many threads each has."""

from __future__ import annotations

import re
from typing import NamedTuple

from retrieval_bench.core import BenchError

MOST_WORKERS = 10_000
_FORM = "write local, processes, ray://HOST:PORT or ray://local, with ?workers=N&threads=N behind all but local"


class EngineAddress(NamedTuple):
    """host: None where the workers are started on this machine. workers: None for as many as there is room for."""

    host: str | None
    port: int
    workers: int | None
    threads: int


def parsed(address: str) -> EngineAddress:
    """Read the address of workers.

    Args:
        address: "processes", "ray://HOST:PORT" or "ray://local"; behind a "?", workers=N and threads=N, joined by "&".

    Returns:
        What it says.

    Raises:
        BenchError: It says something else.
    """
    found = re.fullmatch(
        r"(processes|ray://local|ray://[\w.-]+:\d{1,5}|ray://\[[0-9a-fA-F:]+\]:\d{1,5})/?(?:\?(.*))?", address
    )
    if found is None:
        raise BenchError(f"engine {address!r} is none; {_FORM}")
    options = {"workers": 0, "threads": 1}
    for pair in filter(None, (found[2] or "").split("&")):
        name, _, value = pair.partition("=")
        if name not in options or not value.isascii() or not value.isdigit() or not 1 <= int(value) <= MOST_WORKERS:
            raise BenchError(
                f"engine {address!r}: {pair!r} is no option; workers=N and threads=N are, from 1 to {MOST_WORKERS:,}"
            )
        options[name] = int(value)
    if found[1] in ("processes", "ray://local"):
        return EngineAddress(None, 0, options["workers"] or None, options["threads"])
    host, _, port = found[1].removeprefix("ray://").rpartition(":")
    if not 1 <= int(port) <= 65_535:
        raise BenchError(f"engine {address!r}: a port is a number from 1 to 65535")
    return EngineAddress(host, int(port), options["workers"] or None, options["threads"])
