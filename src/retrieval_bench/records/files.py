"""A record on disk: `run.json` and, beside it, `rankings.npz`; written whole, one run at a time, read back with care.

Rankings are which gallery rows each query found, from which every metric can be recomputed. Tables beside them are
derived and never edited.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import psutil
from pydantic import ValidationError

from retrieval_bench.core import BenchError, printable
from retrieval_bench.records import validation
from retrieval_bench.records.schema import SCHEMA_VERSION, Rankings, Record
from retrieval_bench.system.files import write_whole

log = logging.getLogger("retrieval_bench")

RUN_FILE = "run.json"
RANKINGS_FILE = "rankings.npz"
LOCK_FILE = ".lock"
TABLE_FILES = ("table.md", "table.csv")


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Make sure, before any work, that a record can be written to `folder` and that no other run is writing there."""
    made = not folder.exists()
    lock = folder / LOCK_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _take(lock)
    except OSError as error:
        raise BenchError(f"--out {printable(folder)}: cannot be written ({error.strerror}); name another") from None
    try:
        for name in (RUN_FILE, RANKINGS_FILE, *TABLE_FILES):
            if (folder / name).is_dir():
                raise BenchError(f"--out {printable(folder)}: {name} is a folder there; name another")
        yield
    finally:
        lock.unlink(missing_ok=True)
        if made:
            with contextlib.suppress(OSError):  # it is not empty, as it should be
                folder.rmdir()


def _take(lock: Path) -> None:
    try:
        with lock.open("x", encoding="ascii") as file:
            file.write(str(os.getpid()))
    except FileExistsError:
        owner = lock.read_text(encoding="ascii", errors="replace")
        if owner.isdecimal() and psutil.pid_exists(int(owner)):
            raise BenchError(
                f"--out {printable(lock.parent)}: another run (process {owner}) is writing there; "
                f"wait for it, name another, or remove {LOCK_FILE} if no such run exists"
            ) from None
        lock.unlink()  # its run was killed
        _take(lock)


def save(
    record: Record,
    folder: Path,
    arrays: Mapping[str, np.ndarray],
    tables: Mapping[str, str] | None = None,
    keep_earlier: bool = False,
) -> Record:
    """Write all files of a record; the record that is returned names the rankings' sha256.

    The same arrays give the same bytes. tables: file name -> text, derived from the record.
    keep_earlier: set aside what lies in `folder` first. All is serialised before anything there is touched.
    """
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    content = buffer.getvalue()
    stamp = Rankings(file=RANKINGS_FILE, sha256=hashlib.sha256(content).hexdigest())
    record = record.model_copy(update={"rankings": stamp})
    files = {RANKINGS_FILE: content, RUN_FILE: record.to_json().encode()}
    files |= {name: text.encode() for name, text in (tables or {}).items()}
    if keep_earlier:
        set_aside(folder)
    for name, whole in files.items():
        write_whole(folder / name, whole)
    return record


def set_aside(folder: Path) -> Path | None:
    """Move an earlier record in `folder` to `earlier/<its time>/`, so that no finished run is lost; where it went."""
    files = [folder / name for name in (RUN_FILE, RANKINGS_FILE, *TABLE_FILES) if (folder / name).exists()]
    if not files:
        return None
    taken = datetime.fromtimestamp(files[0].stat().st_mtime, UTC).strftime("%Y-%m-%dT%H-%M-%SZ")
    home = folder / "earlier" / taken
    number = 1
    while home.exists():
        number += 1
        home = folder / "earlier" / f"{taken}-{number}"
    try:
        home.mkdir(parents=True)
        for file in files:
            os.replace(file, home / file.name)
    except OSError as error:
        raise BenchError(f"{folder}: the earlier record cannot be moved away ({error.strerror}); use --out") from None
    log.info("the earlier record of %s is kept in %s", printable(folder), printable(home))
    return home


def run_file(path: Path) -> Path:
    """A record may be named by its folder or by its run.json."""
    return path / RUN_FILE if path.is_dir() else path


def load(path: Path) -> Record:
    """Read and validate a record; BenchError says what is wrong with it and where."""
    file = run_file(path)
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise BenchError(f"{file}: no such record; name a run.json or the folder that holds it") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(f"{file}: cannot be read as a record ({error})") from None
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BenchError(f"{file}: not JSON ({error}); the file is incomplete or not a record") from None
    version = content.get("schema_version") if isinstance(content, dict) else None
    if type(version) is not int or version != SCHEMA_VERSION:
        raise BenchError(
            f"{file}: schema_version is {version!r}, this version reads {SCHEMA_VERSION}; "
            "run again, or use the version of retrieval_bench that wrote it"
        )
    try:
        record = Record.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the top"
        raise BenchError(
            f"{file}: not a valid record: {first['msg']} at {where}; run again to get a complete one"
        ) from None
    names = [row.method for row in record.rows]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise BenchError(f"{file}: not a valid record: two rows are called {twice!r}; run again to get a complete one")
    return record


def load_rankings(path: Path, record: Record) -> dict[str, np.ndarray]:
    """The arrays that belong to this record; BenchError when they are missing or are not the ones it names."""
    file = run_file(path).with_name(RANKINGS_FILE)
    try:
        content = file.read_bytes()
    except OSError as error:
        raise BenchError(f"{file}: cannot be read ({error.strerror}); the record needs it") from None
    if record.rankings is None or hashlib.sha256(content).hexdigest() != record.rankings.sha256:
        raise BenchError(
            f"{file}: these are not the rankings that {RUN_FILE} beside it names; keep the two files together"
        )
    try:
        arrays = validation.read(content)
    except ValueError as error:
        raise BenchError(f"{file}: {error}; run again to get a complete one") from None
    if wrong := validation.fault(arrays, [row.method for row in record.rows if row.status == "ok"]):
        raise BenchError(f"{file}: these rankings do not fit the record: {wrong}; run again to get complete ones")
    return arrays
