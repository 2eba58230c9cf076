"""A record on disk: `run.json` and, beside it, `rankings.npz`; written whole, one run at a time, read back with care.

Rankings are which gallery rows each query found, from which every metric can be recomputed. Tables beside them are
derived and never edited.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from retrieval_bench.core import BenchError, printable
from retrieval_bench.records import validation
from retrieval_bench.records.schema import SCHEMA_VERSION, Rankings, Record
from retrieval_bench.records.switch import RANKINGS_FILE, RUN_FILE, TABLE_FILES, place_of, settle, switch, unfinished
from retrieval_bench.system.files import open_regular, read_regular
from retrieval_bench.system.locks import Taken, held
from retrieval_bench.system.npz import read_arrays

LOCK_FILE = ".lock"
MOST_BYTES = 64_000_000
"""Of a run.json; one of a hundred methods has a hundredth of it."""
MOST_VALUES = 3_000_000
MOST_BYTES_OF_RANKINGS = 8 << 30
MOST_TRIES = 1000


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Make sure, before any work, that a record can be written to `folder` and that no other run is writing there."""
    made = not folder.exists()
    try:
        with _held(folder):
            refuse_no_files(folder)
            _settle(folder)
            try:
                yield
            finally:
                _settle(folder)
    finally:
        if made:
            with contextlib.suppress(OSError):  # it is not empty, as it should be
                folder.rmdir()


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """The lock of a folder, which is made if it is missing."""
    with contextlib.ExitStack() as stack:
        try:
            for _ in range(MOST_TRIES):
                folder.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(FileNotFoundError):  # another run has removed the empty folder again
                    stack.enter_context(held(folder / LOCK_FILE))
                    break
            else:
                raise Taken
        except Taken:
            raise BenchError(
                f"--out {printable(folder)}: another run is writing there; wait for it, or name another"
            ) from None
        except OSError as error:
            raise BenchError(f"--out {printable(folder)}: cannot be written ({error.strerror}); name another") from None
        yield


def refuse_no_files(folder: Path) -> None:
    """Raise BenchError where what lies in `folder` under the name of a file of a record is none."""
    for name in (RUN_FILE, RANKINGS_FILE, *TABLE_FILES):
        _refuse_no_file(folder, name)


def _refuse_no_file(folder: Path, name: str) -> None:
    """Raise BenchError where a file of the record cannot take the place of what is there."""
    file = folder / name
    if not os.path.lexists(file):
        return
    target = Path(os.path.realpath(file))
    if target.exists() and not target.is_file():
        kind = "a folder" if target.is_dir() else "no file"
        raise BenchError(f"--out {printable(folder)}: {name} is {kind} there; name another")
    if not target.parent.is_dir() or target.parent.stat().st_dev != folder.stat().st_dev:
        raise BenchError(f"--out {printable(folder)}: {name} is a link to another disk there; name another")


def _settle(folder: Path) -> None:
    """Finish, or take away, what a run left that was killed while it saved."""
    if not unfinished(folder):
        return
    try:
        found = load(folder).rankings
    except BenchError:
        found = None
    try:
        settle(folder, None if found is None else found.sha256)
    except OSError as error:
        raise BenchError(f"--out {printable(folder)}: cannot be written ({error.strerror}); name another") from None


def save(
    record: Record,
    folder: Path,
    arrays: Mapping[str, np.ndarray],
    tables: Mapping[str, str] | None = None,
    keep_earlier: bool = False,
) -> Record:
    """Write all files of a record; the record that is returned names the rankings' sha256.

    The same arrays give the same bytes. tables: file name -> text, derived from the record.
    keep_earlier: keep what lies in `folder` in `earlier/<its time>/`. See `switch` for what a failure leaves.
    """
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    content = buffer.getvalue()
    stamp = Rankings(file=RANKINGS_FILE, sha256=hashlib.sha256(content).hexdigest())
    record = record.model_copy(update={"rankings": stamp})
    files = {RANKINGS_FILE: content, RUN_FILE: record.to_json().encode()}
    files |= {name: text.encode() for name, text in (tables or {}).items()}
    switch(folder, files, stamp.sha256, keep_earlier)
    return record


def run_file(path: Path) -> Path:
    """A record may be named by its folder or by its run.json; a folder of that name, which holds no record, is itself
    what cannot be read."""
    within = path / RUN_FILE
    return within if path.is_dir() and (path.name != RUN_FILE or os.path.lexists(within)) else path


def run_files_below(folder: Path) -> list[Path]:
    """Whatever is called run.json below a folder, in order: also a folder without a record, or a link to nothing, which
    `load` refuses in a sentence. Hidden folders are passed over."""
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        file = Path(place) / RUN_FILE
        if RUN_FILE in files or (RUN_FILE in folders and run_file(file) == file):
            found.append(file)
    return sorted(found)


