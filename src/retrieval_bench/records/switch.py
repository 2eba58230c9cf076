"""From one record to the next in one step: at every moment, whatever happens, one of the two is there and whole.

The files of the new record are written to a folder beside the old ones, named after their rankings. Then the earlier
record is linked to `earlier/`, and one rename of run.json makes the new record the one that is there. Only after that
the other files move to their places; until then they are found where they are (`place_of`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from retrieval_bench.core import BenchError, printable
from retrieval_bench.system.files import on_the_disk, removed

log = logging.getLogger("retrieval_bench")

RUN_FILE = "run.json"
RANKINGS_FILE = "rankings.npz"
TABLE_FILES = ("table.md", "table.csv")
_UNFINISHED = ".unfinished-"


def switch(folder: Path, files: Mapping[str, bytes], stamp: str, keep_earlier: bool) -> Path | None:
    """Put a record in the place of the one that is there.

    Args:
        folder: where it lies; made if it is missing.
        files: name -> content, RUN_FILE and RANKINGS_FILE among them.
        stamp: sha256 of the rankings; `settle` and `place_of` get the same.
        keep_earlier: keep what lies in `folder` in a folder below `earlier/`.

    Returns:
        Where the earlier record is kept; None: nowhere.

    Raises:
        BenchError: A file cannot be written. The earlier record is still there, whole.
    """
    stage = _stage(folder, stamp)
    kept, switched = None, False
    try:
        _empty(stage)
        stage.mkdir(parents=True)
        for name in sorted(files, key=_last_is_run_file, reverse=True):
            (stage / name).write_bytes(files[name])
            on_the_disk(stage / name)
        kept = _linked_aside(folder) if keep_earlier else None
        try:
            _move(stage, folder, RUN_FILE)
        except OSError:
            if kept is not None:
                _empty(kept)
            raise
        switched = True
        _finish(stage, folder)
    except OSError as error:
        if not switched:
            _empty(stage)
        raise BenchError(
            f"{printable(folder)}: cannot be written ({error.strerror}); choose another place with --out"
        ) from None
    return kept


def settle(folder: Path, stamp: str | None) -> None:
    """Finish what a run that was killed left unfinished. stamp: of the rankings that the record there names."""
    for stage in unfinished(folder):
        if stamp is not None and stage == _stage(folder, stamp) and not (stage / RUN_FILE).exists():
            _finish(stage, folder)
        else:
            _empty(stage)


def unfinished(folder: Path) -> list[Path]:
    """What `settle` has to look at."""
    stages = [*folder.glob(f"{_UNFINISHED}*"), *(folder / "earlier").glob(f"{_UNFINISHED}*")]
    return sorted(stage for stage in stages if stage.is_dir() and not stage.is_symlink())


def place_of(folder: Path, stamp: str | None) -> Path:
    """Where the rankings of the record lie that is in `folder`; they need not exist."""
    usual = folder / RANKINGS_FILE
    if stamp is not None:
        stage = _stage(folder, stamp)
        if (stage / RANKINGS_FILE).is_file() and not (stage / RUN_FILE).exists():
            return stage / RANKINGS_FILE
    return usual


def _stage(folder: Path, stamp: str) -> Path:
    return folder / f"{_UNFINISHED}{stamp[:16]}"


def _finish(stage: Path, folder: Path) -> None:
    for name in sorted(file.name for file in stage.iterdir()):
        _move(stage, folder, name)
    stage.rmdir()


def _move(stage: Path, folder: Path, name: str) -> None:
    os.replace(stage / name, os.path.realpath(folder / name))  # a link stays one


def _linked_aside(folder: Path) -> Path | None:
    """A second name in `earlier/<its time>/` for each file of the record that is there: it is in both places."""
    files = [folder / name for name in (RUN_FILE, RANKINGS_FILE, *TABLE_FILES) if (folder / name).exists()]
    if not files:
        return None
    taken = datetime.fromtimestamp(files[0].stat().st_mtime, UTC).strftime("%Y-%m-%dT%H-%M-%SZ")
    home = folder / "earlier" / taken
    number = 1
    while home.exists():
        number += 1
        home = folder / "earlier" / f"{taken}-{number}"
    beside = home.with_name(f"{_UNFINISHED}{secrets.token_hex(4)}")
    try:
        beside.mkdir(parents=True)
        for file in files:
            _linked(Path(os.path.realpath(file)), beside / file.name)
        os.replace(beside, home)
    except OSError:
        _empty(beside)
        raise
    log.info("the earlier record of %s is kept in %s", printable(folder), printable(home))
    return home


def _linked(file: Path, other: Path) -> None:
    try:
        os.link(file, other)
    except OSError:  # a file system without links, or a file of another user
        shutil.copy2(file, other)


def _last_is_run_file(name: str) -> bool:
    """For sorting: as long as run.json is in the folder of the new record, it has not taken its place."""
    return name == RUN_FILE


def _empty(folder: Path) -> None:
    """Remove a folder of files, as far as that is possible."""
    with contextlib.suppress(OSError):  # or it is not there
        for file in sorted(folder.iterdir(), key=lambda file: _last_is_run_file(file.name)):
            removed(file)
    removed(folder)
    if folder.name != "earlier" and folder.parent.name == "earlier":
        with contextlib.suppress(OSError):
            folder.parent.rmdir()
