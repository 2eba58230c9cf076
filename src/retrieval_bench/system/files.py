"""Files written whole or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from retrieval_bench.core import BenchError


def write_whole(path: Path, content: bytes, option: str = "--out") -> None:
    """Write a file whole or not at all: beside it first, then in one rename. option: by which the user chose the place;
    it is in the sentence of the BenchError where the file cannot be written."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_bytes(content)
        os.replace(unfinished, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise BenchError(f"{path}: cannot be written ({error.strerror}); choose another place with {option}") from None