def load(path: Path) -> Record:
    """Read and validate a record; BenchError says what is wrong with it and where."""
    file = run_file(path)
    try:
        text = read_regular(file, MOST_BYTES).decode()
    except FileNotFoundError:
        if file.is_symlink():
            raise BenchError(
                f"{printable(file)}: is a link to a file that is not there; name another record, or fix the link"
            ) from None
        raise BenchError(f"{printable(file)}: no such record; name a run.json or the folder that holds it") from None
    except OSError as error:
        raise BenchError(f"{printable(file)}: cannot be read as a record ({error.strerror}); name another") from None
    except UnicodeDecodeError as error:
        raise BenchError(f"{printable(file)}: cannot be read as a record (byte {error.start} is no text)") from None
    content = _parsed(text, file)
    version = content.get("schema_version") if isinstance(content, dict) else None
    if type(version) is not int or version != SCHEMA_VERSION:
        raise BenchError(
            f"{printable(file)}: schema_version is {_short(repr(version))}, this version reads {SCHEMA_VERSION}; "
            "run again, or use the version of retrieval_bench that wrote it"
        )
    try:
        record = Record.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = _short(".".join(map(str, first["loc"]))) or "the top"
        wrong = f"{first['msg']} at {where}{_of_method(content, first['loc'])}"
    else:
        wrong = validation.fault_of_record(record)
    if wrong:
        raise BenchError(f"{printable(file)}: not a valid record: {wrong}; run again to get a complete one")
    return record


def _parsed(text: str, file: Path) -> Any:
    """What JSON says; BenchError where it is none, or no program could have written such a record."""
    odd: list[str] = []

    def number(said: str) -> float:
        if not math.isfinite(value := float(said)):
            odd.append(said)
        return value

    if sum(map(text.count, ",[{")) > MOST_VALUES:
        raise BenchError(f"{printable(file)}: more than {MOST_VALUES:,} values in it; it is no record")
    try:
        content = json.loads(text, parse_constant=number, parse_float=number)
        text.encode() if "\\u" not in text else json.dumps(content, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise BenchError(f"{printable(file)}: half a character (\\ud800 to \\udfff) is in it") from None
    except (ValueError, RecursionError) as error:
        raise BenchError(f"{printable(file)}: not JSON ({error}); the file is incomplete or not a record") from None
    if odd:
        place = _place_of_no_number(content)
        where = _short(".".join(map(str, place)))
        raise BenchError(
            f"{printable(file)}: {_short(odd[0])} is no number that a record can hold, at "
            f"{where}{_of_method(content, place)}; run again to get a complete one"
        )
    return content


def _place_of_no_number(content: Any) -> tuple[str | int, ...]:
    """The keys and rows that lead to the first number in it that is not finite."""
    waiting: list[tuple[tuple[str | int, ...], Any]] = [((), content)]
    while waiting:
        place, one = waiting.pop()
        if isinstance(one, float) and not math.isfinite(one):
            return place
        inner = one.items() if isinstance(one, dict) else enumerate(one) if isinstance(one, list) else ()
        waiting += reversed([((*place, key), value) for key, value in inner])
    return ()


def _of_method(content: Any, place: Sequence[str | int]) -> str:
    """The method of the row in which a place lies, in brackets; "" elsewhere, and where the row names none."""
    try:
        name = content["rows"][place[1]]["method"] if place[0] == "rows" else None
    except (IndexError, KeyError, TypeError):
        return ""
    return f" (method {_short(repr(name))})" if isinstance(name, str) else ""


def _short(text: str) -> str:
    """At most a line, in characters that no terminal takes for orders."""
    plain = text.encode("unicode_escape").decode() if not text.isprintable() else text
    return plain if len(plain) <= 200 else f"{plain[:200]}..."


def load_rankings(path: Path, record: Record) -> dict[str, np.ndarray]:
    """The arrays that belong to this record; BenchError when they are missing or are not the ones it names."""
    file = rankings_file(path, record)
    try:
        with open_regular(file, MOST_BYTES_OF_RANKINGS) as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()  # type: ignore[arg-type]
            if record.rankings is None or digest != record.rankings.sha256:
                raise BenchError(
                    f"{printable(file)}: these are not the rankings that {RUN_FILE} beside it names; "
                    "keep the two files together"
                )
            arrays = read_arrays(opened)
    except OSError as error:
        raise BenchError(f"{printable(file)}: cannot be read ({error.strerror}); the record needs it") from None
    except ValueError as error:
        raise BenchError(
            f"{printable(file)}: not a whole npz file ({error}); run again to get a complete one"
        ) from None
    if wrong := validation.fault(arrays, [row.method for row in record.rows if row.status == "ok"]):
        raise BenchError(
            f"{printable(file)}: these rankings do not fit the record: {wrong}; run again to get complete ones"
        )
    return arrays


def load_own_rankings(path: Path, record: Record) -> dict[str, np.ndarray]:
    """The same, for what cannot do without them; BenchError also where the record has none."""
    arrays = load_rankings(path, record)
    if not arrays:
        raise BenchError(f"{printable(path)}: its rankings are empty, so no query can be looked at; run again")
    return arrays


def rankings_file(path: Path, record: Record) -> Path:
    """Where the rankings of a record lie; they need not exist."""
    return place_of(run_file(path).parent, None if record.rankings is None else record.rankings.sha256)
